//! Circuit breakers: counters with RAII guards (gRFC A32, A105; Envoy's thresholds of both priorities).
//!
//! Promises: never more guards than the limit of the moment, without a lock; a changed limit holds at once and
//! forgets nothing that is in flight. Counters belong to (cluster name, EDS service name) and are shared by
//! every channel of a process: [`Breakers`] is that registry, one for all meshes that join by the same.

use mesh_xds::{
    name::Name,
    resource::{cluster::Thresholds, route::RoutingPriority},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// Counters by (cluster name, EDS service name). They live as long as someone holds them.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    counters: Mutex<HashMap<(Name, Name), Weak<Counters>>>,
}

impl Breakers {
    /// The counters of this cluster, shared with whoever asked before.
    pub(crate) fn counters(&self, cluster: &Name, service: &Name) -> Arc<Counters> {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, counters| counters.strong_count() > 0);
        let key = (Arc::clone(cluster), Arc::clone(service));
        if let Some(counters) = all.get(&key).and_then(Weak::upgrade) {
            return counters;
        }
        let counters = Arc::new(Counters::default());
        #[cfg(test)]
        crate::testing::held::watch(&counters, Counters::guards);
        all.insert(key, Arc::downgrade(&counters));
        counters
    }
}

/// What is in flight in one cluster.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    default: Counted,
    high: Counted,
    /// Shared by all priorities.
    connections: AtomicU32,
}

/// What is in flight of one priority.
#[derive(Debug, Default)]
struct Counted {
    requests: AtomicU32,
    pending: AtomicU32,
    retries: AtomicU32,
    /// Since the beginning.
    refused: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) requests: u32,
    pub(crate) pending: u32,
    pub(crate) retries: u32,
    /// Since the beginning.
    pub(crate) refused: u64,
}

/// Which counter a permit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Requests(RoutingPriority),
    Pending(RoutingPriority),
    Connections,
    Retries(RoutingPriority),
}

impl Counters {
    /// One attempt, until the end of its stream.
    pub(crate) fn request(self: &Arc<Self>, priority: RoutingPriority, limit: u32) -> Option<Permit> {
        self.acquire(Resource::Requests(priority), limit)
    }

    /// One call waiting for a connection.
    pub(crate) fn pending(
        self: &Arc<Self>,
        priority: RoutingPriority,
        limits: &Thresholds,
    ) -> Option<Permit> {
        self.acquire(Resource::Pending(priority), limits.max_pending_requests.unwrap_or(u32::MAX))
    }

    /// One connection. `first` of its endpoint is never refused, as in Envoy: the limit must not starve one.
    pub(crate) fn connection(self: &Arc<Self>, limit: Option<u32>, first: bool) -> Option<Permit> {
        let limit = if first { None } else { limit };
        self.acquire(Resource::Connections, limit.unwrap_or(u32::MAX))
    }

    /// One retry in flight, within the budget if there is one, else within `max_retries`.
    pub(crate) fn retry(self: &Arc<Self>, priority: RoutingPriority, limits: &Thresholds) -> Option<Permit> {
        let limit = match limits.retry_budget {
            None => limits.max_retries.unwrap_or(u32::MAX),
            Some(budget) => {
                let Held { requests, pending, .. } = self.held(priority);
                let active = u64::from(requests) + u64::from(pending);
                let share = active * u64::from(budget.budget.parts()) / 1_000_000;
                u32::try_from(share).unwrap_or(u32::MAX).max(budget.min_retry_concurrency)
            }
        };
        self.acquire(Resource::Retries(priority), limit)
    }

    /// A limit let nobody through.
    pub(crate) fn refused(&self, priority: RoutingPriority) {
        self.of(priority).refused.fetch_add(1, Relaxed);
    }

    /// Attempts in flight, of all priorities.
    pub(crate) fn active(&self) -> u32 {
        self.default.requests.load(Relaxed).saturating_add(self.high.requests.load(Relaxed))
    }

    /// What is counted of a priority.
    pub(crate) fn held(&self, priority: RoutingPriority) -> Held {
        let Counted { requests, pending, retries, refused } = self.of(priority);
        Held {
            requests: requests.load(Relaxed),
            pending: pending.load(Relaxed),
            retries: retries.load(Relaxed),
            refused: refused.load(Relaxed),
        }
    }

    /// What calls hold, of all priorities. For tests.
    #[cfg(test)]
    pub(super) fn guards(&self) -> [(&'static str, u64); 3] {
        let of = [RoutingPriority::Default, RoutingPriority::High].map(|priority| self.held(priority));
        let sum = |count: fn(&Held) -> u32| of.iter().map(|held| u64::from(count(held))).sum();
        [
            ("requests", sum(|held| held.requests)),
            ("pending", sum(|held| held.pending)),
            ("retries", sum(|held| held.retries)),
        ]
    }

    fn acquire(self: &Arc<Self>, resource: Resource, limit: u32) -> Option<Permit> {
        // A failed `fetch_add` that is taken back would for a moment refuse others: compare and swap instead.
        self.count(resource)
            .fetch_update(Relaxed, Relaxed, |held| (held < limit).then(|| held + 1))
            .ok()
            .map(|_| Permit { counters: Arc::clone(self), resource })
    }

    fn of(&self, priority: RoutingPriority) -> &Counted {
        match priority {
            RoutingPriority::Default => &self.default,
            RoutingPriority::High => &self.high,
        }
    }

    fn count(&self, resource: Resource) -> &AtomicU32 {
        match resource {
            Resource::Requests(priority) => &self.of(priority).requests,
            Resource::Pending(priority) => &self.of(priority).pending,
            Resource::Connections => &self.connections,
            Resource::Retries(priority) => &self.of(priority).retries,
        }
    }
}

/// A limit's priority, in an error.
pub(super) fn of_priority(priority: RoutingPriority) -> &'static str {
    match priority {
        RoutingPriority::Default => "",
        RoutingPriority::High => " of priority HIGH",
    }
}

/// One unit of a counter; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub(crate) struct Permit {
    counters: Arc<Counters>,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counters.count(self.resource).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RoutingPriority::{Default as Usual, High};
    use mesh_xds::{matcher::Fraction, resource::cluster::RetryBudget};

    #[test]
    fn the_default_admits_1024_and_no_more() {
        let counters = Arc::new(Counters::default());
        let permits: Vec<_> =
            (0..1024).map(|_| counters.request(Usual, Thresholds::default().max_requests).unwrap()).collect();
        assert!(counters.request(Usual, Thresholds::default().max_requests).is_none());
        drop(permits);
        assert_eq!(counters.active(), 0);
    }

    #[test]
    fn zero_admits_nothing() {
        assert!(Arc::new(Counters::default()).request(Usual, 0).is_none());
    }

    #[test]
    fn a_changed_limit_keeps_what_is_in_flight() {
        let counters = Arc::new(Counters::default());
        let first = counters.request(Usual, 2).unwrap();
        let _second = counters.request(Usual, 2).unwrap();
        assert!(counters.request(Usual, 1).is_none());
        drop(first);
        assert!(counters.request(Usual, 1).is_none());
        assert!(counters.request(Usual, 2).is_some());
    }

    #[test]
    fn two_channels_share_the_counters_of_a_cluster_and_service() {
        let breakers = Breakers::default();
        let (reviews, ratings): (Name, Name) = ("reviews".into(), "ratings".into());
        let first = breakers.counters(&reviews, &reviews);
        assert!(Arc::ptr_eq(&first, &breakers.counters(&reviews, &reviews)));
        assert!(!Arc::ptr_eq(&first, &breakers.counters(&reviews, &ratings)));
        drop(first);
        assert_eq!(breakers.counters(&reviews, &reviews).active(), 0);
    }

    #[test]
    fn a_retry_budget_is_a_share_of_what_is_in_flight_but_at_least_its_minimum() {
        let counters = Arc::new(Counters::default());
        let budget = RetryBudget { budget: Fraction::per_million(200_000), min_retry_concurrency: 3 };
        let limits = Thresholds { retry_budget: Some(budget), max_retries: Some(0), ..Thresholds::default() };
        let minimum: Vec<_> = (0..3).map(|_| counters.retry(Usual, &limits).unwrap()).collect();
        assert!(counters.retry(Usual, &limits).is_none());
        let _active: Vec<_> = (0..20).map(|_| counters.request(Usual, 1024).unwrap()).collect();
        let _fourth = counters.retry(Usual, &limits).unwrap();
        assert!(counters.retry(Usual, &limits).is_none());
        drop(minimum);
        assert!(counters.retry(Usual, &limits).is_some());
    }

    #[test]
    fn priorities_are_counted_apart() {
        let counters = Arc::new(Counters::default());
        let _usual = counters.request(Usual, 1).unwrap();
        assert!(counters.request(Usual, 1).is_none());
        let high: Vec<_> = (0..2).map(|_| counters.request(High, 2).unwrap()).collect();
        assert!(counters.request(High, 2).is_none());
        assert_eq!(
            (counters.active(), counters.held(Usual).requests, counters.held(High).requests),
            (3, 1, 2)
        );
        // A share of what is in flight of the same priority.
        let budget = RetryBudget { budget: Fraction::per_million(500_000), min_retry_concurrency: 0 };
        let limits = Thresholds { retry_budget: Some(budget), ..Thresholds::default() };
        assert!(counters.retry(Usual, &limits).is_none());
        let retry = counters.retry(High, &limits).unwrap();
        let pending = counters.pending(High, &limits).unwrap();
        counters.refused(High);
        assert_eq!(counters.held(High), Held { requests: 2, pending: 1, retries: 1, refused: 1 });
        drop((high, retry, pending));
        assert_eq!(counters.held(High), Held { refused: 1, ..Held::default() });
        assert_eq!(counters.held(Usual), Held { requests: 1, ..Held::default() });
    }

    #[test]
    fn the_first_connection_of_an_endpoint_is_never_refused() {
        let counters = Arc::new(Counters::default());
        let _one = counters.connection(Some(1), false).unwrap();
        assert!(counters.connection(Some(1), false).is_none());
        assert!(counters.connection(Some(1), true).is_some());
    }

    #[test]
    fn threads_never_hold_more_than_the_limit_and_always_get_the_last_one() {
        let counters = Arc::new(Counters::default());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        // Two threads, two permits: neither is ever refused.
                        let permit = counters.request(Usual, 2).unwrap();
                        assert!(counters.active() <= 2);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(counters.active(), 0);
    }
}
