//! Cluster (gRFC A27, A29, A32, A48, A50, A52, A105).

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::*;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb, CircuitBreakers, LoadBalancingPolicy, OutlierDetection,
                UpstreamConnectionOptions,
                circuit_breakers::{Thresholds, thresholds::RetryBudget},
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
                },
                load_balancing_policy::Policy,
            },
            core::v3::{
                ConfigSource, Http2ProtocolOptions, KeepaliveSettings, TcpKeepalive, TransportSocket,
                TypedExtensionConfig, transport_socket::ConfigType,
            },
        },
        extensions::filters::http::gcp_authn::v3::Audience,
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SubjectAltNameMatcher,
            UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Any, BoolValue, Duration, UInt32Value},
};

pub(super) fn good() -> pb::Cluster {
    let tls = model::tls::UpstreamTls {
        identity: Some(model::tls::Identity::Provider("default".into())),
        roots: model::tls::Roots::Provider("default".into()),
        sans: vec![],
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    };
    let cluster = Cluster { tls: Some(Arc::new(tls)), ..Cluster::eds("c") };
    pb::Cluster::decode(cluster.to_proto()).unwrap()
}

fn eds(message: &mut pb::Cluster) -> &mut EdsClusterConfig {
    message.eds_cluster_config.as_mut().unwrap()
}

fn outlier(message: &mut pb::Cluster) -> &mut OutlierDetection {
    message.outlier_detection.get_or_insert_default()
}

pub(super) fn policies(message: &mut pb::Cluster, configs: &[&str]) {
    let one = |url: &&str| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: String::new(),
            typed_config: Some(Any { type_url: (*url).into(), value: Vec::new() }),
        }),
    };
    message.load_balancing_policy = Some(LoadBalancingPolicy { policies: configs.iter().map(one).collect() });
}

fn audience(message: &mut pb::Cluster, any: Any) {
    message.metadata.get_or_insert_default().typed_filter_metadata.insert("f".into(), any);
}

fn none() -> RetryBudget {
    RetryBudget::default()
}

fn budget(budget: RetryBudget) -> CircuitBreakers {
    let thresholds = Thresholds { retry_budget: Some(budget), ..Default::default() };
    CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn percent(value: f64) -> Option<Percent> {
    Some(Percent { value })
}

fn socket_config(message: &mut pb::Cluster) -> Option<&mut Any> {
    match message.transport_socket.as_mut()?.config_type.as_mut()? {
        ConfigType::TypedConfig(any) => Some(any),
    }
}

fn common(message: &mut pb::Cluster, change: impl FnOnce(&mut CommonTlsContext)) {
    within::<UpstreamTlsContext>(socket_config(message), |tls| {
        change(tls.common_tls_context.as_mut().unwrap())
    });
}

fn validation(message: &mut pb::Cluster, change: impl FnOnce(&mut CertificateValidationContext)) {
    common(message, |common| match &mut common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            change(combined.default_validation_context.as_mut().unwrap());
        }
        _ => panic!("not combined"),
    });
}

#[test]
fn a_faulty_cluster_is_refused_with_the_place() {
    refuses::<Cluster, _>(
        &good(),
        &[
            (
                |m| {
                    m.cluster_discovery_type =
                        Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into()))
                },
                "type",
                "ORIGINAL_DST is not supported",
            ),
            (|m| m.cluster_discovery_type = None, "load_assignment", "is required"),
            (|m| m.eds_cluster_config = None, "eds_cluster_config", "required"),
            (|m| eds(m).eds_config = None, "eds_cluster_config.eds_config", "required"),
            (|m| eds(m).eds_config = Some(ConfigSource::default()), "eds_cluster_config.eds_config", "`ads`"),
            (|m| m.cluster_discovery_type = Some(ClusterDiscoveryType::Type(77)), "type", "77 is unknown"),
            (|m| m.lb_policy = LbPolicy::ClusterProvided.into(), "lb_policy", "aggregate clusters only"),
            (|m| m.lb_policy = 99, "lb_policy", "99 is unknown"),
            (|m| policies(m, &["type.googleapis.com/x.Y"]), "load_balancing_policy", "none of its policies"),
            (|m| policies(m, &[]), "load_balancing_policy", "none of its policies"),
            (|m| m.lrs_server = Some(ConfigSource::default()), "lrs_server", "`self`"),
            (
                |m| m.transport_socket_matches.push(TransportSocketMatch::default()),
                "transport_socket_matches",
                "not supported",
            ),
            (
                |m| {
                    let none =
                        Thresholds { max_connections: Some(UInt32Value { value: 0 }), ..Default::default() };
                    m.circuit_breakers =
                        Some(CircuitBreakers { per_host_thresholds: vec![none], ..Default::default() });
                },
                "circuit_breakers.per_host_thresholds.max_connections",
                "must not be 0",
            ),
            (
                |m| {
                    let more =
                        Thresholds { max_requests: Some(UInt32Value { value: 1 }), ..Default::default() };
                    m.circuit_breakers =
                        Some(CircuitBreakers { per_host_thresholds: vec![more], ..Default::default() });
                },
                "circuit_breakers.per_host_thresholds.max_requests",
                "of a host only max_connections",
            ),
            (
                |m| {
                    m.circuit_breakers =
                        Some(budget(RetryBudget { budget_percent: percent(101.0), ..none() }))
                },
                "circuit_breakers.thresholds.retry_budget.budget_percent",
                "not between 0 and 100",
            ),
            (
                |m| {
                    let budget_interval = Some(Duration { seconds: 1, nanos: 0 });
                    m.circuit_breakers = Some(budget(RetryBudget { budget_interval, ..none() }));
                },
                "circuit_breakers.thresholds.retry_budget.budget_interval",
                "not supported",
            ),
            (
                |m| m.common_lb_config.as_mut().unwrap().healthy_panic_threshold = percent(f64::NAN),
                "common_lb_config.healthy_panic_threshold",
                "not between 0 and 100",
            ),
            (|m| m.connect_timeout = Some(Duration::default()), "connect_timeout", "greater than zero"),
            (
                |m| audience(m, model::wire::any(&Audience::default())),
                "metadata.typed_filter_metadata[\"f\"].url",
                "must not be empty",
            ),
            (
                |m| audience(m, Any { type_url: Audience::type_url(), value: vec![0xff] }),
                "metadata.typed_filter_metadata[\"f\"]",
                "failed to decode",
            ),
            (
                |m| outlier(m).max_ejection_percent = Some(UInt32Value { value: 101 }),
                "outlier_detection.max_ejection_percent",
                "more than 100",
            ),
            (
                |m| outlier(m).enforcing_success_rate = Some(UInt32Value { value: 101 }),
                "outlier_detection.enforcing_success_rate",
                "more than 100",
            ),
            (
                |m| outlier(m).enforcing_failure_percentage = Some(UInt32Value { value: 101 }),
                "outlier_detection.enforcing_failure_percentage",
                "more than 100",
            ),
            (
                |m| outlier(m).failure_percentage_threshold = Some(UInt32Value { value: 101 }),
                "outlier_detection.failure_percentage_threshold",
                "more than 100",
            ),
            (
                |m| outlier(m).enforcing_local_origin_success_rate = Some(UInt32Value { value: 101 }),
                "outlier_detection.enforcing_local_origin_success_rate",
                "more than 100",
            ),
            (
                |m| outlier(m).max_ejection_time_jitter = Some(Duration { seconds: -1, nanos: 0 }),
                "outlier_detection.max_ejection_time_jitter",
                "not a valid duration",
            ),
            (
                |m| outlier(m).base_ejection_time = Some(Duration { seconds: 0, nanos: -1 }),
                "outlier_detection.base_ejection_time",
                "not a valid duration",
            ),
            (
                |m| outlier(m).detect_degraded_hosts = Some(BoolValue { value: true }),
                "outlier_detection.detect_degraded_hosts",
                "not supported",
            ),
            (
                |m| outlier(m).interval = Some(Duration { seconds: -1, nanos: 0 }),
                "outlier_detection.interval",
                "not a valid duration",
            ),
            (
                |m| outlier(m).max_ejection_time = Some(Duration { seconds: 315_576_000_001, nanos: 0 }),
                "outlier_detection.max_ejection_time",
                "not a valid duration",
            ),
        ],
    );
}

/// gRFC A50 takes what is not negative; Envoy wants more than zero.
#[test]
fn no_time_between_sweeps_is_the_least_there_is_and_no_ejection_time_lasts_until_the_next() {
    let mut message = good();
    for time in [Duration::default(), Duration { seconds: 0, nanos: 1 }] {
        outlier(&mut message).interval = Some(time);
        outlier(&mut message).base_ejection_time = Some(Duration::default());
        outlier(&mut message).max_ejection_time = Some(Duration::default());
        let parsed = Cluster::parse(&message.encode_to_vec(), &context()).unwrap();
        let read = parsed.outlier_detection.as_ref().unwrap();
        assert_eq!(read.interval, model::cluster::OutlierDetection::LEAST_INTERVAL);
        assert!(read.base_ejection_time.is_zero() && read.max_ejection_time.is_zero());
        assert_eq!(Cluster::parse(&parsed.to_proto(), &context()).unwrap(), parsed);
    }
}

#[test]
fn a_transport_socket_that_would_verify_less_than_it_says_is_refused() {
    const COMMON: &str = "transport_socket.typed_config.common_tls_context";
    let at = |rest: &str| -> &'static str { format!("{COMMON}{rest}").leak() };
    refuses::<Cluster, _>(
        &good(),
        &[
            (
                |m| m.transport_socket = Some(TransportSocket::default()),
                "transport_socket.typed_config",
                "required",
            ),
            (
                |m| {
                    let url = <DownstreamTlsContext as MessageName>::type_url();
                    socket_config(m).unwrap().type_url = url;
                },
                "transport_socket.typed_config",
                "expected type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            ),
            (|m| common(m, |c| c.tls_params = Some(Default::default())), at(".tls_params"), "not supported"),
            (
                |m| {
                    common(m, |c| {
                        let provider =
                            ValidationContextType::ValidationContextCertificateProvider(Default::default());
                        c.validation_context_type = Some(provider);
                    });
                },
                at(".validation_context_certificate_provider"),
                "name a certificate provider",
            ),
            (
                |m| {
                    let typed = SubjectAltNameMatcher { san_type: 2, ..Default::default() };
                    validation(m, |c| c.match_typed_subject_alt_names.push(typed));
                },
                at(
                    ".combined_validation_context.default_validation_context.match_typed_subject_alt_names[0]\
                    .matcher",
                ),
                "is required",
            ),
            (
                |m| {
                    let matcher = Some(Default::default());
                    let typed = SubjectAltNameMatcher { san_type: 2, matcher, ..Default::default() };
                    validation(m, |c| c.match_typed_subject_alt_names.push(typed));
                },
                at(
                    ".combined_validation_context.default_validation_context.match_typed_subject_alt_names[0]\
                    .matcher",
                ),
                "one of exact",
            ),
            (|m| common(m, |c| c.validation_context_type = None), at(".validation_context"), "names nothing"),
            (
                |m| {
                    common(m, |c| {
                        c.tls_certificate_provider_instance.as_mut().unwrap().instance_name = "other".into();
                    });
                },
                at(".tls_certificate_provider_instance"),
                "`other` is not in the bootstrap",
            ),
            (
                |m| {
                    common(m, |c| {
                        c.validation_context_type =
                            Some(ValidationContextType::ValidationContextSdsSecretConfig(Default::default()));
                    });
                },
                at(".validation_context_sds_secret_config.sds_config"),
                "required: without it",
            ),
            (
                |m| validation(m, |c| c.verify_certificate_hash.push("00".into())),
                at(".combined_validation_context.default_validation_context.verify_certificate_hash"),
                "not supported",
            ),
            (
                |m| {
                    common(m, |c| {
                        c.validation_context_type = Some(ValidationContextType::CombinedValidationContext(
                            CombinedCertificateValidationContext {
                                validation_context_sds_secret_config: Some(Default::default()),
                                ..Default::default()
                            },
                        ));
                    });
                },
                at(".combined_validation_context.validation_context_sds_secret_config.sds_config"),
                "required: without it",
            ),
            (
                |m| {
                    common(m, |c| {
                        let trusted_ca = Some(Default::default());
                        c.validation_context_type =
                            Some(ValidationContextType::ValidationContext(CertificateValidationContext {
                                trusted_ca,
                                ..Default::default()
                            }));
                    });
                },
                at(".validation_context.trusted_ca"),
                "must be a filename",
            ),
            (
                |m| {
                    common(m, |c| {
                        let system_root_certs = Some(Default::default());
                        c.validation_context_type =
                            Some(ValidationContextType::ValidationContext(CertificateValidationContext {
                                system_root_certs,
                                ..Default::default()
                            }));
                    });
                },
                at(".validation_context"),
                "system_root_certs vouch for every site there is",
            ),
            (
                |m| {
                    common(m, |c| {
                        c.tls_certificate_provider_instance = None;
                        c.tls_certificate_certificate_provider_instance = None;
                        c.tls_certificates.push(Default::default());
                    });
                },
                at(".tls_certificates[0].certificate_chain"),
                "is required",
            ),
            (
                |m| {
                    common(m, |c| {
                        c.tls_certificate_provider_instance = None;
                        c.tls_certificate_certificate_provider_instance = None;
                        c.tls_certificate_sds_secret_configs.push(Default::default());
                    });
                },
                at(".tls_certificate_sds_secret_configs[0].sds_config"),
                "required: without it",
            ),
            (
                |m| {
                    common(m, |c| {
                        c.tls_certificate_provider_instance = None;
                        c.tls_certificate_certificate_provider_instance.as_mut().unwrap().instance_name =
                            "other".into();
                    });
                },
                at(".tls_certificate_certificate_provider_instance"),
                "`other` is not in the bootstrap",
            ),
            (
                |m| {
                    validation(m, |c| {
                        c.ca_certificate_provider_instance.as_mut().unwrap().instance_name = "x".into()
                    })
                },
                at(
                    ".combined_validation_context.default_validation_context.ca_certificate_provider_instance",
                ),
                "`x` is not in the bootstrap",
            ),
            (
                |m| validation(m, |c| c.verify_certificate_spki.push("00".into())),
                at(".combined_validation_context.default_validation_context.verify_certificate_spki"),
                "not supported",
            ),
            (
                |m| {
                    validation(m, |c| {
                        c.require_signed_certificate_timestamp = Some(BoolValue { value: true })
                    })
                },
                at(
                    ".combined_validation_context.default_validation_context.require_signed_certificate_timestamp",
                ),
                "not supported",
            ),
            (
                |m| validation(m, |c| c.crl = Some(Default::default())),
                at(".combined_validation_context.default_validation_context.crl"),
                "not supported",
            ),
            (
                |m| validation(m, |c| c.max_verify_depth = Some(Default::default())),
                at(".combined_validation_context.default_validation_context.max_verify_depth"),
                "not supported",
            ),
            (
                |m| validation(m, |c| c.custom_validator_config = Some(Default::default())),
                at(".combined_validation_context.default_validation_context.custom_validator_config"),
                "not supported",
            ),
            (
                |m| validation(m, |c| c.match_subject_alt_names.push(Default::default())),
                at(".combined_validation_context.default_validation_context.match_subject_alt_names[0]"),
                "one of exact",
            ),
            (
                |m| validation(m, |c| c.match_typed_subject_alt_names.push(Default::default())),
                at(
                    ".combined_validation_context.default_validation_context.match_typed_subject_alt_names[0]\
                    .san_type",
                ),
                "must be DNS, URI",
            ),
            (
                |m| common(m, |c| c.custom_handshaker = Some(Default::default())),
                at(".custom_handshaker"),
                "not supported",
            ),
            (
                |m| common(m, |c| c.custom_tls_certificate_selector = Some(Default::default())),
                at(".custom_tls_certificate_selector"),
                "not supported",
            ),
            (
                |m| within::<UpstreamTlsContext>(socket_config(m), |tls| tls.common_tls_context = None),
                COMMON,
                "required",
            ),
            (
                |m| within::<UpstreamTlsContext>(socket_config(m), |tls| tls.sni = "x".repeat(256)),
                "transport_socket.typed_config.sni",
                "longer than 255",
            ),
        ],
    );
}

fn http_options(message: &mut pb::Cluster, change: impl FnOnce(&mut HttpProtocolOptions)) {
    within(message.typed_extension_protocol_options.values_mut().next(), change);
}

fn http2(message: &mut pb::Cluster, change: impl FnOnce(&mut Http2ProtocolOptions)) {
    http_options(message, |options| match &mut options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
        })) => change(http2),
        _ => panic!("not HTTP/2"),
    });
}

#[test]
fn options_of_connections_that_cannot_be_kept_are_refused() {
    const OPTIONS: &str = "typed_extension_protocol_options\
                           [\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    let at = |rest: &str| -> &'static str { format!("{OPTIONS}{rest}").leak() };
    let in_http2 =
        |rest: &str| -> &'static str { at(&format!(".explicit_http_config.http2_protocol_options.{rest}")) };
    refuses::<Cluster, _>(
        &good(),
        &[
            (
                |m| {
                    let wrong = TypedExtensionConfig {
                        typed_config: Some(Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] }),
                        ..Default::default()
                    };
                    m.upstream_config = Some(wrong);
                },
                "upstream_config.typed_config",
                "expected type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            ),
            (
                |m| {
                    http_options(m, |o| {
                        o.upstream_protocol_options =
                            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                                protocol_config: Some(
                                    ProtocolConfig::HttpProtocolOptions(Default::default()),
                                ),
                            }));
                    });
                },
                at(".explicit_http_config.http_protocol_options"),
                "gRPC is HTTP/2",
            ),
            (
                |m| {
                    http_options(m, |o| {
                        o.upstream_protocol_options =
                            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                                protocol_config: Some(ProtocolConfig::Http3ProtocolOptions(
                                    Default::default(),
                                )),
                            }));
                    });
                },
                at(".explicit_http_config.http3_protocol_options"),
                "gRPC is HTTP/2",
            ),
            (
                |m| http_options(m, |o| o.retry_policy = Some(Default::default())),
                at(".retry_policy"),
                "retry at the route",
            ),
            (
                |m| http_options(m, |o| o.hash_policy.push(Default::default())),
                at(".hash_policy"),
                "hash at the route",
            ),
            (
                |m| http_options(m, |o| o.request_mirror_policies.push(Default::default())),
                at(".request_mirror_policies"),
                "mirror at the route",
            ),
            (
                |m| http_options(m, |o| o.http_filters.push(Default::default())),
                at(".http_filters"),
                "use the listener's",
            ),
            (
                |m| {
                    let garbage = Any { type_url: HttpProtocolOptions::type_url(), value: vec![0xff] };
                    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into();
                    m.typed_extension_protocol_options.insert(key, garbage);
                },
                OPTIONS,
                "failed to decode",
            ),
            (
                |m| {
                    http_options(m, |o| {
                        let never = Some(Duration::default());
                        o.common_http_protocol_options.as_mut().unwrap().max_connection_duration = never;
                    });
                },
                at(".common_http_protocol_options.max_connection_duration"),
                "greater than zero",
            ),
            // The older fields, which count when there is no HttpProtocolOptions.
            (
                |m| {
                    m.typed_extension_protocol_options.clear();
                    let windows = m.http2_protocol_options.get_or_insert_default();
                    windows.initial_stream_window_size = Some(UInt32Value { value: 1 });
                },
                "http2_protocol_options.initial_stream_window_size",
                "must be in 65535..=2147483647",
            ),
            (
                |m| {
                    m.typed_extension_protocol_options.clear();
                    let common = m.common_http_protocol_options.get_or_insert_default();
                    common.max_headers_count = Some(UInt32Value { value: 1 });
                },
                "common_http_protocol_options.max_headers_count",
                "not supported",
            ),
            (
                |m| http2(m, |o| o.custom_settings_parameters.push(Default::default())),
                in_http2("custom_settings_parameters"),
                "not supported",
            ),
            (
                |m| {
                    http2(m, |o| {
                        o.connection_keepalive = Some(KeepaliveSettings {
                            timeout: Some(Duration::default()),
                            ..KeepaliveSettings::default()
                        });
                    });
                },
                in_http2("connection_keepalive.timeout"),
                "greater than zero",
            ),
            (
                |m| {
                    http2(m, |o| {
                        o.connection_keepalive = Some(KeepaliveSettings {
                            timeout: Some(Duration { seconds: 1, nanos: 0 }),
                            interval: Some(Duration::default()),
                            ..KeepaliveSettings::default()
                        });
                    });
                },
                in_http2("connection_keepalive.interval"),
                "greater than zero",
            ),
            (
                |m| {
                    http_options(m, |o| {
                        let seconds = Duration { seconds: 315_576_000_001, nanos: 0 };
                        o.common_http_protocol_options.as_mut().unwrap().idle_timeout = Some(seconds);
                    });
                },
                at(".common_http_protocol_options.idle_timeout"),
                "not a valid duration",
            ),
            (
                |m| {
                    http_options(m, |o| {
                        let limit = Duration { seconds: 1, nanos: 0 };
                        o.common_http_protocol_options.as_mut().unwrap().max_stream_duration = Some(limit);
                    });
                },
                at(".common_http_protocol_options.max_stream_duration"),
                "limit the route",
            ),
            (
                |m| http2(m, |o| o.max_concurrent_streams = Some(UInt32Value { value: 0 })),
                in_http2("max_concurrent_streams"),
                "must be in 1..=",
            ),
            (
                |m| http2(m, |o| o.initial_stream_window_size = Some(UInt32Value { value: 65_534 })),
                in_http2("initial_stream_window_size"),
                "must be in 65535..=2147483647",
            ),
            (
                |m| http2(m, |o| o.initial_connection_window_size = Some(UInt32Value { value: 1 << 31 })),
                in_http2("initial_connection_window_size"),
                "must be in 65535..=2147483647",
            ),
            (
                |m| http2(m, |o| o.connection_keepalive = Some(KeepaliveSettings::default())),
                in_http2("connection_keepalive.timeout"),
                "is required",
            ),
            (
                |m| {
                    http2(m, |o| {
                        o.connection_keepalive = Some(KeepaliveSettings {
                            connection_idle_interval: Some(Duration { seconds: 1, nanos: 0 }),
                            ..KeepaliveSettings::default()
                        });
                    });
                },
                in_http2("connection_keepalive.connection_idle_interval"),
                "without interval",
            ),
        ],
    );
}

#[test]
fn a_zero_of_tcp_keepalive_switches_it_off_as_in_envoy() {
    let number = |value| UInt32Value { value };
    let of = |change: &dyn Fn(&mut TcpKeepalive)| {
        let mut keepalive = TcpKeepalive {
            keepalive_probes: Some(number(3)),
            keepalive_time: Some(number(60)),
            keepalive_interval: None,
        };
        change(&mut keepalive);
        let mut message = good();
        message.upstream_connection_options =
            Some(UpstreamConnectionOptions { tcp_keepalive: Some(keepalive), ..Default::default() });
        Cluster::parse(&message.encode_to_vec(), &context()).unwrap().connection.tcp_keepalive
    };
    let expected = model::cluster::TcpKeepalive {
        probes: Some(3),
        time: Some(std::time::Duration::from_secs(60)),
        interval: None,
    };
    assert_eq!(of(&|_| {}), Some(expected));
    assert_eq!(of(&|keepalive| *keepalive = TcpKeepalive::default()), Some(Default::default()));
    assert_eq!(of(&|keepalive| keepalive.keepalive_probes = Some(number(0))), None);
    assert_eq!(of(&|keepalive| keepalive.keepalive_time = Some(number(0))), None);
    assert_eq!(of(&|keepalive| keepalive.keepalive_interval = Some(number(0))), None);
}

#[test]
fn less_than_a_second_of_tcp_keepalive_is_sent_as_one() {
    let mut cluster = Cluster::eds("c");
    let time = Some(std::time::Duration::from_millis(500));
    cluster.connection.tcp_keepalive = Some(model::cluster::TcpKeepalive { time, ..Default::default() });
    let sent = Cluster::parse(&cluster.to_proto(), &context()).unwrap().connection.tcp_keepalive;
    assert_eq!(sent.and_then(|keepalive| keepalive.time), Some(std::time::Duration::from_secs(1)));
}

#[test]
fn limits_of_priority_high_count_where_calls_can_have_it() {
    let number = |value| Some(UInt32Value { value });
    let thresholds = |priority: i32, max_requests| Thresholds {
        priority,
        max_requests: number(max_requests),
        max_connections: number(9),
        ..Default::default()
    };
    let mut message = good();
    message.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![thresholds(1, 7), thresholds(0, 5), thresholds(1, 6)],
        ..Default::default()
    });
    let parse = |support| {
        let context = ParseContext { support, ..context() };
        Cluster::parse(&message.encode_to_vec(), &context).unwrap().circuit_breakers
    };
    let (with, without) = (parse(Support::of(&[Feature::HighPriority])), parse(Support::NONE));
    assert_eq!((with.max_requests, with.max_connections, with.high.max_requests), (5, Some(9), 7));
    assert_eq!((without.max_requests, without.high), (5, crate::resource::cluster::Thresholds::default()));
}

/// A map has no order of its own; without one, the same resource would be rejected in other words each time.
#[test]
fn faults_in_a_map_come_in_the_order_of_its_keys() {
    let mut message = good();
    let keys: Vec<_> = ('a'..='l').map(String::from).collect();
    let metadata = message.metadata.get_or_insert_default();
    metadata.typed_filter_metadata =
        keys.iter().map(|key| (key.clone(), model::wire::any(&Audience::default()))).collect();
    let error = Cluster::parse(&message.encode_to_vec(), &context()).unwrap_err();
    let paths: Vec<_> = error.rejected.faults.iter().map(|fault| fault.path.as_str()).collect();
    let expected: Vec<_> =
        keys.iter().map(|key| format!("metadata.typed_filter_metadata[{key:?}].url")).collect();
    assert_eq!(paths, expected);
}
