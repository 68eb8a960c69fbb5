//! Where configuration was written: the object behind a resource, and the values inside it.
//!
//! Our control plane says it in metadata (`filter_metadata["io.mesh"]`: `origin`, and `origins` by setting),
//! so that errors, rejections and explanations point at a line that a person can change. It decides nothing.

use std::{collections::BTreeMap, fmt, ops::Deref, sync::Arc};

/// Settings of a route whose places are told, as paths inside Istio's HTTPRoute. Destinations and mirrors are
/// told as `route[0]`, `mirrors[0]`, counted as in the resource; `match` is the alternative that the route is for.
pub const ROUTE_SETTINGS: &[&str] = &[
    "timeout",
    "retries.attempts",
    "retries.perTryTimeout",
    "retries.retryOn",
    "retries.backoff",
    "retries.retryIgnorePreviousHosts",
    "fault.delay",
    "fault.abort",
    "headers.request",
    "headers.response",
    "rewrite.uri",
    "rewrite.uriRegexRewrite",
    "rewrite.authority",
];

/// Settings of a cluster whose places are told, as paths inside Istio's TrafficPolicy.
pub const CLUSTER_SETTINGS: &[&str] = &[
    "loadBalancer.simple",
    "loadBalancer.consistentHash",
    "loadBalancer.localityLbSetting",
    "loadBalancer.zoneAwareLbSetting",
    "loadBalancer.warmup",
    "loadBalancer.warmupDurationSecs",
    "connectionPool.tcp.maxConnections",
    "connectionPool.tcp.connectTimeout",
    "connectionPool.tcp.tcpKeepalive",
    "connectionPool.tcp.maxConnectionDuration",
    "connectionPool.tcp.idleTimeout",
    "connectionPool.http.http1MaxPendingRequests",
    "connectionPool.http.http2MaxRequests",
    "connectionPool.http.maxRequestsPerConnection",
    "connectionPool.http.maxRetries",
    "connectionPool.http.idleTimeout",
    "connectionPool.http.maxConcurrentStreams",
    "connectionPool.http.http2KeepAlive",
    "outlierDetection",
    "outlierDetection.consecutive5xxErrors",
    "outlierDetection.consecutiveErrors",
    "outlierDetection.consecutiveGatewayErrors",
    "outlierDetection.consecutiveLocalOriginFailures",
    "outlierDetection.interval",
    "outlierDetection.baseEjectionTime",
    "outlierDetection.maxEjectionPercent",
    "outlierDetection.minHealthPercent",
    "outlierDetection.outlierDetectionHttpErrorCodes",
    "tls.mode",
    "tls.caCrl",
    "tls.subjectAltNames",
    "tls.sni",
    "proxyProtocol",
    "retryBudget",
];

/// Where a resource, or a part of one, was written. Cheap to clone. Reads as its [`Self::place`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Arc<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    place: Arc<str>,
    /// Absent: nobody says where settings were written.
    settings: Option<BTreeMap<Arc<str>, Arc<str>>>,
}

impl Origin {
    /// Written at this place (`reviews.yaml:12:5 VirtualService default/reviews`), each setting at its own
    /// (`reviews.yaml:14:7`); those that are not named were not written.
    pub fn new(
        place: impl Into<Arc<str>>,
        settings: impl IntoIterator<Item = (impl Into<Arc<str>>, impl Into<Arc<str>>)>,
    ) -> Self {
        let settings = settings.into_iter().map(|(setting, place)| (setting.into(), place.into()));
        Self(Arc::new(Inner { place: place.into(), settings: Some(settings.collect()) }))
    }

    /// The object's place.
    pub fn place(&self) -> &Arc<str> {
        &self.0.place
    }

    /// The place of one setting; none when it was not written, or when nobody said.
    pub fn setting(&self, name: &str) -> Option<&Arc<str>> {
        self.0.settings.as_ref()?.get(name)
    }

    /// The places of all settings that were written, by name; none when nobody says.
    pub fn settings(&self) -> Option<&BTreeMap<Arc<str>, Arc<str>>> {
        self.0.settings.as_ref()
    }
}

impl From<&str> for Origin {
    fn from(place: &str) -> Self {
        Self::from(Arc::<str>::from(place))
    }
}

impl From<Arc<str>> for Origin {
    fn from(place: Arc<str>) -> Self {
        Self(Arc::new(Inner { place, settings: None }))
    }
}

impl Deref for Origin {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.place
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.place)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::testing,
        resource::{AnyResource, ParseContext},
    };
    use envoy_types::pb::envoy::config::{cluster::v3 as cluster, core::v3::Metadata, route::v3 as route};
    use prost::Message;

    fn written() -> Option<Metadata> {
        super::super::wire::own_metadata(
            Some(&"reviews.yaml:3:5 VirtualService default/reviews".into()),
            false,
        )
    }

    fn text(resource: &AnyResource, bytes: &[u8]) -> String {
        AnyResource::parse(resource.resource_type(), bytes, &ParseContext::default()).unwrap_err().to_string()
    }

    #[test]
    fn a_rejection_points_at_the_line_of_the_part_that_is_wrong() {
        let good = testing::cluster("a");
        let mut proto = cluster::Cluster::decode(good.to_proto()).unwrap();
        proto.metadata = written();
        proto.transport_socket_matches.push(Default::default());
        assert_eq!(
            text(&good, &proto.encode_to_vec()),
            "a: transport_socket_matches: is not supported (written at reviews.yaml:3:5 VirtualService default/reviews)"
        );

        let good = testing::routes("r", &[("t", &["a", "b"])]);
        let mut proto = route::RouteConfiguration::decode(good.to_proto()).unwrap();
        let routes = &mut proto.virtual_hosts[0].routes;
        routes[0].r#match = None;
        routes[1].r#match = None;
        routes[1].metadata = written();
        assert_eq!(
            text(&good, &proto.encode_to_vec()),
            "r: virtual_hosts[0].routes[0].match: is required; virtual_hosts[0].routes[1].match: is required \
             (written at reviews.yaml:3:5 VirtualService default/reviews)"
        );
    }
}
