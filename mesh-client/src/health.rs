//! Active health checks (Envoy's `health_checks`): what the answers mean and when to ask again. Sans-IO.
//!
//! Promises: an endpoint gets no call before its first check has succeeded; the first answer counts at once, later
//! ones by the thresholds. A server that *says* it is not serving is unhealthy at once, as in Envoy; one that cannot
//! be asked (no connection, no answer in time, a reset) when that happened `unhealthy_threshold` times in a row.
//! Intervals follow Envoy's order: no traffic, then unhealthy or healthy, each with an interval of its own after the
//! check that changed the state; then the jitters.
//!
//! A check has a connection of its own, as in Envoy, with the TLS of calls: it waits behind no call and counts in no
//! circuit breaker, outlier detection or load report. [`probe`] asks, [`task`] does so again and again.

pub(crate) mod probe;
pub(crate) mod task;
#[cfg(test)]
pub(crate) mod tests;

use mesh_xds::resource::cluster::HealthCheck;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub(crate) status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    /// As messages say it; of this service.
    pub(crate) fn name(self, service: &str) -> String {
        match self {
            Self::Unknown => "UNKNOWN".to_owned(),
            Self::Serving => "SERVING".to_owned(),
            Self::NotServing => "NOT_SERVING".to_owned(),
            Self::ServiceUnknown => {
                format!("SERVICE_UNKNOWN: its health service does not know the service `{service}`")
            }
        }
    }
}

/// What is known of an endpoint by asking it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Nobody asks: what the control plane says holds.
    #[default]
    Not,
    /// It has not answered yet.
    Pending,
    Healthy,
    /// With the reason of the last failure.
    Unhealthy(Arc<str>),
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// SERVING, or what was to be received.
    Serving,
    /// The server says that it does not serve.
    NotServing(Arc<str>),
    /// It could not be asked.
    Failed(Arc<str>),
}

/// The checks of one endpoint.
#[derive(Debug)]
pub(crate) struct Machine {
    state: Checked,
    due: Instant,
    /// In a row, against the state.
    successes: u32,
    failures: u32,
}

impl Machine {
    /// The first check comes at once, or after a part of `initial_jitter`.
    pub(crate) fn new(now: Instant, check: &HealthCheck, rng: &mut fastrand::Rng) -> Self {
        let due = now + below(check.initial_jitter, rng);
        Self { state: Checked::Pending, due, successes: 0, failures: 0 }
    }

    pub(crate) fn state(&self) -> &Checked {
        &self.state
    }

    /// When to ask.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Another configuration holds from now on; what is known stays known.
    pub(crate) fn reconfigure(&mut self, now: Instant, check: &HealthCheck) {
        self.due = self.due.min(now + check.interval);
    }

    /// Takes in an answer. `used`: the cluster has had calls. True: the state is another.
    pub(crate) fn on(
        &mut self,
        now: Instant,
        answer: Answer,
        check: &HealthCheck,
        used: bool,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let next = match answer {
            Answer::Serving => self.on_success(check),
            Answer::NotServing(why) => self.on_failure(why, true, check),
            Answer::Failed(why) => self.on_failure(why, false, check),
        };
        let changed = next.is_some();
        if let Some(next) = next {
            (self.successes, self.failures) = (0, 0);
            self.state = next;
        }
        self.due = now + self.interval(check, changed, used, rng);
        changed
    }

    fn on_success(&mut self, check: &HealthCheck) -> Option<Checked> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        let enough = match self.state {
            Checked::Not | Checked::Healthy => false,
            Checked::Pending => true,
            Checked::Unhealthy(_) => self.successes >= check.healthy_threshold,
        };
        enough.then_some(Checked::Healthy)
    }

    fn on_failure(&mut self, why: Arc<str>, said: bool, check: &HealthCheck) -> Option<Checked> {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let enough = match &mut self.state {
            Checked::Not => false,
            Checked::Pending => true,
            Checked::Healthy => said || self.failures >= check.unhealthy_threshold,
            Checked::Unhealthy(reason) => {
                // No other state, only the latest reason.
                *reason = why;
                return None;
            }
        };
        enough.then_some(Checked::Unhealthy(why))
    }

    fn interval(&self, check: &HealthCheck, changed: bool, used: bool, rng: &mut fastrand::Rng) -> Duration {
        let healthy = self.state == Checked::Healthy;
        let unhealthy = check.unhealthy_interval.unwrap_or(check.interval);
        let base = match (used, healthy, changed) {
            (false, true, _) => check.no_traffic_healthy_interval.unwrap_or(check.no_traffic_interval),
            (false, false, _) => check.no_traffic_interval,
            (true, true, true) => check.healthy_edge_interval.unwrap_or(check.interval),
            (true, true, false) => check.interval,
            (true, false, true) => check.unhealthy_edge_interval.unwrap_or(unhealthy),
            (true, false, false) => unhealthy,
        };
        let share = base.saturating_mul(check.interval_jitter_percent) / 100;
        base + below(share, rng) + below(check.interval_jitter, rng)
    }
}

/// A random time below `limit`; zero if that is zero.
fn below(limit: Duration, rng: &mut fastrand::Rng) -> Duration {
    limit.mul_f64(rng.f64())
}
