//! Several listeners at one port, each for an interface or for the rest.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use socket2::SockRef;
use tokio::net::TcpListener;

/// The listeners of a port.
///
/// They share it (`SO_REUSEPORT`) only while one more is opened. As long as they
/// do, the kernel gives a connection to the first that it finds, whatever
/// interface it is bound to; else to the one that is bound to the connection's.
#[derive(Clone, Debug, Default)]
pub struct Sharing(Arc<Mutex<Vec<Weak<TcpListener>>>>);

impl Sharing {
    /// Opens one more.
    ///
    /// # Errors
    ///
    /// That of `open`, or what the system says.
    pub fn open(
        &self,
        open: impl FnOnce() -> io::Result<TcpListener>,
    ) -> io::Result<Arc<TcpListener>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|listener| listener.strong_count() > 0);
        let share = |shared| -> io::Result<()> {
            let mut others = all.iter().filter_map(Weak::upgrade);
            others.try_for_each(|other| SockRef::from(&*other).set_reuse_port(shared))
        };
        share(true)?;
        let opened = open();
        share(false)?;
        let listener = Arc::new(opened?);
        SockRef::from(&*listener).set_reuse_port(false)?;
        all.push(Arc::downgrade(&listener));
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, num::NonZeroU8, time::Duration};

    use tokio::{
        net::TcpStream,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::speaker::socket::{self, Place};

    #[tokio::test]
    async fn a_connection_is_for_who_is_bound_to_its_interface_whoever_came_first() {
        let loopbacks: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        for to in loopbacks {
            // Each one opened last once.
            for order in [["lo", ""], ["", "lo"]] {
                let sharing = Sharing::default();
                let mut port = 0;
                let [first, second] = order.map(|interface| {
                    let place = Place {
                        interface: (!interface.is_empty()).then(|| interface.parse().unwrap()),
                        address: Place::everywhere(to),
                        port,
                        shared: true,
                    };
                    let bind = || socket::listen(place.bind(NonZeroU8::MAX, 0)?);
                    let listener = sharing.open(bind).unwrap();
                    port = listener.local_addr().unwrap().port();
                    listener
                });
                let _connection = TcpStream::connect((to, port)).await.unwrap();
                let arrived = tokio::select! {
                    _ = first.accept() => order[0],
                    _ = second.accept() => order[1],
                    () = sleep(Duration::from_secs(20)) => "nobody",
                };
                assert_eq!(arrived, "lo", "to {to}, opened as {order:?}");
                let nobody = timeout(Duration::ZERO, second.accept()).await;
                assert!(nobody.is_err(), "one connection, one listener");
            }
        }
    }
}
