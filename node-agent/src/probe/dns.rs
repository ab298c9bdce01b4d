//! A DNS query and its answer (RFC 1035), over UDP or TCP.

use std::io;

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, iana::Rcode, wire::ParseError},
    rdata::AllRecordData,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vipd_control::{check::CheckCode, model::Dns};

use super::{
    check::{Outcome, Target},
    datagram::Datagrams,
    progress::{Progress, Stage},
    tcp::{self, Connection},
};

/// Octets of what was answered instead that are shown.
const SHOWN: usize = 100;

/// Asks once. An answer that does not fit into a datagram is asked for again over
/// TCP (RFC 7766), within the same time.
pub async fn ask(target: Target<'_>, dns: &Dns, progress: &mut Progress) -> Outcome {
    let Some(query) = query(dns, fastrand::u16(..)) else {
        let words = format!("{:?} cannot be asked for", dns.name);
        return Outcome::with(CheckCode::SockErr, words);
    };
    let question = Question {
        dns,
        query: &query,
        target,
    };
    if dns.tcp {
        return question.over_tcp(progress).await;
    }
    progress.begin(Stage::Reply);
    match question.over_udp(progress).await {
        Ok(Some(outcome)) | Err(outcome) => outcome,
        Ok(None) => {
            // Whoever has answered is not silent, whatever becomes of the connection.
            progress.enter(Stage::Answer);
            progress.remark = Some("asked again over TCP, since it fits into no datagram");
            let outcome = question.over_tcp(progress).await;
            match outcome.code {
                CheckCode::L4Con => Outcome {
                    code: CheckCode::L7Response,
                    ..outcome
                },
                CheckCode::L4Timeout => Outcome {
                    code: CheckCode::L7Timeout,
                    ..outcome
                },
                _ => outcome,
            }
        }
    }
}

/// The message that asks. Servers that ask others do so for it.
fn query(dns: &Dns, id: u16) -> Option<Message<Vec<u8>>> {
    let name: Name<Vec<u8>> = dns.name.parse().ok()?;
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    let mut question = message.question();
    let pushed = question.push((&name, Rtype::from_int(dns.record_type)));
    pushed.ok().map(|()| question.into_message())
}

/// What a message is.
enum Heard {
    /// An answer, and what it means.
    Answer(Outcome),
    /// The beginning of one, which does not tell.
    Truncated,
    /// No answer to the query, for this reason.
    Stray(&'static str),
}

struct Question<'a> {
    dns: &'a Dns,
    query: &'a Message<Vec<u8>>,
    target: Target<'a>,
}

impl Question<'_> {
    /// `None` if the answer is truncated.
    async fn over_udp(&self, progress: &mut Progress) -> Result<Option<Outcome>, Outcome> {
        let mut datagrams = Datagrams::open(self.target)?;
        let sent = datagrams.send(self.query.as_slice()).await;
        sent.map_err(|error| tcp::failed(&error, self.target.source))?;
        let mut is_heard = false;
        let heard = datagrams.hear(|datagram| match self.judge(datagram) {
            Heard::Answer(outcome) => Some(Some(outcome)),
            Heard::Truncated => Some(None),
            Heard::Stray(why) => {
                if !is_heard {
                    progress.enter(Stage::Answer);
                    is_heard = true;
                }
                progress.so_far = Some(format!("no answer to this query; what came {why}"));
                None
            }
        });
        heard.await
    }

    async fn over_tcp(&self, progress: &mut Progress) -> Outcome {
        let mut stream = match tcp::connect(self.target).await {
            Ok(stream) => stream,
            Err(outcome) => return outcome,
        };
        progress.enter(Stage::Answer);
        match self
            .converse(&mut *stream)
            .await
            .as_deref()
            .map(|answer| self.judge(answer))
        {
            Ok(Heard::Answer(outcome)) => outcome,
            Ok(Heard::Truncated) => Outcome::with(
                CheckCode::L7Response,
                "the answer is truncated, also over TCP",
            ),
            Ok(Heard::Stray(why)) => {
                Outcome::with(CheckCode::L7Response, format!("what came {why}"))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Outcome::with(CheckCode::L7Response, "connection closed before the answer")
            }
            Err(error) => Outcome::with(CheckCode::L7Response, error.to_string()),
        }
    }

    /// Each message has its length before it (RFC 1035, section 4.2.2).
    async fn converse(&self, stream: &mut dyn Connection) -> io::Result<Vec<u8>> {
        let query = self.query.as_slice();
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), query].concat();
        stream.write_all(&framed).await?;
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    fn judge(&self, octets: &[u8]) -> Heard {
        let Ok(answer) = Message::from_octets(octets) else {
            return Heard::Stray("is no DNS message");
        };
        let rcode = answer.header().rcode();
        if !self.is_answered_by(answer) {
            return Heard::Stray("is the answer to another one");
        }
        let outcome = |code, detail: String| {
            Heard::Answer(Outcome {
                status: Some(rcode.to_int().into()),
                ..Outcome::with(code, detail)
            })
        };
        if !self.dns.rcodes.contains(&rcode.to_int()) {
            return outcome(CheckCode::L7Status, rcode.to_string());
        }
        let Some(pattern) = &self.dns.answer else {
            return outcome(CheckCode::L7Ok, rcode.to_string());
        };
        let records = self.records(answer);
        let mut found = records.iter().flatten();
        match found.find(|data| pattern.is_in(data.as_bytes())) {
            Some(data) => outcome(CheckCode::L7Ok, format!("{rcode}, {}", shorten(data))),
            None if answer.header().tc() => Heard::Truncated,
            None => match records.as_deref() {
                Ok([]) => outcome(
                    CheckCode::L7Status,
                    format!("{rcode}, and no record of that type, where {pattern} is wanted"),
                ),
                Ok(records) => {
                    let records = records.join(", ");
                    let records = shorten(&records);
                    let words = format!("{rcode}, and no record has {pattern}: {records}");
                    outcome(CheckCode::L7Status, words)
                }
                Err(error) => outcome(
                    CheckCode::L7Response,
                    format!("a malformed answer: {error}"),
                ),
            },
        }
    }

    /// Servers that do not understand a query may leave it out of their answer.
    fn is_answered_by(&self, answer: Message<&[u8]>) -> bool {
        let header = answer.header();
        let bare = header.qr()
            && header.id() == self.query.header().id()
            && answer.header_counts().qdcount() == 0
            && header.rcode() != Rcode::NOERROR;
        bare || answer.is_answer(self.query)
    }

    /// The data of all records of the type asked for, in presentation format.
    fn records(&self, answer: Message<&[u8]>) -> Result<Vec<String>, ParseError> {
        let mut found = Vec::new();
        for record in answer.answer()? {
            let record = record?;
            if record.rtype().to_int() == self.dns.record_type {
                let record = record.to_any_record::<AllRecordData<_, _>>()?;
                found.push(record.data().to_string());
            }
        }
        Ok(found)
    }
}

/// As much of a text as one wants to read.
fn shorten(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(SHOWN)
        .map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, SocketAddr},
        time::{Duration, Instant},
    };

    use domain::{
        base::{Ttl, message_builder::AnswerBuilder},
        rdata::{A, Mx, Txt},
    };
    use tokio::{net::UdpSocket, time::timeout};
    use vipd_control::model::Pattern;

    use super::*;

    const TARGET: Target<'_> = Target {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 53),
        source: None,
        passage: None,
    };

    fn wanted(record_type: Rtype, answer: Option<&str>) -> Dns {
        Dns {
            tcp: false,
            name: "Health.example.com".to_owned(),
            record_type: record_type.to_int(),
            rcodes: vec![0],
            answer: answer.map(|text| Pattern::text(text).expect("a short text")),
        }
    }

    type Answer = AnswerBuilder<Vec<u8>>;

    /// The answer that `change` makes of an empty one to this query.
    fn answer(query: &Message<Vec<u8>>, change: fn(&mut Answer)) -> Vec<u8> {
        let builder = MessageBuilder::new_vec();
        let mut answer = builder
            .start_answer(query, Rcode::NOERROR)
            .expect("it fits");
        change(&mut answer);
        answer.finish()
    }

    fn push_address(answer: &mut Answer, last: u8) {
        let name: Name<Vec<u8>> = "health.example.com".parse().expect("a name");
        let data = A::from_octets(192, 0, 2, last);
        answer
            .push((name, Ttl::from_secs(60), data))
            .expect("it fits");
    }

    fn push_others(answer: &mut Answer) {
        let name: Name<Vec<u8>> = "health.example.com".parse().expect("a name");
        let ttl = Ttl::from_secs(60);
        let mail: Name<Vec<u8>> = "mail.example.com".parse().expect("a name");
        answer
            .push((&name, ttl, Mx::new(10, mail)))
            .expect("it fits");
        let text = Txt::<Vec<u8>>::build_from_slice(b"v=spf1 -all").expect("a short text");
        answer.push((&name, ttl, text)).expect("it fits");
    }

    #[test]
    fn answers_are_judged_by_their_code_and_their_records() {
        use CheckCode::{L7Ok, L7Status};
        let check = |dns: &Dns, change: fn(&mut Answer), code, words: &str| {
            let query = query(dns, 7).expect("a good name");
            let question = Question {
                dns,
                query: &query,
                target: TARGET,
            };
            match question.judge(&answer(&query, change)) {
                Heard::Answer(outcome) => {
                    assert_eq!((outcome.code, &*outcome.detail), (code, words));
                }
                Heard::Truncated => assert_eq!("truncated", words),
                Heard::Stray(why) => assert_eq!(why, words),
            }
        };
        let any = wanted(Rtype::A, None);
        check(&any, |_| {}, L7Ok, "NOERROR");
        check(
            &any,
            |it| it.header_mut().set_rcode(Rcode::REFUSED),
            L7Status,
            "REFUSED",
        );
        check(&any, |it| it.header_mut().set_tc(true), L7Ok, "NOERROR");
        check(
            &any,
            |it| it.header_mut().set_id(8),
            L7Ok,
            "is the answer to another one",
        );
        check(
            &any,
            |it| it.header_mut().set_qr(false),
            L7Ok,
            "is the answer to another one",
        );
        let seven = wanted(Rtype::A, Some("192.0.2.7"));
        let both = |it: &mut Answer| {
            push_address(it, 6);
            push_address(it, 7);
        };
        check(&seven, both, L7Ok, "NOERROR, 192.0.2.7");
        let words = "NOERROR, and no record has \"192.0.2.7\": 192.0.2.6";
        check(&seven, |it| push_address(it, 6), L7Status, words);
        let words = "NOERROR, and no record of that type, where \"192.0.2.7\" is wanted";
        check(&seven, push_others, L7Status, words);
        check(&seven, |it| it.header_mut().set_tc(true), L7Ok, "truncated");
        let truncated = |it: &mut Answer| {
            push_address(it, 7);
            it.header_mut().set_tc(true);
        };
        check(&seven, truncated, L7Ok, "NOERROR, 192.0.2.7");
        let mail = wanted(Rtype::MX, Some("10 mail.example.com"));
        check(&mail, push_others, L7Ok, "NOERROR, 10 mail.example.com.");
        let text = wanted(Rtype::TXT, Some("v=spf1"));
        check(&text, push_others, L7Ok, "NOERROR, \"v=spf1 -all\"");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        let dns = wanted(Rtype::A, Some("192.0.2.7"));
        let query = query(&dns, 7).expect("a good name");
        let question = Question {
            dns: &dns,
            query: &query,
            target: TARGET,
        };
        let whole = answer(&query, |it| push_address(it, 7));
        // Without its records it says that there are some.
        let question_end = query.as_slice().len();
        for length in question_end..whole.len() {
            match question.judge(&whole[..length]) {
                Heard::Answer(outcome) => assert_eq!(outcome.code, CheckCode::L7Response),
                Heard::Truncated | Heard::Stray(_) => panic!("it is an answer"),
            }
        }
    }

    #[test]
    fn octets_that_are_no_message_are_not_for_us() {
        let dns = wanted(Rtype::A, None);
        let query = query(&dns, 7).expect("a good name");
        let question = Question {
            dns: &dns,
            query: &query,
            target: TARGET,
        };
        for octets in [&b""[..], b"SSH-2.0", &[0; 12]] {
            assert!(
                matches!(question.judge(octets), Heard::Stray(_)),
                "{octets:?}"
            );
        }
        // A server that understands nothing says no more than that.
        let refusal = [0, 7, 0x81, 0x04, 0, 0, 0, 0, 0, 0, 0, 0];
        let Heard::Answer(outcome) = question.judge(&refusal) else {
            panic!("it is an answer");
        };
        assert_eq!(
            (outcome.code, &*outcome.detail),
            (CheckCode::L7Status, "NOTIMP")
        );
    }

    #[tokio::test]
    async fn forged_answers_are_passed_over_and_told_of_when_no_other_comes() {
        for honest in [true, false] {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let target = Target {
                address: server.local_addr().unwrap(),
                source: None,
                passage: None,
            };
            tokio::spawn(async move {
                let mut datagram = [0; 512];
                let (length, client) = server.recv_from(&mut datagram).await.unwrap();
                let query = Message::from_octets(datagram[..length].to_vec()).unwrap();
                let forged = answer(&query, |it| {
                    let id = it.header().id();
                    it.header_mut().set_id(id.wrapping_add(1));
                });
                server.send_to(&forged, client).await.unwrap();
                if honest {
                    let good = answer(&query, |it| push_address(it, 7));
                    server.send_to(&good, client).await.unwrap();
                }
            });
            let within = Duration::from_millis(if honest { 20_000 } else { 400 });
            let mut progress = Progress::new(Instant::now());
            let dns = wanted(Rtype::A, Some("192.0.2.7"));
            let asked = timeout(within, ask(target, &dns, &mut progress)).await;
            let outcome = asked.unwrap_or_else(|_| progress.timed_out());
            let expected = if honest {
                (CheckCode::L7Ok, "NOERROR, 192.0.2.7")
            } else {
                let words = "no answer to this query; what came is the answer to another one";
                (CheckCode::L7Timeout, words)
            };
            assert_eq!((outcome.code, &*outcome.detail), expected);
        }
    }

    #[tokio::test]
    async fn who_answers_that_it_is_truncated_is_not_silent() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: server.local_addr().unwrap(),
            source: None,
            passage: None,
        };
        tokio::spawn(async move {
            let mut datagram = [0; 512];
            let (length, client) = server.recv_from(&mut datagram).await.unwrap();
            let query = Message::from_octets(datagram[..length].to_vec()).unwrap();
            let truncated = answer(&query, |it| it.header_mut().set_tc(true));
            server.send_to(&truncated, client).await.unwrap();
        });
        let mut progress = Progress::new(Instant::now());
        let dns = wanted(Rtype::A, Some("192.0.2.7"));
        // Nobody listens at its port over TCP.
        let outcome = ask(target, &dns, &mut progress).await;
        assert_eq!(outcome.code, CheckCode::L7Response, "{}", outcome.detail);
        assert!(outcome.detail.contains("refused"), "{}", outcome.detail);
        let over = progress.timed_out().code;
        assert_eq!(over, CheckCode::L7Timeout, "packets that vanish");
    }
}
