//! A good resource around each message of `resource/fields`.

/// To the first filter of a client's listener, and of a server's.
macro_rules! in_client {
    ($($rest:literal),*) => { &[19, 1, 2, 5, 4, 2 $(, $rest)*] };
}
macro_rules! in_server {
    ($($rest:literal),*) => { &[3, 3, 4, 2, 5, 4, 2 $(, $rest)*] };
}
/// To the override of a route.
macro_rules! in_override {
    ($($rest:literal),*) => { &[2, 3, 13, 2, 2 $(, $rest)*] };
}

mod extension;

use super::*;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{Address, DataSource, HeaderValue, HeaderValueOption, SocketAddress, data_source},
            rbac::v3 as rules,
            route::v3::{FilterConfig, route_action::hash_policy, weighted_cluster::ClusterWeight},
        },
        extensions::filters::{
            common::fault::v3::{FaultDelay, fault_delay},
            http::{fault::v3 as fault, rbac::v3 as rbac, router::v3::Router},
            listener::tls_inspector::v3::TlsInspector,
        },
        r#type::matcher::v3 as matcher,
    },
    google::protobuf::{Any, Duration, UInt32Value},
};
use model::wire::any;
use prost::Message as _;

/// (message, field): what a field changes that no single value shows, and the test that shows it.
pub(super) const PROVEN_ELSEWHERE: &[(&str, &str)] = &[
    // The tests of `resource/origin.rs`.
    ("Route", "metadata"),
    // an_unknown_filter_that_is_optional_is_left_out
    ("HttpFilter", "is_optional"),
    // an_unknown_override_that_is_optional_is_left_out
    ("FilterConfig", "is_optional"),
    // a_plugin_that_is_optional_leaves_out_its_routes
    ("ClusterSpecifierPlugin", "is_optional"),
    // a_header_without_value_is_added_only_when_asked_for
    ("HeaderValueOption", "keep_empty_value"),
    // a_faulty_server_listener_is_refused_with_the_place
    ("Filter", "name"),
    // retry_on is a list of words: the tests of `resource/retry/wire.rs`
    ("RetryPolicy", "retry_on"),
    // an_audit_logger_that_is_not_known_is_refused_unless_optional
    ("AuditLoggerConfig", "is_optional"),
    // a_faulty_filter_is_refused_with_the_place_though_it_is_optional: it is read with `strict` only
    ("StatefulSession", "status_on_strict_destination_not_found"),
    // Where no provider is named: the tests of `rejections/files.rs`, and for secrets of `rejections/secret.rs`
    ("CertificateValidationContext", "trusted_ca"),
    ("CertificateValidationContext", "crl"),
    ("CertificateValidationContext", "only_verify_leaf_cert_crl"),
    // Messages that merge with the good one when empty: the messages inside them have rows of their own.
    ("RBAC", "audit_logging_options"),
    ("AuditLoggerConfig", "audit_logger"),
    ("StatefulSession", "session_state"),
    ("ExtAuthz", "decoder_header_mutation_rules"),
    ("ProxyProtocolUpstreamTransport", "transport_socket"),
    ("ExtensionWithMatcher", "extension_config"),
    ("OnMatch", "action"),
    ("SinglePredicate", "input"),
    ("MatcherTree", "input"),
    // The first that is known counts, so one more changes nothing: credentials_are_the_first_that_are_known
    ("GoogleGrpc", "channel_credentials_plugin"),
    // The next message, RetryHostPredicate.
    ("RetryPolicy", "retry_host_predicate"),
    // a_cluster_comes_back_from_its_bytes: what counts only together with another field or key.
    ("Cluster", "typed_extension_protocol_options"),
    ("Cluster", "lrs_report_endpoint_metrics"),
    ("Cluster", "metadata"),
    ("ClientSideWeightedRoundRobin", "oob_reporting_period"),
    ("OutlierDetection", "split_external_local_origin_errors"),
    // a_faulty_cluster_is_refused_with_the_place
    ("Cluster", "eds_cluster_config"),
    ("Cluster", "circuit_breakers"),
    ("CommonLbConfig", "healthy_panic_threshold"),
    // a_policy_of_the_enum_with_faulty_settings_is_refused
    ("Cluster", "least_request_lb_config"),
    ("Cluster", "ring_hash_lb_config"),
    ("Cluster", "maglev_lb_config"),
    ("CommonLbConfig", "consistent_hashing_lb_config"),
    // a_cluster_of_clusters_names_some
    ("CustomClusterType", "name"),
    // Lists of policies, of which the first counts: the tests of `resource/tests/rejections/balancing.rs`.
    ("WrrLocality", "endpoint_picking_policy"),
    ("RandomSubsetting", "child_policy"),
    ("ClientSideWeightedRoundRobin", "metric_names_for_computing_utilization"),
    // metadata_says_the_key_of_the_hash_and_the_proxy
    ("LbEndpoint", "metadata"),
    ("LocalityLbEndpoints", "metadata"),
];

pub(super) fn all() -> Vec<Carrier> {
    let mut all = route_carriers();
    all.extend(listener_carriers());
    all.extend(filter_carriers());
    all.extend(clusters::carriers());
    all.extend(extension::carriers());
    all
}

// ---- RouteConfiguration ----

fn forward_to_c() -> route::RouteAction {
    use route::route_action::ClusterSpecifier;
    let cluster_specifier = Some(ClusterSpecifier::Cluster("c".into()));
    route::RouteAction { cluster_specifier, ..Default::default() }
}

fn match_all() -> route::RouteMatch {
    let path_specifier = Some(route::route_match::PathSpecifier::Prefix("/".into()));
    route::RouteMatch { path_specifier, ..Default::default() }
}

fn configuration(first: route::Route) -> Vec<u8> {
    let direct = route::Route {
        r#match: Some(match_all()),
        action: Some(route::route::Action::DirectResponse(direct_response())),
        ..Default::default()
    };
    let host =
        route::VirtualHost { domains: vec!["a".into()], routes: vec![first, direct], ..Default::default() };
    let configuration =
        route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
    configuration.encode_to_vec()
}

/// To one cluster.
pub(super) fn to_one() -> Vec<u8> {
    matching(|_| {})
}

fn matching(change: impl FnOnce(&mut route::RouteMatch)) -> Vec<u8> {
    let mut matches = match_all();
    change(&mut matches);
    let action = Some(route::route::Action::Route(forward_to_c()));
    configuration(route::Route { r#match: Some(matches), action, ..Default::default() })
}

fn acting(action: route::route::Action) -> Vec<u8> {
    configuration(route::Route { r#match: Some(match_all()), action: Some(action), ..Default::default() })
}

fn forwarding(change: impl FnOnce(&mut route::RouteAction)) -> Vec<u8> {
    let mut forward = forward_to_c();
    change(&mut forward);
    acting(route::route::Action::Route(forward))
}

fn hashing(specifier: hash_policy::PolicySpecifier) -> Vec<u8> {
    forwarding(|action| {
        let policy_specifier = Some(specifier);
        action.hash_policy = vec![route::route_action::HashPolicy { policy_specifier, terminal: false }];
    })
}

fn overriding(config: Any) -> Vec<u8> {
    let action = Some(route::route::Action::Route(forward_to_c()));
    let typed_per_filter_config = [("f".to_owned(), config)].into();
    configuration(route::Route {
        r#match: Some(match_all()),
        action,
        typed_per_filter_config,
        ..Default::default()
    })
}

fn direct_response() -> route::DirectResponseAction {
    let body = DataSource {
        specifier: Some(data_source::Specifier::InlineString("body".into())),
        ..Default::default()
    };
    route::DirectResponseAction { status: 503, body: Some(body), ..Default::default() }
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn exactly(value: &str) -> matcher::StringMatcher {
    let match_pattern = Some(matcher::string_matcher::MatchPattern::Exact(value.into()));
    matcher::StringMatcher { match_pattern, ..Default::default() }
}

fn header_matcher() -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier::StringMatch;
    route::HeaderMatcher {
        name: "x".into(),
        header_match_specifier: Some(StringMatch(exactly("v"))),
        ..Default::default()
    }
}

fn header_option() -> HeaderValueOption {
    let header = HeaderValue { key: "x".into(), value: "v".into(), ..Default::default() };
    HeaderValueOption { header: Some(header), ..Default::default() }
}

fn route_carriers() -> Vec<Carrier> {
    use hash_policy::PolicySpecifier;
    use route::{
        query_parameter_matcher::QueryParameterMatchSpecifier, route::Action, route_action::ClusterSpecifier,
    };
    let carrier = |message, good, at| Carrier { message, kind: ResourceType::RouteConfiguration, good, at };
    let plain = || forwarding(|_| {});
    let weighted = || {
        forwarding(|action| {
            let weight = Some(UInt32Value { value: 5 });
            let cluster = ClusterWeight { name: "c".into(), weight, ..Default::default() };
            let clusters = route::WeightedCluster { clusters: vec![cluster], ..Default::default() };
            action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(clusters));
        })
    };
    let retry = || {
        forwarding(|action| {
            let header = ResetHeader { name: "x".into(), format: 0 };
            let limited = RateLimitedRetryBackOff { reset_headers: vec![header], max_interval: None };
            let back_off = RetryBackOff { base_interval: seconds(2), max_interval: seconds(4) };
            let hosts = RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".into(),
                config_type: None,
            };
            let priorities = RetryPriority {
                name: "envoy.retry_priorities.previous_priorities".into(),
                config_type: Some(retry_priority::ConfigType::TypedConfig(any(&PreviousPrioritiesConfig {
                    update_frequency: 2,
                }))),
            };
            action.retry_policy = Some(RetryPolicy {
                retry_priority: Some(priorities),
                retry_back_off: Some(back_off),
                rate_limited_retry_back_off: Some(limited),
                retry_host_predicate: vec![hosts],
                ..Default::default()
            });
        })
    };
    let cookie = || {
        hashing(PolicySpecifier::Cookie(hash_policy::Cookie {
            name: "c".into(),
            attributes: vec![hash_policy::CookieAttribute { name: "n".into(), value: "v".into() }],
            ..Default::default()
        }))
    };
    let hash_header = hash_policy::Header { header_name: "x".into(), regex_rewrite: None };
    let query = route::QueryParameterMatcher {
        name: "q".into(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(exactly("v"))),
    };
    let mirror = route::route_action::RequestMirrorPolicy { cluster: "m".into(), ..Default::default() };
    let chance = envoy_types::pb::envoy::r#type::v3::FractionalPercent { numerator: 50, denominator: 0 };
    let hedge = route::HedgePolicy { additional_request_chance: Some(chance), ..Default::default() };
    let redirect = route::RedirectAction { host_redirect: "b".into(), ..Default::default() };
    let plugin = {
        let mut configuration = route::RouteConfiguration::decode(&*plain()).unwrap();
        configuration.cluster_specifier_plugins = vec![route::ClusterSpecifierPlugin {
            extension: Some(envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig {
                name: "p".into(),
                typed_config: Some(Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] }),
            }),
            is_optional: true,
        }];
        configuration.encode_to_vec()
    };
    let adding = configuration(route::Route {
        r#match: Some(match_all()),
        action: Some(Action::Route(forward_to_c())),
        request_headers_to_add: vec![header_option()],
        ..Default::default()
    });
    vec![
        carrier(&ROUTE_CONFIGURATION, plain(), &[]),
        carrier(&VIRTUAL_HOST, plain(), &[2]),
        carrier(&ROUTE, plain(), &[2, 3]),
        carrier(&ROUTE_MATCH, plain(), &[2, 3, 1]),
        carrier(&HEADER_MATCHER, matching(|m| m.headers = vec![header_matcher()]), &[2, 3, 1, 6]),
        carrier(&QUERY_PARAMETER_MATCHER, matching(|m| m.query_parameters = vec![query]), &[2, 3, 1, 7]),
        carrier(&HEADER_VALUE_OPTION, adding.clone(), &[2, 3, 9]),
        carrier(&HEADER_VALUE, adding, &[2, 3, 9, 1]),
        carrier(&ROUTE_ACTION, plain(), &[2, 3, 2]),
        carrier(&WEIGHTED_CLUSTER, weighted(), &[2, 3, 2, 3]),
        carrier(&CLUSTER_WEIGHT, weighted(), &[2, 3, 2, 3, 1]),
        carrier(&CLUSTER_SPECIFIER_PLUGIN, plugin, &[12]),
        carrier(&MAX_STREAM_DURATION, plain(), &[2, 3, 2, 36]),
        carrier(&HASH_POLICY, hashing(PolicySpecifier::Header(hash_header.clone())), &[2, 3, 2, 15]),
        carrier(&HASH_HEADER, hashing(PolicySpecifier::Header(hash_header)), &[2, 3, 2, 15, 1]),
        carrier(&HASH_COOKIE, cookie(), &[2, 3, 2, 15, 2]),
        carrier(&HASH_COOKIE_ATTRIBUTE, cookie(), &[2, 3, 2, 15, 2, 4]),
        carrier(
            &HASH_CONNECTION,
            hashing(PolicySpecifier::ConnectionProperties(Default::default())),
            &[2, 3, 2, 15, 3],
        ),
        carrier(
            &HASH_QUERY,
            hashing(PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name: "q".into() })),
            &[2, 3, 2, 15, 5],
        ),
        carrier(
            &HASH_FILTER_STATE,
            hashing(PolicySpecifier::FilterState(hash_policy::FilterState {
                key: "io.grpc.channel_id".into(),
            })),
            &[2, 3, 2, 15, 6],
        ),
        carrier(&MIRROR, forwarding(|a| a.request_mirror_policies = vec![mirror]), &[2, 3, 2, 30]),
        carrier(&RETRY_POLICY, retry(), &[2, 3, 2, 9]),
        carrier(&RETRY_BACK_OFF, retry(), &[2, 3, 2, 9, 8]),
        carrier(&RETRY_HOST_PREDICATE, retry(), &[2, 3, 2, 9, 5]),
        carrier(&RETRY_PRIORITY, retry(), &[2, 3, 2, 9, 4]),
        carrier(&PREVIOUS_PRIORITIES, retry(), &[2, 3, 2, 9, 4, 3, 2]),
        carrier(&RATE_LIMITED_BACK_OFF, retry(), &[2, 3, 2, 9, 11]),
        carrier(&RESET_HEADER, retry(), &[2, 3, 2, 9, 11, 1]),
        carrier(&HEDGE_POLICY, forwarding(|a| a.hedge_policy = Some(hedge)), &[2, 3, 2, 27]),
        carrier(&REDIRECT, acting(Action::Redirect(redirect)), &[2, 3, 3]),
        carrier(&DIRECT_RESPONSE, acting(Action::DirectResponse(direct_response())), &[2, 3, 7]),
    ]
}

// ---- Listener ----

fn filter(name: &str, config: Any) -> hcm::HttpFilter {
    let config_type = Some(hcm::http_filter::ConfigType::TypedConfig(config));
    hcm::HttpFilter { name: name.into(), config_type, ..Default::default() }
}

fn manager(filters: Vec<hcm::HttpFilter>) -> Any {
    let rds = hcm::Rds { config_source: Some(model::wire::ads()), route_config_name: "r".into() };
    let router = filter("router", any(&Router::default()));
    any(&hcm::HttpConnectionManager {
        http_filters: filters.into_iter().chain([router]).collect(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(rds)),
        common_http_protocol_options: Some(HttpProtocolOptions {
            max_stream_duration: seconds(7),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// A client's listener with these filters before the router.
fn client(filters: Vec<hcm::HttpFilter>) -> Vec<u8> {
    let api_listener = Some(listener::ApiListener { api_listener: Some(manager(filters)) });
    listener::Listener { name: "l".into(), api_listener, ..Default::default() }.encode_to_vec()
}

/// A server's listener with these filters before the router.
pub(super) fn server(filters: Vec<hcm::HttpFilter>) -> Vec<u8> {
    let inspector = listener::ListenerFilter {
        name: "tls".into(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
        ..Default::default()
    };
    let network = listener::Filter {
        name: "http".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(manager(filters))),
    };
    let matches = listener::FilterChainMatch { source_ports: vec![1], ..Default::default() };
    let chain = listener::FilterChain {
        filter_chain_match: Some(matches),
        filters: vec![network],
        ..Default::default()
    };
    let address = SocketAddress {
        address: "10.0.0.1".into(),
        port_specifier: Some(
            envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier::PortValue(80),
        ),
        ..Default::default()
    };
    listener::Listener {
        name: "l".into(),
        address: Some(Address {
            address: Some(envoy_types::pb::envoy::config::core::v3::address::Address::SocketAddress(address)),
        }),
        filter_chains: vec![chain],
        listener_filters: vec![inspector],
        ..Default::default()
    }
    .encode_to_vec()
}

fn listener_carriers() -> Vec<Carrier> {
    let carrier = |message, good, at| Carrier { message, kind: ResourceType::Listener, good, at };
    let faulty = || client(vec![filter("f", any(&fault()))]);
    vec![
        carrier(&CLIENT, client(vec![]), &[]),
        carrier(&SERVER, server(vec![]), &[]),
        carrier(&FILTER_CHAIN, server(vec![]), &[3]),
        carrier(&FILTER_CHAIN_MATCH, server(vec![]), &[3, 1]),
        carrier(&NETWORK_FILTER, server(vec![]), &[3, 3]),
        carrier(&LISTENER_FILTER, server(vec![]), &[9]),
        carrier(&HTTP_CONNECTION_MANAGER, client(vec![]), &[19, 1, 2]),
        carrier(&HTTP_PROTOCOL_OPTIONS, client(vec![]), &[19, 1, 2, 35]),
        carrier(&RDS, client(vec![]), &[19, 1, 2, 3]),
        carrier(&HTTP_FILTER, faulty(), &[19, 1, 2, 5]),
    ]
}

// ---- HTTP filters ----

fn fault() -> fault::HttpFault {
    let delay = FaultDelay {
        fault_delay_secifier: Some(fault_delay::FaultDelaySecifier::FixedDelay(seconds(3).unwrap())),
        ..Default::default()
    };
    let abort = fault::FaultAbort {
        error_type: Some(fault::fault_abort::ErrorType::HttpStatus(503)),
        ..Default::default()
    };
    fault::HttpFault { delay: Some(delay), abort: Some(abort), ..Default::default() }
}

fn rbac() -> rbac::Rbac {
    let header = || header_matcher();
    let policy = rules::Policy {
        permissions: vec![rules::Permission { rule: Some(rules::permission::Rule::Header(header())) }],
        principals: vec![rules::Principal {
            identifier: Some(rules::principal::Identifier::Header(header())),
        }],
        ..Default::default()
    };
    let rules = rules::Rbac { policies: [("p".to_owned(), policy)].into(), ..Default::default() };
    rbac::Rbac { rules: Some(rules), ..Default::default() }
}

fn filter_carriers() -> Vec<Carrier> {
    let on_client = |message, config: Any, at| Carrier {
        message,
        kind: ResourceType::Listener,
        good: client(vec![filter("f", config)]),
        at,
    };
    let on_server = |message, config: Any, at| Carrier {
        message,
        kind: ResourceType::Listener,
        good: server(vec![filter("f", config)]),
        at,
    };
    let on_route = |message, config: Any, at| Carrier {
        message,
        kind: ResourceType::RouteConfiguration,
        good: overriding(config),
        at,
    };
    vec![
        on_route(
            &FILTER_CONFIG,
            any(&FilterConfig { config: Some(any(&fault())), ..Default::default() }),
            in_override!(),
        ),
        Carrier { message: &ROUTER, kind: ResourceType::Listener, good: client(vec![]), at: in_client!() },
        on_client(&FAULT, any(&fault()), in_client!()),
        on_client(&FAULT_DELAY, any(&fault()), in_client!(1)),
        on_client(&FAULT_ABORT, any(&fault()), in_client!(2)),
        on_server(&RBAC, any(&rbac()), in_server!()),
        on_route(&RBAC_PER_ROUTE, any(&rbac::RbacPerRoute { rbac: Some(rbac()) }), in_override!()),
        on_server(&RBAC_RULES, any(&rbac()), in_server!(1)),
        on_server(&RBAC_POLICY, any(&rbac()), in_server!(1, 2, 2)),
        on_server(&RBAC_PERMISSION, any(&rbac()), in_server!(1, 2, 2, 1)),
        on_server(&RBAC_PRINCIPAL, any(&rbac()), in_server!(1, 2, 2, 2)),
    ]
}
