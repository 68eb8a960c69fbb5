//! The table of a priority's endpoints: which of them a hash leads to.
//!
//! Promises: the same endpoints, weights and settings give the same table as in Envoy and every gRPC, whatever order the
//! endpoints were told in. Who of them takes calls at a moment is not known here.

use super::{
    maglev::Maglev,
    ring::{Ring, RingSize},
};
use std::sync::Arc;

/// One endpoint's part of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// What stands for it: its `hash_key`, else its address.
    pub key: Arc<str>,
    /// Of all endpoints; they sum to 1.
    pub weight: f64,
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A ring (gRFC A42).
    Ring(RingSize),
    /// Of this many slots, a prime.
    Maglev(u32),
}

/// Where hashes lead.
#[derive(Debug)]
pub struct Table {
    algorithm: Algorithm,
    shares: Box<[Share]>,
    places: Places,
}

#[derive(Debug)]
enum Places {
    Ring(Ring),
    Maglev(Maglev),
}

impl Table {
    /// The table of these endpoints.
    pub fn new(algorithm: Algorithm, shares: Vec<Share>) -> Self {
        let places = match algorithm {
            Algorithm::Ring(size) => Places::Ring(Ring::new(&shares, size)),
            Algorithm::Maglev(size) => Places::Maglev(Maglev::new(&shares, size)),
        };
        Self { algorithm, shares: shares.into(), places }
    }

    /// Whether it is what [`Table::new`] would make of these.
    pub fn is_of(&self, algorithm: Algorithm, shares: &[Share]) -> bool {
        self.algorithm == algorithm && *self.shares == *shares
    }

    /// Who a hash leads to, and who comes after, once around: indices of the shares, each as often as it has places.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (places, from) = match &self.places {
            Places::Ring(ring) => (ring.len(), ring.locate(hash)),
            Places::Maglev(table) => (table.len(), table.locate(hash)),
        };
        (from..places).chain(0..from.min(places)).filter_map(|place| match &self.places {
            Places::Ring(ring) => ring.owner(place),
            Places::Maglev(table) => table.owner(place),
        })
    }
}

#[cfg(test)]
pub(in crate::balancing) mod testing {
    use super::Share;
    use twox_hash::XxHash64;

    /// How many keys are looked up where movement is counted.
    pub(in crate::balancing) const KEYS: usize = 20_000;

    /// `10.0.0.1:80`, `10.0.0.2:80` … of these weights.
    pub(in crate::balancing) fn shares(weights: &[u32]) -> Vec<Share> {
        let sum = f64::from(weights.iter().sum::<u32>());
        let share = |(number, weight): (u32, &u32)| Share {
            key: format!("10.0.0.{number}:80").into(),
            weight: f64::from(*weight) / sum,
        };
        (1..).zip(weights).map(share).collect()
    }

    /// Keys whose owner changed though it stayed, and keys of the one that is gone.
    pub(in crate::balancing) fn moved<K: PartialEq + AsRef<str>>(
        gone: &Share,
        owners: impl Fn(u64) -> (K, K),
    ) -> (usize, usize) {
        let (mut of_others, mut of_gone) = (0, 0);
        for key in 0..KEYS {
            let (before, after) = owners(XxHash64::oneshot(7, &key.to_le_bytes()));
            if before.as_ref() == &*gone.key {
                of_gone += 1;
            } else if before != after {
                of_others += 1;
            }
        }
        (of_others, of_gone)
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::shares, *};

    const RING: Algorithm = Algorithm::Ring(RingSize { min: 1024, max: 4096 });
    const MAGLEV: Algorithm = Algorithm::Maglev(65_537);

    #[test]
    fn a_table_is_known_by_what_it_was_made_of() {
        let table = Table::new(RING, shares(&[1, 2]));
        assert!(table.is_of(RING, &shares(&[1, 2])));
        assert!(!table.is_of(MAGLEV, &shares(&[1, 2])) && !table.is_of(RING, &shares(&[2, 1])));
    }
}
