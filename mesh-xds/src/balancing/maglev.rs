//! Maglev's table of consistent hashing (Eisenbud et al., NSDI 2016, section 3.4, with Envoy's weights).
//!
//! Promises: the same endpoints, weights and size give the same table as in Envoy: an endpoint tries the slots
//! `offset + skip · n`, both from XXH64 of its key, and takes turns by weight. A table has exactly one owner
//! for each slot, and shares are exact to one slot.

use super::table::Share;
use twox_hash::XxHash64;

/// Slots, each with an owner.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Maglev {
    owners: Box<[u32]>,
}

struct Filling {
    offset: u64,
    skip: u64,
    weight: f64,
    /// What the weight times the number of the round must reach before it may take another slot.
    due: f64,
    next: u64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// The table of these shares; `size` is a prime, owners are positions in `shares`.
    pub(super) fn new(shares: &[Share], size: u32) -> Self {
        let heaviest = shares.iter().map(|share| share.weight).fold(0.0, f64::max);
        if heaviest <= 0.0 || size < 2 {
            return Self { owners: Box::default() };
        }
        let slots = u64::from(size);
        let mut filling: Vec<Filling> = shares
            .iter()
            .map(|share| Filling {
                offset: XxHash64::oneshot(0, share.key.as_bytes()) % slots,
                skip: XxHash64::oneshot(1, share.key.as_bytes()) % (slots - 1) + 1,
                weight: share.weight,
                due: 0.0,
                next: 0,
            })
            .collect();
        let mut owners = vec![FREE; usize::try_from(size).unwrap_or(0)];
        let (mut free, mut round) = (owners.len(), 0.0);
        while free > 0 {
            round += 1.0;
            for (owner, entry) in (0_u32..).zip(&mut filling) {
                if free == 0 {
                    break;
                }
                if round * entry.weight < entry.due {
                    continue;
                }
                entry.due += heaviest;
                // As `skip` is prime to the size, every slot comes once; one of them is free.
                loop {
                    let slot = (entry.offset + entry.skip * entry.next) % slots;
                    entry.next += 1;
                    let slot = usize::try_from(slot).unwrap_or(usize::MAX);
                    if let Some(slot) = owners.get_mut(slot).filter(|slot| **slot == FREE) {
                        *slot = owner;
                        free -= 1;
                        break;
                    }
                    if entry.next > slots * 2 {
                        // Only for a size that is no prime, which parsing excludes.
                        entry.skip = 1;
                        entry.next = 0;
                    }
                }
            }
        }
        Self { owners: owners.into() }
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// The slot of a hash.
    pub(super) fn locate(&self, hash: u64) -> usize {
        let slots = u64::try_from(self.owners.len()).unwrap_or(u64::MAX);
        if slots == 0 { 0 } else { usize::try_from(hash % slots).unwrap_or(0) }
    }

    /// Who owns a slot.
    pub(super) fn owner(&self, slot: usize) -> Option<usize> {
        self.owners.get(slot).and_then(|owner| usize::try_from(*owner).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::testing::{KEYS, moved, shares};
    use super::*;

    const DEFAULT: u32 = 65_537;

    fn owned(weights: &[u32], size: u32) -> Vec<usize> {
        let table = Maglev::new(&shares(weights), size);
        (0..weights.len())
            .map(|owner| table.owners.iter().filter(|o| **o as usize == owner).count())
            .collect()
    }

    #[test]
    fn shares_are_exact_to_one_slot_and_follow_the_weights() {
        assert_eq!(owned(&[1; 3], DEFAULT), [21_846, 21_846, 21_845]);
        assert_eq!(owned(&[1, 2, 5], DEFAULT), [8_193, 16_385, 40_959]);
        assert_eq!(owned(&[1; 3], 11), [4, 4, 3]);
    }

    /// Computed from the definition by another program: the keys in order of the slots, their XXH64, and the
    /// owners of four names.
    #[test]
    fn the_table_is_the_one_that_the_definition_gives() {
        let golden = [
            (&[1, 1, 1][..], 11, 0x6c67_676d_7b76_033c, [0, 2, 1, 2]),
            (&[1, 1, 1], DEFAULT, 0xc074_cdc1_8bbb_0f03, [0, 2, 1, 2]),
            (&[1, 2, 5], DEFAULT, 0x4140_7bb9_5f14_c531, [0, 2, 1, 2]),
        ];
        for (weights, size, digest, owners) in golden {
            let shares = shares(weights);
            let table = Maglev::new(&shares, size);
            let keys: Vec<&str> = table.owners.iter().map(|owner| &*shares[*owner as usize].key).collect();
            assert_eq!(XxHash64::oneshot(0, keys.join(",").as_bytes()), digest, "{weights:?} in {size}");
            let named = ["alice", "bob", "carol", "dave"]
                .map(|name| table.owner(table.locate(XxHash64::oneshot(0, name.as_bytes()))).unwrap());
            assert_eq!(named, owners, "{weights:?} in {size}");
        }
    }

    #[test]
    fn when_one_of_ten_leaves_few_keys_of_the_others_move() {
        let before = shares(&[1; 10]);
        let mut after = before.clone();
        let gone = after.remove(4);
        let (old, new) = (Maglev::new(&before, DEFAULT), Maglev::new(&after, DEFAULT));
        let owner = |table: &Maglev, shares: &[Share], hash| {
            shares[table.owner(table.locate(hash)).unwrap()].key.clone()
        };
        let (of_others, of_gone) =
            moved(&gone, |hash| (owner(&old, &before, hash), owner(&new, &after, hash)));
        assert!((KEYS / 12..KEYS / 8).contains(&of_gone), "{of_gone}");
        // The paper's figure 12: a few percent when the table is much larger than the number of endpoints.
        assert!(of_others < KEYS / 20, "{of_others} keys of others moved");
    }

    #[test]
    fn a_size_that_is_no_prime_still_gives_a_full_table() {
        assert_eq!(owned(&[1, 1], 12).iter().sum::<usize>(), 12);
    }

    #[test]
    fn without_endpoints_there_is_no_slot() {
        let table = Maglev::new(&[], DEFAULT);
        assert_eq!((table.len(), table.owner(table.locate(7))), (0, None));
    }
}
