//! Services as benchmarks want them.

use std::{
    net::IpAddr,
    num::{NonZeroU16, TryFromIntError},
};

use vipd_control::model::{Backend, Mode, Ports, Protocol, Service};

/// A service that is not checked, on one port of one address, with backends of
/// equal weight.
///
/// # Errors
///
/// When the port is 0.
pub fn service(
    name: &str,
    (vip, port): (IpAddr, u16),
    (protocol, mode): (Protocol, Mode),
    backends: impl IntoIterator<Item = IpAddr>,
    ring_size: u32,
) -> Result<Service, TryFromIntError> {
    let port = NonZeroU16::try_from(port)?;
    let backend =
        |(number, address): (usize, IpAddr)| Backend::new(&format!("{number:04}"), address, 1);
    Ok(Service {
        protocol,
        ports: Ports::One(port),
        mode,
        ring_size,
        ..Service::new(
            name,
            vec![vip.into()],
            backends.into_iter().enumerate().map(backend).collect(),
        )
    })
}
