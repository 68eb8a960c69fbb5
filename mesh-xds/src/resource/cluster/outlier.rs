//! Outlier detection (gRFC A50, and Envoy's consecutive counters).

use super::HttpCodes;
use std::time::Duration;

/// Outlier detection: Envoy's consecutive counters and gRFC A50's two statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// Between sweeps. Default 10 s, at least [`Self::LEAST_INTERVAL`].
    pub interval: Duration,
    /// Ejection lasts this times the number of ejections. Default 30 s; with 0 it lasts until the next sweep.
    pub base_ejection_time: Duration,
    /// Longest ejection. Default the larger of 300 s and `base_ejection_time`.
    pub max_ejection_time: Duration,
    /// Share of the endpoints ejected at most, though one always may be. Default 10 %. In percent.
    pub max_ejection_percent: u32,
    /// What an answer has to be for an error: an HTTP code, or a gRPC status that maps to it. Absent: 5xx, and for the
    /// statistics any gRPC status but OK. Set, a code below 500 counts like 500, for the statistics too, and what is not
    /// in the set counts as success (Envoy's `error_matcher`). Failures made here are errors always. Absent where the
    /// data path does not look at it.
    pub errors: Option<HttpCodes>,
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
    /// Both statistics over failures made here; only with `split_external_local_origin_errors`. All zero where
    /// the data path does not count them.
    pub local_origin: LocalOrigin,
    /// A random time below this is added to each ejection. Zero where the data path has no such jitter.
    pub max_ejection_time_jitter: Duration,
    /// An endpoint that passes an active health check is taken back. Without active health checks it means
    /// nothing. Default true.
    pub uneject_by_health_check: bool,
}

impl OutlierDetection {
    /// Sweeps are not closer to each other: gRPC takes any interval, and with 0 does nothing but sweep.
    pub const LEAST_INTERVAL: Duration = Duration::from_millis(10);
}

impl Default for OutlierDetection {
    /// Every default of Envoy's message, except that neither consecutive counter nor statistic is on.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            errors: None,
            consecutive_5xx: None,
            consecutive_gateway_failure: None,
            consecutive_local_origin_failure: None,
            split_external_local_origin_errors: false,
            success_rate: None,
            failure_percentage: None,
            local_origin: LocalOrigin::default(),
            max_ejection_time_jitter: Duration::ZERO,
            uneject_by_health_check: true,
        }
    }
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

/// The statistics over failures made here: thresholds as for answers, chances of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalOrigin {
    /// Success rate; absent: off.
    pub success_rate: Option<SuccessRate>,
    /// Failure percentage; absent: off.
    pub failure_percentage: Option<FailurePercentage>,
}
