//! `vipd maint`: takes the whole node out of service without losing a packet.
//!
//! Routers are told to prefer other ways (RFC 8326), and followed until they do;
//! only then are the routes withdrawn, and the agent stops. Whoever asks waits
//! and counts: if that is interrupted, the node goes on serving, only worse
//! announced. A [file](Mark) remembers that, so an agent that dies meanwhile is
//! followed by one that announces no better.

pub mod arrivals;
mod mark;
mod watch;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use self::watch::{Seen, Watch};
pub use self::{mark::Mark, watch::Stayed};
use crate::{api::Client, dataplane::pins::Pins, events::Trail, request, terminal};

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub act: Act,
    /// Who says so.
    #[serde(default)]
    pub by: String,
}

/// What the agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Announce worse, so that routers prefer other ways.
    Begin,
    /// Announce as before.
    End,
    /// Withdraw everything, forward on for a while, and stop.
    Leave,
}

/// What comes of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What is so now.
    pub message: String,
    /// For how many seconds the agent forwards on before it goes, if it goes.
    pub linger_seconds: u64,
}

/// An order on its way to the agent's main loop.
pub type Request = request::Request<Order, Answer>;

/// Whether something holds that can be ordered, and by which order it does or does
/// not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    /// Whether it holds.
    pub on: bool,
    /// The order.
    pub trail: Trail,
}

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_secs(1);

/// How long the agent may take to go beyond its linger.
const GOING: Duration = Duration::from_secs(60);

/// Takes the node out of service, as `by` says.
///
/// # Errors
///
/// [`Stayed`], when the agent cannot be reached or leaves something behind, or
/// nothing can be printed.
pub async fn leave(client: &Client, by: &str, limit: Duration, force: bool) -> anyhow::Result<()> {
    let order = |act| Order {
        act,
        by: by.to_owned(),
    };
    terminal::line(client.depart(&order(Act::Begin)).await?.message)?;
    let pin_path = wait(client, Watch::new(limit, force, Instant::now())).await?;
    let answer = client.depart(&order(Act::Leave)).await;
    let answer = answer.context("the node is in maintenance, and was not told to leave")?;
    terminal::line(answer.message)?;
    let linger = Duration::from_secs(answer.linger_seconds);
    client.gone(GOING.saturating_add(linger)).await?;
    if let Some(pins) = pin_path.map(|path| Pins::new(&path).directory()) {
        ensure!(
            !pins.exists(),
            "the agent has stopped, but its data plane is still at {}: see its log; `vipd unload` \
             takes it away",
            pins.display()
        );
    }
    Ok(terminal::line(
        "the agent has stopped: nothing is announced or forwarded here",
    )?)
}

/// Waits until the node may leave. Gives back where its data plane is pinned.
async fn wait(client: &Client, mut watch: Watch) -> anyhow::Result<Option<PathBuf>> {
    let mut pin_path = None;
    loop {
        let status = client.status().await.map_err(|error| format!("{error:#}"));
        let seen = status.map(|status| {
            let seen = Seen::of(&status);
            pin_path = status.dataplane.map(|plane| plane.pin_path);
            seen
        });
        let (words, end) = watch.look(seen, Instant::now());
        if let Some(words) = words {
            terminal::line(words)?;
        }
        match end {
            Some(end) => return Ok(end.map(|()| pin_path)?),
            None => sleep(LOOK).await,
        }
    }
}
