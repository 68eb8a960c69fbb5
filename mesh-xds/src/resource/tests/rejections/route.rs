//! RouteConfiguration (gRFC A28, A39, A44).

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

fn redirecting_path(message: &mut pb::RouteConfiguration, specifier: PathRewriteSpecifier) {
    let path_rewrite_specifier = Some(specifier);
    redirecting(message, pb::RedirectAction { path_rewrite_specifier, ..Default::default() });
}

fn clusters(message: &mut pb::RouteConfiguration) -> &mut pb::WeightedCluster {
    match &mut action(message).cluster_specifier {
        Some(ClusterSpecifier::WeightedClusters(clusters)) => clusters,
        other => panic!("{other:?}"),
    }
}

fn weight(message: &mut pb::RouteConfiguration) -> &mut ClusterWeight {
    &mut clusters(message).clusters[0]
}

fn hashing(message: &mut pb::RouteConfiguration, specifier: PolicySpecifier) {
    let policy_specifier = Some(specifier);
    action(message).hash_policy = vec![HashPolicy { policy_specifier, terminal: false }];
}

fn cookie_attribute(message: &mut pb::RouteConfiguration, name: &str, value: &str) {
    let attribute = CookieAttribute { name: name.into(), value: value.into() };
    let cookie = Cookie { name: "c".into(), attributes: vec![attribute], ..Default::default() };
    hashing(message, PolicySpecifier::Cookie(cookie));
}

fn adding(message: &mut pb::RouteConfiguration, key: &str, value: &str) {
    let header = HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    let addition = HeaderValueOption { header: Some(header), ..Default::default() };
    route(message).request_headers_to_add.push(addition);
}

#[test]
fn what_names_a_cluster_an_answer_or_a_header_wrongly_is_refused() {
    let at = |rest: &str| -> &'static str { format!("{ROUTE}{rest}").leak() };
    refuses::<RouteConfiguration, _>(
        &good(),
        &[
            (
                |m| plugin(m, "p", false),
                "cluster_specifier_plugins[0].extension.typed_config",
                "x.Y is not supported, and not optional",
            ),
            (|m| plugin(m, "", true), "cluster_specifier_plugins[0].extension.name", "required"),
            (
                |m| {
                    plugin(m, "p", true);
                    plugin(m, "p", true);
                },
                "cluster_specifier_plugins[1].extension.name",
                "stands twice",
            ),
            (|m| by_plugin(m, "p"), at(".route.cluster_specifier_plugin"), "`p` is not declared"),
            (
                |m| action(m).cluster_specifier = Some(ClusterSpecifier::ClusterHeader("a b".into())),
                at(".route.cluster_header"),
                "not a header name",
            ),
            (|m| responding(m, 199, None), at(".direct_response.status"), "within 200..=599"),
            (|m| responding(m, 600, None), at(".direct_response.status"), "within 200..=599"),
            (
                |m| responding(m, 200, Some(Specifier::InlineString("x".repeat(4097)))),
                at(".direct_response.body"),
                "4097 bytes are more than the limit of 4096",
            ),
            (
                |m| {
                    m.max_direct_response_body_size_bytes = Some(UInt32Value { value: 1 });
                    responding(m, 200, Some(Specifier::InlineBytes(vec![0; 2])));
                },
                at(".direct_response.body"),
                "limit of 1",
            ),
            (
                |m| responding(m, 200, Some(Specifier::Filename("/etc/passwd".into()))),
                at(".direct_response.body"),
                "inline_string",
            ),
            (
                |m| {
                    let body_format = Some(Default::default());
                    let action = pb::DirectResponseAction { status: 200, body_format, ..Default::default() };
                    route(m).action = Some(Action::DirectResponse(action));
                },
                at(".direct_response.body_format"),
                "it would not be evaluated",
            ),
            (
                |m| {
                    let scheme = SchemeRewriteSpecifier::SchemeRedirect("a b".into());
                    let scheme_rewrite_specifier = Some(scheme);
                    redirecting(m, pb::RedirectAction { scheme_rewrite_specifier, ..Default::default() });
                },
                at(".redirect.scheme_redirect"),
                "`a b` is not a scheme",
            ),
            (
                |m| redirecting_path(m, PathRewriteSpecifier::RegexRewrite(Default::default())),
                at(".redirect.regex_rewrite.pattern"),
                "is required",
            ),
            (
                |m| redirecting_path(m, PathRewriteSpecifier::PathRewrite("/%DYNAMIC%".into())),
                at(".redirect.path_rewrite"),
                "use path_redirect or prefix_rewrite",
            ),
            (
                |m| redirecting(m, pb::RedirectAction { response_code: 9, ..Default::default() }),
                at(".redirect.response_code"),
                "unknown",
            ),
            (
                |m| redirecting(m, pb::RedirectAction { host_redirect: "a b".into(), ..Default::default() }),
                at(".redirect.host_redirect"),
                "not a host",
            ),
            (
                |m| redirecting(m, pb::RedirectAction { port_redirect: 70_000, ..Default::default() }),
                at(".redirect.port_redirect"),
                "not a port",
            ),
            (
                |m| adding(m, ":path", "x"),
                at(".request_headers_to_add[0].header.key"),
                "belongs to the transport",
            ),
            (
                |m| adding(m, "x", "%REQ(y)%"),
                at(".request_headers_to_add[0].header.value"),
                "formatters are not supported",
            ),
            (
                |m| {
                    adding(m, "x", "a");
                    route(m).request_headers_to_add[0].header.as_mut().unwrap().raw_value = b"b".into();
                },
                at(".request_headers_to_add[0].header.raw_value"),
                "excludes value",
            ),
            (
                |m| {
                    adding(m, "x", "a");
                    route(m).request_headers_to_add[0].append_action = 7;
                },
                at(".request_headers_to_add[0].append_action"),
                "is unknown",
            ),
            (
                |m| route(m).response_headers_to_add.push(HeaderValueOption::default()),
                at(".response_headers_to_add[0].header"),
                "is required",
            ),
            (
                |m| route(m).response_headers_to_remove.push("a b".into()),
                at(".response_headers_to_remove[0]"),
                "`a b` is not a header name",
            ),
            (
                |m| host(m).request_headers_to_remove.push("te".into()),
                "virtual_hosts[0].request_headers_to_remove[0]",
                "belongs to the transport",
            ),
            (
                |m| m.response_headers_to_remove.push(":status".into()),
                "response_headers_to_remove[0]",
                "belongs to the transport",
            ),
            (|m| adding(m, "x", "a\nb"), at(".request_headers_to_add[0].header.value"), "not a header value"),
            (
                |m| {
                    let initial_requests = Some(UInt32Value { value: 0 });
                    action(m).hedge_policy = Some(pb::HedgePolicy { initial_requests, ..Default::default() });
                },
                at(".route.hedge_policy.initial_requests"),
                "must not be 0",
            ),
            (
                |m| {
                    let chance = Some(FractionalPercent { numerator: 1, denominator: 7 });
                    action(m).hedge_policy =
                        Some(pb::HedgePolicy { additional_request_chance: chance, ..Default::default() });
                },
                at(".route.hedge_policy.additional_request_chance"),
                "denominator 7 is unknown",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    weight(m).name.clear();
                },
                at(".route.weighted_clusters.clusters[0].name"),
                "is required",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    weight(m).cluster_header = "x".into();
                },
                at(".route.weighted_clusters.clusters[0].cluster_header"),
                "not supported",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    weight(m).host_rewrite_specifier =
                        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("a b".into()));
                },
                at(".route.weighted_clusters.clusters[0].host_rewrite_literal"),
                "`a b` is not an authority",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    clusters(m).random_value_specifier = Some(RandomValueSpecifier::HeaderName("x".into()));
                },
                at(".route.weighted_clusters.header_name"),
                "the cluster is drawn at random",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    let used = BoolValue { value: true };
                    clusters(m).random_value_specifier = Some(RandomValueSpecifier::UseHashPolicy(used));
                },
                at(".route.weighted_clusters.use_hash_policy"),
                "the cluster is drawn at random",
            ),
            (
                |m| m.cluster_specifier_plugins.push(Default::default()),
                "cluster_specifier_plugins[0].extension",
                "is required",
            ),
            (
                |m| {
                    plugin(m, "p", true);
                    m.cluster_specifier_plugins[0].extension.as_mut().unwrap().typed_config = None;
                },
                "cluster_specifier_plugins[0].extension.typed_config",
                "is required",
            ),
            (
                |m| {
                    let inline = pb::ClusterSpecifierPlugin::default();
                    action(m).cluster_specifier =
                        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(inline));
                },
                at(".route.inline_cluster_specifier_plugin.extension"),
                "is required",
            ),
            (
                |m| hashing(m, PolicySpecifier::QueryParameter(Default::default())),
                at(".route.hash_policy[0].query_parameter.name"),
                "is required",
            ),
            (
                |m| {
                    let header = hash_policy::Header { header_name: "a b".into(), ..Default::default() };
                    hashing(m, PolicySpecifier::Header(header));
                },
                at(".route.hash_policy[0].header.header_name"),
                "`a b` is not a header name",
            ),
            (
                |m| {
                    let regex_rewrite = replacing("(");
                    let header = hash_policy::Header { header_name: "x".into(), regex_rewrite };
                    hashing(m, PolicySpecifier::Header(header));
                },
                at(".route.hash_policy[0].header.regex_rewrite"),
                "not a regular expression",
            ),
            (
                |m| hashing(m, PolicySpecifier::Cookie(Cookie::default())),
                at(".route.hash_policy[0].cookie.name"),
                "is required",
            ),
            (
                |m| {
                    let path = "/a;b".into();
                    hashing(
                        m,
                        PolicySpecifier::Cookie(Cookie { name: "c".into(), path, ..Default::default() }),
                    );
                },
                at(".route.hash_policy[0].cookie.path"),
                "cannot stand in a cookie",
            ),
            (
                |m| {
                    let ttl = negative();
                    hashing(
                        m,
                        PolicySpecifier::Cookie(Cookie { name: "c".into(), ttl, ..Default::default() }),
                    );
                },
                at(".route.hash_policy[0].cookie.ttl"),
                "not a valid duration",
            ),
            (
                |m| cookie_attribute(m, "", "v"),
                at(".route.hash_policy[0].cookie.attributes[0].name"),
                "is required",
            ),
            (
                |m| cookie_attribute(m, "a=", "v"),
                at(".route.hash_policy[0].cookie.attributes[0].name"),
                "cannot stand in a cookie",
            ),
            (
                |m| cookie_attribute(m, "a", "v,"),
                at(".route.hash_policy[0].cookie.attributes[0].value"),
                "cannot stand in a cookie",
            ),
            (
                |m| {
                    let cookie = Cookie { name: "a;b".into(), ..Default::default() };
                    hashing(m, PolicySpecifier::Cookie(cookie));
                },
                at(".route.hash_policy[0].cookie.name"),
                "cannot stand in a cookie",
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
