//! Retry policy (gRFC A44 and Envoy's further fields).

pub(super) mod wire;

use super::route::HeaderName;
use crate::matcher::{Fraction, HeaderMatcher};
use std::{num::NonZeroU32, time::Duration};

/// How failed attempts are repeated. An explicit policy replaces the virtual host's, whatever it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Which outcomes are retried.
    pub on: RetryOn,
    /// Attempts after the first; at least 1.
    pub num_retries: u32,
    /// Bound of each attempt, the first included.
    pub per_try_timeout: Option<Duration>,
    /// Bound of the silence within an attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// Wait before a retry.
    pub back_off: BackOff,
    /// `retry_host_predicate: previous_hosts`: prefer endpoints not tried by this call.
    pub avoid_previous_hosts: bool,
    /// How often a pick is repeated to avoid such an endpoint.
    pub host_selection_attempts: u32,
    /// `retry_priority: previous_priorities`: the priorities that a call has tried take no further attempt of it;
    /// which they are is decided anew after every so many attempts (`update_frequency`).
    pub previous_priorities: Option<NonZeroU32>,
    /// HTTP status codes for `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests that match one of these are retried; empty: all.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// Response headers that say when to come back (`rate_limited_retry_back_off`).
    pub rate_limited: Option<RateLimitedBackOff>,
}

/// Attempts beside one another (Envoy's `hedge_policy`). One that asks for nothing is none. gRPC's hedging policy
/// (A6) stands in service configs, which xDS does not carry: what its `hedgingDelay`, `maxAttempts` and
/// `nonFatalStatusCodes` say is said here by the retry policy beside this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    /// Attempts that are made at once; more than five count as five, as in A6. Default 1.
    pub initial_requests: NonZeroU32,
    /// Chance of one attempt more.
    pub additional_request_chance: Fraction,
    /// An attempt that exceeds `per_try_timeout` goes on while the next one is made; the first answer counts.
    pub on_per_try_timeout: bool,
}

/// `retry_on`, parsed. Tokens that no client knows are ignored, as gRFC A44 asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// gRPC CANCELLED sent by the server.
    pub cancelled: bool,
    /// gRPC DEADLINE_EXCEEDED.
    pub deadline_exceeded: bool,
    /// gRPC INTERNAL.
    pub internal: bool,
    /// gRPC RESOURCE_EXHAUSTED.
    pub resource_exhausted: bool,
    /// gRPC UNAVAILABLE.
    pub unavailable: bool,
    /// HTTP 5xx, a reset or no response.
    pub server_error: bool,
    /// HTTP 502, 503, 504.
    pub gateway_error: bool,
    /// The stream was reset or the connection lost.
    pub reset: bool,
    /// The stream was reset before the request was sent.
    pub reset_before_request: bool,
    /// No connection could be made.
    pub connect_failure: bool,
    /// The server refused the stream (REFUSED_STREAM).
    pub refused_stream: bool,
    /// HTTP 409.
    pub retriable_4xx: bool,
    /// The codes of `retriable_status_codes`.
    pub retriable_status_codes: bool,
    /// The headers of `retriable_headers`.
    pub retriable_headers: bool,
    /// `x-envoy-ratelimited` in the response.
    pub envoy_ratelimited: bool,
}

/// Exponential, doubling each time, fully jittered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// First bound; at least 1 ms. Default 25 ms.
    pub base: Duration,
    /// Largest bound; at least `base`. Default ten times `base`.
    pub max: Duration,
}

/// Wait for as long as the response says.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitedBackOff {
    /// Headers to read, in order; the first that parses wins.
    pub headers: Vec<(HeaderName, ResetFormat)>,
    /// Longer waits are ignored. Default 300 s.
    pub max: Duration,
}

/// How a reset header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Unix time in seconds.
    UnixTimestamp,
}
