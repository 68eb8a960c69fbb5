//! HTTP filters and their overrides (gRFC A33, A39, A41).

use super::{Message, ignored, needs, rejected, supported};
use crate::resource::Feature;
use envoy_types::pb::envoy::{
    config::{rbac::v3 as rules, route::v3::FilterConfig},
    extensions::filters::{
        common::fault::v3::FaultDelay,
        http::{
            fault::v3::{FaultAbort, HttpFault},
            rbac::v3::{Rbac, RbacPerRoute},
            router::v3::Router,
        },
    },
};

pub(super) const MESSAGES: &[&Message] = &[
    &FILTER_CONFIG,
    &ROUTER,
    &FAULT,
    &FAULT_DELAY,
    &FAULT_ABORT,
    &RBAC,
    &RBAC_PER_ROUTE,
    &RBAC_RULES,
    &RBAC_POLICY,
    &RBAC_PERMISSION,
    &RBAC_PRINCIPAL,
];

pub(in crate::resource) static FILTER_CONFIG: Message = Message::of::<FilterConfig>(
    "around an override",
    &[
        supported("config", "A39", "required unless disabled or optional"),
        supported("is_optional", "A39", "an override of unknown type is left out instead of refused"),
        supported("disabled", "A39", "the filter is off at this level"),
    ],
);

pub(in crate::resource) static ROUTER: Message = Message::of::<Router>(
    "",
    &[ignored(
        "dynamic_stats start_child_span upstream_log upstream_log_options suppress_envoy_headers \
         strict_check_headers respect_expected_rq_timeout suppress_grpc_request_failure_code_stats \
         upstream_http_filters reject_connect_request_early_data",
        "A39",
        "gRPC's router has no settings",
    )],
);

pub(in crate::resource) static FAULT: Message = Message::of::<HttpFault>(
    "",
    &[
        supported("delay abort", "A33", "delay first"),
        supported("headers", "Envoy", "only requests that match them all"),
        supported("max_active_faults", "A33", "over all channels of the process"),
        rejected(
            "response_rate_limit upstream_cluster downstream_nodes",
            "Envoy",
            "would be injected too often if ignored",
        ),
        ignored(
            "delay_percent_runtime abort_percent_runtime delay_duration_runtime abort_http_status_runtime \
             max_active_faults_runtime response_rate_limit_percent_runtime abort_grpc_status_runtime",
            "A33",
            "there is no runtime",
        ),
        ignored(
            "disable_downstream_cluster_stats filter_metadata",
            "A33",
            "about a proxy's statistics and logs",
        ),
    ],
);

pub(in crate::resource) static FAULT_DELAY: Message = Message::of::<FaultDelay>(
    "",
    &[
        supported("fixed_delay", "A33", "0 is no delay"),
        supported("header_delay", "A33", "`x-envoy-fault-delay-request`"),
        supported("percentage", "A33", "absent: never"),
    ],
);

pub(in crate::resource) static FAULT_ABORT: Message = Message::of::<FaultAbort>(
    "",
    &[
        supported("http_status", "A33", "200..=599"),
        supported("grpc_status", "A33", ""),
        supported("header_abort", "A33", "`x-envoy-fault-abort-request`, `x-envoy-fault-abort-grpc-request`"),
        supported("percentage", "A33", "absent: never"),
        ignored("response_body", "A33", "a gRPC status has a message of its own"),
    ],
);

pub(in crate::resource) static RBAC: Message = Message::of::<Rbac>(
    "",
    &[
        supported("rules", "A41", "absent: the filter does nothing"),
        rejected("matcher", "A41", "use rules"),
        ignored("shadow_rules shadow_matcher", "A41", "decide nothing"),
        ignored(
            "rules_stat_prefix shadow_rules_stat_prefix track_per_rule_stats",
            "A41",
            "about a proxy's statistics",
        ),
    ],
);

pub(in crate::resource) static RBAC_PER_ROUTE: Message =
    Message::of::<RbacPerRoute>("", &[supported("rbac", "A41", "absent: the filter is off")]);

pub(in crate::resource) static RBAC_RULES: Message = Message::of::<rules::Rbac>(
    "",
    &[
        supported("action", "A41", "LOG decides nothing"),
        supported("policies", "A41", ""),
        needs(
            Feature::AuditLogging,
            "audit_logging_options",
            "A59",
            "without it loggers are refused unless optional",
        ),
    ],
);

pub(in crate::resource) static RBAC_POLICY: Message = Message::of::<rules::Policy>(
    "",
    &[
        supported("permissions principals", "A41", "at least one each"),
        rejected("condition checked_condition", "A41", "CEL is not evaluated"),
        ignored("cel_config", "A41", "without a condition there is nothing to configure"),
    ],
);

pub(in crate::resource) static RBAC_PERMISSION: Message = Message::of::<rules::Permission>(
    "",
    &[
        supported("any and_rules or_rules not_rule", "A41", ""),
        supported("header", "A41", "not `:scheme` nor `grpc-…`; `host` is `:authority`"),
        supported("url_path", "A41", "without query"),
        supported("destination_ip destination_port destination_port_range", "A41", ""),
        supported("metadata", "A41", "there is none: matches only inverted"),
        supported("requested_server_name", "A41", "always empty"),
        rejected("matcher uri_template sourced_metadata", "A41", ""),
    ],
);

pub(in crate::resource) static RBAC_PRINCIPAL: Message = Message::of::<rules::Principal>(
    "",
    &[
        supported("any and_ids or_ids not_id", "A41", ""),
        supported("authenticated", "A41", "URI SANs, else DNS SANs, else the subject"),
        supported("source_ip direct_remote_ip remote_ip", "A41", "all three are the peer's address"),
        supported("header", "A41", "not `:scheme` nor `grpc-…`; `host` is `:authority`"),
        supported("url_path", "A41", "without query"),
        supported("metadata", "A41", "there is none: matches only inverted"),
        rejected("filter_state sourced_metadata custom", "A41", ""),
    ],
);
