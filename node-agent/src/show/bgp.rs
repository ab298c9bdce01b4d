//! `vipd show bgp`: all of each session, as it goes over the control socket:
//! plain data, the same for people and programs.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};

use crate::status::{Peer, Sessions, ago};

/// The speaker and its sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BgpView {
    /// Name of the node.
    pub node: String,
    /// How many of the sessions are up, if there are any.
    pub sessions: Option<Sessions>,
    /// Why the BFD process is not reached, if a peer has BFD, and what helps.
    #[serde(default)]
    pub bfd_unreachable: Option<String>,
    /// The sessions, by name.
    pub peers: Vec<Session>,
}

/// One session: what `vipd status` has of it, and more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// What `vipd status` has.
    #[serde(flatten)]
    pub peer: Peer,
    /// Our AS.
    pub local_as: u32,
    /// Our router id.
    pub local_router_id: Ipv4Addr,
    /// The peer's router id, once its OPEN was good.
    pub remote_router_id: Option<Ipv4Addr>,
    /// Our end of the connection, address and port.
    pub local_address: Option<String>,
    /// The peer's end of it.
    pub remote_address: Option<String>,
    /// The hold time that we propose.
    pub hold_time_proposed_seconds: u64,
    /// Between our keepalives, as agreed; each pause is up to a quarter shorter.
    pub keepalive_seconds: Option<f64>,
    /// The timers that run, by their names in RFC 4271, and what is left of
    /// them.
    pub timers_seconds: BTreeMap<String, f64>,
    /// What we offer.
    pub local_capabilities: Vec<String>,
    /// What the peer offers.
    pub remote_capabilities: Vec<String>,
    /// What was agreed on.
    pub agreed: Vec<String>,
    /// Malformed UPDATEs that were survived (RFC 7606).
    pub updates_malformed: u64,
    /// Prefixes that it has announced and not withdrawn, by family, if that is
    /// limited.
    #[serde(default)]
    pub prefixes_standing: BTreeMap<String, usize>,
    /// The most of a family that it may announce, if that is limited.
    #[serde(default)]
    pub max_prefixes: Option<u32>,
    /// Whether the routes are all that the peer is to know. After a start that
    /// takes until backends have been looked at; End-of-RIB waits for it.
    #[serde(default)]
    pub complete: bool,
    /// Families whose End-of-RIB the peer has been sent on this session.
    #[serde(default)]
    pub end_of_rib_sent: Vec<String>,
    /// Families whose End-of-RIB came from the peer on this session.
    #[serde(default)]
    pub end_of_rib_received: Vec<String>,
    /// What the peer has been told, by prefix.
    pub routes: Vec<Route>,
    /// What an operator should know of the session.
    pub notes: Vec<String>,
}

/// A route as the peer was told it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub prefix: String,
    /// Next hop.
    pub next_hop: Option<String>,
    /// `IGP`, `EGP` or `INCOMPLETE`.
    pub origin: Option<String>,
    /// AS numbers, nearest first; empty over iBGP.
    pub as_path: String,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, iBGP only.
    pub local_preference: Option<u32>,
    /// Standard communities.
    pub communities: Vec<String>,
    /// Extended communities.
    pub extended_communities: Vec<String>,
    /// Large communities.
    pub large_communities: Vec<String>,
}

impl BgpView {
    /// Leaves only the session with this peer, given by its name or address.
    #[must_use]
    pub fn only(mut self, peer: &str) -> Self {
        self.peers.retain(|session| {
            let of_peer = &session.peer;
            of_peer.name == peer || of_peer.ip() == peer
        });
        self
    }

    /// All sessions in a table, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let has_bfd = self.peers.iter().any(|session| session.peer.bfd.is_some());
        let bfd = if has_bfd { "BFD" } else { "" };
        let head = [
            "PEER", "ADDRESS", "AS", "STATE", "FOR", "ROUTES", "RECEIVED", bfd,
        ];
        let rows = self.peers.iter().map(Session::row);
        let rows: Vec<_> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let mut out = self.first_line();
        for (index, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                // Numbers stand to the right.
                let _ = match column {
                    2 | 4 | 5 | 6 => write!(line, "{cell:>width$}  "),
                    _ => write!(line, "{cell:<width$}  "),
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
            if let Some(session) = index.checked_sub(1).and_then(|i| self.peers.get(i)) {
                for trouble in session.peer.troubles() {
                    let _ = writeln!(out, "  {trouble}");
                }
            }
        }
        out
    }

    /// Everything of each session, for people.
    #[must_use]
    pub fn details(&self) -> String {
        let mut out = self.first_line();
        for session in &self.peers {
            let _ = write!(out, "\n{session}");
        }
        out
    }

    fn first_line(&self) -> String {
        let sessions = self.sessions.as_ref();
        let words =
            sessions.map_or_else(|| "no BGP peer is configured".to_owned(), Sessions::words);
        let unreachable = self.bfd_unreachable.iter();
        let unreachable: String = unreachable.map(|why| format!("! {why}\n")).collect();
        format!("{} · {words}\n{unreachable}", self.node)
    }
}

impl Session {
    fn row(&self) -> [String; 8] {
        let peer = &self.peer;
        [
            peer.name.clone(),
            peer.address.clone(),
            peer.remote_as.to_string(),
            peer.state.clone(),
            ago(peer.since_seconds),
            format!("{}/{}", peer.told(), peer.wanted),
            peer.prefixes_received.to_string(),
            peer.bfd
                .as_ref()
                .map_or_else(String::new, |bfd| bfd.state.clone()),
        ]
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, .. } = self;
        let mut line = |name: &str, text: &str| match text {
            "" => Ok(()),
            text => writeln!(f, "  {name:<22} {text}"),
        };
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let kind = if peer.remote_as == self.local_as {
            "iBGP"
        } else {
            "eBGP"
        };
        let count = peer.established_count;
        line("peer", &format!("{} ({kind})", peer.name))?;
        line(
            "state",
            &format!("{} for {}", peer.state, ago(peer.since_seconds)),
        )?;
        line("established", &format!("{count} time{}", plural(count)))?;
        if let Some(bfd) = &peer.bfd {
            line("BFD", &bfd.words())?;
            line("BFD timing", &bfd.timing())?;
            line("BFD went down", &bfd.history())?;
        }
        for note in &self.notes {
            line("note", note)?;
        }
        for trouble in peer.past_troubles() {
            line("", &trouble)?;
        }
        line(
            "here",
            &format!(
                "AS {}, router id {}, {}",
                self.local_as,
                self.local_router_id,
                or_dash(self.local_address.clone())
            ),
        )?;
        line(
            "there",
            &format!(
                "AS {}, router id {}, {}",
                peer.remote_as,
                or_dash(self.remote_router_id.map(|id| id.to_string())),
                self.remote_address.as_ref().unwrap_or(&peer.address)
            ),
        )?;
        let hold_time = peer.hold_time_seconds;
        let agreed = hold_time.map(|seconds| format!("{seconds} s agreed"));
        let proposed = format!("{} s proposed", self.hold_time_proposed_seconds);
        let parts: Vec<_> = agreed.into_iter().chain([proposed]).collect();
        line("hold time", &parts.join(", "))?;
        let timers = self.timers_seconds.iter();
        let timers = timers.map(|(name, left)| format!("{name} in {left:.1} s"));
        line("timers", &timers.collect::<Vec<_>>().join(", "))?;
        line("we offer", &self.local_capabilities.join(", "))?;
        line("the peer offers", &self.remote_capabilities.join(", "))?;
        line("agreed", &self.agreed.join(", "))?;
        line("sent", &messages(&peer.messages_sent))?;
        line("received", &messages(&peer.messages_received))?;
        line(
            "prefixes received",
            &format!(
                "{} and {} withdrawn; none is imported",
                peer.prefixes_received, peer.prefixes_withdrawn
            ),
        )?;
        if let Some(most) = self.max_prefixes {
            let standing = self.prefixes_standing.iter();
            let standing = standing.map(|(family, count)| format!("{count} {family}"));
            let standing = or_none(&standing.collect::<Vec<_>>());
            line(
                "prefixes standing",
                &format!("{standing}; at most {most} of a family"),
            )?;
        }
        if self.updates_malformed > 0 {
            line("malformed updates", &self.updates_malformed.to_string())?;
        }
        let (told, wanted) = (peer.told(), peer.wanted);
        if peer.uptime_seconds.is_some() {
            line("End-of-RIB sent", &or_none(&self.end_of_rib_sent))?;
            line("End-of-RIB received", &or_none(&self.end_of_rib_received))?;
        }
        let more = if self.complete {
            ""
        } else {
            "; more may come, backends are still being looked at"
        };
        line("routes", &format!("{told} of {wanted} announced{more}"))?;
        for route in &self.routes {
            writeln!(f, "    {route}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        let number = |number: Option<u32>| number.map_or_else(String::new, |n| n.to_string());
        let words = [
            ("via", self.next_hop.clone().unwrap_or_default()),
            ("path", self.as_path.clone()),
            ("med", number(self.med)),
            ("local preference", number(self.local_preference)),
            ("origin", self.origin.clone().unwrap_or_default()),
            ("communities", self.communities.join(" ")),
            ("extended", self.extended_communities.join(" ")),
            ("large", self.large_communities.join(" ")),
        ];
        let mut gap = " ";
        for (name, value) in words.iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, "{gap}{name} {value}")?;
            gap = ", ";
        }
        Ok(())
    }
}

fn messages(messages: &BTreeMap<String, u64>) -> String {
    let parts = messages.iter().filter(|(_, count)| **count > 0);
    let parts: Vec<_> = parts
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Bfd, SessionsState};

    /// BFD that is up, for all but the state.
    fn bfd(state: &str, why: &str) -> Bfd {
        Bfd {
            state: state.to_owned(),
            why: why.to_owned(),
            for_seconds: Some(70.0),
            transmit_interval_seconds: Some(0.1),
            detection_time_seconds: Some(0.3),
            transmit_gap_seconds: Some(0.104),
            downs: 1,
            last_down: Some("eth0 has no carrier".to_owned()),
        }
    }

    fn session(name: &str, address: &str, state: &str) -> Session {
        let up = state == "Established";
        let peer = Peer {
            name: name.to_owned(),
            address: address.to_owned(),
            remote_as: 64501,
            state: state.to_owned(),
            since_seconds: 75.0,
            uptime_seconds: up.then_some(75.0),
            start_time_seconds: None,
            established_count: 2,
            advertised: [("IPv4 unicast".to_owned(), usize::from(up))].into(),
            wanted: 1,
            pending: 0,
            prefixes_received: 12,
            prefixes_withdrawn: 3,
            hold_time_seconds: up.then_some(9),
            last_error: (!up).then(|| "cannot connect: nothing listens there".to_owned()),
            last_error_time_seconds: None,
            last_error_seconds_ago: Some(4.0),
            hint: None,
            notification_received: (!up).then(|| "Cease / Hard Reset (6/9)".to_owned()),
            notification_received_seconds_ago: Some(80.0),
            notification_sent: None,
            notification_sent_seconds_ago: None,
            messages_sent: [("keepalive".to_owned(), 4), ("update".to_owned(), 0)].into(),
            messages_received: BTreeMap::new(),
            unsent: Vec::new(),
            bfd: None,
        };
        Session {
            peer,
            local_as: 64500,
            local_router_id: [192, 0, 2, 11].into(),
            remote_router_id: up.then(|| [192, 0, 2, 1].into()),
            local_address: up.then(|| "192.0.2.11:40000".to_owned()),
            remote_address: up.then(|| address.to_owned()),
            hold_time_proposed_seconds: 9,
            keepalive_seconds: up.then_some(3.0),
            timers_seconds: [("hold".to_owned(), 8.25)].into(),
            local_capabilities: vec!["IPv4 unicast".to_owned()],
            remote_capabilities: vec!["route refresh".to_owned()],
            agreed: vec!["four-octet AS".to_owned()],
            updates_malformed: 0,
            prefixes_standing: [("IPv4 unicast".to_owned(), 9)].into(),
            max_prefixes: Some(1000),
            complete: up,
            end_of_rib_sent: vec!["IPv4 unicast".to_owned()],
            end_of_rib_received: Vec::new(),
            routes: vec![Route {
                prefix: "198.51.100.10/32".to_owned(),
                next_hop: Some("192.0.2.11".to_owned()),
                origin: Some("IGP".to_owned()),
                as_path: "64500 64500".to_owned(),
                med: Some(0),
                communities: vec!["64500:100".to_owned(), "no-export".to_owned()],
                ..Route::default()
            }],
            notes: vec!["a silent death is noticed late".to_owned()],
        }
    }

    fn view() -> BgpView {
        let long = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff";
        BgpView {
            node: "lb1".to_owned(),
            sessions: Some(Sessions {
                state: SessionsState::Degraded,
                established: 1,
                configured: 2,
            }),
            bfd_unreachable: None,
            peers: vec![
                session("tor1", "192.0.2.1:179", "Established"),
                session(long, &format!("[{long}]:179"), "Active"),
            ],
        }
    }

    #[test]
    fn the_columns_of_the_table_stand_in_line_however_long_a_name_is() {
        let table = view().table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "lb1 · degraded: 1 of 2 BGP sessions down");
        let column = |line: &str, text: &str| line.find(text).expect(text);
        assert_eq!(column(lines[1], "STATE"), column(lines[2], "Established"));
        assert_eq!(column(lines[1], "STATE"), column(lines[3], "Active"));
        assert!(lines[2].ends_with("1/1        12"), "{table}");
        assert!(lines[3].ends_with("0/1        12"), "{table}");
        let error = "  last error, 4s ago: cannot connect: nothing listens there";
        assert_eq!(lines[4], error);
        let told = "  last NOTIFICATION of the peer, 1m20s ago: Cease / Hard Reset (6/9)";
        assert_eq!(lines[5], told);
    }

    #[test]
    fn bfd_has_a_column_and_a_reason_where_a_peer_is_to_have_it_and_nowhere_else() {
        let mut view = view();
        assert!(!view.table().contains("BFD") && !view.details().contains("BFD"));
        view.peers[0].peer.bfd = Some(bfd("Up", ""));
        view.peers[1].peer.bfd = Some(bfd("Down", "nothing has been heard of the peer"));
        let table = view.table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].ends_with("RECEIVED  BFD"), "{table}");
        assert!(lines[2].ends_with("  Up"), "{table}");
        assert!(lines[3].ends_with("  Down"), "{table}");
        let down = "  BFD is Down for 1m10s: nothing has been heard of the peer";
        assert_eq!(lines[4], down);
        assert_eq!(table.matches("BFD is").count(), 1, "{table}");
        assert!(!table.contains('!'), "{table}");

        let details = view.details();
        for part in [
            "  BFD                    Up for 1m10s\n",
            "  BFD timing             we send every 100 ms, the peer is given up after 300 ms, \
             worst gap of ours in the last minute 104 ms\n",
            "  BFD went down          1, the last time: eth0 has no carrier\n",
            "  BFD                    Down for 1m10s: nothing has been heard of the peer\n",
        ] {
            assert!(details.contains(part), "no {part:?} in\n{details}");
        }

        view.bfd_unreachable = Some("the BFD process is not reached".to_owned());
        for text in [view.table(), view.details()] {
            let second = text.lines().nth(1);
            assert_eq!(second, Some("! the BFD process is not reached"), "{text}");
        }
    }

    #[test]
    fn it_is_said_whether_the_peer_has_been_told_everything() {
        let parts = [
            ("End-of-RIB sent        IPv4 unicast\n", "tor1", true),
            ("End-of-RIB received    none\n", "tor1", true),
            ("1 of 1 announced\n", "tor1", true),
            ("9 IPv4 unicast; at most 1000 of a family", "tor1", true),
            (
                "End-of-RIB",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                false,
            ),
            (
                "0 of 1 announced; more may come, backends are still being looked at",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                true,
            ),
        ];
        for (part, peer, is_there) in parts {
            let details = view().only(peer).details();
            assert_eq!(details.contains(part), is_there, "{part:?} in\n{details}");
        }
    }

    #[test]
    fn a_session_is_found_by_name_and_by_address_and_shown_whole() {
        for peer in ["tor1", "192.0.2.1"] {
            let details = view().only(peer).details();
            for part in [
                "tor1 (eBGP)",
                "Established for 1m15s",
                "AS 64500, router id 192.0.2.11, 192.0.2.11:40000",
                "AS 64501, router id 192.0.2.1, 192.0.2.1:179",
                "9 s agreed, 9 s proposed",
                "hold in 8.2 s",
                "4 keepalive\n",
                "12 and 3 withdrawn",
                "1 of 1 announced",
                "198.51.100.10/32 via 192.0.2.11, path 64500 64500, med 0, origin IGP, \
                 communities 64500:100 no-export",
                "a silent death is noticed late",
            ] {
                assert!(details.contains(part), "no {part:?} in\n{details}");
            }
            assert!(!details.contains("2001:db8"), "{details}");
        }
        assert!(view().only("tor2").peers.is_empty());
    }

    #[test]
    fn what_programs_read_has_one_level_per_session() {
        let json = serde_json::to_value(view()).expect("it can be written");
        let peer = &json["peers"][0];
        assert_eq!(json["sessions"]["state"], "degraded");
        assert_eq!(peer["name"], "tor1");
        assert_eq!(peer["local_as"], 64500);
        assert_eq!(peer["routes"][0]["med"], 0);
        let back: BgpView = serde_json::from_value(json).expect("it can be read");
        assert_eq!(back.details(), view().details());
    }
}
