//! The operator's orders from the command line.

use std::{env, time::Duration};

use anyhow::bail;
use rustix::process::getuid;

use crate::{
    api::Client,
    departure,
    overrides::{self, Act, Order, Target},
    terminal,
};

/// Gives an order, and prints what came of it.
pub(super) async fn give(
    client: &Client,
    act: Act,
    force: bool,
    reason: Option<String>,
) -> anyhow::Result<()> {
    let order = Order {
        act,
        force,
        by: who(),
        reason,
    };
    let answer = client.order(&order).await?;
    if !answer.done {
        bail!("{}", answer.message);
    }
    Ok(terminal::line(answer.message)?)
}

/// Waits until a drained backend is empty, for so many seconds at most.
pub(super) async fn wait(
    client: &Client,
    target: &Target,
    seconds: Option<u64>,
) -> anyhow::Result<()> {
    let limit = seconds.map(Duration::from_secs);
    overrides::wait(client, target, limit).await
}

/// Takes the whole node out of service, waiting for so many seconds at most; or
/// ends that.
pub(super) async fn maintain(
    client: &Client,
    end: bool,
    seconds: u64,
    force: bool,
) -> anyhow::Result<()> {
    let by = who();
    if end {
        let act = departure::Act::End;
        let answer = client.depart(&departure::Order { act, by }).await?;
        return Ok(terminal::line(answer.message)?);
    }
    departure::leave(client, &by, Duration::from_secs(seconds), force).await
}

/// Who gives the order, as colleagues know them: whoever has become root by sudo is
/// meant, and not root.
fn who() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].into_iter();
    let mut named = named.filter_map(|name| env::var(name).ok());
    let named = named.find(|name| !name.is_empty());
    named.unwrap_or_else(|| format!("uid {}", getuid().as_raw()))
}
