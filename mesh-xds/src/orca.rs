//! What an endpoint says of its own load (ORCA; gRFC A51): `xds.data.orca.v3.OrcaLoadReport`.
//!
//! With a call it comes in the trailer [`TRAILER`]; by itself on the stream [`STREAM_CORE_METRICS`].

use prost::Message;
use std::{collections::HashMap, time::Duration};

/// The service of reports that come by themselves.
pub const SERVICE: &str = "xds.service.orca.v3.OpenRcaService";

/// Its method: a [`LoadReportRequest`], and a stream of [`LoadReport`]s.
pub const STREAM_CORE_METRICS: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// What a stream of reports begins with: `xds.service.orca.v3.OrcaLoadReportRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct LoadReportRequest {
    /// How often a report is wanted; the server has a least interval of its own.
    #[prost(message, optional, tag = "1")]
    pub report_interval: Option<prost_types::Duration>,
    /// Of which `request_cost` reports are wanted; no server here has any.
    #[prost(string, repeated, tag = "2")]
    pub request_cost_names: Vec<String>,
}

impl LoadReportRequest {
    /// Asks for a report this often.
    pub fn every(interval: Duration) -> Self {
        // Longer than the wire can say is the longest that it can.
        let longest = prost_types::Duration { seconds: 315_576_000_000, nanos: 0 };
        let interval = prost_types::Duration::try_from(interval).unwrap_or(longest);
        Self { report_interval: Some(interval), request_cost_names: Vec::new() }
    }

    /// How often a report is wanted; zero if that is not said, or is negative.
    pub fn interval(&self) -> Duration {
        self.report_interval.and_then(|interval| Duration::try_from(interval).ok()).unwrap_or_default()
    }
}

/// The trailer of a call that carries the report, in base64 as every `-bin` header.
pub const TRAILER: &str = "endpoint-load-metrics-bin";

/// A report.
#[derive(Clone, PartialEq, Message)]
pub struct LoadReport {
    /// Share of the processors in use; may be above 1.
    #[prost(double, tag = "1")]
    pub cpu_utilization: f64,
    /// Share of the memory in use.
    #[prost(double, tag = "2")]
    pub mem_utilization: f64,
    /// Cost of this call, by name.
    #[prost(map = "string, double", tag = "4")]
    pub request_cost: HashMap<String, f64>,
    /// Further shares, by name.
    #[prost(map = "string, double", tag = "5")]
    pub utilization: HashMap<String, f64>,
    /// Calls a second.
    #[prost(double, tag = "6")]
    pub rps_fractional: f64,
    /// Errors a second.
    #[prost(double, tag = "7")]
    pub eps: f64,
    /// What the application measures, by name.
    #[prost(map = "string, double", tag = "8")]
    pub named_metrics: HashMap<String, f64>,
    /// Share of what the application can do; may be above 1.
    #[prost(double, tag = "9")]
    pub application_utilization: f64,
}

impl LoadReport {
    /// Reads the decoded trailer; `None`: it is no report.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }
}
