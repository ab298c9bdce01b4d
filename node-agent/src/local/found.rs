//! What others have bound on this host, before the agent runs.

use std::{collections::BTreeSet, io, thread};

use tokio::runtime;

use super::{binder::Binder, read};
use crate::{
    config::Found,
    netlink::{Error, Netlink},
};

/// All that services may take, as it is now.
///
/// # Errors
/// When the kernel does not list it.
pub fn found_now() -> Result<Vec<Found>, Error> {
    // Whoever asks may be in a runtime, which cannot wait for another one.
    thread::scope(|scope| scope.spawn(look).join())
        .unwrap_or_else(|_| Err(Error::Open(io::Error::other("the look has failed"))))
}

fn look() -> Result<Vec<Found>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::Open)?.block_on(async {
        let snapshot = read(&Netlink::connect()?, BTreeSet::new()).await?;
        Ok(Binder::default().found(&snapshot))
    })
}
