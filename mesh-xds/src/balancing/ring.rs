//! The ring of consistent hashing (gRFC A42, Envoy's ring hash).
//!
//! Promises: the same endpoints, weights and sizes give the same ring as in Envoy and every gRPC: an endpoint
//! stands at XXH64 of `<key>_<i>` for each of its shares. Who may be picked is not known here.

use super::table::Share;
use twox_hash::XxHash64;

/// How large a ring becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize {
    /// At least so many entries, if `max` allows.
    pub min: u64,
    /// At most so many (one more at most, by rounding).
    pub max: u64,
}

/// Places by hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Ascending.
    hashes: Box<[u64]>,
    owners: Box<[u32]>,
}

impl Ring {
    /// The ring of these shares; owners are positions in `shares`.
    pub(super) fn new(shares: &[Share], size: RingSize) -> Self {
        let smallest = shares.iter().map(|share| share.weight).fold(f64::INFINITY, f64::min);
        // As in Envoy: the least endpoint gets a whole number of places.
        #[allow(clippy::cast_precision_loss)]
        let scale = ((smallest * size.min as f64).ceil() / smallest).min(size.max as f64);
        let mut entries: Vec<(u64, u32)> = Vec::new();
        let (mut current, mut target) = (0.0, 0.0);
        let mut text = String::new();
        for (owner, share) in (0..).zip(shares) {
            target += scale * share.weight;
            text.clear();
            text.push_str(&share.key);
            text.push('_');
            let stem = text.len();
            let mut index = 0_u32;
            while current < target {
                text.truncate(stem);
                text.push_str(itoa(index, &mut [0; 10]));
                entries.push((XxHash64::oneshot(0, text.as_bytes()), owner));
                index += 1;
                current += 1.0;
            }
        }
        // Stable: of equal hashes the earlier endpoint comes first.
        entries.sort_by_key(|(hash, _)| *hash);
        Self {
            hashes: entries.iter().map(|(hash, _)| *hash).collect(),
            owners: entries.iter().map(|(_, owner)| *owner).collect(),
        }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// The place of a hash: the first at or after it, around the end.
    pub(super) fn locate(&self, hash: u64) -> usize {
        let place = self.hashes.partition_point(|at| *at < hash);
        if place == self.hashes.len() { 0 } else { place }
    }

    /// Who owns a place.
    pub(super) fn owner(&self, place: usize) -> Option<usize> {
        self.owners.get(place).and_then(|owner| usize::try_from(*owner).ok())
    }
}

/// A number in decimal, without `format!`: a ring is thousands of them.
fn itoa(mut number: u32, buffer: &mut [u8; 10]) -> &str {
    let mut start = buffer.len();
    for (index, digit) in buffer.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        start = index;
        if number == 0 {
            break;
        }
    }
    buffer.get(start..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::table::testing::{KEYS, moved, shares};
    use super::*;
    use std::fmt::Write;

    fn ring(weights: &[u32], min: u64, max: u64) -> (Vec<Share>, Ring) {
        let shares = shares(weights);
        let ring = Ring::new(&shares, RingSize { min, max });
        (shares, ring)
    }

    fn owned(weights: &[u32], min: u64, max: u64) -> Vec<usize> {
        let (shares, ring) = ring(weights, min, max);
        (0..shares.len())
            .map(|owner| (0..ring.len()).filter(|place| ring.owner(*place) == Some(owner)).count())
            .collect()
    }

    #[test]
    fn sizes_are_those_of_envoy_and_grpc() {
        assert_eq!(owned(&[1; 3], 1024, 4096), [342; 3]);
        assert_eq!(owned(&[1; 4], 1024, 4096), [256; 4]);
        assert_eq!(owned(&[1; 3], 10, 10), [4, 3, 3]);
        assert_eq!(owned(&[1; 4], 1, 2), [1, 0, 1, 0], "two own nothing");
        assert_eq!(owned(&[1, 2, 5], 1024, 4096), [128, 256, 640]);
    }

    /// Computed from the definition by another program: entries in order as `<hash>=<key>`, their XXH64, and
    /// the owners of four names.
    #[test]
    fn the_ring_is_the_one_that_the_definition_gives() {
        let golden = [
            (&[1, 1, 1][..], 1024, 0x7e48_a7e2_0556_9391, [1, 0, 0, 1]),
            (&[1; 4], 1024, 0x2042_6b59_4f6b_faa4, [1, 3, 3, 1]),
            (&[1, 2, 5], 1024, 0xc661_0f3f_5535_6428, [1, 2, 0, 1]),
        ];
        for (weights, min, digest, owners) in golden {
            let (shares, ring) = ring(weights, min, 4096);
            let mut text = String::new();
            for (hash, owner) in ring.hashes.iter().zip(&ring.owners) {
                let comma = if text.is_empty() { "" } else { "," };
                write!(text, "{comma}{hash:x}={}", shares[*owner as usize].key).unwrap();
            }
            assert_eq!(XxHash64::oneshot(0, text.as_bytes()), digest, "{weights:?}");
            let named = ["alice", "bob", "carol", "dave"]
                .map(|name| ring.owner(ring.locate(XxHash64::oneshot(0, name.as_bytes()))).unwrap());
            assert_eq!(named, owners, "{weights:?}");
        }
    }

    #[test]
    fn a_hash_beyond_the_last_place_goes_to_the_first() {
        let (_, ring) = ring(&[1; 3], 1024, 4096);
        let last = *ring.hashes.last().unwrap();
        assert_eq!((ring.locate(last), ring.locate(last + 1)), (ring.len() - 1, 0));
        assert_eq!(ring.locate(0), 0);
    }

    #[test]
    fn when_one_of_ten_leaves_only_its_own_keys_move() {
        let before = shares(&[1; 10]);
        let mut after = before.clone();
        let gone = after.remove(4);
        let size = RingSize { min: 1024, max: 4096 };
        let (old, new) = (Ring::new(&before, size), Ring::new(&after, size));
        let owner =
            |ring: &Ring, shares: &[Share], hash| shares[ring.owner(ring.locate(hash)).unwrap()].key.clone();
        let (of_others, of_gone) =
            moved(&gone, |hash| (owner(&old, &before, hash), owner(&new, &after, hash)));
        // 9 endpoints get 114 places each where 10 had 103: some keys of others move to places that are new.
        assert!(of_gone > KEYS / 20 && of_gone < KEYS / 6, "{of_gone}");
        assert!(of_others < KEYS / 8, "{of_others} keys of others moved");
    }

    #[test]
    fn without_endpoints_there_is_no_place() {
        let ring = Ring::new(&[], RingSize { min: 1024, max: 4096 });
        assert_eq!((ring.len(), ring.owner(ring.locate(7))), (0, None));
    }
}
