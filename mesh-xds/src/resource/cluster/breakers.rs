//! Limits of concurrency (gRFC A32, A105; Envoy's priorities).

use crate::{matcher::Fraction, resource::route::RoutingPriority};

/// Limits of concurrency; absent means unlimited, except `max_requests` whose default is 1024 (gRFC A32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// Attempts in flight, streams included, for as long as they last.
    pub max_requests: u32,
    /// Calls waiting for a connection.
    pub max_pending_requests: Option<u32>,
    /// Connections of the cluster.
    pub max_connections: Option<u32>,
    /// Retries in flight; ignored when `retry_budget` is set.
    pub max_retries: Option<u32>,
    /// Retries as a share of what is in flight.
    pub retry_budget: Option<RetryBudget>,
    /// Connections to one endpoint (gRFC A105); default 1, at most 10.
    pub max_connections_per_endpoint: u32,
    /// Of calls of priority HIGH, which are counted apart; connections are shared by all.
    pub high: Thresholds,
}

/// Limits of the calls of one priority, as in [`CircuitBreakers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Attempts in flight. Default 1024.
    pub max_requests: u32,
    /// Calls waiting for a connection.
    pub max_pending_requests: Option<u32>,
    /// Retries in flight; ignored when `retry_budget` is set.
    pub max_retries: Option<u32>,
    /// Retries as a share of what is in flight of this priority.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { max_requests: 1024, max_pending_requests: None, max_retries: None, retry_budget: None }
    }
}

impl CircuitBreakers {
    /// Those of a priority.
    pub fn of(&self, priority: RoutingPriority) -> Thresholds {
        let Self { max_requests, max_pending_requests, max_retries, retry_budget, .. } = *self;
        match priority {
            RoutingPriority::Default => {
                Thresholds { max_requests, max_pending_requests, max_retries, retry_budget }
            }
            RoutingPriority::High => self.high,
        }
    }
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        Self {
            max_requests: 1024,
            max_pending_requests: None,
            max_connections: None,
            max_retries: None,
            retry_budget: None,
            max_connections_per_endpoint: 1,
            high: Thresholds::default(),
        }
    }
}

/// Retries allowed at once: a share of the calls in flight, but at least `min_retry_concurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share of active and pending requests. Default 20 %.
    pub budget: Fraction,
    /// Default 3.
    pub min_retry_concurrency: u32,
}
