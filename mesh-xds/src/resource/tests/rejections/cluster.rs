//! Cluster (gRFC A27, A29, A32, A48, A50, A52, A105).

use super::*;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb, CircuitBreakers, LoadBalancingPolicy, OutlierDetection,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
                },
                load_balancing_policy::Policy,
            },
            core::v3::{ConfigSource, TransportSocket, TypedExtensionConfig, transport_socket::ConfigType},
        },
        extensions::transport_sockets::tls::v3::{
            CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
            common_tls_context::ValidationContextType,
        },
    },
    google::protobuf::{Any, Duration, UInt32Value},
};

fn good() -> pb::Cluster {
    let tls = model::tls::UpstreamTls {
        identity: Some("default".into()),
        roots: model::tls::Roots::Provider("default".into()),
        sans: vec![],
        sni: None,
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

fn policies(message: &mut pb::Cluster, configs: &[&str]) {
    let one = |url: &&str| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: String::new(),
            typed_config: Some(Any { type_url: (*url).into(), value: Vec::new() }),
        }),
    };
    message.load_balancing_policy = Some(LoadBalancingPolicy { policies: configs.iter().map(one).collect() });
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
                |m| outlier(m).max_ejection_percent = Some(UInt32Value { value: 101 }),
                "outlier_detection.max_ejection_percent",
                "more than 100",
            ),
            (
                |m| outlier(m).interval = Some(Duration { seconds: -1, nanos: 0 }),
                "outlier_detection.interval",
                "not a valid duration",
            ),
            (
                |m| outlier(m).interval = Some(Duration::default()),
                "outlier_detection.interval",
                "greater than zero",
            ),
        ],
    );
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
                at(".validation_context_type"),
                "are supported",
            ),
            (
                |m| {
                    common(m, |c| {
                        let Some(ValidationContextType::CombinedValidationContext(combined)) =
                            &mut c.validation_context_type
                        else {
                            panic!("not combined")
                        };
                        let context = combined.default_validation_context.as_mut().unwrap();
                        context.verify_certificate_hash.push("00".into());
                    });
                },
                at(".combined_validation_context.default_validation_context.verify_certificate_hash"),
                "not supported",
            ),
            (
                |m| within::<UpstreamTlsContext>(socket_config(m), |tls| tls.sni = "x".repeat(256)),
                "transport_socket.typed_config.sni",
                "longer than 255",
            ),
        ],
    );
}

#[test]
fn the_first_supported_policy_is_taken() {
    let mut message = good();
    policies(
        &mut message,
        &[
            "type.googleapis.com/x.Y",
            "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random",
        ],
    );
    let cluster = Cluster::parse(&message.encode_to_vec(), &context()).unwrap();
    assert_eq!(cluster.lb, model::cluster::LbPolicy::Random);
}
