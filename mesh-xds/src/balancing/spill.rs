//! How calls are shared between priorities, by how many of their endpoints are available (Envoy's
//! "priority levels" with an overprovisioning factor).
//!
//! A priority takes as many percent of the calls as it has available endpoints, times 1.4, at most all; what
//! is left spills to the next. Endpoints that are degraded take what the healthy ones of all priorities leave.
//! When all together have less than everything, shares are scaled up.

use crate::matcher::Fraction;

/// The endpoints of a priority, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Available, and not degraded.
    pub healthy: usize,
    /// Available.
    pub degraded: usize,
    /// All, those that drain left out.
    pub total: usize,
}

/// The shares of a priority, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of its healthy endpoints.
    pub healthy: u32,
    /// Of its degraded ones.
    pub degraded: u32,
}

/// How calls are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    /// Of each priority; they sum to 100 if there is one.
    pub loads: Vec<Load>,
    /// There is enough of all priorities together: none panics.
    pub is_enough: bool,
}

/// Shares the calls between priorities. `factor` is in percent: with 140 a priority takes all calls while five
/// sevenths of it are available.
pub fn split(priorities: &[Counts], factor: u32) -> Loads {
    let availability = |count: usize, total: usize| {
        let percent = (u64::from(factor) * count as u64).checked_div(total as u64).unwrap_or(0);
        u32::try_from(percent.min(100)).unwrap_or(100)
    };
    let healthy: Vec<u32> =
        priorities.iter().map(|counts| availability(counts.healthy, counts.total)).collect();
    let degraded: Vec<u32> =
        priorities.iter().map(|counts| availability(counts.degraded, counts.total)).collect();
    let all = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let mut loads = vec![Load::default(); priorities.len()];
    if all == 0 {
        // Nobody is available: the first priority's calls fail with its reasons.
        if let Some(first) = loads.first_mut() {
            first.healthy = 100;
        }
        return Loads { loads, is_enough: false };
    }
    let mut rest = 100;
    for (load, available) in loads.iter_mut().zip(&healthy) {
        load.healthy = (available * 100 / all).min(rest);
        rest -= load.healthy;
    }
    for (load, available) in loads.iter_mut().zip(&degraded) {
        load.degraded = (available * 100 / all).min(rest);
        rest -= load.degraded;
    }
    // What rounding left goes to the first that has any.
    if let Some(first) = loads.iter_mut().zip(&healthy).find(|(_, available)| **available > 0) {
        first.0.healthy += rest;
    } else if let Some(first) = loads.iter_mut().zip(&degraded).find(|(_, available)| **available > 0) {
        first.0.degraded += rest;
    }
    Loads { loads, is_enough: all == 100 }
}

/// Too few of a priority are healthy: health and ejection are ignored (Envoy's panic threshold). `total` leaves out those
/// that drain.
pub fn is_panic(healthy: usize, total: usize, threshold: Option<Fraction>) -> bool {
    let falls_short =
        |threshold: Fraction| healthy as u64 * 1_000_000 < u64::from(threshold.parts()) * total as u64;
    threshold.is_some_and(falls_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERPROVISIONING: u32 = 140;

    fn counts(healthy: usize, degraded: usize) -> Counts {
        Counts { healthy, degraded, total: 100 }
    }

    fn healthy(priorities: &[usize]) -> Vec<u32> {
        let counts: Vec<_> = priorities.iter().map(|healthy| counts(*healthy, 0)).collect();
        split(&counts, OVERPROVISIONING).loads.iter().map(|load| load.healthy).collect()
    }

    /// The tables of Envoy's documentation, "Priority levels".
    #[test]
    fn shares_are_those_of_envoys_documentation() {
        for (available, shares) in [
            (&[100, 100][..], &[100, 0][..]),
            (&[72, 100], &[100, 0]),
            (&[71, 100], &[99, 1]),
            (&[50, 100], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[0, 100], &[0, 100]),
            (&[100, 100, 100], &[100, 0, 0]),
            (&[72, 72, 100], &[100, 0, 0]),
            (&[71, 71, 100], &[99, 1, 0]),
            (&[50, 50, 100], &[70, 30, 0]),
            (&[25, 100, 100], &[35, 65, 0]),
            (&[25, 25, 100], &[35, 35, 30]),
            // Together less than everything: scaled up.
            (&[20, 20], &[50, 50]),
            (&[25, 25], &[50, 50]),
            (&[5, 0, 0], &[100, 0, 0]),
        ] {
            assert_eq!(healthy(available), shares, "{available:?}");
        }
    }

    #[test]
    fn degraded_endpoints_get_what_healthy_ones_of_all_priorities_leave() {
        let load = |healthy, degraded| Load { healthy, degraded };
        let split = |priorities: &[Counts]| split(priorities, OVERPROVISIONING).loads;
        assert_eq!(split(&[counts(5, 95), counts(5, 0)]), [load(7, 86), load(7, 0)]);
        assert_eq!(split(&[counts(50, 50), counts(100, 0)]), [load(70, 0), load(30, 0)]);
        assert_eq!(split(&[counts(0, 100)]), [load(0, 100)]);
        assert_eq!(split(&[counts(0, 10), counts(0, 10)]), [load(0, 50), load(0, 50)]);
    }

    #[test]
    fn nobody_panics_while_the_priorities_together_are_enough() {
        assert!(split(&[counts(30, 0), counts(100, 0)], OVERPROVISIONING).is_enough);
        assert!(!split(&[counts(30, 0), counts(30, 0)], OVERPROVISIONING).is_enough);
        assert!(!split(&[counts(0, 0)], OVERPROVISIONING).is_enough);
    }

    #[test]
    fn shares_sum_to_a_hundred_whatever_the_counts() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..2000 {
            let priorities: Vec<_> = (0..rng.usize(1..5))
                .map(|_| {
                    let total = rng.usize(0..9);
                    let healthy = rng.usize(0..=total);
                    Counts { healthy, degraded: rng.usize(0..=total - healthy), total }
                })
                .collect();
            let loads = split(&priorities, OVERPROVISIONING).loads;
            let sum: u32 = loads.iter().map(|load| load.healthy + load.degraded).sum();
            assert_eq!(sum, 100, "{priorities:?}: {loads:?}");
        }
    }

    #[test]
    fn without_priorities_there_are_no_shares() {
        assert_eq!(split(&[], OVERPROVISIONING).loads, []);
    }
}
