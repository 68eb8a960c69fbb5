//! Listener, its filters and RBAC (gRFC A27, A36, A39, A41).

use super::*;
use crate::matcher::StringMatcher;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::ConfigSource,
            listener::v3::{self as pb, FilterChain, FilterChainMatch, ListenerFilter},
            rbac::v3::{self as rules, permission::Rule, principal::Identifier},
            route::v3::HeaderMatcher,
        },
        extensions::filters::{
            http::{fault::v3::HttpFault, rbac::v3::Rbac},
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter,
            },
        },
    },
    google::protobuf::{Any, BoolValue, UInt32Value},
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
                    let range = envoy_types::pb::envoy::config::core::v3::CidrRange {
                        address_prefix: "10.0.0.0".into(),
                        prefix_len: Some(UInt32Value { value: 33 }),
                    };
                    matches(m, 0).prefix_ranges.push(range);
                },
                "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len",
                "too long",
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
    let at = |rest: &str| -> &'static str { format!("{POLICY}{rest}").leak() };
    refuses::<Listener, _>(
        &server(),
        &[
            (|m| policy(m, |p| p.condition = Some(Default::default())), at(".condition"), "not supported"),
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
