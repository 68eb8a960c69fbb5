//! Listener, to and from protobuf.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{
    FilterChain, FilterChainMatch, HttpConnectionManager, Listener, ListenerKind, RouteSource,
    ServerListener, SourceType, TransportProtocol,
};
use crate::{
    field_path::{Faults, Path},
    name::{Name, ResourceType},
    resource::{
        ParseContext, Resource, RouteConfiguration,
        filter::{self, registry::Side},
        sealed, tls, wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::{
        core::v3::{self as core, HttpProtocolOptions},
        listener::v3::{self as proto, filter::ConfigType, filter_chain_match::ConnectionSourceType},
    },
    extensions::filters::{
        listener::tls_inspector::v3::TlsInspector,
        network::http_connection_manager::v3::{self as hcm, http_connection_manager::RouteSpecifier},
    },
};
use prost::{Message, Name as _};
use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
};

const HCM: &str = "envoy.filters.network.http_connection_manager";
const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
const HTTP_INSPECTOR_URL: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";

impl Resource for Listener {
    const TYPE: ResourceType = ResourceType::Listener;

    fn to_proto(&self) -> Bytes {
        let mut listener = proto::Listener { name: self.name.to_string(), ..Default::default() };
        match &self.kind {
            ListenerKind::Api(http) => {
                listener.api_listener =
                    Some(proto::ApiListener { api_listener: Some(hcm_any(http, &self.name)) });
            }
            ListenerKind::Server(server) => encode_server(server, &self.name, &mut listener),
        }
        listener.encode_to_vec().into()
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        let managers: Vec<&HttpConnectionManager> = match &self.kind {
            ListenerKind::Api(http) => vec![http],
            ListenerKind::Server(server) => server
                .filter_chains
                .iter()
                .chain(&server.default_filter_chain)
                .map(|chain| &chain.http)
                .collect(),
        };
        let references: BTreeSet<_> = managers
            .into_iter()
            .flat_map(|http| match &http.routes {
                RouteSource::Rds(name) => vec![(ResourceType::RouteConfiguration, name.clone())],
                RouteSource::Inline(routes) => routes.references(),
            })
            .collect();
        references.into_iter().collect()
    }
}

fn encode_server(server: &ServerListener, name: &Name, listener: &mut proto::Listener) {
    let address = SocketAddr::new(server.address, server.port);
    listener.address = Some(wire::socket_address_proto(address));
    listener.filter_chains = server.filter_chains.iter().map(|chain| encode_chain(chain, name)).collect();
    listener.default_filter_chain =
        server.default_filter_chain.as_ref().map(|chain| encode_chain(chain, name));
    let sniffs = |chain: &FilterChain| chain.matches.transport == TransportProtocol::Tls;
    if server.filter_chains.iter().any(sniffs) {
        // Envoy matches `transport_protocol` only when this has looked at the first bytes.
        listener.listener_filters = vec![proto::ListenerFilter {
            name: TLS_INSPECTOR.into(),
            config_type: Some(proto::listener_filter::ConfigType::TypedConfig(wire::any(
                &TlsInspector::default(),
            ))),
            ..Default::default()
        }];
    }
}

fn encode_chain(chain: &FilterChain, listener: &Name) -> proto::FilterChain {
    let matches = &chain.matches;
    let matches = (*matches != FilterChainMatch::default()).then(|| proto::FilterChainMatch {
        prefix_ranges: matches.destination_prefixes.iter().map(wire::cidr_proto).collect(),
        transport_protocol: match matches.transport {
            TransportProtocol::Any => "",
            TransportProtocol::RawBuffer => "raw_buffer",
            TransportProtocol::Tls => "tls",
        }
        .into(),
        source_type: match matches.source_type {
            SourceType::Any => ConnectionSourceType::Any,
            SourceType::SameIpOrLoopback => ConnectionSourceType::SameIpOrLoopback,
            SourceType::External => ConnectionSourceType::External,
        }
        .into(),
        source_prefix_ranges: matches.source_prefixes.iter().map(wire::cidr_proto).collect(),
        source_ports: matches.source_ports.iter().copied().map(u32::from).collect(),
        ..Default::default()
    });
    proto::FilterChain {
        name: chain.name.to_string(),
        filter_chain_match: matches,
        filters: vec![proto::Filter {
            name: HCM.into(),
            config_type: Some(ConfigType::TypedConfig(hcm_any(&chain.http, listener))),
        }],
        transport_socket: chain.tls.as_ref().map(tls::wire::downstream_proto),
        ..Default::default()
    }
}

fn hcm_any(http: &HttpConnectionManager, listener: &Name) -> envoy_types::pb::google::protobuf::Any {
    let mut manager = hcm::HttpConnectionManager {
        stat_prefix: listener.to_string(),
        http_filters: http.filters.iter().map(filter::wire::encode).collect(),
        common_http_protocol_options: http.max_stream_duration.map(|limit| HttpProtocolOptions {
            max_stream_duration: Some(wire::duration_proto(limit)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut inline = Vec::new();
    match &http.routes {
        RouteSource::Rds(name) => {
            manager.route_specifier = Some(RouteSpecifier::Rds(hcm::Rds {
                config_source: Some(wire::ads()),
                route_config_name: name.to_string(),
            }));
        }
        // Its encoder knows how to keep the bytes stable; field 4 is `route_config`.
        RouteSource::Inline(routes) => wire::embed(4, &routes.to_proto(), &mut inline),
    }
    let mut value = manager.encode_to_vec();
    value.extend(inline);
    envoy_types::pb::google::protobuf::Any { type_url: hcm::HttpConnectionManager::type_url(), value }
}

impl sealed::Parse for Listener {
    type Proto = proto::Listener;

    fn proto_name(proto: &Self::Proto) -> &str {
        &proto.name
    }

    fn from_message(
        proto: &Self::Proto,
        name: Name,
        context: &ParseContext,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let kind = match &proto.api_listener {
            Some(api) => {
                let at = at.field("api_listener");
                let at = at.field("api_listener");
                let any = faults.required(&at, &api.api_listener)?;
                ListenerKind::Api(manager(any, Side::Client, context, &at, faults)?)
            }
            None => ListenerKind::Server(server(proto, context, at, faults)?),
        };
        Some(Self { name, kind })
    }
}

fn manager(
    any: &envoy_types::pb::google::protobuf::Any,
    side: Side,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<HttpConnectionManager> {
    let proto: hcm::HttpConnectionManager = wire::unpack(any, at, faults)?;
    if proto.xff_num_trusted_hops != 0 {
        faults.reject::<()>(&at.field("xff_num_trusted_hops"), "must be 0");
    }
    if !proto.original_ip_detection_extensions.is_empty() {
        faults.reject::<()>(&at.field("original_ip_detection_extensions"), "must be empty");
    }
    if !proto.early_header_mutation_extensions.is_empty() {
        faults.reject::<()>(&at.field("early_header_mutation_extensions"), "must be empty");
    }
    let filters = filter::wire::parse(&proto.http_filters, side, context, &at.field("http_filters"), faults);
    let none = HttpProtocolOptions::default();
    let options = proto.common_http_protocol_options.as_ref().unwrap_or(&none);
    let options_at = at.field("common_http_protocol_options");
    let max_stream_duration = wire::optional_duration(
        &options.max_stream_duration,
        &options_at.field("max_stream_duration"),
        faults,
    );
    let routes = match &proto.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            let at = at.field("rds");
            let source = wire::require_ads(&rds.config_source, &at.field("config_source"), faults);
            if rds.route_config_name.is_empty() {
                return faults.reject(&at.field("route_config_name"), "is required");
            }
            source.map(|()| RouteSource::Rds(rds.route_config_name.as_str().into()))
        }
        Some(RouteSpecifier::RouteConfig(routes)) => {
            let at = at.field("route_config");
            let name = routes.name.as_str().into();
            <RouteConfiguration as sealed::Parse>::from_message(routes, name, context, &at, faults)
                .map(|routes| RouteSource::Inline(Arc::new(routes)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            faults.reject(&at.field("scoped_routes"), "is not supported")
        }
        None => faults.reject(at, "has no routes: one of rds and route_config is required"),
    };
    Some(HttpConnectionManager { routes: routes?, filters: filters?, max_stream_duration })
}

fn server(
    proto: &proto::Listener,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<ServerListener> {
    let list = at.field("listener_filters");
    for (i, filter) in proto.listener_filters.iter().enumerate() {
        let known = match &filter.config_type {
            Some(proto::listener_filter::ConfigType::TypedConfig(any)) => {
                any.type_url == TlsInspector::type_url() || any.type_url == HTTP_INSPECTOR_URL
            }
            _ => false,
        };
        if matches!(&filter.config_type, Some(proto::listener_filter::ConfigType::ConfigDiscovery(_))) {
            faults.reject::<()>(&list.index(i).field("config_discovery"), "is not supported");
            continue;
        }
        if filter.filter_disabled.is_some() {
            faults.reject::<()>(&list.index(i).field("filter_disabled"), "is not supported");
        }
        if !known {
            faults.reject::<()>(
                &list.index(i),
                format_args!("listener filter `{}` is not supported", filter.name),
            );
        }
    }
    for (unsupported, field) in [
        (proto.filter_chain_matcher.is_some(), "filter_chain_matcher"),
        (proto.fcds_config.is_some(), "fcds_config"),
        (proto.udp_listener_config.is_some(), "udp_listener_config"),
        (proto.listener_specifier.is_some(), "internal_listener"),
        (proto.continue_on_listener_filters_timeout, "continue_on_listener_filters_timeout"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    if proto.use_original_dst.as_ref().is_some_and(|value| value.value) {
        faults.reject::<()>(&at.field("use_original_dst"), "is not supported");
    }
    let address = server_address(&proto.address, &at.field("address"), faults);
    let list = at.field("filter_chains");
    let mut chains = Vec::new();
    for (i, proto) in proto.filter_chains.iter().enumerate() {
        if let Some(Some(chain)) = chain(proto, context, &list.index(i), faults) {
            chains.push((i, chain));
        }
    }
    refuse_duplicates(&chains, &list, faults);
    let default_filter_chain = match &proto.default_filter_chain {
        Some(default) => chain(default, context, &at.field("default_filter_chain"), faults)?,
        None => None,
    };
    if chains.is_empty() && default_filter_chain.is_none() && faults.is_empty() {
        return faults.reject(&list, "no filter chain is supported, and there is no default");
    }
    let address = address?;
    Some(ServerListener {
        address: address.ip(),
        port: address.port(),
        filter_chains: chains.into_iter().map(|(_, chain)| chain).collect(),
        default_filter_chain,
    })
}

fn server_address(proto: &Option<core::Address>, at: &Path<'_>, faults: &mut Faults) -> Option<SocketAddr> {
    wire::socket_address(proto, at, faults)
}

/// `Some(None)`: a chain that can never match here.
fn chain(
    proto: &proto::FilterChain,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<FilterChain>> {
    let none = proto::FilterChainMatch::default();
    let matches = chain_match(
        proto.filter_chain_match.as_ref().unwrap_or(&none),
        &at.field("filter_chain_match"),
        faults,
    );
    if proto.use_proxy_proto.as_ref().is_some_and(|used| used.value) {
        faults.reject::<()>(&at.field("use_proxy_proto"), "is not supported: the PROXY protocol is not read");
    }
    let list = at.field("filters");
    let mut http = None;
    let mut names = HashSet::new();
    for (i, filter) in proto.filters.iter().enumerate() {
        let at = list.index(i);
        if filter.name.is_empty() || !names.insert(&filter.name) {
            faults.reject::<()>(&at.field("name"), "must be present and unique");
        }
        match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) if i + 1 == proto.filters.len() => {
                http = manager(any, Side::Server, context, &at.field("typed_config"), faults);
            }
            Some(ConfigType::ConfigDiscovery(_)) => {
                faults.reject::<()>(&at.field("config_discovery"), "is not supported").unwrap_or(())
            }
            _ => faults
                .reject::<()>(&at, "only one filter, the HTTP connection manager, is supported")
                .unwrap_or(()),
        }
    }
    if proto.filters.is_empty() {
        faults.reject::<()>(&list, "needs the HTTP connection manager");
    }
    let tls = match &proto.transport_socket {
        Some(socket) => {
            tls::wire::downstream(socket, context, &at.field("transport_socket"), faults).map(Some)
        }
        None => Some(None),
    };
    let (http, tls) = (http?, tls?);
    Some(matches?.map(|matches| FilterChain { name: proto.name.as_str().into(), matches, tls, http }))
}

/// `Some(None)`: it asks for something that no connection here has.
fn chain_match(
    proto: &proto::FilterChainMatch,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<FilterChainMatch>> {
    let destinations = wire::every(&proto.prefix_ranges, &at.field("prefix_ranges"), faults, wire::cidr);
    let sources =
        wire::every(&proto.source_prefix_ranges, &at.field("source_prefix_ranges"), faults, wire::cidr);
    let ports = wire::every(&proto.source_ports, &at.field("source_ports"), faults, |port, at, faults| {
        faults.take(at, u16::try_from(*port).map_err(|_| format!("{port} is not a port")))
    });
    let source_type = match ConnectionSourceType::try_from(proto.source_type) {
        Ok(ConnectionSourceType::Any) => SourceType::Any,
        Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
        Ok(ConnectionSourceType::External) => SourceType::External,
        Err(_) => return faults.reject(&at.field("source_type"), "is unknown"),
    };
    let transport = match proto.transport_protocol.as_str() {
        "" => TransportProtocol::Any,
        "raw_buffer" => TransportProtocol::RawBuffer,
        "tls" => TransportProtocol::Tls,
        _ => return Some(None),
    };
    if proto.destination_port.is_some()
        || !proto.server_names.is_empty()
        || !proto.application_protocols.is_empty()
        || !proto.direct_source_prefix_ranges.is_empty()
    {
        return Some(None);
    }
    Some(Some(FilterChainMatch {
        destination_prefixes: destinations?,
        transport,
        source_type,
        source_prefixes: sources?,
        source_ports: ports?,
    }))
}

/// Combinations of prefixes and ports that all chains together may spell out.
const MAX_COMBINATIONS: usize = 100_000;

/// Two chains for one connection: which would serve it? Each comes with its index in the message, for chains
/// that can never match have been left out.
fn refuse_duplicates(chains: &[(usize, FilterChain)], at: &Path<'_>, faults: &mut Faults) {
    fn or_any<T: Clone>(items: &[T]) -> Vec<Option<T>> {
        if items.is_empty() { vec![None] } else { items.iter().cloned().map(Some).collect() }
    }
    let combinations = chains.iter().map(|(_, chain)| {
        let FilterChainMatch { destination_prefixes, source_prefixes, source_ports, .. } = &chain.matches;
        let sides = [destination_prefixes.len(), source_prefixes.len(), source_ports.len()];
        sides.into_iter().fold(1_usize, |product, side| product.saturating_mul(side.max(1)))
    });
    if combinations.fold(0_usize, usize::saturating_add) > MAX_COMBINATIONS {
        faults.reject::<()>(
            at,
            format_args!("match more than {MAX_COMBINATIONS} combinations of prefixes and ports"),
        );
        return;
    }
    let mut seen = HashSet::new();
    for (i, chain) in chains {
        let matches = &chain.matches;
        let mut own = HashSet::new();
        for destination in or_any(&matches.destination_prefixes) {
            for source in or_any(&matches.source_prefixes) {
                for port in or_any(&matches.source_ports) {
                    own.insert((destination, matches.transport, matches.source_type, source, port));
                }
            }
        }
        if !seen.is_disjoint(&own) {
            faults.reject::<()>(&at.index(*i), "matches the same connections as an earlier filter chain");
        }
        seen.extend(own);
    }
}
