//! Whether our own network is in doubt, and the anchors that may settle it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{sleep, sleep_until, timeout},
};
use tracing::{info, warn};
use vipd_control::{
    doubt::{Change, Doubt, Terms},
    health_table::HealthTable,
};

/// What an anchor is asked for: BGP, which routers at least refuse.
const PORT: u16 = 179;
/// How long an anchor may take to answer, and the pause before it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// When there is doubt, and who may settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When there is doubt.
    pub terms: Terms,
    /// What answers if our network works.
    pub anchors: Vec<IpAddr>,
}

/// Follows the evidence, and asks the anchors while there is doubt.
#[derive(Debug, Default)]
pub struct Doubting {
    doubt: Doubt,
    /// What the first anchor that answers will say.
    asked: Option<oneshot::Receiver<IpAddr>>,
    /// The anchor that has answered.
    answered: Option<IpAddr>,
}

impl Doubting {
    /// Takes in what is known now. Without settings there never is doubt.
    pub fn look(&mut self, health: &HealthTable, settings: Option<&Settings>, now: Instant) {
        let terms = settings.map(|settings| &settings.terms);
        let anchor = self.answered;
        let change = self.doubt.update(health.evidence(), anchor, terms, now);
        match change {
            None => return,
            Some(Change::Began(why)) => warn!(
                "our own network is in doubt: {why}; packets go where they went, and addresses \
                 are announced as on a host that is about to leave"
            ),
            Some(Change::Cleared) => info!("our own network is not in doubt any more"),
            Some(Change::Settled(why)) => warn!("the backends are down after all: {why}"),
        }
        (self.asked, self.answered) = (None, None);
    }

    /// Why there is doubt, if there is.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        self.doubt.reason()
    }

    /// Ends when there is something to look at: an anchor has answered, or the
    /// limit has passed.
    pub async fn stir(&mut self, settings: Option<&Settings>) {
        let Some(until) = self.doubt.next() else {
            return std::future::pending().await;
        };
        let anchors = settings.map_or(&[][..], |settings| &settings.anchors);
        let asked = self.asked.get_or_insert_with(|| ask(anchors.to_vec()));
        tokio::select! {
            () = sleep_until(until.into()) => {}
            answer = asked, if self.answered.is_none() && !anchors.is_empty() => {
                self.answered = answer.ok();
            }
        }
    }
}

/// Asks them again and again until one answers or nobody wants to know.
fn ask(anchors: Vec<IpAddr>) -> oneshot::Receiver<IpAddr> {
    let (mut answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let first = async {
            loop {
                for anchor in &anchors {
                    if answers(*anchor).await {
                        return *anchor;
                    }
                }
                sleep(PATIENCE).await;
            }
        };
        let found = tokio::select! {
            found = first => Some(found),
            () = answer.closed() => None,
        };
        if let Some(anchor) = found {
            // Whoever asked may have gone.
            let _ = answer.send(anchor);
        }
    });
    answered
}

/// Whether it takes a connection or refuses it.
async fn answers(anchor: IpAddr) -> bool {
    let attempt = TcpStream::connect(SocketAddr::new(anchor, PORT));
    match timeout(PATIENCE, attempt).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.raw_os_error() == Some(libc::ECONNREFUSED),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_anchor_answers_by_refusing_too() {
        assert!(
            answers([127, 0, 0, 1].into()).await,
            "it refuses, or takes it"
        );
        assert_eq!(
            ask(vec![[127, 0, 0, 1].into()]).await,
            Ok([127, 0, 0, 1].into())
        );
    }
}
