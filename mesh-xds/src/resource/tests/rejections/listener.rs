//! Listener, its filters and RBAC (gRFC A27, A36, A39, A41).

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::*;
use crate::matcher::StringMatcher;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                Address, CidrRange, ConfigSource, Pipe, SocketAddress, TransportSocket, address,
                socket_address::PortSpecifier, transport_socket,
            },
            listener::v3::{self as pb, FilterChain, FilterChainMatch, ListenerFilter},
            rbac::v3::{
                self as rules,
                permission::Rule,
                principal::Identifier,
                rbac::{AuditLoggingOptions, audit_logging_options::AuditLoggerConfig},
            },
            route::v3::{self as route, HeaderMatcher},
        },
        extensions::{
            filters::{
                http::{fault::v3::HttpFault, rbac::v3::Rbac},
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
                    http_filter,
                },
            },
            transport_sockets::tls::v3::{
                CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
                common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            },
        },
        r#type::{
            matcher::v3::{self as matching, string_matcher::MatchPattern},
            v3::Int32Range,
        },
    },
    google::protobuf::{Any, BoolValue, Duration, UInt32Value},
};

fn manager(filters: Vec<model::filter::HttpFilter>) -> model::listener::HttpConnectionManager {
    let router = model::filter::HttpFilter {
        name: "r".into(),
        config: model::filter::FilterConfig::Router,
        disabled: false,
    };
    model::listener::HttpConnectionManager {
        routes: model::listener::RouteSource::Rds("routes".into()),
        filters: filters.into_iter().chain([router]).collect(),
        max_stream_duration: None,
    }
}

fn client() -> pb::Listener {
    let kind = model::listener::ListenerKind::Api(manager(vec![]));
    pb::Listener::decode(Listener { name: "l".into(), kind }.to_proto()).unwrap()
}

/// Two chains, told apart by source port, with an RBAC filter each.
fn server() -> pb::Listener {
    let policy = model::rbac::Policy {
        permissions: vec![model::rbac::Permission::Any],
        principals: vec![model::rbac::Principal::Authenticated(Some(StringMatcher::exact("a", false)))],
    };
    let rules = model::rbac::Rules {
        action: model::rbac::RbacAction::Deny,
        policies: [("p".into(), policy)].into(),
        audit: None,
    };
    let rbac = model::filter::HttpFilter {
        name: "rbac".into(),
        config: model::filter::FilterConfig::Rbac(Arc::new(model::rbac::Rbac { rules: Some(rules) })),
        disabled: false,
    };
    let chain = |port| model::listener::FilterChain {
        name: "".into(),
        matches: model::listener::FilterChainMatch { source_ports: vec![port], ..Default::default() },
        tls: None,
        http: manager(vec![rbac.clone()]),
    };
    let kind = model::listener::ListenerKind::Server(model::listener::ServerListener {
        address: [0, 0, 0, 0].into(),
        port: 80,
        filter_chains: vec![chain(1), chain(2)],
        default_filter_chain: None,
    });
    pb::Listener::decode(Listener { name: "l".into(), kind }.to_proto()).unwrap()
}

fn api(message: &mut pb::Listener, change: impl FnOnce(&mut HttpConnectionManager)) {
    within(message.api_listener.as_mut().unwrap().api_listener.as_mut(), change);
}

fn served(message: &mut pb::Listener, change: impl FnOnce(&mut HttpConnectionManager)) {
    match &mut message.filter_chains[0].filters[0].config_type {
        Some(pb::filter::ConfigType::TypedConfig(any)) => within(Some(any), change),
        _ => panic!("no manager"),
    }
}

fn policy(message: &mut pb::Listener, change: impl FnOnce(&mut rules::Policy)) {
    served(message, |manager| match &mut manager.http_filters[0].config_type {
        Some(http_filter::ConfigType::TypedConfig(any)) => within::<Rbac>(Some(any), |rbac| {
            change(rbac.rules.as_mut().unwrap().policies.get_mut("p").unwrap());
        }),
        _ => panic!("no filter"),
    });
}

fn push_filter(manager: &mut HttpConnectionManager, type_url: &str, is_optional: bool) {
    let config = Any { type_url: type_url.into(), value: Vec::new() };
    let config_type = Some(http_filter::ConfigType::TypedConfig(config));
    manager
        .http_filters
        .insert(0, HttpFilter { name: "new".into(), is_optional, config_type, ..Default::default() });
}

fn range(address: &str, length: u32) -> CidrRange {
    CidrRange { address_prefix: address.into(), prefix_len: Some(UInt32Value { value: length }) }
}

fn matches(message: &mut pb::Listener, chain: usize) -> &mut FilterChainMatch {
    message.filter_chains[chain].filter_chain_match.get_or_insert_default()
}

const UNKNOWN: &str = "type.googleapis.com/x.Y";

#[test]
fn a_faulty_client_listener_is_refused_with_the_place() {
    const HTTP: &str = "api_listener.api_listener";
    let at = |rest: &str| -> &'static str { format!("{HTTP}{rest}").leak() };
    refuses::<Listener, _>(
        &client(),
        &[
            (|m| m.api_listener.as_mut().unwrap().api_listener = None, at(""), "required"),
            (
                |m| m.api_listener.as_mut().unwrap().api_listener.as_mut().unwrap().type_url = UNKNOWN.into(),
                at(""),
                "expected type.googleapis.com/envoy.extensions.filters.network.http_connection_manager",
            ),
            (|m| api(m, |h| h.xff_num_trusted_hops = 1), at(".xff_num_trusted_hops"), "must be 0"),
            (
                |m| api(m, |h| h.original_ip_detection_extensions.push(Default::default())),
                at(".original_ip_detection_extensions"),
                "must be empty",
            ),
            (|m| api(m, |h| h.route_specifier = None), at(""), "no routes"),
            (
                |m| {
                    api(m, |h| {
                        h.route_specifier = Some(RouteSpecifier::Rds(Rds {
                            config_source: Some(ConfigSource::default()),
                            route_config_name: "r".into(),
                        }));
                    });
                },
                at(".rds.config_source"),
                "`ads`",
            ),
            (
                |m| {
                    api(m, |h| match &mut h.route_specifier {
                        Some(RouteSpecifier::Rds(rds)) => rds.route_config_name.clear(),
                        other => panic!("{other:?}"),
                    });
                },
                at(".rds.route_config_name"),
                "is required",
            ),
            (
                |m| {
                    api(m, |h| {
                        let host = route::VirtualHost::default();
                        let routes =
                            route::RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
                        h.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
                    });
                },
                at(".route_config.virtual_hosts[0].domains"),
                "must not be empty",
            ),
            (
                |m| api(m, |h| h.route_specifier = Some(RouteSpecifier::ScopedRoutes(Default::default()))),
                at(".scoped_routes"),
                "not supported",
            ),
            (
                |m| api(m, |h| h.early_header_mutation_extensions.push(Default::default())),
                at(".early_header_mutation_extensions"),
                "must be empty",
            ),
            (
                |m| {
                    api(m, |h| {
                        let limit = Duration { seconds: -1, nanos: 0 };
                        let options = h.common_http_protocol_options.get_or_insert_default();
                        options.max_stream_duration = Some(limit);
                    });
                },
                at(".common_http_protocol_options.max_stream_duration"),
                "not a valid duration",
            ),
            (|m| api(m, |h| h.http_filters[0].name.clear()), at(".http_filters[0].name"), "is required"),
            (
                |m| api(m, |h| h.http_filters[0].config_type = None),
                at(".http_filters[0].typed_config"),
                "is required",
            ),
            (
                |m| {
                    api(m, |h| {
                        h.http_filters[0].config_type =
                            Some(http_filter::ConfigType::ConfigDiscovery(Default::default()));
                    });
                },
                at(".http_filters[0].config_discovery"),
                "is not supported",
            ),
            (
                |m| {
                    api(m, |h| {
                        let inner = Any { type_url: HttpFault::type_url(), value: Vec::new() };
                        let value = inner.encode_to_vec();
                        push_filter(h, "type.googleapis.com/xds.type.v3.TypedStruct", true);
                        if let Some(http_filter::ConfigType::TypedConfig(any)) =
                            &mut h.http_filters[0].config_type
                        {
                            any.value = value;
                        }
                    });
                },
                at(".http_filters[0].typed_config"),
                "must be sent as itself, not in a TypedStruct",
            ),
            (|m| api(m, |h| h.http_filters.clear()), at(".http_filters"), "must be the router"),
            (
                |m| api(m, |h| push_filter(h, UNKNOWN, false)),
                at(".http_filters[0].typed_config"),
                "x.Y is not supported on a client",
            ),
            (
                |m| api(m, |h| push_filter(h, &Rbac::type_url(), false)),
                at(".http_filters[0].typed_config"),
                "not supported on a client",
            ),
            (
                |m| {
                    api(m, |h| {
                        push_filter(h, UNKNOWN, true);
                        h.http_filters[0].name = "r".into();
                    });
                },
                at(".http_filters[1].name"),
                "stands twice",
            ),
        ],
    );
}

#[test]
fn an_unknown_filter_that_is_optional_is_left_out() {
    let mut message = client();
    api(&mut message, |manager| push_filter(manager, UNKNOWN, true));
    let parsed = Listener::parse(&message.encode_to_vec(), &context()).unwrap();
    let model::listener::ListenerKind::Api(manager) = parsed.kind else { panic!("not a client's") };
    assert_eq!(manager.filters.len(), 1);
}

#[test]
fn a_faulty_server_listener_is_refused_with_the_place() {
    const HTTP: &str = "filter_chains[0].filters[0].typed_config";
    let at = |rest: &str| -> &'static str { format!("{HTTP}{rest}").leak() };
    refuses::<Listener, _>(
        &server(),
        &[
            (|m| m.listener_filters.push(ListenerFilter::default()), "listener_filters[0]", "not supported"),
            (|m| m.use_original_dst = Some(BoolValue { value: true }), "use_original_dst", "not supported"),
            (|m| m.address = None, "address", "required"),
            (|m| m.filter_chains.clear(), "filter_chains", "no default"),
            (
                |m| {
                    for chain in 0..2 {
                        matches(m, chain).server_names.push("x".into());
                    }
                },
                "filter_chains",
                "no default",
            ),
            (
                |m| {
                    let never = FilterChain {
                        filter_chain_match: Some(FilterChainMatch {
                            server_names: vec!["x".into()],
                            ..Default::default()
                        }),
                        ..m.filter_chains[0].clone()
                    };
                    m.filter_chains.insert(0, never);
                    *matches(m, 2) = matches(m, 1).clone();
                },
                "filter_chains[2]",
                "same connections",
            ),
            (
                |m| {
                    matches(m, 0).source_ports = (0..65_535).collect();
                    matches(m, 1).source_ports = (0..65_535).collect();
                },
                "filter_chains",
                "more than 100000 combinations",
            ),
            (|m| *matches(m, 1) = matches(m, 0).clone(), "filter_chains[1]", "same connections"),
            (
                |m| m.filter_chains[0].filters[0].name.clear(),
                "filter_chains[0].filters[0].name",
                "must be present and unique",
            ),
            (|m| m.filter_chains[0].filters.clear(), "filter_chains[0].filters", "connection manager"),
            (
                |m| {
                    matches(m, 0).prefix_ranges.push(range("10.0.0.0", 33));
                },
                "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len",
                "too long",
            ),
            (
                |m| matches(m, 0).source_prefix_ranges.push(range("home", 8)),
                "filter_chains[0].filter_chain_match.source_prefix_ranges[0].address_prefix",
                "`home` is not a literal IP address",
            ),
            (
                |m| matches(m, 1).source_ports = vec![2, 65_536],
                "filter_chains[1].filter_chain_match.source_ports[1]",
                "65536 is not a port",
            ),
            (
                |m| matches(m, 0).source_type = 9,
                "filter_chains[0].filter_chain_match.source_type",
                "is unknown",
            ),
            (
                |m| {
                    let first = m.filter_chains[0].filters[0].clone();
                    m.filter_chains[0].filters[0].name = "last".into();
                    m.filter_chains[0].filters.insert(0, first);
                },
                "filter_chains[0].filters[0]",
                "only one filter, the HTTP connection manager",
            ),
            (
                |m| {
                    let again = m.filter_chains[0].filters[0].clone();
                    m.filter_chains[0].filters.push(again);
                },
                "filter_chains[0].filters[1].name",
                "must be present and unique",
            ),
            (
                |m| m.filter_chains[0].filters[0].config_type = None,
                "filter_chains[0].filters[0]",
                "only one filter, the HTTP connection manager",
            ),
            (
                |m| {
                    m.filter_chains[0].filters[0].config_type =
                        Some(pb::filter::ConfigType::ConfigDiscovery(Default::default()));
                },
                "filter_chains[0].filters[0].config_discovery",
                "is not supported",
            ),
            (
                |m| {
                    let discovered = pb::listener_filter::ConfigType::ConfigDiscovery(Default::default());
                    m.listener_filters
                        .push(ListenerFilter { config_type: Some(discovered), ..Default::default() });
                },
                "listener_filters[0].config_discovery",
                "is not supported",
            ),
            (
                |m| m.filter_chains[0].use_proxy_proto = Some(BoolValue { value: true }),
                "filter_chains[0].use_proxy_proto",
                "the PROXY protocol is not read",
            ),
            (
                |m| {
                    let pipe = address::Address::Pipe(Pipe { path: "/s".into(), mode: 0 });
                    m.address = Some(Address { address: Some(pipe) });
                },
                "address",
                "must be a socket_address",
            ),
            (|m| socket(m).address = "home".into(), "address.socket_address.address", "not a literal IP"),
            (
                |m| socket(m).port_specifier = Some(PortSpecifier::NamedPort("http".into())),
                "address.socket_address.named_port",
                "ports are numbers",
            ),
            (
                |m| m.default_filter_chain = Some(FilterChain::default()),
                "default_filter_chain.filters",
                "connection manager",
            ),
            (
                |m| served(m, |h| push_filter(h, &HttpFault::type_url(), false)),
                at(".http_filters[0].typed_config"),
                "not supported on a server",
            ),
        ],
    );
}

fn socket(message: &mut pb::Listener) -> &mut SocketAddress {
    match message.address.as_mut().unwrap().address.as_mut().unwrap() {
        address::Address::SocketAddress(socket) => socket,
        other => panic!("{other:?}"),
    }
}

/// The server, with a certificate and roots for clients, of whom it asks for one.
fn secured() -> pb::Listener {
    let tls = model::tls::DownstreamTls {
        identity: "default".into(),
        client_roots: Some("default".into()),
        require_client_certificate: true,
    };
    let mut message = server();
    message.filter_chains[0].transport_socket = Some(model::tls::wire::downstream_proto(&tls));
    message
}

fn tls(message: &mut pb::Listener, change: impl FnOnce(&mut DownstreamTlsContext)) {
    match message.filter_chains[0].transport_socket.as_mut().unwrap().config_type.as_mut().unwrap() {
        transport_socket::ConfigType::TypedConfig(any) => within(Some(any), change),
    }
}

fn common(message: &mut pb::Listener, change: impl FnOnce(&mut CommonTlsContext)) {
    tls(message, |tls| change(tls.common_tls_context.as_mut().unwrap()));
}

/// In place of both forms of the roots.
fn judging(message: &mut pb::Listener, validation: CertificateValidationContext) {
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(validation),
        ..Default::default()
    };
    let context = ValidationContextType::CombinedValidationContext(combined);
    common(message, |common| common.validation_context_type = Some(context));
}

#[test]
fn a_faulty_tls_context_of_a_server_is_refused_with_the_place() {
    const TLS: &str = "filter_chains[0].transport_socket.typed_config";
    let at = |rest: &str| -> &'static str { format!("{TLS}{rest}").leak() };
    refuses::<Listener, _>(
        &secured(),
        &[
            (|m| m.filter_chains[0].transport_socket = Some(TransportSocket::default()), TLS, "is required"),
            (
                |m| {
                    let config = model::wire::any(&UpstreamTlsContext::default());
                    m.filter_chains[0].transport_socket.as_mut().unwrap().config_type =
                        Some(transport_socket::ConfigType::TypedConfig(config));
                },
                TLS,
                "tls.v3.DownstreamTlsContext, found",
            ),
            (|m| tls(m, |t| t.common_tls_context = None), at(".common_tls_context"), "is required"),
            (
                |m| tls(m, |t| t.require_sni = Some(BoolValue { value: true })),
                at(".require_sni"),
                "is not supported",
            ),
            (
                |m| tls(m, |t| t.ocsp_staple_policy = 1),
                at(".ocsp_staple_policy"),
                "only LENIENT_STAPLING is supported",
            ),
            (
                |m| common(m, |c| c.validation_context_type = None),
                at(".require_client_certificate"),
                "needs ca_certificate_provider_instance",
            ),
            (
                |m| {
                    common(m, |c| {
                        c.tls_certificate_provider_instance = None;
                        c.tls_certificate_certificate_provider_instance = None;
                    });
                },
                at(".common_tls_context.tls_certificate_provider_instance"),
                "is required",
            ),
            (
                |m| {
                    let exact = MatchPattern::Exact("spiffe://td/a".into());
                    let matcher =
                        matching::StringMatcher { match_pattern: Some(exact), ..Default::default() };
                    judging(
                        m,
                        CertificateValidationContext {
                            match_subject_alt_names: vec![matcher],
                            ..Default::default()
                        },
                    );
                },
                at(".common_tls_context.validation_context"),
                "SAN matchers are not used on servers",
            ),
            (
                |m| {
                    judging(
                        m,
                        CertificateValidationContext {
                            system_root_certs: Some(Default::default()),
                            ..Default::default()
                        },
                    );
                },
                at(".common_tls_context.validation_context"),
                "system_root_certs is for clients only",
            ),
        ],
    );
}

/// A path that is to be like nothing.
fn no_path() -> matching::PathMatcher {
    matching::PathMatcher { rule: Some(matching::path_matcher::Rule::Path(Default::default())) }
}

#[test]
fn a_policy_that_cannot_be_decided_is_refused_however_deep_it_is() {
    const POLICY: &str =
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.rules.policies[\"p\"]";
    fn rule(message: &mut pb::Listener, rule: Rule) {
        // Inside a negation, where a rule that is ignored would open the door.
        let inner = Box::new(rules::Permission { rule: Some(rule) });
        policy(message, |policy| policy.permissions[0].rule = Some(Rule::NotRule(inner)));
    }
    fn header(name: &str) -> Rule {
        use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier::PresentMatch;
        let header_match_specifier = Some(PresentMatch(true));
        Rule::Header(HeaderMatcher { name: name.into(), header_match_specifier, ..Default::default() })
    }
    fn id(message: &mut pb::Listener, identifier: Identifier) {
        let inner = Box::new(rules::Principal { identifier: Some(identifier) });
        policy(message, |policy| policy.principals[0].identifier = Some(Identifier::NotId(inner)));
    }
    let at = |rest: &str| -> &'static str { format!("{POLICY}{rest}").leak() };
    refuses::<Listener, _>(
        &server(),
        &[
            (|m| policy(m, |p| p.condition = Some(Default::default())), at(".condition"), "not supported"),
            (
                |m| policy(m, |p| p.checked_condition = Some(Default::default())),
                at(".checked_condition"),
                "not supported",
            ),
            (|m| policy(m, |p| p.permissions.clear()), at(".permissions"), "must not be empty"),
            (|m| policy(m, |p| p.principals.clear()), at(".principals"), "must not be empty"),
            (|m| policy(m, |p| p.permissions[0].rule = None), at(".permissions[0]"), "says nothing"),
            (
                |m| rule(m, Rule::Matcher(Default::default())),
                at(".permissions[0].not_rule.matcher"),
                "not supported",
            ),
            (
                |m| rule(m, Rule::AndRules(Default::default())),
                at(".permissions[0].not_rule.and_rules.rules"),
                "must not be empty",
            ),
            (|m| rule(m, Rule::Any(false)), at(".permissions[0].not_rule.any"), "must be true"),
            (
                |m| rule(m, Rule::OrRules(Default::default())),
                at(".permissions[0].not_rule.or_rules.rules"),
                "must not be empty",
            ),
            (
                |m| {
                    let rules = vec![rules::Permission::default()];
                    rule(m, Rule::OrRules(rules::permission::Set { rules }));
                },
                at(".permissions[0].not_rule.or_rules.rules[0]"),
                "says nothing",
            ),
            (
                |m| rule(m, Rule::UrlPath(Default::default())),
                at(".permissions[0].not_rule.url_path.path"),
                "is required",
            ),
            (
                |m| rule(m, Rule::UrlPath(no_path())),
                at(".permissions[0].not_rule.url_path.path"),
                "one of exact",
            ),
            (
                |m| rule(m, Rule::DestinationIp(range("10.0.0.0", 40))),
                at(".permissions[0].not_rule.destination_ip.prefix_len"),
                "too long",
            ),
            (
                |m| rule(m, Rule::DestinationPortRange(Int32Range { start: 9, end: 9 })),
                at(".permissions[0].not_rule.destination_port_range"),
                "[9, 9) is not a range of ports",
            ),
            (
                |m| rule(m, Rule::DestinationPortRange(Int32Range { start: 9, end: 65_537 })),
                at(".permissions[0].not_rule.destination_port_range"),
                "[9, 65537) is not a range of ports",
            ),
            (
                |m| rule(m, Rule::RequestedServerName(Default::default())),
                at(".permissions[0].not_rule.requested_server_name"),
                "one of exact",
            ),
            (
                |m| rule(m, Rule::UriTemplate(Default::default())),
                at(".permissions[0].not_rule.uri_template"),
                "not supported",
            ),
            (
                |m| rule(m, Rule::SourcedMetadata(Default::default())),
                at(".permissions[0].not_rule.sourced_metadata"),
                "not supported",
            ),
            (|m| rule(m, header("")), at(".permissions[0].not_rule.header.name"), "`` is not a header name"),
            (
                |m| rule(m, header("GRPC-Timeout")),
                at(".permissions[0].not_rule.header.name"),
                "cannot be matched",
            ),
            (|m| rule(m, header(":scheme")), at(".permissions[0].not_rule.header.name"), "cannot be matched"),
            (
                |m| rule(m, Rule::DestinationPort(70_000)),
                at(".permissions[0].not_rule.destination_port"),
                "not a port",
            ),
            (
                |m| {
                    policy(m, |p| {
                        p.principals[0].identifier = Some(Identifier::FilterState(Default::default()))
                    })
                },
                at(".principals[0].filter_state"),
                "not supported",
            ),
            (|m| policy(m, |p| p.principals[0].identifier = None), at(".principals[0]"), "says nothing"),
            (|m| id(m, Identifier::Any(false)), at(".principals[0].not_id.any"), "must be true"),
            (
                |m| id(m, Identifier::AndIds(Default::default())),
                at(".principals[0].not_id.and_ids.ids"),
                "must not be empty",
            ),
            (
                |m| id(m, Identifier::OrIds(Default::default())),
                at(".principals[0].not_id.or_ids.ids"),
                "must not be empty",
            ),
            (
                |m| {
                    let principal_name = Some(Default::default());
                    id(m, Identifier::Authenticated(rules::principal::Authenticated { principal_name }));
                },
                at(".principals[0].not_id.authenticated.principal_name"),
                "one of exact",
            ),
            (
                |m| id(m, Identifier::SourceIp(range("a", 8))),
                at(".principals[0].not_id.source_ip.address_prefix"),
                "`a` is not a literal IP address",
            ),
            (
                |m| id(m, Identifier::DirectRemoteIp(range("b", 8))),
                at(".principals[0].not_id.direct_remote_ip.address_prefix"),
                "`b` is not a literal IP address",
            ),
            (
                |m| id(m, Identifier::RemoteIp(range("c", 8))),
                at(".principals[0].not_id.remote_ip.address_prefix"),
                "`c` is not a literal IP address",
            ),
            (
                |m| id(m, Identifier::Header(HeaderMatcher { name: "x".into(), ..Default::default() })),
                at(".principals[0].not_id.header"),
                "asks for nothing",
            ),
            (
                |m| id(m, Identifier::UrlPath(no_path())),
                at(".principals[0].not_id.url_path.path"),
                "one of exact",
            ),
            (
                |m| id(m, Identifier::SourcedMetadata(Default::default())),
                at(".principals[0].not_id.sourced_metadata"),
                "not supported",
            ),
            (
                |m| id(m, Identifier::Custom(Default::default())),
                at(".principals[0].not_id.custom"),
                "not supported",
            ),
        ],
    );
}

#[test]
fn rules_that_say_what_is_unknown_are_refused_with_the_place() {
    const RULES: &str = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";
    fn rbac(message: &mut pb::Listener, change: impl FnOnce(&mut Rbac)) {
        served(message, |manager| match &mut manager.http_filters[0].config_type {
            Some(http_filter::ConfigType::TypedConfig(any)) => within(Some(any), change),
            other => panic!("{other:?}"),
        });
    }
    fn audit(message: &mut pb::Listener, audit_condition: i32, logger: AuditLoggerConfig) {
        let options = AuditLoggingOptions { audit_condition, logger_configs: vec![logger] };
        rbac(message, |rbac| rbac.rules.as_mut().unwrap().audit_logging_options = Some(options));
    }
    let at = |rest: &str| -> &'static str { format!("{RULES}{rest}").leak() };
    refuses::<Listener, _>(
        &server(),
        &[
            (|m| rbac(m, |r| r.matcher = Some(Default::default())), at(".matcher"), "use `rules`"),
            (|m| rbac(m, |r| r.rules.as_mut().unwrap().action = 7), at(".rules.action"), "7 is unknown"),
            (
                |m| audit(m, 7, Default::default()),
                at(".rules.audit_logging_options.audit_condition"),
                "7 is unknown",
            ),
            (
                |m| audit(m, 1, Default::default()),
                at(".rules.audit_logging_options.logger_configs[0].audit_logger"),
                "is required",
            ),
            (
                |m| {
                    let audit_logger = Some(Default::default());
                    audit(m, 1, AuditLoggerConfig { audit_logger, ..Default::default() });
                },
                at(".rules.audit_logging_options.logger_configs[0].audit_logger.typed_config"),
                "is required",
            ),
        ],
    );
}

#[test]
fn a_policy_that_is_nested_too_deeply_is_refused() {
    let mut message = server();
    policy(&mut message, |policy| {
        for _ in 0..60 {
            let inner = Box::new(std::mem::take(&mut policy.permissions[0]));
            policy.permissions[0].rule = Some(Rule::NotRule(inner));
        }
        for _ in 0..60 {
            let inner = Box::new(std::mem::take(&mut policy.permissions[0]));
            policy.permissions[0].rule = Some(Rule::NotRule(inner));
        }
    });
    let error = Listener::parse(&message.encode_to_vec(), &context()).unwrap_err();
    assert_eq!(error.name.as_deref(), Some("l"));
    assert!(error.to_string().contains("recursion limit"), "{error}");
}
