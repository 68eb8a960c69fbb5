//! When endpoints are weighed by what they say of their load: whenever a picker is built, and between that as
//! often as the policy says. The picker is not replaced for it, and nobody is woken.

use super::Actor;
use crate::lb::weighted::Weights;
use mesh_xds::resource::cluster::{ClientSideWeightedRoundRobin, LbPolicy};
use tokio::time::Instant;

/// Of a cluster whose policy is client-side weighted round robin.
#[derive(Debug, Default)]
pub(super) struct Weighing {
    at: Option<Instant>,
    /// Too few endpoints have a weight. None: not known yet.
    falls_back: Option<bool>,
}

impl Weighing {
    /// Ends when it is time; never, where nothing is weighed.
    pub(super) async fn due(at: Option<Instant>) {
        match at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }
}

impl Actor {
    fn weighed_by(&self) -> Option<&ClientSideWeightedRoundRobin> {
        match &self.config.cluster.lb {
            LbPolicy::ClientSideWeightedRoundRobin(policy) => Some(policy),
            _ => None,
        }
    }

    /// Takes in the policy: weights are due if there are any.
    pub(super) fn plan_weighing(&mut self) {
        match self.weighed_by().map(|policy| policy.weight_update_period) {
            None => self.weighing = Weighing::default(),
            Some(period) => {
                // An update that comes more often than weights are due does not put them off.
                let at = Instant::now() + period;
                self.weighing.at = Some(self.weighing.at.map_or(at, |before| before.min(at)));
            }
        }
    }

    /// Weighs the endpoints of the picker that calls use.
    pub(super) fn weigh(&mut self) {
        let period = self.weighed_by().map(|policy| policy.weight_update_period);
        let now = Instant::now();
        self.weighing.at = period.map(|period| now + period);
        if let Some(weights) = self.balancers.reweigh(now) {
            self.shared.weighed.count(weights);
            self.tell_of_fallback(weights);
        }
    }

    fn tell_of_fallback(&mut self, weights: Weights) {
        let falls_back = weights.fallbacks > 0;
        let before = self.weighing.falls_back.replace(falls_back);
        if before == Some(falls_back) {
            return;
        }
        let (cluster, Weights { usable, not_yet, stale, .. }) = (&self.shared.name, weights);
        if falls_back {
            tracing::info!(
                %cluster, usable, not_yet, stale,
                "plain round robin: fewer than two endpoints of a locality have a weight from their load reports"
            );
        } else {
            tracing::info!(%cluster, usable, not_yet, stale, "endpoints are weighed by their load reports");
        }
    }
}
