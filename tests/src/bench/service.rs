//! Services as benchmarks want them.

use std::{
    net::IpAddr,
    num::{NonZeroU16, TryFromIntError},
    time::Duration,
};

use vipd_control::model::{Backend, Check, CheckKind, Mode, Ports, Protocol, Service, Timing};

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
    let backend = |(number, address): (usize, IpAddr)| Backend {
        name: format!("{number:04}").as_str().into(),
        address,
        weight: 1,
    };
    Ok(Service {
        name: name.into(),
        vips: vec![vip.into()],
        protocol,
        ports: Ports::One(port),
        mode,
        min_healthy: 1,
        ring_size,
        idle: Duration::from_secs(300),
        check: Check {
            kind: CheckKind::None,
            port,
            source: None,
            timing: Timing {
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 1,
                jitter_permille: 0,
            },
        },
        backends: backends.into_iter().enumerate().map(backend).collect(),
    })
}
