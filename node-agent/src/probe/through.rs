//! Checks on the way that traffic takes: whether the backend takes packets out of
//! the tunnel, has the virtual addresses, serves them, and can be sent large packets.
//! The check itself goes to the first virtual address; the others are asked in short.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{OptionFuture, join_all};
use tokio::{sync::watch, time::timeout};
use vipd_control::{
    check::{CheckCode, CheckResult},
    model::{Check, CheckKind, Mode, Through},
};

use super::check::{Outcome, Shared, Subject, ask};
use crate::{
    dataplane::apply::Settings,
    netlink::way::{Problems, Ways},
    tunnel::{
        datagram::{echo, payload},
        endpoint::{Endpoint, Flow},
        heard::{Heard, Protocol},
        inquirer::{self, Question},
        lane::Lane,
        packet::Ask,
        stream::Stream,
    },
};

/// What all such checks share.
#[derive(Clone, Debug)]
pub struct Tunnels {
    ways: watch::Receiver<Ways>,
    /// Why there is none to the others, as far as that is known.
    problems: watch::Receiver<Problems>,
    settings: watch::Receiver<Settings>,
    /// Opened by the first check that wants it.
    endpoint: Arc<Mutex<Option<Arc<Endpoint>>>>,
}

/// The way of traffic to a backend, from one of our addresses.
#[derive(Debug)]
pub struct Passage {
    endpoint: Arc<Endpoint>,
    lane: Lane,
    source: IpAddr,
}

/// A check on the way of traffic: of the first virtual address itself, of the others
/// whether they answer at all. What is wrong with the first of them, if anything.
pub async fn check(
    check: &Check,
    through: &Through,
    subject: Subject<'_>,
    shared: &Shared,
) -> CheckResult {
    let started = Instant::now();
    let limit = check.timing.timeout;
    let backend = subject.address;
    let passage = shared.tunnels.passage(through, check, backend).await;
    let passage = match passage {
        Ok(passage) => passage,
        Err(outcome) => return outcome.result(started.elapsed()),
    };
    let asked = |vip, ask| Asked {
        passage: &passage,
        through,
        vip,
        source: check.source,
        ask,
    };
    let short = through.port.map_or(Ask::Echo, |port| Ask::Syn(port.get()));
    let own = shortest(&check.kind, check.port.get());
    let itself = async {
        match own {
            Some(own) => {
                let itself = ask(check, subject, shared, through.vip, Some(&passage));
                asked(through.vip, own).explained(itself, limit).await
            }
            None => ask(check, subject, shared, backend, None).await,
        }
    };
    let may_be_quiet = matches!(&check.kind, CheckKind::Udp(said) if said.expect.is_none());
    let is_first_asked = through.full_mtu || own.is_none() || may_be_quiet;
    let first = is_first_asked.then(|| asked(through.vip, short).within(limit));
    let others = through.others.iter();
    let others = join_all(others.map(|vip| asked(*vip, short).within(limit)));
    let (itself, first, others) = tokio::join!(itself, OptionFuture::from(first), others);
    // Nobody has replied when it took all of the time.
    let is_heard = own.is_some() && !(may_be_quiet && itself.duration >= limit);
    let beside = Beside {
        // Whoever has replied need not answer an echo.
        first: first.flatten().filter(|_| through.full_mtu || !is_heard),
        other: others.into_iter().flatten().next(),
        is_heard,
    };
    beside.complete(itself)
}

/// What is wrong beside the check itself.
struct Beside {
    /// With the first address, asked in short.
    first: Option<Outcome>,
    /// With the first of the others that has something.
    other: Option<Outcome>,
    /// Whether the first address has been heard where the check itself succeeds.
    is_heard: bool,
}

impl Beside {
    /// The result of all. Where the first address has answered, a missing one is no
    /// silence of the backend: that would end flows to those that it has, and put our
    /// own network in doubt.
    fn complete(self, itself: CheckResult) -> CheckResult {
        let has_answered = itself.is_success() && (self.is_heard || self.first.is_none());
        match self.first.or(self.other) {
            // Silence has its reason there.
            Some(wrong) if itself.is_success() || itself.code == CheckCode::L4Timeout => {
                CheckResult {
                    code: match wrong.code {
                        CheckCode::L4Timeout if has_answered => CheckCode::L7Timeout,
                        CheckCode::L4Con if has_answered => CheckCode::L7Response,
                        code => code,
                    },
                    status: None,
                    refused: wrong.refused,
                    detail: wrong.detail,
                    ..itself
                }
            }
            _ => itself,
        }
    }
}

/// What the shortest question of a check's kind is; `None` if it asks no address.
fn shortest(kind: &CheckKind, port: u16) -> Option<Ask> {
    match kind {
        CheckKind::Tcp(_) | CheckKind::Tls(..) | CheckKind::Http(..) => Some(Ask::Syn(port)),
        CheckKind::Dns(dns) if dns.tcp => Some(Ask::Syn(port)),
        CheckKind::Dns(_) | CheckKind::Udp(_) | CheckKind::Icmp { .. } => Some(Ask::Echo),
        CheckKind::None | CheckKind::Program(_) | CheckKind::File(_) => None,
    }
}

impl Tunnels {
    /// None opened yet. Packets go as ways and settings of the data plane say.
    #[must_use]
    pub fn new(
        ways: watch::Receiver<Ways>,
        problems: watch::Receiver<Problems>,
        settings: watch::Receiver<Settings>,
    ) -> Self {
        Self {
            ways,
            problems,
            settings,
            endpoint: Arc::default(),
        }
    }

    /// Without any way.
    #[cfg(test)]
    pub fn none() -> Self {
        let (_, ways) = watch::channel(Default::default());
        let (_, problems) = watch::channel(Default::default());
        let (_, settings) = watch::channel(Default::default());
        Self::new(ways, problems, settings)
    }

    fn endpoint(&self) -> io::Result<Arc<Endpoint>> {
        let mut opened = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(endpoint) => Ok(Arc::clone(endpoint)),
            None => Ok(Arc::clone(opened.insert(Arc::new(Endpoint::open()?)))),
        }
    }

    /// The way to a backend, waited for no longer than the check may take.
    async fn passage(
        &self,
        through: &Through,
        check: &Check,
        backend: IpAddr,
    ) -> Result<Passage, Outcome> {
        let endpoint = self.endpoint().map_err(|error| unable(&error))?;
        let mut ways = self.ways.clone();
        // At the start they are not known at once.
        let way = {
            let known = ways.wait_for(|ways| ways.contains_key(&backend));
            match timeout(check.timing.timeout, known).await {
                Ok(Ok(ways)) => ways.get(&backend).copied(),
                _ => None,
            }
        };
        let way = way.ok_or_else(|| self.wayless(backend))?;
        let lane = Lane::new(through.mode, backend, way, &self.settings.borrow().sources);
        let source = source(check.source, &lane, through.vip).map_err(|error| unable(&error))?;
        Ok(Passage {
            endpoint,
            lane,
            source,
        })
    }

    /// There is no way to a backend. Why, if it has been looked for at all: that takes
    /// a while when the agent has just begun, and the backend has no part in it.
    fn wayless(&self, backend: IpAddr) -> Outcome {
        match self.problems.borrow().get(&backend) {
            Some(why) => Outcome::with(
                CheckCode::L4Timeout,
                format!("there is no way to {backend} for traffic: {why}"),
            ),
            None => Outcome::with(
                CheckCode::SockErr,
                format!("the way of traffic to {backend} is not known yet"),
            ),
        }
    }
}

impl Passage {
    /// Whether an address at its end accepts connections. None is made: where it
    /// does it is told at once that it was nothing.
    ///
    /// # Errors
    /// As the kernel's.
    pub async fn accepts(&self, address: SocketAddr) -> io::Result<()> {
        let question = Question {
            ask: Ask::Syn(address.port()),
            source: self.source,
            destination: address.ip(),
            length: 0,
        };
        inquirer::ask(&self.endpoint, &self.lane, question).await
    }

    /// Connects to an address at its end.
    ///
    /// # Errors
    /// As the kernel's.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        Stream::connect(self.flow(Protocol::Tcp, address)?).await
    }

    /// Begins to exchange datagrams with an address at its end.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn datagrams(&self, address: SocketAddr) -> io::Result<Flow> {
        self.flow(Protocol::Udp, address)
    }

    /// Asks an address at its end for an echo of so many octets, and waits for it.
    ///
    /// # Errors
    /// When it cannot be sent, or somebody says that it came to nobody.
    pub async fn echo(&self, address: IpAddr, size: u16) -> io::Result<()> {
        let mut flow = self.flow(Protocol::Echo, SocketAddr::new(address, 0))?;
        let mut data = vec![0; size.into()];
        fastrand::fill(&mut data);
        flow.send(&echo(&flow, &data).ok_or(io::ErrorKind::InvalidInput)?)?;
        loop {
            match flow.next().await? {
                Heard::Packet(reply) if payload(&reply) == Some(&data) => return Ok(()),
                Heard::Packet(_) => {}
                Heard::Unreachable(why) => return Err(why.error()),
            }
        }
    }

    fn flow(&self, protocol: Protocol, address: SocketAddr) -> io::Result<Flow> {
        self.endpoint
            .flow(protocol, &self.lane, self.source, address)
    }
}

/// One virtual address is asked for.
struct Asked<'a> {
    passage: &'a Passage,
    through: &'a Through,
    vip: IpAddr,
    source: Option<IpAddr>,
    /// What is asked of it.
    ask: Ask,
}

impl Asked<'_> {
    /// What is wrong, found out within this time.
    async fn within(self, limit: Duration) -> Option<Outcome> {
        let length = if self.through.full_mtu {
            self.passage.lane.inner_mtu()
        } else {
            0
        };
        let half = limit / 2;
        let mut asked = Box::pin(self.answer(self.vip, length));
        if let Ok(answer) = timeout(half, &mut asked).await {
            return self.judge(answer);
        }
        let (late, reason) = tokio::join!(timeout(half, asked), self.reason(half, length));
        match late {
            Ok(answer) => self.judge(answer),
            Err(_) => {
                let reason = reason.unwrap_or_else(|| format!("{} answers late", self.vip));
                Some(Outcome::with(CheckCode::L4Timeout, reason))
            }
        }
    }

    /// The result of the check itself; of silence with the reason, as far as it is
    /// found out within the time of the check.
    async fn explained(
        &self,
        itself: impl Future<Output = CheckResult>,
        limit: Duration,
    ) -> CheckResult {
        let half = limit / 2;
        let mut itself = pin!(itself);
        if let Ok(result) = timeout(half, &mut itself).await {
            return result;
        }
        let mut reason = pin!(self.reason(half, 0));
        let mut found = None;
        let result = loop {
            tokio::select! {
                result = &mut itself => break result,
                reason = &mut reason, if found.is_none() => found = Some(reason),
            }
        };
        if result.code != CheckCode::L4Timeout {
            return result;
        }
        let found = match found {
            Some(found) => found,
            None => reason.await,
        };
        CheckResult {
            detail: found.unwrap_or(result.detail),
            ..result
        }
    }

    async fn answer(&self, destination: IpAddr, length: u32) -> io::Result<()> {
        let Passage {
            endpoint,
            lane,
            source: usual,
        } = self.passage;
        let source = if usual.is_ipv4() == destination.is_ipv4() {
            *usual
        } else {
            source(self.source, lane, destination)?
        };
        let ask = if destination == self.vip {
            self.ask
        } else {
            Ask::Echo
        };
        let question = Question {
            ask,
            source,
            destination,
            length,
        };
        inquirer::ask(endpoint, lane, question).await
    }

    fn judge(&self, answer: io::Result<()>) -> Option<Outcome> {
        let error = answer.err()?;
        let whom = match self.ask {
            Ask::Echo => self.vip.to_string(),
            Ask::Syn(port) => SocketAddr::new(self.vip, port).to_string(),
        };
        let words = match error.kind() {
            io::ErrorKind::ConnectionRefused => "refuses connections",
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "is unreachable",
            _ => return Some(unable(&error)),
        };
        let detail = format!("{whom} {words} by {}", self.mode());
        Some(Outcome {
            detail,
            ..Outcome::unconnected(&error)
        })
    }

    /// Why a question of this length finds silence: what else is answered within this
    /// time tells. `None` if all is.
    async fn reason(&self, limit: Duration, length: u32) -> Option<String> {
        let lane = &self.passage.lane;
        let (small, carried) = tokio::join!(
            timeout(limit, self.answer(self.vip, 0)),
            timeout(limit, self.answer(lane.backend, 0)),
        );
        // One who refuses has heard it.
        let heard = |answer: &Result<io::Result<()>, _>| match answer {
            Ok(Ok(())) => true,
            Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        };
        let (vip, mode) = (self.vip, self.mode());
        let whole = lane.inner_mtu() + lane.overhead();
        match (heard(&small), lane.source) {
            (true, _) if length > 0 => Some(format!(
                "{vip} answers small packets by {mode}, and none of {whole} bytes: a link on the \
                 way has a smaller MTU"
            )),
            (true, _) => None,
            (false, Some(source)) if !heard(&carried) => Some(format!(
                "no answer by {mode}, of {vip} or of the backend's own address: it does not \
                 decapsulate, or takes nothing from {source}"
            )),
            (false, _) => Some(format!(
                "{vip} does not answer by {mode}: the address is not bound there"
            )),
        }
    }

    fn mode(&self) -> &'static str {
        match self.through.mode {
            Mode::L2Dsr => "l2-dsr",
            Mode::Ipip => "ipip",
            Mode::Gue(_) => "gue",
            Mode::Local => "local",
        }
    }
}

/// Our address that asks another one: what is configured, or what the kernel would
/// choose.
fn source(configured: Option<IpAddr>, lane: &Lane, like: IpAddr) -> io::Result<IpAddr> {
    let own = [configured, lane.way.source];
    let mut own = own.into_iter().flatten();
    own.find(|own| own.is_ipv4() == like.is_ipv4())
        .map_or_else(|| anywhere(like), Ok)
}

/// Our address for the other family than that of the way: what the kernel would
/// send by to anybody.
fn anywhere(like: IpAddr) -> io::Result<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849); nothing is sent.
    let (unspecified, anybody): (&str, &str) = if like.is_ipv4() {
        ("0.0.0.0:0", "192.0.2.1:9")
    } else {
        ("[::]:0", "[2001:db8::1]:9")
    };
    let socket = UdpSocket::bind(unspecified)?;
    socket.connect(anybody)?;
    Ok(socket.local_addr()?.ip())
}

fn unable(error: &io::Error) -> Outcome {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (`through` needs CAP_NET_RAW and packet sockets: see docs/checks.md)"
        }
        _ => "",
    };
    Outcome::with(CheckCode::SockErr, format!("{error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_way_is_silent_only_when_it_has_been_looked_for() {
        let backend = IpAddr::from([192, 0, 2, 21]);
        let (known, problems) = watch::channel(Problems::new());
        let tunnels = Tunnels {
            problems,
            ..Tunnels::none()
        };
        let told = || {
            let Outcome { code, detail, .. } = tunnels.wayless(backend);
            (code, detail)
        };
        let yet = "the way of traffic to 192.0.2.21 is not known yet";
        assert_eq!(told(), (CheckCode::SockErr, yet.to_owned()));
        known.send_replace([(backend, "the cable is out".to_owned())].into());
        let none = "there is no way to 192.0.2.21 for traffic: the cable is out";
        assert_eq!(told(), (CheckCode::L4Timeout, none.to_owned()));
    }

    #[test]
    fn a_missing_address_is_no_silence_of_a_backend_that_has_answered() {
        use CheckCode::{
            L4Con, L4Ok, L4Timeout, L7Ok, L7Response, L7Status, L7Timeout, ProcOk, SockErr,
        };
        // The check itself, whether it hears the first address, what is wrong with that
        // and with another, and the result.
        #[rustfmt::skip]
        let cases = [
            ("all is well", L7Ok, true, None, None, L7Ok),
            ("another is missing", L7Ok, true, None, Some(L4Timeout), L7Timeout),
            ("another is not served", L7Ok, true, None, Some(L4Con), L7Response),
            ("another cannot be asked", L7Ok, true, None, Some(SockErr), SockErr),
            ("large packets are lost", L7Ok, true, Some(L4Timeout), None, L7Timeout),
            ("nobody is heard", L4Timeout, true, None, Some(L4Timeout), L4Timeout),
            ("another refuses", L4Timeout, true, None, Some(L4Con), L4Con),
            ("a datagram vanishes", L4Ok, false, Some(L4Timeout), None, L4Timeout),
            ("a datagram is taken in", L4Ok, false, None, None, L4Ok),
            ("and another is missing", L4Ok, false, None, Some(L4Timeout), L7Timeout),
            ("a program knows better", ProcOk, false, Some(L4Timeout), None, L4Timeout),
            ("it has said no itself", L7Status, true, None, Some(L4Timeout), L7Status),
        ];
        for (sentence, itself, is_heard, first, other, expected) in cases {
            let wrong = |code| Outcome {
                refused: code == L4Con,
                ..Outcome::with(code, "why")
            };
            let beside = Beside {
                first: first.map(wrong),
                other: other.map(wrong),
                is_heard,
            };
            let result = beside.complete(CheckResult::new(itself, Duration::ZERO));
            assert_eq!(result.code, expected, "{sentence}");
            let refused = [first, other].contains(&Some(L4Con));
            assert_eq!(result.refused, refused, "{sentence}");
        }
    }
}
