//! Clusters (gRFC A27, A32, A37, A42, A48, A50, A52, A55, A58, A62, A68, A74, A75, A85, A86, A89, A105 and the
//! fields of Envoy that Istio uses).
//!
//! The vocabulary is larger than what every data path can do: what is beyond the core needs a
//! [`Feature`](super::Feature), and without it is rejected, or left out where gRPC says so.

mod breakers;
mod connection;
mod dns;
mod health;
mod http_codes;
mod lb;
mod outlier;
pub(super) mod wire;

pub use breakers::{CircuitBreakers, RetryBudget, Thresholds};
pub use connection::{ConnectionOptions, Http2Keepalive, HttpConnect, ProxyProtocol, TcpKeepalive, Tlv};
pub use dns::{DnsLookupFamily, DnsRefresh, DnsResolution, HostPort, LogicalDns, StrictDns};
pub use health::{HealthCheck, HealthProbe};
pub use http_codes::HttpCodes;
pub use lb::{
    ClientSideWeightedRoundRobin, LbOptions, LbPolicy, LocalityLb, Maglev, OverrideHostStatus, RingHash,
    SlowStart, SubsetScope, Subsetting, Utilization, ZoneAware,
};
pub use outlier::{Consecutive, FailurePercentage, LocalOrigin, OutlierDetection, SuccessRate};

use super::{ClusterLoadAssignment, Origin, endpoint::Endpoint, tls::UpstreamTls};
use crate::{matcher::Fraction, name::Name};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Resource name: `outbound|9080|v1|reviews.default.svc.cluster.local`.
    pub name: Name,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is picked. An aggregate cluster has round robin here and does not use it: each of its leaves
    /// picks by its own policy (gRFC A75).
    pub lb: LbPolicy,
    /// What else balancing does, whatever the policy. The default for an aggregate cluster.
    pub lb_options: LbOptions,
    /// Limits (priority DEFAULT).
    pub circuit_breakers: CircuitBreakers,
    /// Absent: nothing is ejected.
    pub outlier_detection: Option<OutlierDetection>,
    /// Absent: endpoints are not asked how they are.
    pub health_check: Option<Arc<HealthCheck>>,
    /// Absent: plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Connections go through an HTTP CONNECT proxy, TLS inside of it (gRFC A86).
    pub http_connect: Option<HttpConnect>,
    /// Connections begin with a header of the PROXY protocol, inside of the way that a proxy gives, outside of TLS.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections.
    pub connection: ConnectionOptions,
    /// Below this share of healthy endpoints, health is ignored. Absent: never (gRPC has no panic mode).
    pub panic_threshold: Option<Fraction>,
    /// `lrs_server` is `self`: load is reported to the control plane that sent the cluster. Absent: nowhere.
    pub load_reporting: Option<ReportedMetrics>,
    /// Labels of the metrics of calls to it (gRFC A89).
    pub telemetry: TelemetryLabels,
    /// Audience of identity tokens, by the name of the GCP authentication filter (gRFC A83).
    pub audiences: BTreeMap<Arc<str>, Arc<str>>,
    /// Where it was written. From `metadata.filter_metadata["io.mesh"].origin`.
    pub origin: Option<Origin>,
}

impl Cluster {
    /// Round robin over plaintext, with every default.
    pub fn new(name: impl Into<Name>, discovery: Discovery) -> Self {
        Self {
            name: name.into(),
            discovery,
            lb: LbPolicy::RoundRobin,
            lb_options: LbOptions::default(),
            circuit_breakers: CircuitBreakers::default(),
            outlier_detection: None,
            health_check: None,
            tls: None,
            http_connect: None,
            proxy_protocol: None,
            connection: ConnectionOptions::default(),
            panic_threshold: None,
            load_reporting: None,
            telemetry: TelemetryLabels::default(),
            audiences: BTreeMap::new(),
            origin: None,
        }
    }

    /// The HTTP CONNECT proxy that an endpoint is behind: its own, or its locality's (an endpoint that has no own one has
    /// that), or else the cluster's (gRFC A86). None unless the cluster asks for it.
    pub fn proxy_to<A>(&self, endpoint: &Endpoint<A>) -> Option<SocketAddr> {
        self.http_connect.and_then(|connect| endpoint.proxy.or(connect.default_proxy))
    }

    /// Like [`new`](Self::new), with endpoints of the same name.
    pub fn eds(name: impl Into<Name>) -> Self {
        let name = name.into();
        Self::new(Arc::clone(&name), Discovery::Eds(name))
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// The ClusterLoadAssignment of this name, over the same ADS stream.
    Eds(Name),
    /// They stand in the cluster itself. The assignment has the cluster's name.
    Static(Arc<ClusterLoadAssignment>),
    /// Names; every address of one is an endpoint.
    StrictDns(Arc<StrictDns>),
    /// A name; all its addresses are one endpoint (gRFC A37, A61).
    LogicalDns(Arc<LogicalDns>),
    /// Other clusters, the first usable one in this order (gRFC A37). At least one.
    Aggregate(Vec<Name>),
}

/// Metrics of endpoints' load reports that go into reports to the control plane (gRFC A64, A85).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedMetrics {
    /// `cpu_utilization`
    pub cpu: bool,
    /// `mem_utilization`
    pub memory: bool,
    /// `application_utilization`
    pub application: bool,
    /// `named_metrics.*`
    pub all_named: bool,
    /// `named_metrics.<key>`: the keys.
    pub named: BTreeSet<Arc<str>>,
}

/// `filter_metadata["com.google.csm.telemetry_labels"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryLabels {
    /// `service_name`
    pub service_name: Option<Arc<str>>,
    /// `service_namespace`
    pub service_namespace: Option<Arc<str>>,
}
