//! Whether our own network is in doubt, and the anchors that may settle it.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{sleep, sleep_until, timeout},
};
use tracing::{info, warn};
use vipd_control::{
    doubt::{Anchor, Change, Doubt, Terms},
    health_table::HealthTable,
};

use crate::netlink::Netlink;

/// What an anchor is asked for: BGP, which routers at least refuse.
const PORT: u16 = 179;
/// How long an anchor may take to answer, and the pause before it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take an anchor to answer for the first time.
const TRIAL: Duration = Duration::from_secs(10);

/// When there is doubt, and who may settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether there ever is.
    pub is_enabled: bool,
    /// When there is doubt. Who fell together is told by its window in any case.
    pub terms: Terms,
    /// What answers if our network works.
    pub anchors: Vec<IpAddr>,
}

/// Follows the evidence, and asks the anchors while there is doubt.
#[derive(Debug, Default)]
pub struct Doubting {
    doubt: Doubt,
    asked: Option<Asked>,
    /// The anchor that has answered.
    answered: Option<Anchor>,
    /// Anchors that were tried while all was well.
    tried: Vec<IpAddr>,
}

/// Anchors that are being asked, and what the first one that answers will say.
#[derive(Debug)]
struct Asked {
    anchors: Vec<IpAddr>,
    answer: oneshot::Receiver<Anchor>,
}

impl Doubting {
    /// Takes in what is known now.
    pub fn look(&mut self, health: &HealthTable, settings: &Settings, now: Instant) {
        let terms = settings.is_enabled.then_some(&settings.terms);
        let anchor = self.answered;
        let change = self.doubt.update(health.evidence(), anchor, terms, now);
        match change {
            None => return,
            Some(Change::Began(why)) => warn!(
                "our own network is in doubt: {why}; packets go where they went, and addresses \
                 are announced as on a host that is about to leave"
            ),
            Some(Change::Lifted) => info!("our own network is not in doubt any more"),
            Some(Change::Settled(why)) => warn!("the backends are down after all: {why}"),
        }
        (self.asked, self.answered) = (None, None);
    }

    /// Whether there is doubt, and of whom.
    #[must_use]
    pub const fn doubt(&self) -> &Doubt {
        &self.doubt
    }

    /// Ends when there is something to look at: an anchor has answered, time has
    /// passed, or somebody who has said no before may have said so again.
    pub async fn stir(&mut self, settings: &Settings) {
        let anchors = settings.is_enabled.then_some(&settings.anchors[..]);
        let anchors = anchors.unwrap_or_default();
        if self.tried != anchors {
            self.tried = anchors.to_vec();
            tokio::spawn(try_out(anchors.to_vec()));
        }
        let Some(until) = self.doubt.next() else {
            return pending().await;
        };
        let is_open = self.doubt.is_open();
        self.asked
            .take_if(|asked| !is_open || asked.anchors != anchors);
        if is_open && !anchors.is_empty() && self.answered.is_none() {
            self.asked.get_or_insert_with(|| ask(anchors.to_vec()));
        }
        let look = if is_open {
            Instant::now() + PATIENCE
        } else {
            until
        };
        tokio::select! {
            () = sleep_until(until.min(look).into()) => {}
            answer = heard(&mut self.asked) => self.answered = Some(answer),
        }
    }
}

/// The first anchor that answers, once.
async fn heard(asked: &mut Option<Asked>) -> Anchor {
    if let Some(Asked { answer, .. }) = asked {
        let found = answer.await;
        *asked = None;
        if let Ok(anchor) = found {
            return anchor;
        }
    }
    pending().await
}

/// Asks them again and again until one answers or nobody wants to know.
fn ask(anchors: Vec<IpAddr>) -> Asked {
    let (mut answer, answered) = oneshot::channel();
    let all = anchors.clone();
    tokio::spawn(async move {
        let found = tokio::select! {
            found = first(&all, answers) => Some(found),
            () = answer.closed() => None,
        };
        if let Some(anchor) = found {
            // Whoever asked may have gone.
            let _ = answer.send(anchor);
        }
    });
    Asked {
        anchors,
        answer: answered,
    }
}

/// The first that answers. All are asked together: one that has returned with the
/// network is not to be taken for one that was there all the time.
async fn first<F: Future<Output = bool>>(
    anchors: &[IpAddr],
    answers: impl Fn(IpAddr) -> F,
) -> Anchor {
    let mut returned = false;
    loop {
        let asked = anchors
            .iter()
            .map(|&it| answers(it).map(move |is| (it, is)));
        let mut asked: FuturesUnordered<_> = asked.collect();
        while let Some((address, is_there)) = asked.next().await {
            if is_there {
                return Anchor { address, returned };
            }
        }
        returned = true;
        sleep(PATIENCE).await;
    }
}

/// Says which anchors are of no use, before they are needed.
async fn try_out(anchors: Vec<IpAddr>) {
    for anchor in anchors {
        if is_own(anchor).await {
            warn!(
                "the anchor {anchor} is an address of this host, which answers whatever becomes \
                 of the network: it settles nothing when our own network is in doubt"
            );
            continue;
        }
        let found = timeout(TRIAL, first(&[anchor], answers)).await;
        if found.is_err() {
            warn!(
                "the anchor {anchor} neither takes nor refuses connections to TCP port {PORT}: \
                 it settles nothing when our own network is in doubt"
            );
        }
    }
}

/// Whether it takes a connection or refuses it. One of our own tells nothing.
async fn answers(anchor: IpAddr) -> bool {
    if is_own(anchor).await {
        return false;
    }
    let attempt = TcpStream::connect(SocketAddr::new(anchor, PORT));
    match timeout(PATIENCE, attempt).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.raw_os_error() == Some(libc::ECONNREFUSED),
        Err(_) => false,
    }
}

/// Whether it is an address of this host, as far as the kernel tells. By the source
/// that it would choose one cannot see it: of several in a network that is the first.
async fn is_own(address: IpAddr) -> bool {
    let Ok(netlink) = Netlink::connect() else {
        return false;
    };
    let here = netlink.addresses().await;
    here.is_ok_and(|here| here.iter().any(|found| found.address == address))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        sync::Arc,
    };

    use vipd_control::{
        check::{CheckCode, CheckResult, Observation},
        health::Initial,
        model::{Backend, CheckKind, Exchange, Model, Service},
    };

    use super::*;

    /// Its answer counts: no interface has this address, though we answer to it.
    const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    #[tokio::test]
    async fn an_anchor_answers_by_refusing_too() {
        assert!(answers(NEIGHBOUR).await, "it refuses, or takes it");
        let answer = ask(vec![NEIGHBOUR]).answer.await;
        let expected = Anchor {
            address: NEIGHBOUR,
            returned: false,
        };
        assert_eq!(answer, Ok(expected));
    }

    #[tokio::test]
    async fn an_address_of_this_host_is_no_anchor() {
        for own in [
            Ipv4Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            assert!(!answers(own).await, "{own}");
        }
    }

    #[tokio::test]
    async fn one_that_returns_while_a_deaf_one_is_asked_has_returned() {
        let [deaf, back] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let begin = tokio::time::Instant::now();
        let answers = |anchor| async move {
            // The network heals a moment before the deaf one is given up.
            let is_there = anchor == back && begin.elapsed() > PATIENCE * 9 / 10;
            if !is_there {
                sleep(PATIENCE).await;
            }
            is_there
        };
        let expected = Anchor {
            address: back,
            returned: true,
        };
        assert_eq!(first(&[deaf, back], answers).await, expected);
    }

    /// A table of two backends that were up and have fallen silent.
    fn silent() -> HealthTable {
        let backends = ["192.0.2.21", "192.0.2.22"].map(|address| {
            let address: IpAddr = address.parse().expect("an address");
            Backend::new(&address.to_string(), address, 1)
        });
        let vip = IpAddr::from([198, 51, 100, 10]).into();
        let mut web = Service::new("web", vec![vip], backends.into());
        web.check.kind = CheckKind::Tcp(Exchange::default());
        let model = Model {
            services: vec![Arc::new(web.clone())],
        };
        let mut table = HealthTable::default();
        table.apply(&model, &|_, _| Initial::Up, Instant::now());
        for backend in &web.backends {
            let observation = Observation {
                service: Arc::clone(&web.name),
                backend: backend.address,
                result: CheckResult::new(CheckCode::L4Timeout, Duration::ZERO),
            };
            table.observe(observation, Instant::now());
        }
        table
    }

    #[tokio::test]
    async fn anchors_that_come_while_there_is_doubt_are_asked() {
        let table = silent();
        let settings = |anchors: &[IpAddr]| Settings {
            is_enabled: true,
            terms: Terms::USUAL,
            anchors: anchors.to_vec(),
        };
        let mut doubting = Doubting::default();
        let none = settings(&[]);
        doubting.look(&table, &none, Instant::now());
        assert!(doubting.doubt().is_open(), "{doubting:?}");
        // There is something to look at soon, whatever happens.
        let stirred = timeout(10 * PATIENCE, doubting.stir(&none));
        assert!(stirred.await.is_ok());
        doubting.look(&table, &none, Instant::now());
        assert!(doubting.doubt().is_open(), "{doubting:?}");

        let answering = settings(&[NEIGHBOUR]);
        while doubting.answered.is_none() {
            let stirred = timeout(10 * PATIENCE, doubting.stir(&answering));
            assert!(stirred.await.is_ok());
        }
        doubting.look(&table, &answering, Instant::now());
        assert_eq!(doubting.doubt().next(), None, "{doubting:?}");
    }

    #[tokio::test]
    async fn without_doubt_nobody_is_in_doubt_and_no_anchor_is_asked() {
        let table = silent();
        let off = Settings {
            is_enabled: false,
            terms: Terms::USUAL,
            anchors: vec![NEIGHBOUR],
        };
        let mut doubting = Doubting::default();
        doubting.look(&table, &off, Instant::now());
        assert!(!doubting.doubt().is_open(), "{doubting:?}");
        let stirred = timeout(PATIENCE / 10, doubting.stir(&off)).await;
        assert!(stirred.is_err(), "there is nothing to look at");
        let nobody = (doubting.tried.is_empty(), doubting.asked.is_none());
        assert_eq!(nobody, (true, true), "{doubting:?}");
    }
}
