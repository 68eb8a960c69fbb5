//! Client-side weighted round robin (gRFC A58): in turn, by weights made of what endpoints say of their load.
//!
//! Promises: a pick reads prepared 16-bit weights and moves one shared counter; weights are computed when the
//! picker is built, and anew whenever somebody calls [`Weighted::reweigh`], while calls go on picking. The weights
//! that the control plane gives endpoints are not looked at, as in gRPC.

use super::{
    load_weight::{self, LARGEST, Unusable},
    stride,
};
use crate::endpoint::Endpoint;
use mesh_xds::resource::cluster::ClientSideWeightedRoundRobin;
use std::sync::{
    Arc,
    atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
};
use tokio::time::Instant;

/// How many endpoints have which weight, and how many balancers have too few to use any (gRFC A78).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    /// Plain round robin, because fewer than two endpoints have a weight.
    pub(crate) fallbacks: usize,
    pub(crate) usable: usize,
    pub(crate) not_yet: usize,
    pub(crate) stale: usize,
}

impl std::ops::AddAssign for Weights {
    fn add_assign(&mut self, other: Self) {
        self.fallbacks += other.fallbacks;
        self.usable += other.usable;
        self.not_yet += other.not_yet;
        self.stale += other.stale;
    }
}

/// The schedule of one picker.
#[derive(Debug)]
pub(crate) struct Weighted {
    policy: Box<ClientSideWeightedRoundRobin>,
    position: AtomicU64,
    /// Of each endpoint's weight: less while it warms up.
    shares: Box<[u32]>,
    weights: Box<[AtomicU16]>,
}

impl Weighted {
    /// A schedule over as many endpoints as there are shares, all alike until they are weighed.
    pub(super) fn new(
        policy: &ClientSideWeightedRoundRobin,
        shares: Vec<u32>,
        rng: &mut fastrand::Rng,
    ) -> Self {
        Self {
            policy: Box::new(policy.clone()),
            position: AtomicU64::new(u64::from(rng.u32(..))),
            weights: shares.iter().map(|_| AtomicU16::new(LARGEST)).collect(),
            shares: shares.into(),
        }
    }

    /// Takes in the weights of its endpoints, which come in its order. Calls that pick meanwhile see some of the
    /// new weights and some of the old ones.
    pub(super) fn reweigh<'a>(
        &self,
        now: Instant,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    ) -> Weights {
        let mut weights = Weights::default();
        let mut known = |endpoint: &Arc<Endpoint>| match endpoint.load_weight().get(&self.policy, now) {
            Ok(weight) => {
                weights.usable += 1;
                Some(weight)
            }
            Err(Unusable::NotYet) => {
                weights.not_yet += 1;
                None
            }
            Err(Unusable::Stale) => {
                weights.stale += 1;
                None
            }
        };
        let known: Vec<Option<f64>> = endpoints.map(&mut known).collect();
        for (weight, scaled) in self.weights.iter().zip(load_weight::scale(&known, &self.shares)) {
            weight.store(scaled, Relaxed);
        }
        weights.fallbacks = usize::from(weights.usable < 2);
        weights
    }

    /// The next index; 0 if there is nothing.
    pub(super) fn next(&self) -> usize {
        let weight = |index: usize| self.weights.get(index).map_or(LARGEST, |weight| weight.load(Relaxed));
        stride::next(&self.position, self.weights.len(), |index| u64::from(weight(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::endpoint, *};
    use mesh_xds::{orca::LoadReport, resource::cluster::LbPolicy};
    use std::time::Duration;

    fn policy() -> ClientSideWeightedRoundRobin {
        ClientSideWeightedRoundRobin { blackout_period: Duration::ZERO, ..Default::default() }
    }

    struct Bench {
        endpoints: Vec<Arc<Endpoint>>,
        weighted: Weighted,
    }

    impl Bench {
        fn new(shares: &[u32]) -> Self {
            let weighted = Weighted::new(&policy(), shares.to_vec(), &mut fastrand::Rng::with_seed(3));
            let endpoints: Vec<_> = (0..shares.len()).map(endpoint).collect();
            for endpoint in &endpoints {
                endpoint.balance_by(&LbPolicy::ClientSideWeightedRoundRobin(Box::new(policy())));
            }
            Self { endpoints, weighted }
        }

        fn report(&self, index: usize, qps: f64, utilization: f64) {
            let report = LoadReport {
                rps_fractional: qps,
                application_utilization: utilization,
                ..LoadReport::default()
            };
            assert!(self.endpoints[index].load_weight().update(&report));
        }

        fn reweigh(&self) -> Weights {
            self.weighted.reweigh(Instant::now(), self.endpoints.iter())
        }

        fn counts(&self, picks: usize) -> Vec<usize> {
            let mut counts = vec![0; self.endpoints.len()];
            for _ in 0..picks {
                counts[self.weighted.next()] += 1;
            }
            counts
        }
    }

    /// Of chi-square with three degrees of freedom, at p = 0.001.
    const CRITICAL: f64 = 16.27;

    fn assert_shares(counts: &[usize], expected: &[f64]) {
        let (picks, sum) = (counts.iter().sum::<usize>() as f64, expected.iter().sum::<f64>());
        let term = |(count, share): (&usize, &f64)| {
            let expected = picks * share / sum;
            (*count as f64 - expected).powi(2) / expected
        };
        let chi: f64 = counts.iter().zip(expected).map(term).sum();
        assert!(chi < CRITICAL, "{counts:?}, not as {expected:?}: chi-square {chi}");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_shared_as_the_reported_loads_say() {
        let bench = Bench::new(&[1; 4]);
        assert_eq!(bench.reweigh(), Weights { fallbacks: 1, not_yet: 4, ..Weights::default() });
        assert_eq!(bench.counts(4000), [1000; 4]);
        // 100, 300 and 50; one of which nothing is known gets the mean.
        bench.report(0, 50.0, 0.5);
        assert_eq!(bench.reweigh(), Weights { fallbacks: 1, usable: 1, not_yet: 3, stale: 0 });
        assert_eq!(bench.counts(4000), [1000; 4]);
        bench.report(1, 90.0, 0.3);
        bench.report(2, 45.0, 0.9);
        assert_eq!(bench.reweigh(), Weights { fallbacks: 0, usable: 3, not_yet: 1, stale: 0 });
        assert_shares(&bench.counts(20_000), &[100.0, 300.0, 50.0, 150.0]);
        // What is stale counts no more.
        tokio::time::advance(Duration::from_secs(100)).await;
        bench.report(0, 50.0, 0.5);
        bench.report(3, 90.0, 0.9);
        tokio::time::advance(Duration::from_secs(80)).await;
        assert_eq!(bench.reweigh(), Weights { fallbacks: 0, usable: 2, not_yet: 0, stale: 2 });
        assert_eq!(bench.counts(4000), [1000; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_warms_up_gets_its_part_of_what_its_load_says() {
        let bench = Bench::new(&[1000, 1000, 1000, 100]);
        bench.reweigh();
        assert_shares(&bench.counts(20_000), &[10.0, 10.0, 10.0, 1.0]);
        for index in 0..4 {
            bench.report(index, if index == 0 { 60.0 } else { 30.0 }, 0.5);
        }
        bench.reweigh();
        assert_shares(&bench.counts(20_000), &[20.0, 10.0, 10.0, 1.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_is_even_over_any_few_picks() {
        let bench = Bench::new(&[1; 3]);
        for (index, qps) in [(0, 50.0), (1, 30.0), (2, 20.0)] {
            bench.report(index, qps, 0.5);
        }
        bench.reweigh();
        for _ in 0..50 {
            for (picked, expected) in bench.counts(100).into_iter().zip([50_usize, 30, 20]) {
                assert!(picked.abs_diff(expected) <= 2, "{picked} instead of {expected}");
            }
        }
    }
}
