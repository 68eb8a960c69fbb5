//! What an endpoint says of its own load (ORCA; gRFC A51): `xds.data.orca.v3.OrcaLoadReport`.
//!
//! With a call it comes in the trailer [`TRAILER`].

use prost::Message;
use std::collections::HashMap;

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
