//! Weighted rendezvous hashing (Thaler, Ravishankar 1998; Schindelhauer,
//! Schomaker 2005): for one slot each contender draws a number, the same one
//! always, and the best draw relative to the weight wins. Whoever comes or
//! goes changes nothing between the others.
//!
//! The draw `u` is uniform in (0, 1); the lowest `-log2(u) / weight` wins, and
//! a contender wins in proportion to its weight. All in integers, so that
//! every machine finds the same winner.

use std::cmp::Ordering;

use crate::{hash::nth, slow_start::Share};

/// Somebody who may own slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    /// Its place in the service's list of backends.
    pub ordinal: u16,
    pub weight: u16,
    /// Hash of its identity.
    pub key: u64,
}

impl Contender {
    /// Whether it may own `slot` with this share. The more slots the larger the
    /// share, and the same ones as with a smaller one.
    pub(super) fn is_let_in(&self, share: Share, slot: u32) -> bool {
        // Another sequence than that of the bids, which must not know of it.
        share == Share::WHOLE || nth(!self.key, slot) < share.threshold()
    }
}

/// Brings contenders into the order that [`Field`] wants: equal weights together.
pub(super) fn sort(contenders: &mut [Contender]) {
    contenders.sort_unstable_by_key(|c| (c.weight, c.key, c.ordinal));
}

/// Those who contend for slots.
pub(super) struct Field {
    /// Those with the whole share, sorted.
    whole: Vec<Contender>,
    /// Those that start slowly.
    slow: Vec<(Contender, Share)>,
}

impl Field {
    /// Sorted contenders with their shares; who has none does not contend.
    pub(super) fn new(sorted: impl Iterator<Item = (Contender, Share)>) -> Self {
        let some = sorted.filter(|(_, share)| *share > Share::NONE);
        let (whole, slow): (Vec<_>, _) = some.partition(|(_, share)| *share == Share::WHOLE);
        let whole = whole.into_iter().map(|(contender, _)| contender).collect();
        Self { whole, slow }
    }

    /// The winner of `slot` among all, let in or not.
    pub(super) fn winner_of_all(&self, slot: u32) -> Option<u16> {
        let slow = self.slow.iter().map(|(contender, _)| *contender);
        self.best(slow, slot).map(|bid| bid.contender.ordinal)
    }

    /// Ordinal of the winner of `slot` among those who are let in, if there is one.
    pub(super) fn winner(&self, slot: u32) -> Option<u16> {
        self.best(self.let_in(slot), slot)
            .map(|bid| bid.contender.ordinal)
    }

    /// Ordinal of the winner of `slot` among `holder` and those who are let in.
    pub(super) fn challenge(&self, holder: Contender, slot: u32) -> u16 {
        let holder = Bid::new(holder, slot);
        match self.best(self.let_in(slot), slot) {
            Some(bid) if bid.beats(&holder) => bid.contender.ordinal,
            _ => holder.contender.ordinal,
        }
    }

    fn let_in(&self, slot: u32) -> impl Iterator<Item = Contender> {
        let slow = self.slow.iter();
        slow.filter(move |(contender, share)| contender.is_let_in(*share, slot))
            .map(|(contender, _)| *contender)
    }

    fn best(&self, slow: impl Iterator<Item = Contender>, slot: u32) -> Option<Bid> {
        let bids = slow.map(|contender| Bid::new(contender, slot));
        let bids = best(&self.whole, slot).into_iter().chain(bids);
        bids.reduce(|best, bid| if bid.beats(&best) { bid } else { best })
    }
}

fn best(sorted: &[Contender], slot: u32) -> Option<Bid> {
    // Among equal weights the largest draw wins, which spares the logarithms.
    let groups = sorted.chunk_by(|a, b| a.weight == b.weight);
    let champions = groups.filter_map(|group| {
        let bids = group.iter().map(|&contender| Bid::new(contender, slot));
        bids.reduce(|best, bid| if bid.draw > best.draw { bid } else { best })
    });
    champions.reduce(|best, bid| if bid.beats(&best) { bid } else { best })
}

#[derive(Clone, Copy)]
struct Bid {
    contender: Contender,
    /// `u` times 2^64.
    draw: u64,
}

impl Bid {
    fn new(contender: Contender, slot: u32) -> Self {
        Self {
            contender,
            draw: nth(contender.key, slot),
        }
    }

    /// A total order; where bids are equal, the one first in [`sort`]'s order
    /// wins.
    fn beats(&self, other: &Self) -> bool {
        let (a, b) = (&self.contender, &other.contender);
        let order = if a.weight == b.weight {
            other.draw.cmp(&self.draw)
        } else {
            let mine = negative_log2(self.draw) * u64::from(b.weight);
            mine.cmp(&(negative_log2(other.draw) * u64::from(a.weight)))
        };
        order.then_with(|| (a.weight, a.key).cmp(&(b.weight, b.key))) == Ordering::Less
    }
}

/// `-log2(u / 2^64)` in units of 2^-40, by linear interpolation between 257
/// points; within 3 millionths. Never rises with `u`. At most 2^46, so that
/// the product with a weight fits 64 bits.
fn negative_log2(u: u64) -> u64 {
    // Zero has no logarithm and counts as one.
    let u = u | u64::from(u == 0);
    let exponent = u64::from(63 - u.leading_zeros());
    // The digits behind the leading one: eight choose the interval, the next
    // 31 the place in it.
    let digits = (u << u.leading_zeros()) << 1;
    let interval = (digits >> 56) as usize;
    let place = digits << 8 >> 33;
    let (low, high) = (LOG2[interval], LOG2[interval + 1]);
    let fraction = low + (((high - low) * place) >> 31);
    (64 << FRACTION_BITS) - ((exponent << FRACTION_BITS) + fraction)
}

const FRACTION_BITS: u32 = 40;

/// `log2(1 + i / 256)` in units of 2^-40.
static LOG2: [u64; 257] = log2_table();

const fn log2_table() -> [u64; 257] {
    let mut table = [0; 257];
    let mut i = 0;
    while i < 256 {
        table[i] = log2(i as u64);
        i += 1;
    }
    table[256] = 1 << FRACTION_BITS;
    table
}

/// Bit by bit: squaring a number doubles its logarithm, and a carry beyond 2
/// is the next digit.
const fn log2(i: u64) -> u64 {
    // 1 + i / 256 in units of 2^-62.
    let mut x = ((256 + i) as u128) << 54;
    let mut result = 0;
    let mut bit = 0;
    while bit < FRACTION_BITS {
        x = (x * x) >> 62;
        let carry = x >> 63;
        result = result << 1 | carry as u64;
        x >>= carry;
        bit += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_three_millionths() {
        let unit = 2f64.powi(FRACTION_BITS as i32);
        let ends = [0, 1, 2, 3, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for u in ends.into_iter().chain((0..100_000).map(|i| nth(7, i))) {
            let exact = 64.0 - (u.max(1) as f64).log2();
            let found = negative_log2(u) as f64 / unit;
            assert!((found - exact).abs() < 3e-6, "{u}: {found} is not {exact}");
        }
    }

    #[test]
    fn the_logarithm_never_rises() {
        let mut draws: Vec<_> = (0..100_000).map(|i| nth(8, i)).collect();
        draws.extend((0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1]));
        draws.sort_unstable();
        for pair in draws.windows(2) {
            let (low, high) = (negative_log2(pair[0]), negative_log2(pair[1]));
            assert!(low >= high, "{pair:?}: {low} {high}");
        }
    }

    #[test]
    fn wins_are_in_proportion_to_weights() {
        let weights = [1, 1, 2, 5, 10, 40];
        let mut contenders: Vec<_> = (0..)
            .zip(weights)
            .map(|(ordinal, weight)| Contender {
                ordinal,
                weight,
                key: nth(9, u32::from(ordinal)),
            })
            .collect();
        sort(&mut contenders);
        let field = Field::new(contenders.iter().map(|&c| (c, Share::WHOLE)));
        let slots = 1 << 20;
        let mut wins = [0u32; 6];
        for slot in 0..slots {
            wins[usize::from(field.winner(slot).expect("contenders"))] += 1;
        }
        let total: u16 = weights.iter().sum();
        for (won, weight) in wins.into_iter().zip(weights) {
            let fair = f64::from(slots) * f64::from(weight) / f64::from(total);
            let deviation = (f64::from(won) - fair) / fair.sqrt();
            assert!(deviation.abs() < 4.0, "{wins:?} for {weights:?}");
        }
    }
}
