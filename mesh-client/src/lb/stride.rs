//! Weighted round robin without a lock: the static stride scheduler of gRFC A58.
//!
//! A shared counter walks over the endpoints again and again; in round `r` endpoint `i` is passed over unless
//! its weight, scaled to 16 bits, "arrives" in that round. Over 65535 rounds each is picked as often as its
//! weight says, evenly spread; equal weights are plain round robin.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SCALE: u64 = u16::MAX as u64;

/// The schedule of one picker. It starts at a random place: clients that start together do not march in step.
#[derive(Debug)]
pub(crate) struct Stride {
    position: AtomicU64,
    count: usize,
    /// Scaled so that the largest is [`SCALE`]; none if all are equal.
    weights: Option<Box<[u64]>>,
}

impl Stride {
    pub(crate) fn new(weights: &[u32], rng: &mut fastrand::Rng) -> Self {
        let largest = u64::from(weights.iter().copied().max().unwrap_or(1).max(1));
        let equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let scale = |weight: &u32| (u64::from(*weight) * SCALE).div_ceil(largest).max(1);
        Self {
            position: AtomicU64::new(u64::from(rng.u32(..))),
            count: weights.len(),
            weights: (!equal).then(|| weights.iter().map(scale).collect()),
        }
    }

    /// The next index; 0 if there is nothing.
    pub(crate) fn next(&self) -> usize {
        next(&self.position, self.count, |index| match &self.weights {
            None => SCALE,
            Some(weights) => weights.get(index).copied().unwrap_or(SCALE),
        })
    }
}

/// The next of `count` indices, from a shared position on. Weights are in 1..=65535.
pub(super) fn next(position: &AtomicU64, count: usize, weight: impl Fn(usize) -> u64) -> usize {
    let Some(indices) = u64::try_from(count).ok().filter(|count| *count > 0) else { return 0 };
    loop {
        let position = position.fetch_add(1, Relaxed);
        let index = usize::try_from(position % indices).unwrap_or(0);
        let weight = weight(index);
        // The offset keeps endpoints of equal weight from being passed over in the same rounds.
        let offset = if index % 2 == 0 { 0 } else { SCALE / 2 };
        if (position / indices * weight + offset) % SCALE >= SCALE - weight {
            return index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u32], picks: u32) -> Vec<u32> {
        let stride = Stride::new(weights, &mut fastrand::Rng::with_seed(1));
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[stride.next()] += 1;
        }
        counts
    }

    #[test]
    fn equal_weights_are_picked_in_turn() {
        let stride = Stride::new(&[9, 9, 9], &mut fastrand::Rng::with_seed(1));
        let first = stride.next();
        for turn in 1..10 {
            assert_eq!(stride.next(), (first + turn) % 3);
        }
    }

    #[test]
    fn shares_are_exact_over_any_hundred_picks_within_one_per_endpoint() {
        for (picked, expected) in counts(&[50, 30, 20], 1000).into_iter().zip([500_i64, 300, 200]) {
            assert!((i64::from(picked) - expected).abs() <= 3, "{picked} instead of {expected}");
        }
    }

    #[test]
    fn the_smallest_of_very_unequal_weights_is_picked_at_last() {
        assert!(counts(&[u32::MAX - 1, 1], 200_000)[1] >= 1);
    }
}
