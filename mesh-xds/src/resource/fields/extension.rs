//! HTTP filters that need a feature of the data path (gRFC A55, A59, A77, A83, A92, A102, A103, A106).

use super::{Message, ignored, needs, rejected};
use crate::resource::Feature::{
    AuditLogging, CompositeFilter, ExtAuthz, GcpAuthn, JwtAuthn, LocalRateLimit, RateLimitQuota,
    StatefulSession,
};
use envoy_types::pb::{
    envoy::{
        config::{
            common::mutation_rules::v3::HeaderMutationRules,
            core::v3::{GrpcService, HttpUri, grpc_service::GoogleGrpc},
            rbac::v3::rbac::{AuditLoggingOptions, audit_logging_options::AuditLoggerConfig},
        },
        extensions::{
            common::matching::v3::{ExtensionWithMatcher, ExtensionWithMatcherPerRoute},
            filters::http::{
                composite::v3::{Composite, ExecuteFilterAction, FilterChainConfiguration},
                ext_authz::v3 as authz,
                gcp_authn::v3::{GcpAuthnFilterConfig, TokenCacheConfig},
                jwt_authn::v3 as jwt,
                local_ratelimit::v3 as local,
                rate_limit_quota::v3::{
                    RateLimitQuotaBucketSettings, RateLimitQuotaFilterConfig, RateLimitQuotaOverride,
                    rate_limit_quota_bucket_settings::{
                        BucketIdBuilder, DenyResponseSettings, ExpiredAssignmentBehavior,
                        NoAssignmentBehavior, bucket_id_builder::ValueBuilder,
                    },
                },
                stateful_session::v3::{StatefulSession as Session, StatefulSessionPerRoute},
            },
            http::stateful_session::{
                cookie::v3::CookieBasedSessionState, header::v3::HeaderBasedSessionState,
            },
        },
        r#type::{
            http::v3::{Cookie, CookieAttribute},
            v3::{RateLimitStrategy, TokenBucket, rate_limit_strategy::RequestsPerTimeUnit},
        },
    },
    xds::r#type::matcher::v3::{
        Matcher,
        matcher::{
            MatcherTree, OnMatch,
            matcher_list::{FieldMatcher, Predicate, predicate::SinglePredicate},
        },
    },
};

pub(super) const MESSAGES: &[&Message] = &[
    &AUDIT,
    &AUDIT_LOGGER,
    &SESSION,
    &SESSION_PER_ROUTE,
    &SESSION_COOKIE_STATE,
    &SESSION_HEADER_STATE,
    &SESSION_COOKIE,
    &SESSION_COOKIE_ATTRIBUTE,
    &JWT,
    &JWT_PROVIDER,
    &JWT_HEADER,
    &JWT_REMOTE,
    &JWT_HTTP_URI,
    &JWT_ASYNC_FETCH,
    &JWT_CLAIM,
    &JWT_RULE,
    &JWT_REQUIREMENT,
    &JWT_PER_ROUTE,
    &LOCAL_RATE_LIMIT,
    &TOKEN_BUCKET,
    &EXT_AUTHZ,
    &EXT_AUTHZ_PER_ROUTE,
    &CHECK_SETTINGS,
    &MUTATION_RULES,
    &GRPC_SERVICE,
    &GOOGLE_GRPC,
    &GCP_AUTHN,
    &GCP_CACHE,
    &QUOTA,
    &QUOTA_OVERRIDE,
    &QUOTA_BUCKET,
    &QUOTA_ID,
    &QUOTA_ID_VALUE,
    &QUOTA_NO_ASSIGNMENT,
    &QUOTA_EXPIRED,
    &QUOTA_DENY,
    &QUOTA_STRATEGY,
    &QUOTA_RATE,
    &COMPOSITE,
    &COMPOSITE_INNER,
    &COMPOSITE_PER_ROUTE,
    &COMPOSITE_ACTION,
    &COMPOSITE_CHAIN,
    &MATCHER,
    &ON_MATCH,
    &FIELD_MATCHER,
    &PREDICATE,
    &SINGLE_PREDICATE,
    &MATCHER_TREE,
];

const TELEMETRY: &str = "about a proxy's statistics or logs";
const METADATA: &str = "there is no dynamic metadata of other filters";

pub(in crate::resource) static AUDIT: Message = Message::of::<AuditLoggingOptions>(
    "",
    &[needs(AuditLogging, "audit_condition logger_configs", "A59", "`StdoutAuditLog`")],
);

pub(in crate::resource) static AUDIT_LOGGER: Message = Message::of::<AuditLoggerConfig>(
    "",
    &[needs(AuditLogging, "audit_logger is_optional", "A59", "another logger is refused unless optional")],
);

pub(in crate::resource) static SESSION: Message = Message::of::<Session>(
    "",
    &[
        needs(
            StatefulSession,
            "session_state",
            "A55",
            "a CookieBasedSessionState or HeaderBasedSessionState; absent: the filter does nothing",
        ),
        needs(StatefulSession, "strict", "Envoy", "else a session whose endpoint is gone goes to another"),
        needs(
            StatefulSession,
            "status_on_strict_destination_not_found",
            "Envoy",
            "read with strict only; default 503; the call has the gRPC status that it maps to",
        ),
        ignored("stat_prefix", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static SESSION_PER_ROUTE: Message = Message::of::<StatefulSessionPerRoute>(
    "",
    &[needs(StatefulSession, "disabled stateful_session", "A55", "")],
);

pub(in crate::resource) static SESSION_COOKIE_STATE: Message =
    Message::of::<CookieBasedSessionState>("", &[needs(StatefulSession, "cookie", "A55", "")]);

pub(in crate::resource) static SESSION_HEADER_STATE: Message = Message::of::<HeaderBasedSessionState>(
    "",
    &[needs(StatefulSession, "name", "Envoy", "the cluster stands in it as in the cookie (A60)")],
);

pub(in crate::resource) static SESSION_COOKIE: Message = Message::of::<Cookie>(
    "of a session",
    &[
        needs(StatefulSession, "name ttl path", "A55", "name is required; path defaults to `/`"),
        needs(StatefulSession, "attributes", "Envoy", ""),
    ],
);

pub(in crate::resource) static SESSION_COOKIE_ATTRIBUTE: Message =
    Message::of::<CookieAttribute>("of a session", &[needs(StatefulSession, "name value", "Envoy", "")]);

pub(in crate::resource) static JWT: Message = Message::of::<jwt::JwtAuthentication>(
    "",
    &[
        needs(JwtAuthn, "providers rules requirement_map", "Envoy", ""),
        rejected("filter_state_rules", "Envoy", "there is no filter state"),
        ignored("bypass_cors_preflight", "Envoy", "gRPC has no OPTIONS"),
        ignored("strip_failure_response", "Envoy", "a refusal says no more than its status"),
        ignored("stat_prefix", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static JWT_PROVIDER: Message = Message::of::<jwt::JwtProvider>(
    "",
    &[
        needs(JwtAuthn, "issuer audiences subjects require_expiration max_lifetime", "Envoy", ""),
        needs(JwtAuthn, "clock_skew_seconds", "Envoy", "0 is the default, 60"),
        needs(JwtAuthn, "local_jwks", "Envoy", "inline, an object with the list `keys`"),
        needs(JwtAuthn, "remote_jwks", "Envoy", ""),
        needs(JwtAuthn, "from_headers from_params from_cookies forward", "Envoy", ""),
        needs(
            JwtAuthn,
            "forward_payload_header pad_forward_payload_header claim_to_headers payload_in_metadata \
             normalize_payload_in_metadata",
            "Envoy",
            "",
        ),
        rejected("header_in_metadata failed_status_in_metadata", "Envoy", "nothing would read it"),
        rejected("clear_route_cache", "Envoy", "the route is chosen before filters run (A39)"),
        ignored("jwt_cache_config", "Envoy", "every token is verified"),
    ],
);

pub(in crate::resource) static JWT_HEADER: Message =
    Message::of::<jwt::JwtHeader>("", &[needs(JwtAuthn, "name value_prefix", "Envoy", "")]);

pub(in crate::resource) static JWT_REMOTE: Message = Message::of::<jwt::RemoteJwks>(
    "",
    &[
        needs(JwtAuthn, "http_uri cache_duration async_fetch", "Envoy", ""),
        ignored("retry_policy", "Envoy", "a fetch that fails is repeated with back-off"),
    ],
);

pub(in crate::resource) static JWT_HTTP_URI: Message = Message::of::<HttpUri>(
    "of RemoteJwks",
    &[needs(JwtAuthn, "uri cluster timeout", "Envoy", "all required; an absolute URI")],
);

pub(in crate::resource) static JWT_ASYNC_FETCH: Message = Message::of::<jwt::JwksAsyncFetch>(
    "",
    &[needs(JwtAuthn, "fast_listener failed_refetch_duration", "Envoy", "")],
);

pub(in crate::resource) static JWT_CLAIM: Message = Message::of::<jwt::JwtClaimToHeader>(
    "",
    &[needs(JwtAuthn, "header_name claim_name claim_path", "Envoy", "one of claim_name and claim_path")],
);

pub(in crate::resource) static JWT_RULE: Message = Message::of::<jwt::RequirementRule>(
    "",
    &[needs(JwtAuthn, "match requires requirement_name", "Envoy", "the first rule that matches counts")],
);

pub(in crate::resource) static JWT_REQUIREMENT: Message = Message::of::<jwt::JwtRequirement>(
    "",
    &[
        needs(
            JwtAuthn,
            "provider_name provider_and_audiences requires_any requires_all allow_missing \
             allow_missing_or_failed",
            "Envoy",
            "names must be those of providers",
        ),
        rejected("extract_only_without_validation", "Envoy", "claims of an unverified token decide nothing"),
    ],
);

pub(in crate::resource) static JWT_PER_ROUTE: Message =
    Message::of::<jwt::PerRouteConfig>("", &[needs(JwtAuthn, "disabled requirement_name", "Envoy", "")]);

pub(in crate::resource) static LOCAL_RATE_LIMIT: Message = Message::of::<local::LocalRateLimit>(
    "",
    &[
        needs(LocalRateLimit, "token_bucket", "Envoy", "absent: the filter does nothing"),
        needs(LocalRateLimit, "filter_enabled filter_enforced", "Envoy", "absent: never"),
        needs(LocalRateLimit, "status", "Envoy", "mapped to a gRPC status; below 400 it is 429"),
        needs(
            LocalRateLimit,
            "rate_limited_as_resource_exhausted request_headers_to_add_when_not_enforced \
             response_headers_to_add local_rate_limit_per_downstream_connection",
            "Envoy",
            "",
        ),
        rejected(
            "descriptors rate_limits local_cluster_rate_limit enable_x_ratelimit_headers enable_retry_after_header",
            "Envoy",
            "",
        ),
        ignored(
            "stage vh_rate_limits always_consume_default_token_bucket max_dynamic_descriptors",
            "Envoy",
            "read with descriptors only",
        ),
        ignored("stat_prefix", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static TOKEN_BUCKET: Message = Message::of::<TokenBucket>(
    "",
    &[needs(LocalRateLimit, "max_tokens tokens_per_fill fill_interval", "Envoy", "none of them 0")],
);

pub(in crate::resource) static EXT_AUTHZ: Message = Message::of::<authz::ExtAuthz>(
    "",
    &[
        needs(ExtAuthz, "grpc_service", "A92", ""),
        needs(
            ExtAuthz,
            "filter_enabled deny_at_disable failure_mode_allow failure_mode_allow_header_add status_on_error \
             allowed_headers disallowed_headers decoder_header_mutation_rules include_peer_certificate",
            "A92",
            "",
        ),
        rejected("http_service", "A92", "use grpc_service"),
        rejected("with_request_body", "A92", "bodies are not shown to the service"),
        rejected("filter_enabled_metadata", "Envoy", METADATA),
        rejected("shadow_mode validate_mutations", "Envoy", ""),
        ignored(
            "metadata_context_namespaces typed_metadata_context_namespaces route_metadata_context_namespaces \
             route_typed_metadata_context_namespaces enable_dynamic_metadata_ingestion",
            "A92",
            METADATA,
        ),
        ignored("clear_route_cache", "A92", "the route is chosen before filters run (A39)"),
        rejected("transport_api_version", "A92", "but for AUTO and V3"),
        ignored(
            "bootstrap_metadata_labels_key include_tls_session encode_raw_headers max_denied_response_body_bytes \
             enforce_response_header_limits",
            "A92",
            "",
        ),
        ignored(
            "stat_prefix charge_cluster_response_stats filter_metadata emit_filter_state_stats emit_client_span",
            "A92",
            TELEMETRY,
        ),
    ],
);

pub(in crate::resource) static EXT_AUTHZ_PER_ROUTE: Message =
    Message::of::<authz::ExtAuthzPerRoute>("", &[needs(ExtAuthz, "disabled check_settings", "A92", "")]);

pub(in crate::resource) static CHECK_SETTINGS: Message = Message::of::<authz::CheckSettings>(
    "",
    &[
        needs(ExtAuthz, "context_extensions", "Envoy", ""),
        rejected("with_request_body grpc_service http_service", "Envoy", ""),
        ignored("disable_request_body_buffering", "Envoy", "bodies are not buffered"),
        ignored("emit_client_span", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static MUTATION_RULES: Message = Message::of::<HeaderMutationRules>(
    "of ExtAuthz",
    &[
        needs(ExtAuthz, "disallow_all allow_expression disallow_expression disallow_is_error", "A92", ""),
        ignored(
            "allow_all_routing allow_envoy disallow_system",
            "A92",
            "pseudo headers and `host` cannot be changed; `x-envoy-` is not special",
        ),
    ],
);

pub(in crate::resource) static GRPC_SERVICE: Message = Message::of::<GrpcService>(
    "",
    &[
        needs(ExtAuthz, "google_grpc", "A102", "of a control plane with `trusted_xds_server` only"),
        needs(ExtAuthz, "timeout initial_metadata", "A102", ""),
        rejected("envoy_grpc", "A102", "use google_grpc"),
        rejected("retry_policy", "Envoy", ""),
    ],
);

pub(in crate::resource) static GOOGLE_GRPC: Message = Message::of::<GoogleGrpc>(
    "",
    &[
        needs(ExtAuthz, "target_uri", "A102", "required"),
        needs(ExtAuthz, "channel_credentials_plugin", "A102", "the first that is known: insecure, xds"),
        rejected("call_credentials_plugin", "A102", "none is known"),
        ignored(
            "channel_credentials call_credentials credentials_factory_name config channel_args \
             per_stream_buffer_limit_bytes",
            "A102",
            "the plugins are read",
        ),
        ignored("stat_prefix", "A102", TELEMETRY),
    ],
);

pub(in crate::resource) static GCP_AUTHN: Message = Message::of::<GcpAuthnFilterConfig>(
    "",
    &[
        needs(GcpAuthn, "cache_config", "A83", ""),
        ignored(
            "http_uri retry_policy token_header token_metadata_key cluster timeout audience",
            "A83",
            "the metadata server is asked; audiences stand in clusters",
        ),
    ],
);

pub(in crate::resource) static GCP_CACHE: Message =
    Message::of::<TokenCacheConfig>("", &[needs(GcpAuthn, "cache_size", "A83", "default 10; not 0")]);

pub(in crate::resource) static QUOTA: Message = Message::of::<RateLimitQuotaFilterConfig>(
    "",
    &[
        needs(RateLimitQuota, "rlqs_server domain bucket_matchers", "A77", "required"),
        needs(
            RateLimitQuota,
            "filter_enabled filter_enforced request_headers_to_add_when_not_enforced",
            "Envoy",
            "absent: always",
        ),
    ],
);

pub(in crate::resource) static QUOTA_OVERRIDE: Message =
    Message::of::<RateLimitQuotaOverride>("", &[needs(RateLimitQuota, "domain bucket_matchers", "A77", "")]);

pub(in crate::resource) static QUOTA_BUCKET: Message = Message::of::<RateLimitQuotaBucketSettings>(
    "",
    &[
        needs(RateLimitQuota, "bucket_id_builder", "A77", ""),
        needs(RateLimitQuota, "reporting_interval", "A77", "at least 100 ms"),
        needs(
            RateLimitQuota,
            "no_assignment_behavior expired_assignment_behavior deny_response_settings",
            "A77",
            "",
        ),
    ],
);

pub(in crate::resource) static QUOTA_ID: Message =
    Message::of::<BucketIdBuilder>("", &[needs(RateLimitQuota, "bucket_id_builder", "A77", "not empty")]);

pub(in crate::resource) static QUOTA_ID_VALUE: Message = Message::of::<ValueBuilder>(
    "",
    &[needs(RateLimitQuota, "string_value custom_value", "A77", "a HttpRequestHeaderMatchInput")],
);

pub(in crate::resource) static QUOTA_NO_ASSIGNMENT: Message = Message::of::<NoAssignmentBehavior>(
    "",
    &[needs(RateLimitQuota, "fallback_rate_limit", "A77", "absent: all go on")],
);

pub(in crate::resource) static QUOTA_EXPIRED: Message = Message::of::<ExpiredAssignmentBehavior>(
    "",
    &[needs(
        RateLimitQuota,
        "expired_assignment_behavior_timeout fallback_rate_limit reuse_last_assignment",
        "A77",
        "",
    )],
);

pub(in crate::resource) static QUOTA_DENY: Message = Message::of::<DenyResponseSettings>(
    "",
    &[
        needs(RateLimitQuota, "grpc_status response_headers_to_add", "A77", "default UNAVAILABLE"),
        ignored("http_status http_body", "A77", "for calls that are not of gRPC"),
    ],
);

pub(in crate::resource) static QUOTA_STRATEGY: Message = Message::of::<RateLimitStrategy>(
    "",
    &[needs(RateLimitQuota, "blanket_rule requests_per_time_unit token_bucket", "A77", "")],
);

pub(in crate::resource) static QUOTA_RATE: Message = Message::of::<RequestsPerTimeUnit>(
    "",
    &[needs(RateLimitQuota, "requests_per_time_unit time_unit", "A77", "SECOND, MINUTE, HOUR or DAY")],
);

pub(in crate::resource) static COMPOSITE: Message = Message::of::<ExtensionWithMatcher>(
    "",
    &[
        needs(CompositeFilter, "extension_config", "A103", "a Composite"),
        needs(CompositeFilter, "xds_matcher", "A103", "a call that matches nothing fails UNAVAILABLE"),
        rejected("matcher", "A103", "deprecated; use xds_matcher"),
    ],
);

pub(in crate::resource) static COMPOSITE_INNER: Message = Message::of::<Composite>(
    "",
    &[rejected("named_filter_chains matcher", "A103", "use xds_matcher of the ExtensionWithMatcher")],
);

pub(in crate::resource) static COMPOSITE_PER_ROUTE: Message =
    Message::of::<ExtensionWithMatcherPerRoute>("", &[needs(CompositeFilter, "xds_matcher", "A103", "")]);

pub(in crate::resource) static COMPOSITE_ACTION: Message = Message::of::<ExecuteFilterAction>(
    "",
    &[
        needs(
            CompositeFilter,
            "typed_config filter_chain",
            "A103",
            "one of them; at most 8 inside one another",
        ),
        needs(CompositeFilter, "sample_percent", "A103", "absent: always"),
        rejected("dynamic_config filter_chain_name", "A103", ""),
    ],
);

pub(in crate::resource) static COMPOSITE_CHAIN: Message = Message::of::<FilterChainConfiguration>(
    "",
    &[needs(CompositeFilter, "typed_config", "A103", "not empty")],
);

pub(in crate::resource) static MATCHER: Message = Message::of::<Matcher>(
    "",
    &[needs(
        CompositeFilter,
        "matcher_list matcher_tree on_no_match",
        "A106",
        "at most 16 inside one another",
    )],
);

pub(in crate::resource) static ON_MATCH: Message = Message::of::<OnMatch>(
    "",
    &[needs(CompositeFilter, "matcher action", "A106", ""), rejected("keep_matching", "A103", "")],
);

pub(in crate::resource) static FIELD_MATCHER: Message =
    Message::of::<FieldMatcher>("", &[needs(CompositeFilter, "predicate on_match", "A106", "")]);

pub(in crate::resource) static PREDICATE: Message = Message::of::<Predicate>(
    "",
    &[needs(CompositeFilter, "single_predicate or_matcher and_matcher not_matcher", "A106", "")],
);

pub(in crate::resource) static SINGLE_PREDICATE: Message = Message::of::<SinglePredicate>(
    "",
    &[
        needs(CompositeFilter, "input", "A106", "HttpRequestHeaderMatchInput"),
        needs(CompositeFilter, "value_match", "A106", ""),
        rejected("custom_match", "A106", "CEL is not evaluated"),
    ],
);

pub(in crate::resource) static MATCHER_TREE: Message = Message::of::<MatcherTree>(
    "",
    &[
        needs(CompositeFilter, "input", "A106", "HttpRequestHeaderMatchInput"),
        needs(CompositeFilter, "exact_match_map prefix_match_map", "A106", "not empty"),
        rejected("custom_match", "A106", ""),
    ],
);
