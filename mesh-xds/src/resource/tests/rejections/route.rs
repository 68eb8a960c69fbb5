//! RouteConfiguration (gRFC A28, A39, A44).

use super::*;
use envoy_types::pb::{
    envoy::{
        config::route::v3::{
            self as pb, HeaderMatcher, RetryPolicy, RouteAction, header_matcher::HeaderMatchSpecifier,
            retry_policy::RetryBackOff, route::Action, route_action::ClusterSpecifier,
            route_match::PathSpecifier, weighted_cluster::ClusterWeight,
        },
        r#type::matcher::v3::RegexMatcher,
    },
    google::protobuf::{Any, Duration, UInt32Value},
};

fn good() -> pb::RouteConfiguration {
    let route = pb::Route {
        r#match: Some(pb::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("c".into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let host = pb::VirtualHost { domains: vec!["a".into()], routes: vec![route], ..Default::default() };
    pb::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() }
}

fn host(message: &mut pb::RouteConfiguration) -> &mut pb::VirtualHost {
    &mut message.virtual_hosts[0]
}

fn route(message: &mut pb::RouteConfiguration) -> &mut pb::Route {
    &mut host(message).routes[0]
}

fn matching(message: &mut pb::RouteConfiguration) -> &mut pb::RouteMatch {
    route(message).r#match.as_mut().unwrap()
}

fn action(message: &mut pb::RouteConfiguration) -> &mut RouteAction {
    match &mut route(message).action {
        Some(Action::Route(action)) => action,
        _ => panic!("no route action"),
    }
}

fn weighted(message: &mut pb::RouteConfiguration, weights: &[u32]) {
    let one = |weight: &u32| ClusterWeight {
        name: "c".into(),
        weight: Some(UInt32Value { value: *weight }),
        ..Default::default()
    };
    let clusters = weights.iter().map(one).collect();
    action(message).cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(pb::WeightedCluster { clusters, ..Default::default() }));
}

fn back_off(message: &mut pb::RouteConfiguration, base: Option<i32>, max: Option<i32>) {
    let millis = |millis: i32| Duration { seconds: 0, nanos: millis * 1_000_000 };
    action(message).retry_policy = Some(RetryPolicy {
        retry_back_off: Some(RetryBackOff { base_interval: base.map(millis), max_interval: max.map(millis) }),
        ..Default::default()
    });
}

fn header(message: &mut pb::RouteConfiguration, specifier: Option<HeaderMatchSpecifier>) {
    let matcher = HeaderMatcher { name: "x".into(), header_match_specifier: specifier, ..Default::default() };
    matching(message).headers.push(matcher);
}

fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher { regex: expression.into(), ..Default::default() }
}

const ROUTE: &str = "virtual_hosts[0].routes[0]";

#[test]
#[expect(deprecated, reason = "what older control planes send must be refused when it is wrong")]
fn a_faulty_route_configuration_is_refused_with_the_place() {
    let at = |rest: &str| -> &'static str { format!("{ROUTE}{rest}").leak() };
    refuses::<RouteConfiguration, _>(
        &good(),
        &[
            (|m| host(m).domains.clear(), "virtual_hosts[0].domains", "must not be empty"),
            (|m| host(m).domains.push("a*b".into()), "virtual_hosts[0].domains[1]", "not a domain pattern"),
            (|m| host(m).domains.push("A".into()), "virtual_hosts[0].domains[1]", "two virtual hosts"),
            (|m| route(m).r#match = None, at(".match"), "required"),
            (|m| matching(m).path_specifier = None, at(".match.path_specifier"), "required"),
            (
                |m| matching(m).path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a".into())),
                at(".match.path_specifier"),
                "only prefix, path and safe_regex",
            ),
            (
                |m| matching(m).path_specifier = Some(PathSpecifier::SafeRegex(regex("foo)|bar(?:"))),
                at(".match.safe_regex"),
                "not a regular expression",
            ),
            (|m| header(m, None), at(".match.headers[0]"), "asks for nothing"),
            (
                |m| header(m, Some(HeaderMatchSpecifier::PrefixMatch(String::new()))),
                at(".match.headers[0].prefix_match"),
                "must not be empty",
            ),
            (
                |m| header(m, Some(HeaderMatchSpecifier::SafeRegexMatch(regex("(")))),
                at(".match.headers[0].safe_regex_match"),
                "not a regular expression",
            ),
            (
                |m| matching(m).runtime_fraction = Some(Default::default()),
                at(".match.runtime_fraction.default_value"),
                "required",
            ),
            (|m| route(m).action = None, at(""), "no action"),
            (
                |m| action(m).cluster_specifier = Some(ClusterSpecifier::Cluster(String::new())),
                at(".route.cluster"),
                "must not be empty",
            ),
            (|m| weighted(m, &[]), at(".route.weighted_clusters.clusters"), "sum to 0"),
            (|m| weighted(m, &[0, 0]), at(".route.weighted_clusters.clusters"), "sum to 0"),
            (
                |m| weighted(m, &[u32::MAX, 1]),
                at(".route.weighted_clusters.clusters"),
                "more than 4294967295",
            ),
            (
                |m| {
                    let num_retries = Some(UInt32Value { value: 0 });
                    action(m).retry_policy = Some(RetryPolicy { num_retries, ..Default::default() });
                },
                at(".route.retry_policy.num_retries"),
                "must not be 0",
            ),
            (|m| back_off(m, None, None), at(".route.retry_policy.retry_back_off.base_interval"), "required"),
            (
                |m| back_off(m, Some(0), None),
                at(".route.retry_policy.retry_back_off.base_interval"),
                "greater than zero",
            ),
            (
                |m| back_off(m, Some(10), Some(5)),
                at(".route.retry_policy.retry_back_off.max_interval"),
                "less than base_interval",
            ),
            (
                |m| {
                    let unknown = Any { type_url: "type.googleapis.com/x.Y".into(), value: Vec::new() };
                    route(m).typed_per_filter_config.insert("f".into(), unknown);
                },
                at(".typed_per_filter_config[\"f\"]"),
                "not supported, and not optional",
            ),
            (
                |m| route(m).request_headers_to_remove.push("grpc-timeout".into()),
                at(".request_headers_to_remove[0]"),
                "belongs to the transport",
            ),
        ],
    );
}

#[test]
fn every_fault_of_a_resource_is_reported_at_once() {
    let mut message = good();
    host(&mut message).domains.push(String::new());
    matching(&mut message).path_specifier = None;
    weighted(&mut message, &[0]);
    let error = RouteConfiguration::parse(&message.encode_to_vec(), &context()).unwrap_err();
    assert_eq!(error.rejected.faults.len(), 3, "{error}");
}

#[test]
fn what_grpc_passes_over_does_not_reject() {
    let mut message = good();
    action(&mut message).cluster_specifier = Some(ClusterSpecifier::ClusterHeader("x".into()));
    let parse = |m: &pb::RouteConfiguration| RouteConfiguration::parse(&m.encode_to_vec(), &context());
    assert!(parse(&message).unwrap().virtual_hosts[0].routes.is_empty());

    let mut message = good();
    action(&mut message).retry_policy = Some(RetryPolicy {
        retry_on: "unavailable,what-is-this".into(),
        retry_priority: Some(Default::default()),
        retry_host_predicate: vec![Default::default()],
        ..Default::default()
    });
    assert!(parse(&message).is_ok());

    let mut message = good();
    weighted(&mut message, &[0, 3]);
    let names = parse(&message).unwrap().references();
    assert_eq!(names, [(ResourceType::Cluster, "c".into())]);
}

#[test]
fn only_a_trusted_control_plane_rewrites_the_authority() {
    use pb::route_action::HostRewriteSpecifier;
    let mut message = good();
    action(&mut message).host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral("b".into()));
    let authority = |trusted| {
        let context = ParseContext { trusted, ..context() };
        let parsed = RouteConfiguration::parse(&message.encode_to_vec(), &context).unwrap();
        match &parsed.virtual_hosts[0].routes[0].action {
            model::route::RouteAction::Forward(forward) => forward.authority.clone(),
            _ => panic!("no route action"),
        }
    };
    assert_eq!(authority(true).unwrap(), "b");
    assert_eq!(authority(false), None);
}
