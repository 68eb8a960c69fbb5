//! Listeners: what a client's target or a server's address resolves to (gRFC A27, A36).

pub(super) mod wire;

use super::{filter::HttpFilter, route::RouteConfiguration, tls::DownstreamTls};
use crate::name::Name;
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Resource name: the target (`reviews:9080`), or the expanded server template.
    pub name: Name,
    /// Which side it configures.
    pub kind: ListenerKind,
}

/// The two uses of a listener.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerKind {
    /// `api_listener`: configures a client's channel.
    Api(HttpConnectionManager),
    /// A socket listener: configures a server.
    Server(ServerListener),
}

/// The HTTP connection manager: where routes come from, and the filters before them.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnectionManager {
    /// Where the routes come from.
    pub routes: RouteSource,
    /// In order; the last one is the router.
    pub filters: Vec<HttpFilter>,
    /// `common_http_protocol_options.max_stream_duration`: used when a route has none (gRFC A31).
    pub max_stream_duration: Option<Duration>,
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// The RouteConfiguration of this name, over the same ADS stream.
    Rds(Name),
    /// In the listener itself.
    Inline(Arc<RouteConfiguration>),
}

/// A server's listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerListener {
    /// Address it is for; must be the one that the server listens on.
    pub address: IpAddr,
    /// Port it is for; 0 stands for any.
    pub port: u16,
    /// Candidates for a connection; never-matching ones are dropped when parsed.
    pub filter_chains: Vec<FilterChain>,
    /// For a connection that no chain matches; without it such a connection is closed.
    pub default_filter_chain: Option<FilterChain>,
}

/// How one kind of connection is served.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// For logs; may be empty.
    pub name: Arc<str>,
    /// Which connections it is for.
    pub matches: FilterChainMatch,
    /// Absent: plaintext.
    pub tls: Option<DownstreamTls>,
    /// Routes and filters of its requests.
    pub http: HttpConnectionManager,
}

/// Which connections a chain is for; the default matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// Local address, any of; empty is least specific.
    pub destination_prefixes: Vec<IpNet>,
    /// What the first bytes of the connection are.
    pub transport: TransportProtocol,
    /// Where the peer is.
    pub source_type: SourceType,
    /// Peer address, any of; empty is least specific.
    pub source_prefixes: Vec<IpNet>,
    /// Peer port, any of; empty is any.
    pub source_ports: Vec<u16>,
}

/// `transport_protocol`. `Tls` is Envoy's (gRPC has no TLS inspector): it lets one port serve both a TLS
/// and a plaintext chain, which is Istio's PERMISSIVE mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportProtocol {
    /// Either.
    #[default]
    Any,
    /// Plaintext (`raw_buffer`).
    RawBuffer,
    /// A TLS ClientHello (`tls`).
    Tls,
}

/// `source_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// The same address, or a loopback one.
    SameIpOrLoopback,
    /// Anywhere else.
    External,
}
