//! Listener and the HTTP connection manager (gRFC A27, A31, A36, A39).

use super::{Message, ignored, rejected, supported};
use envoy_types::pb::envoy::{
    config::{core::v3::HttpProtocolOptions, listener::v3 as proto},
    extensions::filters::network::http_connection_manager::v3 as hcm,
};

pub(super) const MESSAGES: &[&Message] = &[
    &CLIENT,
    &SERVER,
    &FILTER_CHAIN,
    &FILTER_CHAIN_MATCH,
    &NETWORK_FILTER,
    &LISTENER_FILTER,
    &HTTP_CONNECTION_MANAGER,
    &HTTP_PROTOCOL_OPTIONS,
    &RDS,
    &HTTP_FILTER,
];

const CLIENTS_DO_NOT_LISTEN: &str = "a client does not listen";
const THE_PROGRAM_BINDS: &str = "the program binds the socket";
const A_PROXYS: &str = "about a proxy's own HTTP handling; gRPC reads no such field";
const TELEMETRY: &str = "about a proxy's statistics, logs or traces";

pub(in crate::resource) static CLIENT: Message = Message::of::<proto::Listener>(
    "on a client (with `api_listener`)",
    &[
        supported("name api_listener", "A27", ""),
        ignored(
            "address additional_addresses stat_prefix stats_matcher filter_chains fcds_config filter_chain_matcher \
             use_original_dst default_filter_chain per_connection_buffer_limit_bytes \
             per_connection_buffer_high_watermark_timeout metadata deprecated_v1 drain_type listener_filters \
             listener_filters_timeout continue_on_listener_filters_timeout transparent freebind socket_options \
             tcp_fast_open_queue_length traffic_direction udp_listener_config connection_balance_config reuse_port \
             enable_reuse_port access_log tcp_backlog_size max_connections_to_accept_per_socket_event bind_to_port \
             internal_listener enable_mptcp ignore_global_conn_limit bypass_overload_manager tcp_keepalive",
            "A27",
            CLIENTS_DO_NOT_LISTEN,
        ),
    ],
);

pub(in crate::resource) static SERVER: Message = Message::of::<proto::Listener>(
    "on a server (without `api_listener`)",
    &[
        supported("name api_listener", "A36", ""),
        supported("address", "A36", "a `socket_address` with a literal address; must be the one listened on"),
        supported("filter_chains default_filter_chain", "A36", "at least one must be able to match"),
        rejected(
            "listener_filters",
            "A36",
            "but for the TLS and HTTP inspectors of Envoy, whose work the server does itself",
        ),
        rejected("use_original_dst", "A36", ""),
        rejected("filter_chain_matcher fcds_config", "Envoy", "another way of choosing the filter chain"),
        rejected("udp_listener_config internal_listener", "Envoy", "gRPC servers listen on TCP"),
        rejected(
            "continue_on_listener_filters_timeout",
            "Envoy",
            "a connection whose first bytes do not come is closed",
        ),
        ignored("listener_filters_timeout", "Envoy", "the server's handshake timeout holds"),
        ignored(
            "additional_addresses deprecated_v1 bind_to_port transparent freebind socket_options \
             tcp_fast_open_queue_length reuse_port enable_reuse_port tcp_backlog_size \
             max_connections_to_accept_per_socket_event enable_mptcp connection_balance_config tcp_keepalive \
             per_connection_buffer_limit_bytes per_connection_buffer_high_watermark_timeout \
             ignore_global_conn_limit bypass_overload_manager",
            "A36",
            THE_PROGRAM_BINDS,
        ),
        ignored("drain_type", "A36", "connections are drained whenever the listener changes"),
        ignored("stat_prefix stats_matcher access_log", "Envoy", TELEMETRY),
        ignored("traffic_direction metadata", "Envoy", "information"),
    ],
);

pub(in crate::resource) static FILTER_CHAIN: Message = Message::of::<proto::FilterChain>(
    "",
    &[
        supported("name", "A36", "for messages"),
        supported("filter_chain_match", "A36", "two chains for the same connections are refused"),
        supported("filters", "A36", "the HTTP connection manager, alone"),
        supported("transport_socket", "A29", "absent: plaintext"),
        rejected("use_proxy_proto", "Envoy", "the PROXY protocol is not read"),
        ignored("transport_socket_connect_timeout", "Envoy", "the server's handshake timeout holds"),
        ignored("metadata", "Envoy", "information"),
    ],
);

pub(in crate::resource) static FILTER_CHAIN_MATCH: Message = Message::of::<proto::FilterChainMatch>(
    "",
    &[
        supported("prefix_ranges source_prefix_ranges source_type source_ports", "A36", ""),
        supported(
            "transport_protocol",
            "A36",
            "`raw_buffer`, and `tls` as in Envoy; a chain with another can never match",
        ),
        supported(
            "destination_port server_names application_protocols direct_source_prefix_ranges",
            "A36",
            "a chain with one of these can never match",
        ),
        ignored("address_suffix suffix_len", "Envoy", "never implemented there"),
    ],
);

pub(in crate::resource) static NETWORK_FILTER: Message = Message::of::<proto::Filter>(
    "",
    &[
        supported("name", "A36", "present and unique"),
        supported("typed_config", "A36", "an HttpConnectionManager"),
        rejected("config_discovery", "A36", ""),
    ],
);

pub(in crate::resource) static LISTENER_FILTER: Message = Message::of::<proto::ListenerFilter>(
    "",
    &[
        ignored("name", "A36", "the type decides"),
        supported("typed_config", "A36", "the TLS and HTTP inspectors of Envoy"),
        rejected("config_discovery", "A36", ""),
        rejected("filter_disabled", "Envoy", "the first bytes of every connection are looked at"),
    ],
);

pub(in crate::resource) static HTTP_CONNECTION_MANAGER: Message = Message::of::<hcm::HttpConnectionManager>(
    "",
    &[
        supported("rds route_config", "A27", "one of them"),
        supported("http_filters", "A39", ""),
        supported("common_http_protocol_options", "A31", ""),
        rejected("scoped_routes", "A27", ""),
        rejected("xff_num_trusted_hops", "A41", "must be 0: RBAC sees the peer's address"),
        rejected("original_ip_detection_extensions", "A41", "must be empty: RBAC sees the peer's address"),
        rejected(
            "early_header_mutation_extensions",
            "Envoy",
            "routes and policies would see other headers than they should",
        ),
        ignored(
            "codec_type http1_safe_max_connection_duration http_protocol_options http2_protocol_options \
             http3_protocol_options server_name server_header_transformation scheme_header_transformation \
             max_request_headers_kb stream_idle_timeout stream_flush_timeout request_timeout \
             request_headers_timeout drain_timeout drain_timeout_jitter delayed_close_timeout add_user_agent via \
             proxy_100_continue upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action \
             path_normalization_options local_reply_config strip_matching_host_port strip_any_host_port \
             stream_error_on_invalid_http_message strip_trailing_host_dot typed_header_validation_config \
             append_local_overload",
            "A27, A36",
            A_PROXYS,
        ),
        ignored(
            "use_remote_address internal_address_config skip_xff_append forward_client_cert_details \
             set_current_client_cert_details forward_client_cert_matcher \
             represent_ipv4_remote_address_as_ipv4_mapped_ipv6 append_x_forwarded_port forward_proto_config \
             add_proxy_protocol_connection_state generate_request_id preserve_external_request_id \
             always_set_request_id_in_response request_id_extension proxy_status_config",
            "A27, A36",
            "about headers that a proxy adds for the next hop, which is here the program itself",
        ),
        ignored(
            "stat_prefix tracing access_log access_log_flush_interval flush_access_log_on_new_request \
             access_log_options",
            "A27, A36",
            TELEMETRY,
        ),
    ],
);

pub(in crate::resource) static HTTP_PROTOCOL_OPTIONS: Message = Message::of::<HttpProtocolOptions>(
    "of an HttpConnectionManager",
    &[
        supported("max_stream_duration", "A31", "for routes without their own"),
        ignored(
            "idle_timeout max_connection_duration max_connection_duration_jitter max_headers_count max_response_headers_kb \
             headers_with_underscores_action max_requests_per_connection",
            "A31",
            "gRPC reads max_stream_duration",
        ),
    ],
);

pub(in crate::resource) static RDS: Message = Message::of::<hcm::Rds>(
    "",
    &[
        supported("config_source", "A27", "`ads` or `self`"),
        supported("route_config_name", "A27", "required"),
    ],
);

pub(in crate::resource) static HTTP_FILTER: Message = Message::of::<hcm::HttpFilter>(
    "",
    &[
        supported("name", "A39", "required and unique"),
        supported("typed_config", "A39", "of a type below; another is refused unless optional"),
        supported("is_optional", "A39", "a filter of unknown type is left out instead of refused"),
        supported("disabled", "A92", "an override turns it on"),
        rejected("config_discovery", "A39", "unless optional: then the filter is left out (A104 is a draft)"),
    ],
);
