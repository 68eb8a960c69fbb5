//! Active health checks (Envoy's `health_checks`; gRPC knows them only as `grpc.health.v1`).

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use std::{sync::Arc, time::Duration};

/// How endpoints are asked whether they are healthy. There is at most one, as in Envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// Until the answer; longer is a failure.
    pub timeout: Duration,
    /// Between checks of an endpoint.
    pub interval: Duration,
    /// The first check comes after a random time below this. Zero: at once.
    pub initial_jitter: Duration,
    /// A random time below this is added to every interval.
    pub interval_jitter: Duration,
    /// A random share of the interval, up to this many percent, is added to it.
    pub interval_jitter_percent: u32,
    /// Consecutive failures after which an endpoint is unhealthy; at least 1.
    pub unhealthy_threshold: u32,
    /// Consecutive successes after which it is healthy; at least 1. The very first success is enough.
    pub healthy_threshold: u32,
    /// Asked instead of the endpoint's own port; not zero.
    pub alt_port: Option<u16>,
    /// Checks of an endpoint share a connection. Default true.
    pub reuse_connection: bool,
    /// Between checks while the cluster has never had a call. Default 60 s.
    pub no_traffic_interval: Duration,
    /// Like `no_traffic_interval`, for endpoints that are healthy; absent: the same.
    pub no_traffic_healthy_interval: Option<Duration>,
    /// Between checks of an unhealthy endpoint; absent: `interval`.
    pub unhealthy_interval: Option<Duration>,
    /// Until the check after the one that made an endpoint unhealthy; absent: `unhealthy_interval`.
    pub unhealthy_edge_interval: Option<Duration>,
    /// Until the check after the one that made it healthy; absent: `interval`.
    pub healthy_edge_interval: Option<Duration>,
    /// A new endpoint gets no call before its first check (`ignore_new_hosts_until_first_hc`).
    pub ignore_new_until_first_check: bool,
}

/// What is asked of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthProbe {
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service_name: Arc<str>,
        /// `:authority`; absent: the cluster's name.
        authority: Option<Arc<str>>,
        /// Sent along.
        metadata: Vec<(HeaderName, HeaderValue)>,
    },
    /// A TCP connection.
    Tcp {
        /// Sent first; empty: nothing, and connecting is enough.
        send: Bytes,
        /// All of these must be in the answer, in this order, other bytes between them or not.
        receive: Vec<Bytes>,
    },
}
