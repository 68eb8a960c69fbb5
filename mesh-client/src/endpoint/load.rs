//! The weight that an endpoint's own load reports make (gRFC A58, A114).
//!
//! Promises: a report costs a few relaxed atomic operations and reads the clock once; an endpoint whose cluster
//! does not ask for reports pays one flag a call. The weight outlives changes of the policy; a new connection
//! begins the blackout anew.

use crate::lb::load_weight::{self, Unusable};
use arc_swap::ArcSwapOption;
use mesh_xds::{
    orca::LoadReport,
    resource::cluster::{ClientSideWeightedRoundRobin, LbPolicy},
};
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};
use tokio::time::Instant;

const NEVER: u64 = u64::MAX;

/// What an endpoint said of its load, as a weight.
#[derive(Debug)]
pub(crate) struct LoadWeight {
    /// Reports come with responses.
    with_calls: AtomicBool,
    policy: ArcSwapOption<ClientSideWeightedRoundRobin>,
    /// It was said that reports make no weight.
    complained: AtomicBool,
    /// Times below are nanoseconds from then.
    base: Instant,
    /// Bits of a number.
    weight: AtomicU64,
    /// When the last report came that made a weight.
    updated: AtomicU64,
    /// From when on such reports have come without a break.
    reported_since: AtomicU64,
}

impl LoadWeight {
    pub(super) fn new() -> Self {
        Self {
            with_calls: AtomicBool::new(false),
            policy: ArcSwapOption::empty(),
            complained: AtomicBool::new(false),
            base: Instant::now(),
            weight: AtomicU64::new(0),
            updated: AtomicU64::new(NEVER),
            reported_since: AtomicU64::new(NEVER),
        }
    }

    /// Takes in how the cluster balances.
    pub(super) fn follow(&self, lb: &LbPolicy) {
        let policy = match lb {
            LbPolicy::ClientSideWeightedRoundRobin(policy) => Some(&**policy),
            _ => None,
        };
        if self.policy.load().as_deref() != policy {
            self.policy.store(policy.map(|policy| Arc::new(policy.clone())));
        }
        self.with_calls.store(policy.is_some_and(|policy| policy.out_of_band.is_none()), Relaxed);
    }

    /// Whether trailers are to be read.
    pub(crate) fn comes_with_calls(&self) -> bool {
        self.with_calls.load(Relaxed)
    }

    /// There was no connection, and there is one.
    pub(super) fn on_connected(&self) {
        self.reported_since.store(NEVER, Relaxed);
    }

    /// Takes in a report; false: it makes no weight, which is to be said now.
    pub(crate) fn update(&self, report: &LoadReport) -> bool {
        let policy = self.policy.load();
        let Some(policy) = policy.as_deref() else { return true };
        let Some(weight) = load_weight::of(report, policy) else {
            return self.complained.swap(true, Relaxed);
        };
        let now = self.nanos(Instant::now());
        self.weight.store(weight.to_bits(), Relaxed);
        // Whoever sees the time sees the weight, or a later one.
        self.updated.store(now, Release);
        let _ = self.reported_since.compare_exchange(NEVER, now, Relaxed, Relaxed);
        true
    }

    /// The weight, if it is to be used now.
    pub(crate) fn get(&self, policy: &ClientSideWeightedRoundRobin, now: Instant) -> Result<f64, Unusable> {
        let updated = self.updated.load(Acquire);
        if updated == NEVER {
            return Err(Unusable::NotYet);
        }
        let now = self.nanos(now);
        let since = |then| Duration::from_nanos(now.saturating_sub(then));
        if since(updated) >= policy.weight_expiration_period {
            self.reported_since.store(NEVER, Relaxed);
            return Err(Unusable::Stale);
        }
        let reported_since = self.reported_since.load(Relaxed);
        let in_blackout = reported_since == NEVER || since(reported_since) < policy.blackout_period;
        if in_blackout && !policy.blackout_period.is_zero() {
            return Err(Unusable::NotYet);
        }
        Ok(f64::from_bits(self.weight.load(Relaxed)))
    }

    fn nanos(&self, time: Instant) -> u64 {
        let nanos = time.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos).unwrap_or(NEVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> ClientSideWeightedRoundRobin {
        ClientSideWeightedRoundRobin::default()
    }

    fn reporting(policy: ClientSideWeightedRoundRobin) -> LoadWeight {
        let weight = LoadWeight::new();
        weight.follow(&LbPolicy::ClientSideWeightedRoundRobin(Box::new(policy)));
        weight
    }

    fn report(qps: f64) -> LoadReport {
        LoadReport { rps_fractional: qps, application_utilization: 0.5, ..LoadReport::default() }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_weight_is_used_after_the_blackout_and_until_it_expires() {
        let weight = reporting(policy());
        let get = || weight.get(&policy(), Instant::now());
        assert_eq!(get(), Err(Unusable::NotYet));
        weight.update(&report(100.0));
        assert_eq!(get(), Err(Unusable::NotYet));
        pass(9).await;
        weight.update(&report(110.0));
        assert_eq!(get(), Err(Unusable::NotYet));
        pass(1).await;
        assert_eq!(get(), Ok(220.0));
        pass(178).await;
        assert_eq!(get(), Ok(220.0));
        pass(1).await;
        assert_eq!(get(), Err(Unusable::Stale));
        // What comes after that is used after another blackout.
        weight.update(&report(50.0));
        assert_eq!(get(), Err(Unusable::NotYet));
        pass(10).await;
        assert_eq!(get(), Ok(100.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_begins_the_blackout_anew() {
        let weight = reporting(policy());
        weight.update(&report(100.0));
        pass(10).await;
        weight.on_connected();
        assert_eq!(weight.get(&policy(), Instant::now()), Err(Unusable::NotYet));
        pass(5).await;
        weight.update(&report(100.0));
        pass(9).await;
        assert_eq!(weight.get(&policy(), Instant::now()), Err(Unusable::NotYet));
        pass(1).await;
        assert_eq!(weight.get(&policy(), Instant::now()), Ok(200.0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_blackout_the_first_report_counts_at_once() {
        let policy = ClientSideWeightedRoundRobin { blackout_period: Duration::ZERO, ..policy() };
        let weight = reporting(policy.clone());
        weight.update(&report(10.0));
        assert_eq!(weight.get(&policy, Instant::now()), Ok(20.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_without_a_weight_changes_nothing_and_is_complained_of_once() {
        let weight = reporting(policy());
        weight.update(&report(10.0));
        pass(100).await;
        assert!(!weight.update(&report(0.0)));
        assert!(weight.update(&report(0.0)));
        assert_eq!(weight.get(&policy(), Instant::now()), Ok(20.0));
        pass(80).await;
        assert_eq!(weight.get(&policy(), Instant::now()), Err(Unusable::Stale));
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_are_read_where_reports_come_with_calls_and_nowhere_else() {
        let weight = LoadWeight::new();
        let weighted = |out_of_band| {
            LbPolicy::ClientSideWeightedRoundRobin(Box::new(ClientSideWeightedRoundRobin {
                out_of_band,
                ..policy()
            }))
        };
        for (lb, expected) in [
            (LbPolicy::RoundRobin, false),
            (weighted(None), true),
            (weighted(Some(Duration::from_secs(10))), false),
            (LbPolicy::Random, false),
        ] {
            weight.follow(&lb);
            assert_eq!(weight.comes_with_calls(), expected, "{lb:?}");
        }
    }
}
