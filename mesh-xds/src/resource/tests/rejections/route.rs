//! RouteConfiguration (gRFC A28, A39, A44).

mod answers;

use super::*;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent, TypedExtensionConfig,
                data_source::Specifier,
            },
            route::v3::{
                self as pb, HeaderMatcher, QueryParameterMatcher, RetryPolicy, RouteAction,
                header_matcher::HeaderMatchSpecifier,
                query_parameter_matcher::QueryParameterMatchSpecifier,
                redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier},
                retry_policy::{
                    RateLimitedRetryBackOff, ResetHeader, RetryBackOff, RetryPriority,
                    retry_priority::ConfigType,
                },
                route::Action,
                route_action::{
                    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, MaxStreamDuration,
                    RequestMirrorPolicy,
                    hash_policy::{self, Cookie, CookieAttribute, PolicySpecifier},
                },
                route_match::PathSpecifier,
                weighted_cluster::{ClusterWeight, RandomValueSpecifier, cluster_weight},
            },
        },
        extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig,
        r#type::{
            matcher::v3::{
                RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
            },
            v3::{FractionalPercent, Int64Range},
        },
    },
    google::protobuf::{Any, BoolValue, Duration, UInt32Value},
};

pub(super) fn good() -> pb::RouteConfiguration {
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

fn previous_priorities(message: &mut pb::RouteConfiguration, update_frequency: Option<i32>) {
    let config =
        |update_frequency| ConfigType::TypedConfig(wire::any(&PreviousPrioritiesConfig { update_frequency }));
    let name = "envoy.retry_priorities.previous_priorities".into();
    let retry_priority = Some(RetryPriority { name, config_type: update_frequency.map(config) });
    action(message).retry_policy = Some(RetryPolicy { retry_priority, ..Default::default() });
}

fn header(message: &mut pb::RouteConfiguration, specifier: Option<HeaderMatchSpecifier>) {
    let matcher = HeaderMatcher { name: "x".into(), header_match_specifier: specifier, ..Default::default() };
    matching(message).headers.push(matcher);
}

fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher { regex: expression.into(), ..Default::default() }
}

fn query(message: &mut pb::RouteConfiguration, specifier: QueryParameterMatchSpecifier) {
    let query_parameter_match_specifier = Some(specifier);
    let matcher = QueryParameterMatcher { name: "q".into(), query_parameter_match_specifier };
    matching(message).query_parameters.push(matcher);
}

/// A matcher that only its own extension could evaluate.
fn custom() -> StringMatcher {
    let match_pattern = Some(MatchPattern::Custom(Default::default()));
    StringMatcher { match_pattern, ..Default::default() }
}

/// A header that is to be like nothing.
fn unsaid() -> HeaderMatcher {
    HeaderMatcher { name: "x".into(), ..Default::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn negative() -> Option<Duration> {
    Some(Duration { seconds: -1, nanos: 0 })
}

fn stream(message: &mut pb::RouteConfiguration) -> &mut MaxStreamDuration {
    action(message).max_stream_duration.get_or_insert_default()
}

fn rewriting(message: &mut pb::RouteConfiguration, specifier: HostRewriteSpecifier) {
    action(message).host_rewrite_specifier = Some(specifier);
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn replacing(expression: &str) -> Option<RegexMatchAndSubstitute> {
    Some(RegexMatchAndSubstitute { pattern: Some(regex(expression)), ..Default::default() })
}

fn mirroring(message: &mut pb::RouteConfiguration, policy: RequestMirrorPolicy) {
    action(message).request_mirror_policies.push(policy);
}

fn retrying(message: &mut pb::RouteConfiguration, change: impl FnOnce(&mut RetryPolicy)) {
    change(action(message).retry_policy.get_or_insert_default());
}

fn resetting(message: &mut pb::RouteConfiguration, name: &str, format: i32, max_interval: Option<Duration>) {
    let reset_headers = vec![ResetHeader { name: name.into(), format }];
    let back_off = RateLimitedRetryBackOff { reset_headers, max_interval };
    retrying(message, |retry| retry.rate_limited_retry_back_off = Some(back_off));
}

const ROUTE: &str = "virtual_hosts[0].routes[0]";

fn plugin(message: &mut pb::RouteConfiguration, name: &str, is_optional: bool) {
    let typed_config = Some(Any { type_url: "type.googleapis.com/x.Y".into(), value: Vec::new() });
    let extension = Some(TypedExtensionConfig { name: name.into(), typed_config });
    message.cluster_specifier_plugins.push(pb::ClusterSpecifierPlugin { extension, is_optional });
}

fn by_plugin(message: &mut pb::RouteConfiguration, name: &str) {
    action(message).cluster_specifier = Some(ClusterSpecifier::ClusterSpecifierPlugin(name.into()));
}

fn responding(message: &mut pb::RouteConfiguration, status: u32, body: Option<Specifier>) {
    let body = body.map(|specifier| DataSource { specifier: Some(specifier), ..Default::default() });
    route(message).action =
        Some(Action::DirectResponse(pb::DirectResponseAction { status, body, ..Default::default() }));
}

fn redirecting(message: &mut pb::RouteConfiguration, redirect: pb::RedirectAction) {
    route(message).action = Some(Action::Redirect(redirect));
}

fn adding(message: &mut pb::RouteConfiguration, key: &str, value: &str) {
    let header = HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    let addition = HeaderValueOption { header: Some(header), ..Default::default() };
    route(message).request_headers_to_add.push(addition);
}

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
                |m| matching(m).path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/a/".into())),
                at(".match.path_separated_prefix"),
                "do not end with it",
            ),
            (
                |m| matching(m).path_specifier = Some(PathSpecifier::ConnectMatcher(Default::default())),
                at(".match.connect_matcher"),
                "no CONNECT",
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
                |m| header(m, Some(HeaderMatchSpecifier::SuffixMatch(String::new()))),
                at(".match.headers[0].suffix_match"),
                "must not be empty",
            ),
            (
                |m| header(m, Some(HeaderMatchSpecifier::ContainsMatch(String::new()))),
                at(".match.headers[0].contains_match"),
                "must not be empty",
            ),
            (
                |m| header(m, Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start: 2, end: 1 }))),
                at(".match.headers[0].range_match"),
                "2 is more than 1",
            ),
            (
                |m| header(m, Some(HeaderMatchSpecifier::StringMatch(custom()))),
                at(".match.headers[0].string_match"),
                "custom string matchers are not supported",
            ),
            (
                |m| {
                    header(m, Some(HeaderMatchSpecifier::PresentMatch(true)));
                    matching(m).headers[0].name = "a b".into();
                },
                at(".match.headers[0].name"),
                "`a b` is not a header name",
            ),
            (
                |m| query(m, QueryParameterMatchSpecifier::StringMatch(custom())),
                at(".match.query_parameters[0].string_match"),
                "custom string matchers are not supported",
            ),
            (
                |m| query(m, QueryParameterMatchSpecifier::PresentMatch(false)),
                at(".match.query_parameters[0].present_match"),
                "must be true",
            ),
            (
                |m| {
                    let default_value = Some(FractionalPercent { numerator: 1, denominator: 7 });
                    matching(m).runtime_fraction =
                        Some(RuntimeFractionalPercent { default_value, ..Default::default() });
                },
                at(".match.runtime_fraction.default_value"),
                "denominator 7 is unknown",
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
            (|m| action(m).timeout = negative(), at(".route.timeout"), "not a valid duration"),
            (
                |m| stream(m).max_stream_duration = negative(),
                at(".route.max_stream_duration.max_stream_duration"),
                "not a valid duration",
            ),
            (
                |m| stream(m).grpc_timeout_header_max = negative(),
                at(".route.max_stream_duration.grpc_timeout_header_max"),
                "not a valid duration",
            ),
            (
                |m| action(m).metadata_match = Some(Default::default()),
                at(".route.metadata_match"),
                "endpoints are not chosen by metadata",
            ),
            (
                |m| rewriting(m, HostRewriteSpecifier::HostRewriteLiteral("a b".into())),
                at(".route.host_rewrite_literal"),
                "`a b` is not an authority",
            ),
            (
                |m| rewriting(m, HostRewriteSpecifier::HostRewriteHeader("x".into())),
                at(".route.host_rewrite_header"),
                "use host_rewrite_literal or auto_host_rewrite",
            ),
            (
                |m| rewriting(m, HostRewriteSpecifier::HostRewritePathRegex(Default::default())),
                at(".route.host_rewrite_path_regex"),
                "use host_rewrite_literal or auto_host_rewrite",
            ),
            (
                |m| action(m).path_rewrite = "/a".into(),
                at(".route.path_rewrite"),
                "use prefix_rewrite or regex_rewrite",
            ),
            (
                |m| action(m).regex_rewrite = Some(Default::default()),
                at(".route.regex_rewrite.pattern"),
                "is required",
            ),
            (
                |m| action(m).regex_rewrite = replacing("("),
                at(".route.regex_rewrite"),
                "not a regular expression",
            ),
            (
                |m| {
                    action(m).regex_rewrite = replacing("a");
                    action(m).prefix_rewrite = "/".into();
                },
                at(".route.prefix_rewrite"),
                "excludes regex_rewrite",
            ),
            (
                |m| action(m).retry_policy_typed_config = Some(Any::default()),
                at(".route.retry_policy_typed_config"),
                "use retry_policy",
            ),
            (
                |m| mirroring(m, RequestMirrorPolicy::default()),
                at(".route.request_mirror_policies[0].cluster"),
                "is required",
            ),
            (
                |m| {
                    mirroring(m, RequestMirrorPolicy { cluster_header: "x".into(), ..Default::default() });
                },
                at(".route.request_mirror_policies[0].cluster_header"),
                "use cluster",
            ),
            (
                |m| {
                    let runtime_fraction = Some(Default::default());
                    mirroring(
                        m,
                        RequestMirrorPolicy { cluster: "m".into(), runtime_fraction, ..Default::default() },
                    );
                },
                at(".route.request_mirror_policies[0].runtime_fraction.default_value"),
                "is required",
            ),
            (
                |m| m.request_mirror_policies.push(RequestMirrorPolicy::default()),
                "request_mirror_policies[0].cluster",
                "is required",
            ),
            (
                |m| host(m).request_mirror_policies.push(RequestMirrorPolicy::default()),
                "virtual_hosts[0].request_mirror_policies[0].cluster",
                "is required",
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
            (
                |m| previous_priorities(m, None),
                at(".route.retry_policy.retry_priority.typed_config"),
                "required",
            ),
            (
                |m| previous_priorities(m, Some(0)),
                at(".route.retry_policy.retry_priority.typed_config.update_frequency"),
                "must be more than 0",
            ),
            (
                |m| previous_priorities(m, Some(-2)),
                at(".route.retry_policy.retry_priority.typed_config.update_frequency"),
                "must be more than 0",
            ),
            (
                |m| retrying(m, |r| r.retriable_status_codes.push(70_000)),
                at(".route.retry_policy.retriable_status_codes[0]"),
                "70000 is no HTTP status",
            ),
            (
                |m| retrying(m, |r| r.retriable_headers.push(unsaid())),
                at(".route.retry_policy.retriable_headers[0]"),
                "asks for nothing",
            ),
            (
                |m| retrying(m, |r| r.retriable_request_headers.push(unsaid())),
                at(".route.retry_policy.retriable_request_headers[0]"),
                "asks for nothing",
            ),
            (
                |m| retrying(m, |r| r.per_try_timeout = negative()),
                at(".route.retry_policy.per_try_timeout"),
                "not a valid duration",
            ),
            (
                |m| retrying(m, |r| r.per_try_idle_timeout = negative()),
                at(".route.retry_policy.per_try_idle_timeout"),
                "not a valid duration",
            ),
            (
                |m| {
                    retrying(m, |r| {
                        let config = ConfigType::TypedConfig(wire::any(&RetryPolicy::default()));
                        let name = "envoy.retry_priorities.previous_priorities".into();
                        r.retry_priority = Some(RetryPriority { name, config_type: Some(config) });
                    });
                },
                at(".route.retry_policy.retry_priority.typed_config"),
                "previous_priorities.v3.PreviousPrioritiesConfig, found",
            ),
            (
                |m| retrying(m, |r| r.rate_limited_retry_back_off = Some(Default::default())),
                at(".route.retry_policy.rate_limited_retry_back_off.reset_headers"),
                "must not be empty",
            ),
            (
                |m| resetting(m, "a b", 0, None),
                at(".route.retry_policy.rate_limited_retry_back_off.reset_headers[0].name"),
                "`a b` is no header",
            ),
            (
                |m| resetting(m, "x", 7, None),
                at(".route.retry_policy.rate_limited_retry_back_off.reset_headers[0].format"),
                "7 is unknown",
            ),
            (
                |m| resetting(m, "x", 0, Some(Duration::default())),
                at(".route.retry_policy.rate_limited_retry_back_off.max_interval"),
                "greater than zero",
            ),
            (
                |m| back_off(m, Some(10), Some(0)),
                at(".route.retry_policy.retry_back_off.max_interval"),
                "greater than zero",
            ),
            (
                |m| {
                    let num_retries = Some(UInt32Value { value: 0 });
                    host(m).retry_policy = Some(RetryPolicy { num_retries, ..Default::default() });
                },
                "virtual_hosts[0].retry_policy.num_retries",
                "must not be 0",
            ),
            (|m| action(m).priority = 7, at(".route.priority"), "7 is unknown"),
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
fn a_plugin_that_is_optional_leaves_out_its_routes() {
    let mut message = good();
    plugin(&mut message, "p", true);
    by_plugin(&mut message, "p");
    let parsed = RouteConfiguration::parse(&message.encode_to_vec(), &context()).unwrap();
    assert!(parsed.virtual_hosts[0].routes.is_empty());

    let mut message = good();
    let typed_config = Some(Any { type_url: "type.googleapis.com/x.Y".into(), value: Vec::new() });
    let extension = Some(TypedExtensionConfig { name: "p".into(), typed_config });
    let inline = pb::ClusterSpecifierPlugin { extension, is_optional: true };
    action(&mut message).cluster_specifier = Some(ClusterSpecifier::InlineClusterSpecifierPlugin(inline));
    let parsed = RouteConfiguration::parse(&message.encode_to_vec(), &context()).unwrap();
    assert!(parsed.virtual_hosts[0].routes.is_empty());
}

#[test]
fn answers_that_the_data_path_does_not_have_fail_their_calls_and_nothing_else() {
    let core = ParseContext { support: Support::NONE, ..context() };
    let action = |change: fn(&mut pb::RouteConfiguration), context: &ParseContext| {
        let mut message = good();
        change(&mut message);
        let parsed = RouteConfiguration::parse(&message.encode_to_vec(), context).unwrap();
        parsed.virtual_hosts[0].routes[0].action.clone()
    };
    use model::route::RouteAction::{DirectResponse, Redirect, Unsupported};
    // As gRPC does, without a look at what is inside.
    let direct: fn(&mut pb::RouteConfiguration) = |m| responding(m, 0, None);
    assert_eq!(action(direct, &core), Unsupported("direct_response"));
    let redirect: fn(&mut pb::RouteConfiguration) = |m| redirecting(m, Default::default());
    assert_eq!(action(redirect, &core), Unsupported("redirect"));
    assert!(matches!(action(redirect, &context()), Redirect(redirect) if redirect.status == 301));
    let direct: fn(&mut pb::RouteConfiguration) = |m| responding(m, 503, None);
    assert!(matches!(action(direct, &context()), DirectResponse(response) if response.status == 503));
}

#[test]
fn what_stands_on_a_level_above_holds_for_routes_without_their_own() {
    let mirror = |cluster: &str| vec![RequestMirrorPolicy { cluster: cluster.into(), ..Default::default() }];
    let mut message = good();
    message.request_mirror_policies = mirror("everywhere");
    let mirrors = |message: &pb::RouteConfiguration| {
        let parsed = RouteConfiguration::parse(&message.encode_to_vec(), &context()).unwrap();
        match &parsed.virtual_hosts[0].routes[0].action {
            model::route::RouteAction::Forward(forward) => forward.mirrors[0].cluster.to_string(),
            _ => panic!("no route action"),
        }
    };
    assert_eq!(mirrors(&message), "everywhere");
    host(&mut message).request_mirror_policies = mirror("host");
    assert_eq!(mirrors(&message), "host");
    action(&mut message).request_mirror_policies = mirror("route");
    assert_eq!(mirrors(&message), "route");
}

#[test]
fn a_header_without_value_is_added_only_when_asked_for() {
    let count = |keep_empty_value| {
        let mut message = good();
        adding(&mut message, "x", "");
        route(&mut message).request_headers_to_add[0].keep_empty_value = keep_empty_value;
        let parsed = RouteConfiguration::parse(&message.encode_to_vec(), &context()).unwrap();
        parsed.virtual_hosts[0].routes[0].headers.request.add.len()
    };
    assert_eq!((count(false), count(true)), (0, 1));
}

#[test]
fn a_port_is_ignored_when_asked_for() {
    let mut message = good();
    let found = |message: &pb::RouteConfiguration, authority: &str| {
        let parsed = RouteConfiguration::parse(&message.encode_to_vec(), &context()).unwrap();
        parsed.virtual_host(authority).is_some()
    };
    assert!(found(&message, "A") && !found(&message, "a:80"));
    message.ignore_port_in_host_matching = true;
    assert!(found(&message, "a:80") && found(&message, "a") && !found(&message, "b:80"));
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
    let core = ParseContext { support: Support::NONE, ..context() };
    let parse = |m: &pb::RouteConfiguration| RouteConfiguration::parse(&m.encode_to_vec(), &core);
    assert!(parse(&message).unwrap().virtual_hosts[0].routes.is_empty());

    let mut message = good();
    action(&mut message).retry_policy = Some(RetryPolicy {
        retry_on: "unavailable,what-is-this".into(),
        retry_priority: Some(RetryPriority { name: "what.is.this".into(), config_type: None }),
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
