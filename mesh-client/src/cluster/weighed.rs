//! What weighing endpoints by their load came to, counted as gRPC does (A78).

use crate::{lb::weighted::Weights, telemetry::Counter};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Weighed {
    updates: Counter,
    fallbacks: Counter,
    not_yet: Counter,
    stale: Counter,
    usable_now: AtomicU64,
}

/// How the endpoints of a cluster are weighed by their load reports (`client_side_weighted_round_robin`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WeightedRoundRobinStatus {
    /// Updates of the weights so far.
    pub updates: u64,
    /// Of those, the ones in which fewer than two endpoints (of some locality) had a weight, so that calls went
    /// to all in turn: gRPC's `grpc.lb.wrr.rr_fallback`.
    pub rr_fallback: u64,
    /// Endpoints without a weight so far, summed over the updates: `grpc.lb.wrr.endpoint_weight_not_yet_usable`.
    pub endpoint_weight_not_yet_usable: u64,
    /// Endpoints whose weight had expired, summed over the updates: `grpc.lb.wrr.endpoint_weight_stale`.
    pub endpoint_weight_stale: u64,
    /// Endpoints with a weight at the last update.
    pub weighted_endpoints: u64,
}

impl Weighed {
    pub(crate) fn count(&self, weights: Weights) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.updates.add(1);
        self.fallbacks.add(u64::from(weights.fallbacks > 0));
        self.not_yet.add(number(weights.not_yet));
        self.stale.add(number(weights.stale));
        self.usable_now.store(number(weights.usable), Relaxed);
    }

    /// None: nothing was ever weighed.
    pub(crate) fn read(&self) -> Option<WeightedRoundRobinStatus> {
        let updates = self.updates.read();
        (updates > 0).then(|| WeightedRoundRobinStatus {
            updates,
            rr_fallback: self.fallbacks.read(),
            endpoint_weight_not_yet_usable: self.not_yet.read(),
            endpoint_weight_stale: self.stale.read(),
            weighted_endpoints: self.usable_now.load(Relaxed),
        })
    }
}
