//! Clusters (gRFC A27, A32, A48, A50, A62, A105 and the fields of Envoy that Istio uses).

mod outlier;
pub(super) mod wire;

use super::{Origin, tls::UpstreamTls};
use crate::{matcher::Fraction, name::Name};
use std::{sync::Arc, time::Duration};

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Resource name: `outbound|9080|v1|reviews.default.svc.cluster.local`.
    pub name: Name,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is picked.
    pub lb: LbPolicy,
    /// Limits (priority DEFAULT).
    pub circuit_breakers: CircuitBreakers,
    /// Absent: nothing is ejected.
    pub outlier_detection: Option<OutlierDetection>,
    /// Absent: plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Connections.
    pub connection: ConnectionOptions,
    /// Below this share of healthy endpoints, health is ignored. Absent: never (gRPC has no panic mode).
    pub panic_threshold: Option<Fraction>,
    /// Where it was written. From `metadata.filter_metadata["io.mesh"].origin`.
    pub origin: Option<Origin>,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Discovery {
    /// The ClusterLoadAssignment of this name, over the same ADS stream.
    Eds(Name),
}

/// How an endpoint is picked among the ready ones of a priority.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The least loaded of `choices` random ones (gRFC A48: 2..=10; Envoy's weighting by endpoint weight).
    LeastRequest {
        /// How many are compared.
        choices: u32,
    },
    /// Any, by weight.
    Random,
    /// One, until it fails (gRFC A62).
    PickFirst {
        /// Addresses are shuffled first.
        shuffle: bool,
    },
}

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

/// Outlier detection: Envoy's consecutive counters and gRFC A50's two statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// Between sweeps. Default 10 s.
    pub interval: Duration,
    /// Ejection lasts this times the number of ejections. Default 30 s.
    pub base_ejection_time: Duration,
    /// Longest ejection. Default the larger of 300 s and `base_ejection_time`.
    pub max_ejection_time: Duration,
    /// Share of the endpoints ejected at most, though one always may be. Default 10 %. In percent.
    pub max_ejection_percent: u32,
    /// Consecutive errors (HTTP 5xx, and the gRPC statuses that map to them); absent: not counted.
    pub consecutive_5xx: Option<Consecutive>,
    /// Consecutive gateway errors (502, 503, 504: gRPC UNAVAILABLE and DEADLINE_EXCEEDED).
    pub consecutive_gateway_failure: Option<Consecutive>,
    /// Consecutive failures to connect, or resets; only with `split_external_local_origin_errors`.
    pub consecutive_local_origin_failure: Option<Consecutive>,
    /// Failures made here are counted apart from answers of the endpoint.
    pub split_external_local_origin_errors: bool,
    /// Success rate (A50); absent: off.
    pub success_rate: Option<SuccessRate>,
    /// Failure percentage (A50); absent: off.
    pub failure_percentage: Option<FailurePercentage>,
}

/// A limit of consecutive errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consecutive {
    /// This many eject; at least 1.
    pub threshold: u32,
    /// Chance of really ejecting, in percent; at most 100.
    pub enforcing: u32,
}

/// Ejects endpoints whose success rate is far below the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Thousandths of a standard deviation. Default 1900.
    pub stdev_factor: u32,
    /// In percent; default 100.
    pub enforcing: u32,
    /// Fewer endpoints with enough volume: nothing happens. Default 5.
    pub minimum_hosts: u32,
    /// Calls in an interval that make an endpoint count. Default 100.
    pub request_volume: u32,
}

/// Ejects endpoints that fail more than a share of their calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// In percent; strictly more ejects. Default 85.
    pub threshold: u32,
    /// In percent.
    pub enforcing: u32,
    /// Default 5.
    pub minimum_hosts: u32,
    /// Default 50.
    pub request_volume: u32,
}

/// Options of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// Until TCP and TLS are up. Default 5 s in Envoy; Istio sends 10 s.
    pub connect_timeout: Duration,
    /// Then a connection is replaced; 0 is unlimited.
    pub max_requests_per_connection: u32,
    /// A connection without calls is closed after this; absent: 1 h; zero: never.
    pub idle_timeout: Option<Duration>,
    /// A connection is replaced after this.
    pub max_connection_duration: Option<Duration>,
    /// HTTP/2 PING.
    pub http2_keepalive: Option<Http2Keepalive>,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Streams on one connection at most; absent: what the server says.
    pub max_concurrent_streams: Option<u32>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            max_requests_per_connection: 0,
            idle_timeout: None,
            max_connection_duration: None,
            http2_keepalive: None,
            tcp_keepalive: None,
            max_concurrent_streams: None,
        }
    }
}

/// HTTP/2 PING frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Between pings.
    pub interval: Duration,
    /// Until the answer.
    pub timeout: Duration,
}

/// Options of the socket; absent ones are the operating system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes that end the connection.
    pub probes: Option<u32>,
    /// Silence before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}
