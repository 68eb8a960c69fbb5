//! DestinationRule: how a client treats a service and its subsets.
//!
//! <https://istio.io/latest/docs/reference/config/networking/destination-rule/>. Absent means that
//! Istio's default applies; a zero that Istio cannot tell from absent is absent here too.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_xds::resource::cluster::HttpCodes;

use super::object::Origin;
use super::value::{ExportTo, Host, Labels, Located};
use super::written::Written;

mod load_balancer;
mod read;
mod refused;
mod tls;
mod traffic;

pub use refused::Refusal;

/// A DestinationRule, or the merge of several for one host (see [`super::Config`]).
#[derive(Clone, Debug)]
pub struct DestinationRule {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// The host it is about, fully qualified.
    pub host: Located<Host>,
    /// For the whole destination.
    pub policy: Option<TrafficPolicy>,
    /// Named parts of the destination.
    pub subsets: Vec<Subset>,
    /// Who may use it.
    pub export_to: ExportTo,
    /// Only for clients of its own namespace with these labels.
    pub selector: Option<Labels>,
    /// Present when it stands for a rule that is refused: calls to the host fail.
    pub refused: Option<Refusal>,
}

impl DestinationRule {
    /// A subset by name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name.value == name)
    }
}

/// A named part of a destination.
#[derive(Clone, Debug)]
pub struct Subset {
    /// Its name, as routes use it.
    pub name: Located<String>,
    /// The object that defined it (a merged rule has several).
    pub origin: Origin,
    /// The labels its endpoints have; all endpoints when empty.
    pub labels: Labels,
    /// What differs from the destination's policy.
    pub policy: Option<TrafficPolicy>,
}

/// How traffic to a destination is treated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// For every port without settings of its own.
    pub blocks: PolicyBlocks,
    /// By service port: these replace `blocks` as a whole.
    pub ports: BTreeMap<u16, PolicyBlocks>,
    /// Bounds retries in relation to active requests.
    pub retry_budget: Option<RetryBudget>,
}

/// The blocks that a policy consists of and that override one by one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyBlocks {
    /// Which endpoint.
    pub load_balancer: Option<LoadBalancer>,
    /// How much at a time.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint is left alone for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// How the connection is secured.
    pub tls: Option<ClientTls>,
    /// What it begins with, before TLS. Never of a port's own settings.
    pub proxy_protocol: Option<Located<ProxyProtocol>>,
    /// Where their settings were written ([`mesh_xds::resource::origin::CLUSTER_SETTINGS`]).
    pub written: Written,
}

/// Which endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancer {
    /// The algorithm; the mesh's default when absent.
    pub algorithm: Option<Algorithm>,
    /// Instead of an algorithm: calls with the same key go to the same endpoint.
    pub consistent_hash: Option<ConsistentHash>,
    /// New endpoints get their share little by little.
    pub warmup: Option<Warmup>,
    /// What localities mean; the mesh's default when absent.
    pub locality: Option<LocalityLb>,
}

/// A load-balancing algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// One after another.
    RoundRobin,
    /// The one with fewer outstanding requests of two drawn at random.
    LeastRequest,
    /// Any.
    Random,
}

/// Calls with the same key go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How a hash leads to an endpoint.
    pub table: HashTable,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header, by its name in lower case.
    Header(String),
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// Of a cookie that is given to a caller without one.
        path: String,
        /// How long such a cookie lives; zero is a session, absent gives none.
        ttl: Option<Duration>,
        /// Of such a cookie.
        attributes: Vec<(String, String)>,
    },
    /// The caller's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(String),
}

/// How a hash leads to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// A ring of so many places at least (1024).
    Ring {
        /// The number.
        minimum: Option<u32>,
    },
    /// Maglev's table of so many places, a prime number.
    Maglev {
        /// The number.
        size: u32,
    },
}

/// New endpoints get their share little by little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// Of its share an endpoint gets so many percent at least.
    pub minimum_percent: f64,
    /// 1 is linear; more is faster at first.
    pub aggression: f64,
}

impl Default for Warmup {
    fn default() -> Self {
        Self { duration: Duration::ZERO, minimum_percent: 10.0, aggression: 1.0 }
    }
}

/// What localities mean for the choice of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalityLb {
    /// False switches locality preferences off.
    pub enabled: bool,
    /// Fixed shares by the client's locality; excludes `failover`.
    pub distribute: Vec<Distribute>,
    /// From this region to that region.
    pub failover: Vec<(String, String)>,
    /// Labels whose common prefix of matches is the priority.
    pub failover_priority: Vec<FailoverLabel>,
    /// `zoneAwareLbSetting`: clients share their calls between the zones of their region by themselves.
    pub zone_aware: Option<ZoneAware>,
}

/// How clients share their calls between the zones of their region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// With fewer endpoints in the region all of its zones are alike.
    pub min_cluster_size: u32,
}

/// Shares for the clients of one locality.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribute {
    /// `region/zone/*`: the clients.
    pub from: String,
    /// Locality to percent; the sum is 100.
    pub to: Vec<(String, u32)>,
}

/// One step of `failoverPriority`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverLabel {
    /// The label that must agree.
    pub key: String,
    /// With this value; with the client's own when absent.
    pub value: Option<String>,
}

/// How much at a time, per client process and cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionPool {
    /// TCP connections.
    pub max_connections: Option<u32>,
    /// How long connecting may take (10 s).
    pub connect_timeout: Option<Duration>,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// A connection's longest life.
    pub max_connection_duration: Option<Duration>,
    /// How long an idle TCP connection stays; zero is for ever.
    pub tcp_idle_timeout: Option<Duration>,
    /// Requests waiting for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Requests on one connection before it is replaced.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// How long a connection without requests stays.
    pub idle_timeout: Option<Duration>,
    /// Streams at a time on one connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 pings.
    pub http2_keepalive: Option<Http2Keepalive>,
}

/// TCP keepalive; what is absent is the operating system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between them.
    pub interval: Option<Duration>,
}

/// HTTP/2 pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Time between them.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// When an endpoint is left alone for a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierDetection {
    /// Server errors in a row; `Some(0)` switches it off, absent is 5.
    pub consecutive_5xx_errors: Option<u32>,
    /// 502, 503 and 504 in a row; off when absent or zero.
    pub consecutive_gateway_errors: Option<u32>,
    /// Connection failures in a row, counted apart.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Whether connection failures are counted apart.
    pub split_external_local_origin_errors: bool,
    /// Time between sweeps (10 s).
    pub interval: Option<Duration>,
    /// How long the first time (30 s).
    pub base_ejection_time: Option<Duration>,
    /// Of the endpoints, at most so many percent (10).
    pub max_ejection_percent: Option<u32>,
    /// Below so many percent of healthy endpoints all are used again; zero never.
    pub min_health_percent: u32,
    /// What is an error; absent: 5xx.
    pub http_error_codes: Option<HttpCodes>,
}

/// How the connection is secured. Absent in a policy means automatic mTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Where it was written.
    pub at: crate::analysis::Position,
    /// The mode.
    pub mode: TlsMode,
    /// Identities the server may have. When empty: the service accounts of the service; of a server outside the mesh
    /// the names of its ServiceEntry, or else the SNI.
    pub subject_alt_names: Vec<String>,
    /// The SNI, when it is neither Istio's nor, of a server outside the mesh, the host.
    pub sni: Option<String>,
    /// File on the clients' machines with the roots of a server outside the mesh; absent: their operating systems'.
    pub roots: Option<String>,
    /// Files on the clients' machines with the certificate chain and the key that they show; for [`TlsMode::Mutual`].
    pub certificate: Option<(String, String)>,
    /// File on the clients' machines with the revocation lists that a server outside the mesh is looked for in.
    pub crl: Option<String>,
}

/// A mode of [`ClientTls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// A server outside the mesh, which shows a certificate.
    Simple,
    /// A server outside the mesh, which asks for one too.
    Mutual,
    /// mTLS with the mesh's own identities.
    IstioMutual,
}

/// A version of the PROXY protocol, whose header tells a server where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Bounds retries in relation to active requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Retries per hundred active requests (20).
    pub percent: f64,
    /// Retries that are always allowed (3).
    pub min_retry_concurrency: u32,
}

impl TrafficPolicy {
    /// The policy for a port of a destination and, perhaps, one of its subsets (Istio's rules:
    /// port settings *replace* the destination's, a subset overrides block by block, and a subset's
    /// port settings replace everything but `proxyProtocol`, which they cannot say).
    pub fn effective(
        destination: Option<&TrafficPolicy>,
        subset: Option<&TrafficPolicy>,
        port: u16,
    ) -> EffectivePolicy {
        let at_port = |policy: &TrafficPolicy| policy.ports.get(&port).cloned();
        let mut blocks = destination
            .map(|policy| at_port(policy).unwrap_or_else(|| policy.blocks.clone()))
            .unwrap_or_default();
        if let Some(policy) = subset {
            blocks = match at_port(policy) {
                Some(own) => own.with_proxy_protocol_of(blocks),
                None => policy.blocks.clone().or(blocks),
            };
        }
        let budget = [subset, destination].into_iter().flatten().find(|policy| policy.retry_budget.is_some());
        blocks.written.replace("retryBudget", budget.map(|policy| &policy.blocks.written));
        EffectivePolicy { blocks, retry_budget: budget.and_then(|policy| policy.retry_budget) }
    }
}

impl PolicyBlocks {
    fn or(self, base: Self) -> Self {
        let mut written = base.written;
        for (block, own) in [
            ("loadBalancer", self.load_balancer.is_some()),
            ("connectionPool", self.connection_pool.is_some()),
            ("outlierDetection", self.outlier_detection.is_some()),
            ("tls", self.tls.is_some()),
            ("proxyProtocol", self.proxy_protocol.is_some()),
        ] {
            if own {
                written.replace(block, Some(&self.written));
            }
        }
        Self {
            written,
            load_balancer: self.load_balancer.or(base.load_balancer),
            connection_pool: self.connection_pool.or(base.connection_pool),
            outlier_detection: self.outlier_detection.or(base.outlier_detection),
            tls: self.tls.or(base.tls),
            proxy_protocol: self.proxy_protocol.or(base.proxy_protocol),
        }
    }

    fn with_proxy_protocol_of(mut self, base: Self) -> Self {
        self.written.replace("proxyProtocol", Some(&base.written));
        Self { proxy_protocol: base.proxy_protocol, ..self }
    }
}

/// The policy of one cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EffectivePolicy {
    /// The blocks that apply.
    pub blocks: PolicyBlocks,
    /// Bounds retries in relation to active requests.
    pub retry_budget: Option<RetryBudget>,
}

#[cfg(test)]
mod tests;
