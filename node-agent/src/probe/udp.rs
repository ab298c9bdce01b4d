//! A datagram and its reply.

use std::time::Duration;

use tokio::time::timeout;
use vipd_control::{check::CheckCode, model::Exchange};

use super::{
    check::{Outcome, Target},
    datagram::Datagrams,
    exchange::excerpt,
    tcp,
};

/// Sends once and waits for a reply. If none is expected, nothing must have said
/// within the time that the datagram came to nobody.
pub async fn ask(target: Target<'_>, exchange: &Exchange, within: Duration) -> Outcome {
    let mut datagrams = match Datagrams::open(target) {
        Ok(datagrams) => datagrams,
        Err(outcome) => return outcome,
    };
    if let Err(error) = datagrams.send(&exchange.send).await {
        return tcp::failed(&error, target.source);
    }
    let reply = datagrams.hear(|reply| Some(judge(exchange, reply)));
    match timeout(within, reply).await {
        Ok(Ok(outcome) | Err(outcome)) => outcome,
        Err(_) if exchange.expect.is_some() => Outcome::with(CheckCode::L4Timeout, "no reply"),
        Err(_) => Outcome::with(
            CheckCode::L4Ok,
            "no reply, and nobody says that it is unreachable",
        ),
    }
}

fn judge(exchange: &Exchange, reply: &[u8]) -> Outcome {
    match &exchange.expect {
        None => Outcome::with(CheckCode::L4Ok, "there is a reply"),
        Some(pattern) if pattern.is_in(reply) => {
            Outcome::with(CheckCode::L7Ok, format!("the reply has {pattern}"))
        }
        Some(pattern) => {
            let words = format!("no {pattern} in the reply {}", excerpt(reply));
            Outcome::with(CheckCode::L7Response, words)
        }
    }
}
