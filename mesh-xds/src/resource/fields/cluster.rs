//! Cluster and what it is made of (gRFC A27, A32, A37, A42, A48, A50, A52, A58, A68, A75, A105).

use super::{Message, ignored, needs, rejected, supported};
use crate::resource::Feature;
use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            self as proto,
            circuit_breakers::{Thresholds, thresholds::RetryBudget},
            cluster::{
                CommonLbConfig, CustomClusterType, EdsClusterConfig, LeastRequestLbConfig, MaglevLbConfig,
                RefreshRate, RingHashLbConfig, RoundRobinLbConfig,
                common_lb_config::{
                    ConsistentHashingLbConfig as OldHashing, ZoneAwareLbConfig as OldZoneAware,
                },
            },
        },
        common::matcher::v3::{HttpHeadersMatch, MatchPredicate, match_predicate::MatchSet},
        core::v3::{
            HealthCheck, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings,
            TcpKeepalive,
            health_check::{GrpcHealthCheck, TcpHealthCheck},
        },
    },
    extensions::{
        clusters::{aggregate::v3::ClusterConfig, dns::v3::DnsCluster},
        load_balancing_policies::{
            client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin,
            common::v3::{ConsistentHashingLbConfig, SlowStartConfig, locality_lb_config::ZoneAwareLbConfig},
            least_request::v3::LeastRequest,
            maglev::v3::Maglev,
            pick_first::v3::PickFirst,
            random::v3::Random,
            random_subsetting::v3::RandomSubsetting,
            ring_hash::v3::RingHash,
            round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
        upstreams::http::v3::{
            HttpProtocolOptions, http_protocol_options::OutlierDetection as OutlierErrors,
        },
    },
};

pub(super) const MESSAGES: &[&Message] = &[
    &CLUSTER,
    &EDS,
    &CUSTOM_TYPE,
    &AGGREGATE,
    &DNS,
    &DNS_REFRESH,
    &COMMON_LB,
    &OLD_ZONE_AWARE,
    &OLD_HASHING,
    &OLD_ROUND_ROBIN,
    &OLD_LEAST_REQUEST,
    &OLD_RING_HASH,
    &OLD_MAGLEV,
    &CIRCUIT_BREAKERS,
    &THRESHOLDS,
    &PER_HOST_THRESHOLDS,
    &RETRY_BUDGET,
    &OUTLIER_DETECTION,
    &OUTLIER_ERRORS,
    &MATCH_PREDICATE,
    &MATCH_SET,
    &HEADERS_MATCH,
    &HEALTH_CHECK,
    &GRPC_HEALTH_CHECK,
    &TCP_HEALTH_CHECK,
    &UPSTREAM_CONNECTION,
    &TCP_KEEPALIVE,
    &HTTP_OPTIONS,
    &COMMON_OPTIONS,
    &HTTP2_OPTIONS,
    &KEEPALIVE,
];

pub(super) const POLICIES: &[&Message] = &[
    &WRR_LOCALITY,
    &ROUND_ROBIN,
    &LEAST_REQUEST,
    &RANDOM,
    &PICK_FIRST,
    &RING_HASH,
    &MAGLEV,
    &WEIGHTED_ROUND_ROBIN,
    &RANDOM_SUBSETTING,
    &ZONE_AWARE,
    &HASHING,
    &SLOW_START,
];

const TELEMETRY: &str = "about a proxy's statistics and logs";
const NO_LIMITS_OF_BUFFERS: &str = "HTTP/2 flow control bounds what a connection holds";
const OWN_RESOLVER: &str = "names are resolved by the resolver of the process";
const ONE_FORM: &str = "used where there is no `HttpProtocolOptions`";
const WEIGHTED: &str = "localities are weighed always (A42)";

pub(in crate::resource) static CLUSTER: Message = Message::of::<proto::Cluster>(
    "",
    &[
        supported("name", "A27", ""),
        supported(
            "type",
            "A27",
            "EDS; STATIC, STRICT_DNS and LOGICAL_DNS where the data path has static-cluster, strict-dns and \
             logical-dns; ORIGINAL_DST is refused",
        ),
        supported("cluster_type", "A37", "the messages below; any other is refused"),
        supported("eds_cluster_config", "A27", "needed by type EDS"),
        supported("load_assignment", "A37", "needed by STATIC and the DNS types; localities need no weight"),
        supported("connect_timeout", "Envoy", "more than 0"),
        supported(
            "lb_policy",
            "A27",
            "ROUND_ROBIN, LEAST_REQUEST, RANDOM; RING_HASH and MAGLEV where the data path has ring-hash and \
             maglev; CLUSTER_PROVIDED of aggregate clusters only",
        ),
        needs(Feature::SlowStart, "round_robin_lb_config", "Envoy", "without effect otherwise (A48)"),
        supported("least_request_lb_config", "A48", "with `lb_policy` LEAST_REQUEST"),
        supported("ring_hash_lb_config", "A42", "with `lb_policy` RING_HASH"),
        supported("maglev_lb_config", "Envoy", "with `lb_policy` MAGLEV"),
        supported("load_balancing_policy", "A52", "the first entry that is known and that the data path has"),
        supported("common_lb_config", "A27", ""),
        supported("circuit_breakers", "A32", ""),
        supported("outlier_detection", "A50", ""),
        needs(Feature::HealthChecks, "health_checks", "Envoy", "one at most; refused otherwise"),
        supported(
            "transport_socket",
            "A29",
            "TLS; around it, or around nothing, an HTTP CONNECT proxy (A86), the PROXY protocol, or the second in the \
             first, of a data path that has them",
        ),
        supported("typed_extension_protocol_options", "Envoy", "`HttpProtocolOptions`, under its name"),
        supported("upstream_config", "A75", "`HttpProtocolOptions`; the one above goes before it"),
        supported(
            "max_requests_per_connection common_http_protocol_options http2_protocol_options",
            "Envoy",
            ONE_FORM,
        ),
        supported("upstream_connection_options", "Envoy", ""),
        supported(
            "dns_refresh_rate dns_jitter dns_failure_refresh_rate respect_dns_ttl dns_lookup_family",
            "Envoy",
            "of the DNS types",
        ),
        rejected(
            "dns_resolvers use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config",
            "Envoy",
            OWN_RESOLVER,
        ),
        supported(
            "lrs_server",
            "A27",
            "`self`: the server that speaks for the cluster's authority, replacements included; where the data path has load-reporting",
        ),
        supported("lrs_report_endpoint_metrics", "A85", "with `lrs_server`"),
        supported(
            "metadata",
            "A89",
            "telemetry labels (A89), audiences of tokens (A83), and where the cluster was written (`io.mesh`)",
        ),
        rejected(
            "transport_socket_matches transport_socket_matcher",
            "A29",
            "a cluster has one transport socket",
        ),
        rejected("lb_subset_config", "Envoy", "a cluster of each subset does it"),
        rejected("upstream_bind_config", "Envoy", "connections come from any local address"),
        rejected("filters", "Envoy", "network filters"),
        rejected("queuing_policies", "Envoy", "calls wait for a connection in the order in which they come"),
        rejected("close_connections_on_host_health_failure", "Envoy", "calls end by themselves"),
        ignored("ignore_health_on_host_removal", "A27", "an endpoint that is removed gets no call any more"),
        ignored("original_dst_lb_config", "Envoy", "of a type that is refused"),
        ignored("http_protocol_options protocol_selection", "Envoy", "gRPC is HTTP/2"),
        ignored("upstream_http_protocol_options", "A101", "the TLS context says which server name is sent"),
        ignored(
            "per_connection_buffer_limit_bytes per_connection_buffer_high_watermark_timeout",
            "Envoy",
            NO_LIMITS_OF_BUFFERS,
        ),
        ignored(
            "preconnect_policy connection_pool_per_downstream_connection wait_for_warm_on_init cleanup_interval",
            "Envoy",
            "about a proxy's pools of connections",
        ),
        ignored("alt_stat_name stats_matcher track_timeout_budgets track_cluster_stats", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static EDS: Message = Message::of::<EdsClusterConfig>(
    "",
    &[
        supported("eds_config", "A27", "`ads` or `self`"),
        supported(
            "service_name",
            "A27",
            "default the cluster's name; required when that is an `xdstp:` name",
        ),
    ],
);

pub(in crate::resource) static CUSTOM_TYPE: Message = Message::of::<CustomClusterType>(
    "",
    &[
        supported("name", "A75", "`envoy.clusters.aggregate` is enough to know the type"),
        supported("typed_config", "A37", "the two messages below"),
    ],
);

pub(in crate::resource) static AGGREGATE: Message = Message::of::<ClusterConfig>(
    "",
    &[needs(Feature::AggregateCluster, "clusters", "A37", "at least one; refused otherwise")],
);

pub(in crate::resource) static DNS: Message = Message::of::<DnsCluster>(
    "",
    &[
        supported("dns_refresh_rate", "Envoy", "more than 1 ms; default 5 s"),
        supported("dns_failure_refresh_rate", "Envoy", "default as dns_refresh_rate"),
        supported("respect_dns_ttl dns_jitter dns_lookup_family", "Envoy", ""),
        supported("dns_min_refresh_rate", "Envoy", "at least 1 s"),
        supported("all_addresses_in_single_endpoint", "Envoy", "is LOGICAL_DNS, otherwise STRICT_DNS"),
        rejected("typed_dns_resolver_config", "Envoy", OWN_RESOLVER),
    ],
);

pub(in crate::resource) static DNS_REFRESH: Message = Message::of::<RefreshRate>(
    "",
    &[
        supported("base_interval", "Envoy", "required"),
        supported("max_interval", "Envoy", "not less than base_interval; default ten times that"),
    ],
);

pub(in crate::resource) static COMMON_LB: Message = Message::of::<CommonLbConfig>(
    "",
    &[
        supported("healthy_panic_threshold", "Envoy", "default 0: never (gRPC has no panic mode)"),
        needs(
            Feature::ZoneAware,
            "zone_aware_lb_config",
            "Envoy",
            "of the cluster that the program says it belongs to",
        ),
        ignored("locality_weighted_lb_config", "A27", "what gRPC does anyway"),
        supported("override_host_status", "A55", "other statuses than the usable ones are left out"),
        supported("consistent_hashing_lb_config", "Envoy", "with RING_HASH and MAGLEV"),
        supported("ignore_new_hosts_until_first_hc", "Envoy", "with `health_checks`"),
        rejected(
            "close_connections_on_host_set_change",
            "Envoy",
            "connections of endpoints that stay are kept",
        ),
        ignored("update_merge_window", "Envoy", "updates are taken at once"),
    ],
);

pub(in crate::resource) static OLD_ZONE_AWARE: Message = Message::of::<OldZoneAware>(
    "of CommonLbConfig",
    &[
        supported("routing_enabled", "Envoy", "default 100 %"),
        supported("min_cluster_size", "Envoy", "default 6"),
        supported("fail_traffic_on_panic", "Envoy", ""),
    ],
);

pub(in crate::resource) static OLD_HASHING: Message = Message::of::<OldHashing>(
    "of CommonLbConfig",
    &[
        supported("use_hostname_for_hashing", "Envoy", ""),
        rejected("hash_balance_factor", "Envoy", "bounded loads"),
    ],
);

pub(in crate::resource) static OLD_ROUND_ROBIN: Message = Message::of::<RoundRobinLbConfig>(
    "",
    &[needs(Feature::SlowStart, "slow_start_config", "Envoy", "without effect otherwise (A48)")],
);

pub(in crate::resource) static OLD_LEAST_REQUEST: Message = Message::of::<LeastRequestLbConfig>(
    "",
    &[
        supported("choice_count", "A48", "at least 2; more than 10 is 10; default 2"),
        needs(Feature::LeastRequestBias, "active_request_bias", "Envoy", "without effect otherwise (A48)"),
        needs(Feature::SlowStart, "slow_start_config", "Envoy", "without effect otherwise (A48)"),
    ],
);

pub(in crate::resource) static OLD_RING_HASH: Message = Message::of::<RingHashLbConfig>(
    "",
    &[
        supported(
            "minimum_ring_size maximum_ring_size",
            "A42",
            "1 to 8,388,608; defaults 1024 and 8,388,608",
        ),
        rejected("hash_function", "A42", "but for XX_HASH, the default"),
    ],
);

pub(in crate::resource) static OLD_MAGLEV: Message = Message::of::<MaglevLbConfig>(
    "",
    &[supported("table_size", "Envoy", "a prime number of at most 5,000,011; default 65,537")],
);

pub(in crate::resource) static CIRCUIT_BREAKERS: Message = Message::of::<proto::CircuitBreakers>(
    "",
    &[
        supported("thresholds", "A32", "the first of priority DEFAULT, and of HIGH where routes may have it"),
        supported("per_host_thresholds", "A105", "the first of priority DEFAULT"),
    ],
);

pub(in crate::resource) static THRESHOLDS: Message = Message::of::<Thresholds>(
    "of a cluster",
    &[
        supported("priority", "A32", "HIGH without high-priority has no effect"),
        supported("max_requests", "A32", "default 1024; over all channels of the process"),
        supported(
            "max_pending_requests max_connections max_retries retry_budget",
            "Envoy",
            "default no limit; HIGH shares the connections of DEFAULT, whose max_connections counts",
        ),
        ignored("track_remaining", "Envoy", TELEMETRY),
        ignored("max_connection_pools", "Envoy", "there is one pool"),
    ],
);

pub(in crate::resource) static PER_HOST_THRESHOLDS: Message = Message::of::<Thresholds>(
    "of a host",
    &[
        supported("priority", "A105", "DEFAULT"),
        supported("max_connections", "A105", "not 0; more than 10 is 10; default 1"),
        rejected(
            "max_requests max_pending_requests max_retries retry_budget max_connection_pools",
            "Envoy",
            "of a host only max_connections is limited",
        ),
        ignored("track_remaining", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static RETRY_BUDGET: Message = Message::of::<RetryBudget>(
    "",
    &[
        supported("budget_percent", "Envoy", "default 20 %"),
        supported("min_retry_concurrency", "Envoy", "default 3"),
        rejected("budget_interval", "Envoy", "the budget is a share of what is in flight"),
    ],
);

pub(in crate::resource) static OUTLIER_DETECTION: Message = Message::of::<proto::OutlierDetection>(
    "",
    &[
        supported("interval", "A50", "0 to 10 ms: 10 ms"),
        supported("base_ejection_time max_ejection_time max_ejection_percent", "A50", ""),
        supported(
            "enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume \
             success_rate_stdev_factor",
            "A50",
            "",
        ),
        supported(
            "enforcing_failure_percentage failure_percentage_threshold failure_percentage_minimum_hosts \
             failure_percentage_request_volume",
            "A50",
            "",
        ),
        supported(
            "consecutive_5xx enforcing_consecutive_5xx consecutive_gateway_failure \
             enforcing_consecutive_gateway_failure split_external_local_origin_errors",
            "Envoy",
            "gRPC statuses count as the HTTP statuses they map to",
        ),
        supported(
            "consecutive_local_origin_failure enforcing_consecutive_local_origin_failure",
            "Envoy",
            "with split_external_local_origin_errors",
        ),
        needs(
            Feature::LocalOriginOutliers,
            "enforcing_local_origin_success_rate enforcing_failure_percentage_local_origin \
             max_ejection_time_jitter",
            "Envoy",
            "without effect otherwise (A50)",
        ),
        supported(
            "successful_active_health_check_uneject_host",
            "Envoy",
            "of a data path that has health-checks",
        ),
        ignored("always_eject_one_host", "A50", "one endpoint may always be ejected"),
        rejected("monitors detect_degraded_hosts", "Envoy", ""),
    ],
);

pub(in crate::resource) static OUTLIER_ERRORS: Message = Message::of::<OutlierErrors>(
    "",
    &[needs(
        Feature::OutlierErrorCodes,
        "error_matcher",
        "Envoy",
        "default HTTP 5xx; gRPC statuses count as the HTTP statuses they map to; without `outlier_detection` of the \
         cluster it has no effect",
    )],
);

pub(in crate::resource) static MATCH_PREDICATE: Message = Message::of::<MatchPredicate>(
    "of errors",
    &[
        supported("or_match and_match not_match any_match", "Envoy", "of 100 to 599, some code must match"),
        supported("http_response_headers_match", "Envoy", "by `:status`"),
        rejected(
            "http_response_trailers_match http_response_generic_body_match http_request_headers_match \
             http_request_trailers_match http_request_generic_body_match",
            "Envoy",
            "the HTTP status says what an error is",
        ),
    ],
);

pub(in crate::resource) static MATCH_SET: Message =
    Message::of::<MatchSet>("of errors", &[supported("rules", "Envoy", "required")]);

pub(in crate::resource) static HEADERS_MATCH: Message = Message::of::<HttpHeadersMatch>(
    "of errors",
    &[supported("headers", "Envoy", "required; `:status` alone, in all ways that routes can match a header")],
);

pub(in crate::resource) static HEALTH_CHECK: Message = Message::of::<HealthCheck>(
    "",
    &[
        supported("timeout interval unhealthy_threshold healthy_threshold", "Envoy", "required"),
        supported("initial_jitter interval_jitter interval_jitter_percent", "Envoy", ""),
        supported("alt_port reuse_connection", "Envoy", ""),
        supported(
            "no_traffic_interval no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval \
             healthy_edge_interval",
            "Envoy",
            "",
        ),
        supported("grpc_health_check tcp_health_check", "Envoy", "one of them is required"),
        rejected("http_health_check custom_health_check", "Envoy", "gRPC servers are asked by gRPC"),
        rejected("tls_options transport_socket_match_criteria", "Envoy", "checks speak what calls speak"),
        ignored(
            "event_log_path event_logger event_service always_log_health_check_failures \
             always_log_health_check_success",
            "Envoy",
            TELEMETRY,
        ),
    ],
);

pub(in crate::resource) static GRPC_HEALTH_CHECK: Message =
    Message::of::<GrpcHealthCheck>("", &[supported("service_name authority initial_metadata", "Envoy", "")]);

pub(in crate::resource) static TCP_HEALTH_CHECK: Message = Message::of::<TcpHealthCheck>(
    "",
    &[
        supported("send receive", "Envoy", "bytes, or hexadecimal digits"),
        rejected("proxy_protocol_config", "Envoy", ""),
    ],
);

pub(in crate::resource) static UPSTREAM_CONNECTION: Message = Message::of::<proto::UpstreamConnectionOptions>(
    "",
    &[
        supported("tcp_keepalive", "Envoy", ""),
        rejected("happy_eyeballs_config", "A61", "the first address's family goes first"),
        ignored("set_local_interface_name_on_upstream_connections", "Envoy", TELEMETRY),
    ],
);

pub(in crate::resource) static TCP_KEEPALIVE: Message = Message::of::<TcpKeepalive>(
    "of a cluster",
    &[supported(
        "keepalive_probes keepalive_time keepalive_interval",
        "Envoy",
        "default the system's; a zero switches it off",
    )],
);

pub(in crate::resource) static HTTP_OPTIONS: Message = Message::of::<HttpProtocolOptions>(
    "",
    &[
        supported("common_http_protocol_options", "A75", ""),
        supported(
            "explicit_http_config use_downstream_protocol_config auto_config",
            "Envoy",
            "their HTTP/2 options; an explicit HTTP/1 or HTTP/3 is refused",
        ),
        supported("outlier_detection", "Envoy", "the message below"),
        rejected(
            "http_filters request_mirror_policies hash_policy retry_policy",
            "Envoy",
            "the listener and the routes have them; the upstream codec as a filter is fine",
        ),
        ignored(
            "upstream_http_protocol_options header_validation_config",
            "A75",
            "the TLS context says which server name is sent",
        ),
    ],
);

pub(in crate::resource) static COMMON_OPTIONS: Message = Message::of::<CommonOptions>(
    "of a cluster",
    &[
        supported("idle_timeout", "A75", "default 1 h; 0 is never"),
        supported("max_connection_duration max_requests_per_connection", "Envoy", ""),
        rejected("max_stream_duration", "Envoy", "the route limits calls"),
        rejected("max_headers_count max_response_headers_kb max_connection_duration_jitter", "Envoy", ""),
        ignored("headers_with_underscores_action", "Envoy", "about requests that come in"),
    ],
);

pub(in crate::resource) static HTTP2_OPTIONS: Message = Message::of::<Http2ProtocolOptions>(
    "of a cluster",
    &[
        supported(
            "max_concurrent_streams initial_stream_window_size initial_connection_window_size",
            "Envoy",
            "in HTTP/2's ranges",
        ),
        supported("connection_keepalive", "Envoy", ""),
        rejected("custom_settings_parameters", "Envoy", ""),
        ignored(
            "hpack_table_size allow_connect allow_metadata max_outbound_frames max_outbound_control_frames \
             max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream \
             max_inbound_window_update_frames_per_data_frame_sent stream_error_on_invalid_http_messaging \
             override_stream_error_on_invalid_http_message use_oghttp2_codec max_metadata_size \
             enable_huffman_encoding max_header_field_size_kb disallow_obs_text stream_reset_burst \
             stream_reset_rate",
            "Envoy",
            "about the HTTP/2 of Envoy; ours has its own limits",
        ),
    ],
);

pub(in crate::resource) static KEEPALIVE: Message = Message::of::<KeepaliveSettings>(
    "of a cluster",
    &[
        supported("interval timeout", "Envoy", "more than 0"),
        ignored("interval_jitter", "Envoy", "pings of many connections do not come at once anyway"),
        ignored("connection_idle_interval", "Envoy", "with an interval; without one it is refused"),
    ],
);

// ---- policies of load_balancing_policy ----

pub(in crate::resource) static WRR_LOCALITY: Message =
    Message::of::<WrrLocality>("", &[supported("endpoint_picking_policy", "A52", "at most 16 lists deep")]);

pub(in crate::resource) static ROUND_ROBIN: Message = Message::of::<RoundRobin>(
    "",
    &[
        supported("locality_lb_config", "Envoy", "without it localities are one list, as in gRPC"),
        needs(Feature::SlowStart, "slow_start_config", "Envoy", "without effect otherwise (A48)"),
    ],
);

pub(in crate::resource) static LEAST_REQUEST: Message = Message::of::<LeastRequest>(
    "",
    &[
        supported("choice_count", "A48", "at least 2; more than 10 is 10; default 2"),
        supported("locality_lb_config", "Envoy", "without it localities are one list, as in gRPC"),
        needs(Feature::LeastRequestBias, "active_request_bias", "Envoy", "without effect otherwise (A48)"),
        needs(Feature::SlowStart, "slow_start_config", "Envoy", "without effect otherwise (A48)"),
        rejected("selection_method enable_full_scan", "Envoy", "but for N_CHOICES, the default"),
    ],
);

pub(in crate::resource) static RANDOM: Message = Message::of::<Random>(
    "",
    &[supported("locality_lb_config", "Envoy", "without it localities are one list")],
);

pub(in crate::resource) static PICK_FIRST: Message =
    Message::of::<PickFirst>("", &[supported("shuffle_address_list", "A62", "")]);

pub(in crate::resource) static RING_HASH: Message = Message::of::<RingHash>(
    "",
    &[
        rejected("hash_function", "A42", "but for XX_HASH, the default"),
        supported(
            "minimum_ring_size maximum_ring_size",
            "A42",
            "1 to 8,388,608; defaults 1024 and 8,388,608",
        ),
        supported("use_hostname_for_hashing consistent_hashing_lb_config", "Envoy", ""),
        rejected("hash_balance_factor", "Envoy", "bounded loads"),
        ignored("locality_weighted_lb_config", "A42", WEIGHTED),
    ],
);

pub(in crate::resource) static MAGLEV: Message = Message::of::<Maglev>(
    "",
    &[
        supported("table_size", "Envoy", "a prime number of at most 5,000,011; default 65,537"),
        supported("consistent_hashing_lb_config", "Envoy", ""),
        ignored("locality_weighted_lb_config", "A42", WEIGHTED),
    ],
);

pub(in crate::resource) static WEIGHTED_ROUND_ROBIN: Message = Message::of::<ClientSideWeightedRoundRobin>(
    "",
    &[
        supported("enable_oob_load_report", "A58", ""),
        supported("oob_reporting_period", "A58", "with enable_oob_load_report; default 10 s"),
        supported("blackout_period weight_expiration_period", "A58", "defaults 10 s and 180 s"),
        supported("weight_update_period", "A58", "default 1 s, at least 100 ms"),
        supported("error_utilization_penalty", "A58", "default 1"),
        supported("metric_names_for_computing_utilization", "A114", "names that are none are left out"),
        needs(Feature::SlowStart, "slow_start_config", "A100", "without effect otherwise"),
        rejected("oob_reporting_config", "Envoy", "reports come from the endpoint itself"),
    ],
);

pub(in crate::resource) static RANDOM_SUBSETTING: Message = Message::of::<RandomSubsetting>(
    "",
    &[supported("subset_size", "A68", "more than 0"), supported("child_policy", "A68", "not another subset")],
);

pub(in crate::resource) static ZONE_AWARE: Message = Message::of::<ZoneAwareLbConfig>(
    "",
    &[
        supported("routing_enabled min_cluster_size fail_traffic_on_panic", "Envoy", "defaults 100 % and 6"),
        rejected("force_locality_direct_routing force_local_zone locality_basis", "Envoy", ""),
    ],
);

pub(in crate::resource) static HASHING: Message = Message::of::<ConsistentHashingLbConfig>(
    "of a policy",
    &[
        supported("use_hostname_for_hashing", "Envoy", ""),
        rejected("hash_balance_factor", "Envoy", "bounded loads"),
        rejected("hash_policy", "Envoy", "the route says what is hashed"),
    ],
);

pub(in crate::resource) static SLOW_START: Message = Message::of::<SlowStartConfig>(
    "of a policy",
    &[
        supported("slow_start_window", "Envoy", "required"),
        supported("aggression", "Envoy", "more than 0; default 1"),
        supported("min_weight_percent", "Envoy", "default 10 %"),
    ],
);
