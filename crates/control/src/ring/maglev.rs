//! Maglev hashing (Eisenbud et al., NSDI 2016) with weights, over a table
//! whose size is a power of two.
//!
//! Every backend has its own order of preference over all slots. They take
//! turns; on its turn a backend takes the slot it likes best among those still
//! free. The heaviest backend has a turn in every round, the others in
//! proportion. Lighter ones are rounded up, at the cost of all: a fair share of
//! `s` slots among `n` backends comes out between `s (1 - n / size) - 2` and
//! `s + 2`.
//!
//! Taking one of 100 equal backends out of the configuration moves 2.4 % of
//! the slots, 1 % being the least possible. (A walk by a keyed mix of all bits
//! instead of by a constant stride moves as many, and takes twice as long.)

use crate::{
    hash::mix,
    ring::{MAX_RING_SIZE, rendezvous::Contender},
};

/// Deals `size` slots to `contenders`, all of a weight above 0. The outcome
/// depends on their order, so sort them first. Empty when there are none.
///
/// A size that is no power of two is taken as the next one, a larger one than
/// [`MAX_RING_SIZE`] as that.
pub(super) fn deal(contenders: &[Contender], size: u32) -> Vec<u16> {
    const FREE: u16 = u16::MAX;

    let Some(heaviest) = contenders.iter().map(|c| u32::from(c.weight)).max() else {
        return Vec::new();
    };
    let size = size.min(MAX_RING_SIZE).next_power_of_two();
    let mut slots = vec![FREE; size as usize];
    let mut players: Vec<_> = contenders
        .iter()
        .map(|contender| Player::new(contender, heaviest, size))
        .collect();
    let mut free = size;
    loop {
        for player in &mut players {
            player.credit += player.weight;
            if player.credit < heaviest {
                continue;
            }
            player.credit -= heaviest;
            let slot = loop {
                let slot = &mut slots[player.preference.next() as usize];
                if *slot == FREE {
                    break slot;
                }
            };
            *slot = player.ordinal;
            free -= 1;
            if free == 0 {
                return slots;
            }
        }
    }
}

struct Player {
    ordinal: u16,
    weight: u32,
    /// A turn costs the weight of the heaviest.
    credit: u32,
    preference: Preference,
}

impl Player {
    fn new(contender: &Contender, heaviest: u32, size: u32) -> Self {
        let weight = u32::from(contender.weight);
        Self {
            ordinal: contender.ordinal,
            weight,
            // Enough for a turn in the first round: who has a weight gets a
            // slot, however light.
            credit: heaviest - weight,
            preference: Preference::new(contender.key, size),
        }
    }
}

/// A walk over all slots, `offset + k * skip` modulo the size. The skip is odd
/// and so has no factor in common with the size: no slot comes twice before
/// all have come once.
struct Preference {
    position: u32,
    skip: u32,
    mask: u32,
}

impl Preference {
    fn new(key: u64, size: u32) -> Self {
        let mixed = mix(key);
        Self {
            position: mixed as u32,
            skip: (mixed >> 32) as u32 | 1,
            mask: size - 1,
        }
    }

    fn next(&mut self) -> u32 {
        let slot = self.position & self.mask;
        self.position = self.position.wrapping_add(self.skip);
        slot
    }
}
