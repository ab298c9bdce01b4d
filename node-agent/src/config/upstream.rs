//! What the world will not take: prefixes that are too long, announced to a
//! peer that hands them on.

use vipd_control::{announcement::State, model::Vip};

use super::{
    bgp::BgpPeer,
    report::{Report, Span},
};

/// The longest prefixes that are accepted everywhere.
const LONGEST_IPV4: u8 = 24;
/// See [`LONGEST_IPV4`].
const LONGEST_IPV6: u8 = 48;

/// Says so for each peer with the world behind it that is told of prefixes which
/// will be filtered, with nothing around them that will not. `announced` is all
/// that can be announced, and where it stands.
pub fn warn_filtered(peer: &BgpPeer, announced: &[(Vip, Span)], report: &mut Report) {
    let heard: Vec<_> = announced
        .iter()
        .filter(|(prefix, _)| peer.hears_of(*prefix, State::Up))
        .collect();
    let (short, long): (Vec<_>, Vec<_>) = heard
        .into_iter()
        .partition(|(prefix, _)| is_accepted(*prefix));
    let covered = |prefix: Vip| short.iter().any(|(around, _)| around.contains(prefix));
    let lost: Vec<_> = long
        .iter()
        .filter(|(prefix, _)| !covered(*prefix))
        .collect();
    let Some((prefix, span)) = lost.first() else {
        return;
    };
    let others = match lost.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    report
        .warning(
            span,
            format!(
                "{}{others} will be filtered behind {}: the world takes nothing longer than \
                 /{LONGEST_IPV4} of IPv4 and /{LONGEST_IPV6} of IPv6",
                prefix.prefix(),
                peer.name
            ),
        )
        .help("announce a [[bgp.aggregate]] around it to this peer that is not longer");
}

fn is_accepted(prefix: Vip) -> bool {
    prefix.prefix().prefix_len() <= longest(prefix)
}

fn longest(prefix: Vip) -> u8 {
    if prefix.is_ipv4() {
        LONGEST_IPV4
    } else {
        LONGEST_IPV6
    }
}
