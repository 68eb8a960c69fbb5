//! RouteConfiguration and what it is made of (gRFC A27, A28, A31, A42, A44, A81, A111).

use super::{Message, carried, fails, ignored, needs, rejected, supported};
use crate::resource::Feature;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::{
    self as proto,
    retry_policy::{RateLimitedRetryBackOff, ResetHeader, RetryBackOff, RetryHostPredicate, RetryPriority},
    route_action::{
        HashPolicy, MaxStreamDuration, RequestMirrorPolicy,
        hash_policy::{self, Header},
    },
    weighted_cluster::ClusterWeight,
};
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

pub(super) const MESSAGES: &[&Message] = &[
    &ROUTE_CONFIGURATION,
    &VIRTUAL_HOST,
    &ROUTE,
    &ROUTE_MATCH,
    &HEADER_MATCHER,
    &QUERY_PARAMETER_MATCHER,
    &HEADER_VALUE_OPTION,
    &HEADER_VALUE,
    &ROUTE_ACTION,
    &WEIGHTED_CLUSTER,
    &CLUSTER_WEIGHT,
    &CLUSTER_SPECIFIER_PLUGIN,
    &MAX_STREAM_DURATION,
    &HASH_POLICY,
    &HASH_HEADER,
    &HASH_COOKIE,
    &HASH_COOKIE_ATTRIBUTE,
    &HASH_CONNECTION,
    &HASH_QUERY,
    &HASH_FILTER_STATE,
    &MIRROR,
    &RETRY_POLICY,
    &RETRY_BACK_OFF,
    &RETRY_HOST_PREDICATE,
    &RETRY_PRIORITY,
    &PREVIOUS_PRIORITIES,
    &RATE_LIMITED_BACK_OFF,
    &RESET_HEADER,
    &HEDGE_POLICY,
    &REDIRECT,
    &DIRECT_RESPONSE,
];

/// `route_specifiers` and `matcher` would choose the route in another way.
const OTHER_CHOICE: &str = "another way of choosing the route";
/// Statistics, traces and names of them.
const TELEMETRY: &str = "about a proxy's statistics or traces";
/// Only filters read it that are themselves refused.
const RATE_LIMITS: &str = "read by the global rate limit filter only, which is refused";
const BUFFERS: &str = "the client bounds what it keeps for retries itself (A6)";

pub(in crate::resource) static ROUTE_CONFIGURATION: Message = Message::of::<proto::RouteConfiguration>(
    "",
    &[
        supported("name virtual_hosts", "A27", "every virtual host is checked, not only the one in use"),
        supported(
            "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove",
            "Envoy",
            "on a client; applied after the virtual host's",
        ),
        supported("most_specific_header_mutations_wins", "Envoy", "turns the order of the levels round"),
        supported("request_mirror_policies", "Envoy", "for routes without their own"),
        supported("typed_per_filter_config", "Envoy", "least specific level of overrides"),
        supported("cluster_specifier_plugins", "gRPC", "none is known: refused unless optional"),
        supported("max_direct_response_body_size_bytes", "Envoy", "default 4096; a longer body is refused"),
        supported("ignore_port_in_host_matching", "Envoy", ""),
        rejected("vhds", "Envoy", "virtual hosts on demand"),
        rejected("vhost_header route_specifiers", "Envoy", OTHER_CHOICE),
        rejected("internal_only_headers", "Envoy", "nothing here would remove them"),
        rejected("ignore_path_parameters_in_path_matching", "Envoy", "the path of a call has no parameters"),
        ignored("validate_clusters", "A74", "clusters are watched; calls to one that is missing fail"),
        ignored("metadata", "Envoy", "information"),
    ],
);

pub(in crate::resource) static VIRTUAL_HOST: Message = Message::of::<proto::VirtualHost>(
    "",
    &[
        supported("name", "A27", "for messages"),
        supported(
            "domains",
            "A27",
            "exact, `*suffix`, `prefix*`, `*`; case does not count; twice in a resource is refused",
        ),
        supported("routes", "A28", ""),
        supported("typed_per_filter_config", "A39", "by the filter's name"),
        supported(
            "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove",
            "Envoy",
            "on a client; literal values",
        ),
        supported("retry_policy", "A44", "for routes without their own"),
        needs(Feature::Hedging, "hedge_policy", "Envoy", "for routes without their own"),
        supported("request_mirror_policies", "Envoy", "for routes without their own"),
        rejected("matcher route_specifiers", "Envoy", OTHER_CHOICE),
        rejected("require_tls", "Envoy", "TLS is decided by clusters and filter chains"),
        rejected("retry_policy_typed_config", "Envoy", "use retry_policy"),
        ignored("virtual_clusters", "Envoy", TELEMETRY),
        ignored("rate_limits", "Envoy", RATE_LIMITS),
        ignored("cors", "Istio", "for browsers; without it they may do less"),
        ignored(
            "include_request_attempt_count include_attempt_count_in_response include_is_timeout_retry_header",
            "A6",
            "attempts are told in `grpc-previous-rpc-attempts`",
        ),
        ignored("per_request_buffer_limit_bytes request_body_buffer_limit", "A6", BUFFERS),
        ignored("metadata", "Envoy", "information"),
    ],
);

pub(in crate::resource) static ROUTE: Message = Message::of::<proto::Route>(
    "",
    &[
        supported("name", "A28", "for messages"),
        supported("match route", "A28", ""),
        supported("non_forwarding_action", "A36", "on a server; on a client such calls fail"),
        needs(Feature::Redirect, "redirect", "A28", "without it calls fail"),
        needs(Feature::DirectResponse, "direct_response", "A28", "without it calls fail"),
        fails("filter_action", "A28", ""),
        supported("metadata", "`io.mesh`", "`origin`: where the route was written; the rest is information"),
        supported("typed_per_filter_config", "A39", "by the filter's name"),
        supported(
            "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove",
            "Envoy",
            "on a client; literal values",
        ),
        rejected("route_specifiers", "Envoy", OTHER_CHOICE),
        ignored("decorator tracing stat_prefix", "Envoy", TELEMETRY),
        ignored("per_request_buffer_limit_bytes request_body_buffer_limit", "A6", BUFFERS),
    ],
);

pub(in crate::resource) static ROUTE_MATCH: Message = Message::of::<proto::RouteMatch>(
    "",
    &[
        supported("prefix path", "A28", ""),
        supported("safe_regex", "A28", "RE2's syntax; the whole path"),
        supported("path_separated_prefix", "Envoy", ""),
        supported("case_sensitive", "A28", "ASCII"),
        supported("headers", "A28", ""),
        supported("query_parameters", "Envoy", "gRPC passes over such routes; here they are evaluated"),
        supported("runtime_fraction", "A28", "`default_value`; there is no runtime, so the key is not read"),
        ignored("grpc", "Envoy", "every call is one of gRPC"),
        rejected("connect_matcher path_match_policy", "A28", ""),
        rejected(
            "cookies tls_context dynamic_metadata filter_state",
            "Envoy",
            "would match too much if ignored",
        ),
    ],
);

pub(in crate::resource) static HEADER_MATCHER: Message = Message::of::<proto::HeaderMatcher>(
    "",
    &[
        supported(
            "name",
            "A28",
            "`:authority`, `:path` and `:method` are seen as well; `-bin` headers are not",
        ),
        supported(
            "exact_match safe_regex_match prefix_match suffix_match contains_match",
            "A28",
            "empty prefix, suffix and contained text are refused",
        ),
        supported(
            "range_match present_match invert_match",
            "A28",
            "a matcher other than present_match fails where the header is absent, inverted or not",
        ),
        supported("string_match", "A63", ""),
        supported("treat_missing_header_as_empty", "Envoy", ""),
    ],
);

pub(in crate::resource) static QUERY_PARAMETER_MATCHER: Message = Message::of::<proto::QueryParameterMatcher>(
    "",
    &[supported("name string_match", "Envoy", ""), supported("present_match", "Envoy", "true only")],
);

pub(in crate::resource) static HEADER_VALUE_OPTION: Message = Message::of::<HeaderValueOption>(
    "of a route",
    &[
        supported("header append_action", "Envoy", ""),
        supported("append", "Envoy", "deprecated; before append_action"),
        supported("keep_empty_value", "Envoy", "unset: a header without value is not added"),
    ],
);

pub(in crate::resource) static HEADER_VALUE: Message = Message::of::<HeaderValue>(
    "of a route",
    &[
        supported("key", "Envoy", "no pseudo header, and none of the gRPC transport"),
        supported("value", "Envoy", "literal: `%%` is a percent sign, and a `%…%` formatter is refused"),
        supported("raw_value", "Envoy", "excludes value"),
    ],
);

pub(in crate::resource) static ROUTE_ACTION: Message = Message::of::<proto::RouteAction>(
    "",
    &[
        supported("cluster weighted_clusters", "A28", ""),
        needs(Feature::ClusterHeader, "cluster_header", "Envoy", "without it the route is passed over (A28)"),
        supported(
            "cluster_specifier_plugin",
            "gRPC",
            "must be declared; a route that uses one left out is passed over",
        ),
        supported(
            "inline_cluster_specifier_plugin",
            "Envoy",
            "none is known: refused, or the route is passed over where optional",
        ),
        supported("max_stream_duration", "A31", ""),
        supported("retry_policy", "A44", "replaces the virtual host's"),
        supported("hash_policy", "A42", ""),
        needs(Feature::Hedging, "hedge_policy", "Envoy", "replaces the virtual host's"),
        supported("prefix_rewrite regex_rewrite", "Envoy", "one of them; a regex route needs regex_rewrite"),
        supported(
            "host_rewrite_literal",
            "A111",
            "of a control plane with `trusted_xds_server`; of others no effect",
        ),
        supported(
            "auto_host_rewrite",
            "A81",
            "of a control plane with `trusted_xds_server`; of others no effect",
        ),
        supported("request_mirror_policies", "Envoy", ""),
        carried("timeout", "A31", "gRPC reads max_stream_duration"),
        rejected(
            "host_rewrite_header host_rewrite_path_regex host_rewrite",
            "Envoy",
            "of a control plane with `trusted_xds_server`; of others no effect",
        ),
        rejected("path_rewrite_policy path_rewrite", "Envoy", "use prefix_rewrite or regex_rewrite"),
        rejected("retry_policy_typed_config", "Envoy", "use retry_policy"),
        rejected("metadata_match", "Envoy", "subsets of endpoints by metadata"),
        ignored("cluster_not_found_response_code", "A31", "UNAVAILABLE"),
        ignored("append_x_forwarded_host", "Envoy", "a proxy's header"),
        ignored("idle_timeout flush_timeout", "A31", "gRPC reads max_stream_duration"),
        ignored("max_grpc_timeout grpc_timeout_offset", "A31", "deprecated for max_stream_duration"),
        ignored("early_data_policy", "A29", "no TLS early data is sent"),
        needs(
            Feature::HighPriority,
            "priority",
            "Envoy",
            "without it no effect: gRPC has one priority (A32)",
        ),
        ignored("rate_limits include_vh_rate_limits", "Envoy", RATE_LIMITS),
        ignored("cors", "Istio", "for browsers; without it they may do less"),
        ignored("upgrade_configs", "Envoy", "gRPC does not upgrade"),
        ignored(
            "internal_redirect_policy internal_redirect_action max_internal_redirects",
            "Envoy",
            "an answer to a gRPC call is no redirect",
        ),
    ],
);

pub(in crate::resource) static WEIGHTED_CLUSTER: Message = Message::of::<proto::WeightedCluster>(
    "",
    &[
        supported("clusters", "A28", "entries of weight 0 are left out; the rest must sum to 1..=4294967295"),
        ignored("total_weight", "A28", "the weights are summed"),
        ignored("runtime_key_prefix", "A28", "there is no runtime"),
        rejected("header_name use_hash_policy", "Envoy", "the cluster is drawn at random"),
    ],
);

pub(in crate::resource) static CLUSTER_WEIGHT: Message = Message::of::<ClusterWeight>(
    "",
    &[
        supported("name weight", "A28", ""),
        supported("typed_per_filter_config", "A39", "most specific level"),
        supported(
            "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove",
            "Envoy",
            "literal values",
        ),
        supported(
            "host_rewrite_literal",
            "Envoy",
            "of a control plane with `trusted_xds_server`; of others no effect",
        ),
        rejected("cluster_header", "Envoy", "use name"),
        rejected("metadata_match", "Envoy", "subsets of endpoints by metadata"),
    ],
);

pub(in crate::resource) static CLUSTER_SPECIFIER_PLUGIN: Message = Message::of::<proto::ClusterSpecifierPlugin>(
    "",
    &[supported("extension is_optional", "gRPC", "none is known: refused unless optional")],
);

pub(in crate::resource) static MAX_STREAM_DURATION: Message = Message::of::<MaxStreamDuration>(
    "",
    &[
        supported("max_stream_duration", "A31", "0 is no limit; absent: the connection manager's"),
        supported("grpc_timeout_header_max", "A31", "before max_stream_duration"),
        ignored("grpc_timeout_header_offset", "A31", ""),
    ],
);

pub(in crate::resource) static HASH_POLICY: Message = Message::of::<HashPolicy>(
    "",
    &[
        supported("header", "A42", ""),
        needs(
            Feature::HashPolicies,
            "cookie connection_properties query_parameter",
            "Envoy",
            "without it the policy yields no hash (A42)",
        ),
        supported("filter_state", "A42", "`io.grpc.channel_id`; others yield no hash"),
        supported("terminal", "A42", ""),
    ],
);

pub(in crate::resource) static HASH_HEADER: Message = Message::of::<Header>(
    "",
    &[supported("header_name regex_rewrite", "A42", "pseudo headers yield no hash")],
);

pub(in crate::resource) static HASH_COOKIE: Message = Message::of::<hash_policy::Cookie>(
    "",
    &[needs(Feature::HashPolicies, "name ttl path attributes", "Envoy", "")],
);

pub(in crate::resource) static HASH_COOKIE_ATTRIBUTE: Message = Message::of::<hash_policy::CookieAttribute>(
    "",
    &[needs(Feature::HashPolicies, "name value", "Envoy", "")],
);

pub(in crate::resource) static HASH_CONNECTION: Message = Message::of::<hash_policy::ConnectionProperties>(
    "",
    &[needs(Feature::HashPolicies, "source_ip", "Envoy", "")],
);

pub(in crate::resource) static HASH_QUERY: Message =
    Message::of::<hash_policy::QueryParameter>("", &[needs(Feature::HashPolicies, "name", "Envoy", "")]);

pub(in crate::resource) static HASH_FILTER_STATE: Message =
    Message::of::<hash_policy::FilterState>("", &[supported("key", "A42", "`io.grpc.channel_id`")]);

pub(in crate::resource) static MIRROR: Message = Message::of::<RequestMirrorPolicy>(
    "",
    &[
        supported("cluster", "Envoy", ""),
        supported("runtime_fraction", "Envoy", "`default_value`; absent: every request"),
        supported("disable_shadow_host_suffix_append", "Envoy", "unset: `-shadow` is appended to the host"),
        rejected("cluster_header", "Envoy", "use cluster"),
        rejected(
            "request_headers_mutations host_rewrite_literal",
            "Envoy",
            "the copy is as the request is sent",
        ),
        ignored("trace_sampled", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static RETRY_POLICY: Message = Message::of::<proto::RetryPolicy>(
    "",
    &[
        supported("retry_on", "A44", "gRPC's codes and Envoy's conditions; unknown ones are passed over"),
        supported("num_retries", "A44", "not 0"),
        supported("retry_back_off", "A44", ""),
        supported("per_try_timeout per_try_idle_timeout", "Envoy", "0 is none"),
        supported(
            "retry_host_predicate",
            "Envoy",
            "`previous_hosts`; others are advice and passed over (A44)",
        ),
        supported("host_selection_retry_max_attempts", "Envoy", ""),
        supported("retriable_status_codes retriable_headers retriable_request_headers", "Envoy", ""),
        supported("rate_limited_retry_back_off", "Envoy", ""),
        supported(
            "retry_priority",
            "Envoy",
            "`previous_priorities`; others are advice and passed over (A44)",
        ),
        ignored("retry_options_predicates", "A44", ""),
        ignored("refresh_cluster_on_retry", "A31", "the attempts of a call keep its cluster"),
    ],
);

pub(in crate::resource) static RETRY_BACK_OFF: Message = Message::of::<RetryBackOff>(
    "",
    &[
        supported("base_interval", "A44", "required, more than 0; under 1 ms counts as 1 ms"),
        supported("max_interval", "A44", "not less than base_interval; default ten times it"),
    ],
);

pub(in crate::resource) static RETRY_HOST_PREDICATE: Message = Message::of::<RetryHostPredicate>(
    "",
    &[
        supported("name", "Envoy", "`envoy.retry_host_predicates.previous_hosts`"),
        ignored("typed_config", "Envoy", "that predicate has no settings"),
    ],
);

pub(in crate::resource) static RETRY_PRIORITY: Message = Message::of::<RetryPriority>(
    "",
    &[
        supported("name", "Envoy", "`envoy.retry_priorities.previous_priorities`"),
        supported("typed_config", "Envoy", "PreviousPrioritiesConfig"),
    ],
);

pub(in crate::resource) static PREVIOUS_PRIORITIES: Message = Message::of::<PreviousPrioritiesConfig>(
    "",
    &[supported(
        "update_frequency",
        "Envoy",
        "more than 0; of a cluster of clusters, the priorities of the one in use",
    )],
);

pub(in crate::resource) static RATE_LIMITED_BACK_OFF: Message = Message::of::<RateLimitedRetryBackOff>(
    "",
    &[supported("reset_headers max_interval", "Envoy", "at least one header; default 300 s")],
);

pub(in crate::resource) static RESET_HEADER: Message =
    Message::of::<ResetHeader>("", &[supported("name format", "Envoy", "")]);

pub(in crate::resource) static HEDGE_POLICY: Message = Message::of::<proto::HedgePolicy>(
    "",
    &[needs(
        Feature::Hedging,
        "initial_requests additional_request_chance hedge_on_per_try_timeout",
        "Envoy",
        "a policy that asks for nothing is none; at most five attempts at once (A6), and hedge_on_per_try_timeout \
         needs a retry policy",
    )],
);

pub(in crate::resource) static REDIRECT: Message = Message::of::<proto::RedirectAction>(
    "",
    &[
        needs(
            Feature::Redirect,
            "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite \
             regex_rewrite response_code strip_query",
            "Envoy",
            "the call fails with the status that the HTTP one maps to, and says where it was sent",
        ),
        rejected("path_rewrite", "Envoy", "use path_redirect, prefix_rewrite or regex_rewrite"),
    ],
);

pub(in crate::resource) static DIRECT_RESPONSE: Message = Message::of::<proto::DirectResponseAction>(
    "",
    &[
        needs(
            Feature::DirectResponse,
            "status",
            "Envoy",
            "200..=599; the call ends with the status that it maps to, which for 2xx is UNKNOWN: there is no message",
        ),
        needs(Feature::DirectResponse, "body", "Envoy", "inline; becomes the status message"),
        rejected("body_format", "Envoy", "would not be evaluated"),
    ],
);
