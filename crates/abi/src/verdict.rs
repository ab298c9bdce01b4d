//! Why a packet met its fate: the one list that program, metrics and
//! documentation share.

/// What XDP does with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand it to the kernel untouched (`XDP_PASS`).
    Pass,
    /// Drop it (`XDP_DROP`).
    Drop,
    /// Send it out of the interface it came by (`XDP_TX`).
    Transmit,
    /// Send it out of another interface (`XDP_REDIRECT`).
    Redirect,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal, $action:ident;)+) => {
        /// The reason a packet was forwarded, passed or dropped. Every packet
        /// has exactly one, counted once at the program's single exit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Verdict {
            /// Every verdict in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in metrics and documentation.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }

            /// What is done with the frame.
            #[must_use]
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action),+ }
            }
        }
    };
}

verdicts! {
    /// Forwarded to a backend out of the interface it came by.
    Forwarded = "forwarded", Transmit;
    /// Forwarded to a backend out of another interface.
    Redirected = "redirected", Redirect;
    /// Not for any virtual address: left to the kernel.
    NotVip = "not_vip", Pass;
    /// For a service, but in a frame for another host, as a switch floods them:
    /// left to the kernel, which ignores it.
    OtherHost = "other_host", Pass;
    /// Neither IPv4 nor IPv6: left to the kernel.
    NotIp = "not_ip", Pass;
    /// For a virtual address, but no service has this port.
    UnservedPort = "unserved_port", Drop;
    /// For a virtual address, but neither TCP nor UDP nor an ICMP message that is
    /// handled.
    UnservedProtocol = "unserved_protocol", Drop;
    /// An echo request for a virtual address: answered.
    EchoAnswered = "echo_answered", Transmit;
    /// With the outer header the packet would not fit and may not be fragmented:
    /// its sender was told how much fits.
    TooBigAnswered = "too_big_answered", Transmit;
    /// As `too_big_answered`, but senders have been told often enough for now.
    TooBigLimited = "too_big_limited", Drop;
    /// A later fragment for a virtual address whose first fragment was not seen.
    FragmentWithoutFirst = "fragment_without_first", Drop;
    /// An ICMP error for a virtual address that is not about a flow of it.
    IcmpUnrelated = "icmp_unrelated", Drop;
    /// For a virtual address, with more IPv6 extension headers than are looked
    /// through.
    ExtensionHeaders = "extension_headers", Drop;
    /// For a virtual address as a stop on a way that its sender has chosen and
    /// that leads on from there.
    SourceRouted = "source_routed", Drop;
    /// For a virtual address, with headers or lengths that contradict each other.
    Malformed = "malformed", Drop;
    /// Time to live or hop limit was used up; a loop, if there are many.
    TtlExpired = "ttl_expired", Drop;
    /// The chosen backend itself had sent us the frame: it would go in a circle.
    Loop = "loop", Drop;
    /// The service has never had a backend available.
    NoBackend = "no_backend", Drop;
    /// The next hop's MAC address is not known.
    NoNextHop = "no_next_hop", Drop;
    /// With the outer header the packet would not fit the outgoing interface, and
    /// its sender cannot be told.
    TooBig = "too_big", Drop;
    /// There was no room in front of the frame for the outer header.
    NoHeadroom = "no_headroom", Drop;
    /// The tables contradict each other; a defect of vipd, please report it.
    Inconsistent = "inconsistent", Drop;
}

impl Verdict {
    /// Rare enough, and odd enough, to be worth a line in the log.
    #[must_use]
    #[inline(always)]
    pub const fn is_odd(self) -> bool {
        matches!(
            self,
            Self::Loop | Self::NoNextHop | Self::NoHeadroom | Self::Inconsistent
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_unique_and_numbers_run_from_zero() {
        let labels: BTreeSet<_> = Verdict::ALL.iter().map(|v| v.label()).collect();
        assert_eq!(labels.len(), Verdict::COUNT);
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index, "{verdict:?}");
        }
    }
}
