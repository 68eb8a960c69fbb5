//! Circuit breakers: counters with RAII guards (gRFC A32, A105; Envoy's thresholds of priority DEFAULT).
//!
//! Promises: never more guards than the limit of the moment, without a lock; a changed limit holds at once and
//! forgets nothing that is in flight. Counters belong to (cluster name, EDS service name) and are shared by
//! every channel of a mesh: [`Breakers`] is that registry, one per mesh and so one per process in practice.

use mesh_xds::{name::Name, resource::cluster::CircuitBreakers};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
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
        all.insert(key, Arc::downgrade(&counters));
        counters
    }
}

/// What is in flight in one cluster.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU32,
    pending: AtomicU32,
    connections: AtomicU32,
    retries: AtomicU32,
}

/// Which counter a permit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Requests,
    Pending,
    Connections,
    Retries,
}

impl Counters {
    /// One attempt, until the end of its stream.
    pub(crate) fn request(self: &Arc<Self>, limits: &CircuitBreakers) -> Option<Permit> {
        self.acquire(Resource::Requests, limits.max_requests)
    }

    /// One call waiting for a connection.
    pub(crate) fn pending(self: &Arc<Self>, limits: &CircuitBreakers) -> Option<Permit> {
        self.acquire(Resource::Pending, limits.max_pending_requests.unwrap_or(u32::MAX))
    }

    /// One connection. `first` of its endpoint is never refused, as in Envoy: the limit must not starve one.
    pub(crate) fn connection(self: &Arc<Self>, limits: &CircuitBreakers, first: bool) -> Option<Permit> {
        let limit = if first { None } else { limits.max_connections };
        self.acquire(Resource::Connections, limit.unwrap_or(u32::MAX))
    }

    /// One retry in flight, within the budget if there is one, else within `max_retries`.
    pub(crate) fn retry(self: &Arc<Self>, limits: &CircuitBreakers) -> Option<Permit> {
        let limit = match limits.retry_budget {
            None => limits.max_retries.unwrap_or(u32::MAX),
            Some(budget) => {
                let active = u64::from(self.requests.load(Relaxed)) + u64::from(self.pending.load(Relaxed));
                let share = active * u64::from(budget.budget.parts()) / 1_000_000;
                u32::try_from(share).unwrap_or(u32::MAX).max(budget.min_retry_concurrency)
            }
        };
        self.acquire(Resource::Retries, limit)
    }

    /// Attempts in flight.
    pub(crate) fn active(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    fn acquire(self: &Arc<Self>, resource: Resource, limit: u32) -> Option<Permit> {
        // A failed `fetch_add` that is taken back would for a moment refuse others: compare and swap instead.
        self.count(resource)
            .fetch_update(Relaxed, Relaxed, |held| (held < limit).then(|| held + 1))
            .ok()
            .map(|_| Permit { counters: Arc::clone(self), resource })
    }

    fn count(&self, resource: Resource) -> &AtomicU32 {
        match resource {
            Resource::Requests => &self.requests,
            Resource::Pending => &self.pending,
            Resource::Connections => &self.connections,
            Resource::Retries => &self.retries,
        }
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
    use mesh_xds::{matcher::Fraction, resource::cluster::RetryBudget};

    fn limits(max_requests: u32) -> CircuitBreakers {
        CircuitBreakers { max_requests, ..CircuitBreakers::default() }
    }

    #[test]
    fn the_default_admits_1024_and_no_more() {
        let counters = Arc::new(Counters::default());
        let permits: Vec<_> =
            (0..1024).map(|_| counters.request(&CircuitBreakers::default()).unwrap()).collect();
        assert!(counters.request(&CircuitBreakers::default()).is_none());
        drop(permits);
        assert_eq!(counters.active(), 0);
    }

    #[test]
    fn zero_admits_nothing() {
        assert!(Arc::new(Counters::default()).request(&limits(0)).is_none());
    }

    #[test]
    fn a_changed_limit_keeps_what_is_in_flight() {
        let counters = Arc::new(Counters::default());
        let first = counters.request(&limits(2)).unwrap();
        let _second = counters.request(&limits(2)).unwrap();
        assert!(counters.request(&limits(1)).is_none());
        drop(first);
        assert!(counters.request(&limits(1)).is_none());
        assert!(counters.request(&limits(2)).is_some());
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
        let limits = CircuitBreakers { retry_budget: Some(budget), max_retries: Some(0), ..limits(1024) };
        let minimum: Vec<_> = (0..3).map(|_| counters.retry(&limits).unwrap()).collect();
        assert!(counters.retry(&limits).is_none());
        let _active: Vec<_> = (0..20).map(|_| counters.request(&limits).unwrap()).collect();
        let _fourth = counters.retry(&limits).unwrap();
        assert!(counters.retry(&limits).is_none());
        drop(minimum);
        assert!(counters.retry(&limits).is_some());
    }

    #[test]
    fn the_first_connection_of_an_endpoint_is_never_refused() {
        let counters = Arc::new(Counters::default());
        let limits = CircuitBreakers { max_connections: Some(1), ..limits(1) };
        let _one = counters.connection(&limits, false).unwrap();
        assert!(counters.connection(&limits, false).is_none());
        assert!(counters.connection(&limits, true).is_some());
    }

    #[test]
    fn threads_never_hold_more_than_the_limit_and_always_get_the_last_one() {
        let counters = Arc::new(Counters::default());
        let limits = limits(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        // Two threads, two permits: neither is ever refused.
                        let permit = counters.request(&limits).unwrap();
                        assert!(counters.active() <= 2);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(counters.active(), 0);
    }
}
