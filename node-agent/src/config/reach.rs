//! How far away a router may be, and what that asks of packets.

use std::num::NonZeroU8;

use super::{report::Report, written};

/// How far away a peer may be, and what that asks of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// So many hops: the TTL of our packets. Those of the peer may come from
    /// anywhere.
    Hops(NonZeroU8),
    /// So many hops, checked (GTSM, RFC 5082): both sides send with a TTL of
    /// 255, and what has come farther is dropped.
    Secured(NonZeroU8),
}

/// Over iBGP, where a peer may be anywhere in the AS.
const INTERNAL: NonZeroU8 = NonZeroU8::new(64).expect("64 is not zero");

/// Over eBGP, where a peer is on our link.
const EXTERNAL: NonZeroU8 = NonZeroU8::MIN;

impl Reach {
    pub(super) fn validate(
        peer: &written::BgpPeer,
        internal: bool,
        report: &mut Report,
    ) -> Option<Self> {
        if let (Some(security), Some(multihop)) = (&peer.ttl_security, &peer.multihop) {
            report
                .error(
                    &security.span,
                    "`ttl_security` and `multihop` exclude each other",
                )
                .related(&multihop.span, "sends with this TTL")
                .help(
                    "`ttl_security` sends with a TTL of 255 and says itself how many hops the \
                     router may be away: leave `multihop` out",
                );
        }
        let hops = |hops: u8| NonZeroU8::new(hops);
        match (&peer.ttl_security, &peer.multihop) {
            (Some(security), _) => hops(security.value.0).map(Self::Secured),
            (None, Some(multihop)) => hops(multihop.value.0).map(Self::Hops),
            (None, None) if internal => Some(Self::Hops(INTERNAL)),
            (None, None) => Some(Self::Hops(EXTERNAL)),
        }
    }

    /// How many hops the peer may be away.
    #[must_use]
    pub fn hops(self) -> u8 {
        let (Self::Hops(hops) | Self::Secured(hops)) = self;
        hops.get()
    }

    /// TTL or hop limit of our packets.
    #[must_use]
    pub fn ttl(self) -> NonZeroU8 {
        match self {
            Self::Hops(hops) => hops,
            Self::Secured(_) => NonZeroU8::MAX,
        }
    }

    /// The least TTL or hop limit of packets that we take from the peer; 0:
    /// any.
    #[must_use]
    pub fn min_ttl(self) -> u8 {
        match self {
            Self::Hops(_) => 0,
            // One hop away, on our own link, is a TTL of 255.
            Self::Secured(hops) => u8::MAX - (hops.get() - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_so_many_hops_away_is_sent_and_may_send_these_ttls() {
        let hops = |hops| NonZeroU8::new(hops).unwrap();
        let table = [
            ("on our link", Reach::Hops(hops(1)), 1, 0),
            ("a few hops away", Reach::Hops(hops(4)), 4, 0),
            ("on our link, checked", Reach::Secured(hops(1)), 255, 255),
            (
                "one router between, checked",
                Reach::Secured(hops(2)),
                255,
                254,
            ),
            (
                "as far as can be checked",
                Reach::Secured(hops(254)),
                255,
                2,
            ),
        ];
        for (sentence, reach, ttl, min_ttl) in table {
            assert_eq!(
                (reach.ttl().get(), reach.min_ttl()),
                (ttl, min_ttl),
                "{sentence}"
            );
        }
    }
}
