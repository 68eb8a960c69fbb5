//! Good clusters, assignments and TLS contexts around each message of `resource/fields`.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::*;
use crate::resource::fields::{cluster::*, endpoint::*, tls::*};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as cluster, CircuitBreakers, OutlierDetection, UpstreamConnectionOptions,
                circuit_breakers::{Thresholds, thresholds::RetryBudget},
                cluster::{
                    ClusterDiscoveryType, CustomClusterType, LbConfig, LbPolicy, RefreshRate,
                    RingHashLbConfig,
                    common_lb_config::{
                        ConsistentHashingLbConfig as OldHashing, LocalityConfigSpecifier,
                        ZoneAwareLbConfig as OldZoneAware,
                    },
                },
                load_balancing_policy::Policy,
            },
            core::v3::{
                DataSource, HealthCheck, ProxyProtocolConfig, TcpKeepalive, TlvEntry, TransportSocket,
                TypedExtensionConfig, data_source,
                health_check::{GrpcHealthCheck, HealthChecker, TcpHealthCheck},
                proxy_protocol_config,
                transport_socket::ConfigType,
            },
        },
        extensions::{
            clusters::{aggregate::v3::ClusterConfig, dns::v3::DnsCluster},
            load_balancing_policies::{
                client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin,
                common::v3::{
                    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig, locality_lb_config,
                },
                least_request::v3::LeastRequest,
                maglev::v3::Maglev,
                pick_first::v3::PickFirst,
                random::v3::Random,
                random_subsetting::v3::RandomSubsetting,
                ring_hash::v3::RingHash,
                round_robin::v3::RoundRobin,
                wrr_locality::v3::WrrLocality,
            },
            transport_sockets::{
                http_11_proxy::v3::Http11ProxyUpstreamTransport,
                proxy_protocol::v3::ProxyProtocolUpstreamTransport,
                raw_buffer::v3::RawBuffer,
                tls::v3::{
                    self as tls, CertificateProviderPluginInstance, CertificateValidationContext,
                    CommonTlsContext, SubjectAltNameMatcher,
                    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
                },
            },
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{Any, Duration, UInt32Value},
};
use model::{
    Locality,
    cluster::{
        Cluster, ConnectionOptions, Discovery, HostPort, Http2Keepalive, OutlierDetection as Outliers,
        StrictDns,
    },
    endpoint::{ClusterLoadAssignment, Endpoint, EndpointHealthCheck, LocalityEndpoints},
    wire::any,
};
use prost::Message as _;
use std::sync::Arc;

pub(super) fn carriers() -> Vec<Carrier> {
    let mut all = cluster_carriers();
    all.extend(policy_carriers());
    all.extend(endpoint_carriers());
    all.extend(tls_carriers());
    all
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// A STRICT_DNS cluster, in which more fields count than in any other, without `HttpProtocolOptions`.
pub(super) fn named() -> cluster::Cluster {
    let locality = LocalityEndpoints {
        locality: Locality { zone: "z".into(), ..Locality::default() },
        weight: std::num::NonZeroU32::MIN,
        endpoints: vec![Arc::new(Endpoint::new(HostPort { host: "h".into(), port: 443 }))],
    };
    let strict = StrictDns {
        priorities: vec![model::endpoint::Priority { localities: vec![locality] }],
        drops: vec![],
        dns: Default::default(),
    };
    let cluster = Cluster::new("c", Discovery::StrictDns(Arc::new(strict)));
    let mut message = cluster::Cluster::decode(model::Resource::to_proto(&cluster)).unwrap();
    message.typed_extension_protocol_options.clear();
    message.circuit_breakers = None;
    message
}

/// An EDS cluster with options of its connections.
pub(super) fn connected() -> cluster::Cluster {
    let keepalive = Http2Keepalive {
        interval: std::time::Duration::from_secs(5),
        timeout: std::time::Duration::from_secs(6),
    };
    let connection = ConnectionOptions {
        max_concurrent_streams: Some(7),
        http2_keepalive: Some(keepalive),
        ..ConnectionOptions::default()
    };
    let cluster = Cluster { connection, ..Cluster::eds("c") };
    cluster::Cluster::decode(model::Resource::to_proto(&cluster)).unwrap()
}

/// An EDS cluster whose outlier detection is told what an error is.
fn judged() -> cluster::Cluster {
    let errors = Some([429, 503].into_iter().collect());
    let outlier_detection = Some(Outliers { errors, ..Outliers::default() });
    let cluster = Cluster { outlier_detection, ..Cluster::eds("c") };
    cluster::Cluster::decode(model::Resource::to_proto(&cluster)).unwrap()
}

fn extended(name: &str, config: Any) -> cluster::Cluster {
    let custom = CustomClusterType { name: name.into(), typed_config: Some(config) };
    cluster::Cluster { cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(custom)), ..named() }
}

fn balanced(policy: LbPolicy, config: LbConfig) -> cluster::Cluster {
    cluster::Cluster { lb_policy: policy.into(), lb_config: Some(config), ..named() }
}

fn limited(thresholds: Option<Thresholds>, per_host: Option<Thresholds>) -> cluster::Cluster {
    let circuit_breakers = CircuitBreakers {
        thresholds: thresholds.into_iter().collect(),
        per_host_thresholds: per_host.into_iter().collect(),
    };
    cluster::Cluster { circuit_breakers: Some(circuit_breakers), ..named() }
}

fn checked(checker: HealthChecker) -> cluster::Cluster {
    let check = HealthCheck {
        timeout: seconds(5),
        interval: seconds(5),
        unhealthy_threshold: number(3),
        healthy_threshold: number(3),
        health_checker: Some(checker),
        ..HealthCheck::default()
    };
    cluster::Cluster { health_checks: vec![check], ..named() }
}

fn cluster_carriers() -> Vec<Carrier> {
    let carrier = |message, good: cluster::Cluster, at| Carrier {
        message,
        kind: ResourceType::Cluster,
        good: good.encode_to_vec(),
        at,
    };
    let common = |change: fn(&mut cluster::cluster::CommonLbConfig), lb_policy: LbPolicy| {
        let mut message = checked(HealthChecker::GrpcHealthCheck(GrpcHealthCheck::default()));
        message.lb_policy = lb_policy.into();
        change(message.common_lb_config.as_mut().unwrap());
        message
    };
    let failing = cluster::Cluster {
        dns_failure_refresh_rate: Some(RefreshRate { base_interval: seconds(5), max_interval: None }),
        ..named()
    };
    let zone: fn(&mut cluster::cluster::CommonLbConfig) = |common| {
        common.locality_config_specifier =
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(OldZoneAware::default()));
    };
    let hashing: fn(&mut cluster::cluster::CommonLbConfig) =
        |common| common.consistent_hashing_lb_config = Some(OldHashing::default());
    let outlier = OutlierDetection {
        enforcing_failure_percentage: number(100),
        enforcing_consecutive_gateway_failure: number(100),
        split_external_local_origin_errors: true,
        ..OutlierDetection::default()
    };
    let keepalive = UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive::default()),
        ..UpstreamConnectionOptions::default()
    };
    let quiet = UpstreamConnectionOptions::default();
    let five = || Thresholds {
        max_requests: number(5),
        retry_budget: Some(RetryBudget::default()),
        ..Thresholds::default()
    };
    let per_host = Thresholds { max_connections: number(5), ..Thresholds::default() };
    let aggregate = any(&ClusterConfig { clusters: vec!["a".into()] });
    vec![
        carrier(&CLUSTER, named(), &[]),
        carrier(&EDS, connected(), &[3]),
        carrier(&CUSTOM_TYPE, extended("envoy.clusters.aggregate", aggregate.clone()), &[38]),
        carrier(&AGGREGATE, extended("envoy.clusters.aggregate", aggregate), &[38, 2, 2]),
        carrier(&DNS, extended("envoy.cluster.dns", any(&DnsCluster::default())), &[38, 2, 2]),
        carrier(&DNS_REFRESH, failing, &[44]),
        carrier(&COMMON_LB, common(|_| {}, LbPolicy::RoundRobin), &[27]),
        carrier(&OLD_ZONE_AWARE, common(zone, LbPolicy::RoundRobin), &[27, 2]),
        carrier(&OLD_HASHING, common(hashing, LbPolicy::RingHash), &[27, 7]),
        carrier(
            &OLD_ROUND_ROBIN,
            balanced(LbPolicy::RoundRobin, LbConfig::RoundRobinLbConfig(Default::default())),
            &[56],
        ),
        carrier(
            &OLD_LEAST_REQUEST,
            balanced(LbPolicy::LeastRequest, LbConfig::LeastRequestLbConfig(Default::default())),
            &[37],
        ),
        carrier(
            &OLD_RING_HASH,
            balanced(LbPolicy::RingHash, LbConfig::RingHashLbConfig(RingHashLbConfig::default())),
            &[23],
        ),
        carrier(&OLD_MAGLEV, balanced(LbPolicy::Maglev, LbConfig::MaglevLbConfig(Default::default())), &[52]),
        carrier(&CIRCUIT_BREAKERS, limited(None, None), &[10]),
        carrier(&THRESHOLDS, limited(Some(five()), None), &[10, 1]),
        carrier(&PER_HOST_THRESHOLDS, limited(None, Some(per_host)), &[10, 2]),
        carrier(&RETRY_BUDGET, limited(Some(five()), None), &[10, 1, 8]),
        carrier(&OUTLIER_DETECTION, cluster::Cluster { outlier_detection: Some(outlier), ..named() }, &[19]),
        carrier(&OUTLIER_ERRORS, judged(), &[36, 2, 2, 8]),
        carrier(&MATCH_PREDICATE, judged(), &[36, 2, 2, 8, 1]),
        carrier(&MATCH_SET, judged(), &[36, 2, 2, 8, 1, 1]),
        carrier(&HEADERS_MATCH, judged(), &[36, 2, 2, 8, 1, 1, 1, 7]),
        carrier(&HEALTH_CHECK, checked(HealthChecker::GrpcHealthCheck(GrpcHealthCheck::default())), &[8]),
        carrier(
            &GRPC_HEALTH_CHECK,
            checked(HealthChecker::GrpcHealthCheck(GrpcHealthCheck::default())),
            &[8, 11],
        ),
        carrier(
            &TCP_HEALTH_CHECK,
            checked(HealthChecker::TcpHealthCheck(TcpHealthCheck::default())),
            &[8, 9],
        ),
        carrier(
            &UPSTREAM_CONNECTION,
            cluster::Cluster { upstream_connection_options: Some(quiet), ..named() },
            &[30],
        ),
        carrier(
            &TCP_KEEPALIVE,
            cluster::Cluster { upstream_connection_options: Some(keepalive), ..named() },
            &[30, 1],
        ),
        carrier(&HTTP_OPTIONS, connected(), &[36, 2, 2]),
        carrier(&COMMON_OPTIONS, connected(), &[36, 2, 2, 1]),
        carrier(&HTTP2_OPTIONS, connected(), &[36, 2, 2, 3, 2]),
        carrier(&KEEPALIVE, connected(), &[36, 2, 2, 3, 2, 15]),
    ]
}

fn list(config: Any) -> cluster::LoadBalancingPolicy {
    let typed_extension_config = Some(TypedExtensionConfig { name: "p".into(), typed_config: Some(config) });
    cluster::LoadBalancingPolicy { policies: vec![Policy { typed_extension_config }] }
}

fn policy_carriers() -> Vec<Carrier> {
    let carrier = |message, config: Any, at| Carrier {
        message,
        kind: ResourceType::Cluster,
        good: cluster::Cluster { load_balancing_policy: Some(list(config)), ..named() }.encode_to_vec(),
        at,
    };
    let round_robin = || list(any(&RoundRobin::default()));
    let subsetting = RandomSubsetting { subset_size: number(3), child_policy: Some(round_robin()) };
    let zone_aware = LocalityLbConfig {
        locality_config_specifier: Some(locality_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(
            Default::default(),
        )),
    };
    let hashing = Maglev {
        consistent_hashing_lb_config: Some(ConsistentHashingLbConfig::default()),
        ..Maglev::default()
    };
    let slow = SlowStartConfig { slow_start_window: seconds(5), ..SlowStartConfig::default() };
    vec![
        carrier(
            &WRR_LOCALITY,
            any(&WrrLocality { endpoint_picking_policy: Some(round_robin()) }),
            &[41, 1, 4, 2, 2],
        ),
        carrier(&ROUND_ROBIN, any(&RoundRobin::default()), &[41, 1, 4, 2, 2]),
        carrier(&LEAST_REQUEST, any(&LeastRequest::default()), &[41, 1, 4, 2, 2]),
        carrier(&RANDOM, any(&Random::default()), &[41, 1, 4, 2, 2]),
        carrier(&PICK_FIRST, any(&PickFirst::default()), &[41, 1, 4, 2, 2]),
        carrier(&RING_HASH, any(&RingHash::default()), &[41, 1, 4, 2, 2]),
        carrier(&MAGLEV, any(&Maglev::default()), &[41, 1, 4, 2, 2]),
        carrier(&WEIGHTED_ROUND_ROBIN, any(&ClientSideWeightedRoundRobin::default()), &[41, 1, 4, 2, 2]),
        carrier(&RANDOM_SUBSETTING, any(&subsetting), &[41, 1, 4, 2, 2]),
        carrier(
            &ZONE_AWARE,
            any(&RoundRobin { locality_lb_config: Some(zone_aware), ..RoundRobin::default() }),
            &[41, 1, 4, 2, 2, 2, 1],
        ),
        carrier(&HASHING, any(&hashing), &[41, 1, 4, 2, 2, 2]),
        carrier(
            &SLOW_START,
            any(&RoundRobin { slow_start_config: Some(slow), ..RoundRobin::default() }),
            &[41, 1, 4, 2, 2, 1],
        ),
    ]
}

fn endpoint_carriers() -> Vec<Carrier> {
    let endpoint = Endpoint {
        health_check: Some(Arc::new(EndpointHealthCheck { port: Some(5), ..Default::default() })),
        weight: 5.try_into().unwrap(),
        tlvs: Some([model::cluster::Tlv { kind: 1, value: (*b"a").into() }].into()),
        ..Endpoint::new(vec![([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()])
    };
    let locality = LocalityEndpoints {
        locality: Locality::default(),
        weight: 5.try_into().unwrap(),
        endpoints: vec![Arc::new(endpoint)],
    };
    let assignment = ClusterLoadAssignment {
        priorities: vec![model::endpoint::Priority { localities: vec![locality] }],
        drops: vec![model::endpoint::DropOverload {
            category: "overload".into(),
            fraction: crate::matcher::Fraction::per_million(7),
        }],
        ..ClusterLoadAssignment::new("c")
    };
    let carrier = |message, at| Carrier {
        message,
        kind: ResourceType::ClusterLoadAssignment,
        good: model::Resource::to_proto(&assignment).to_vec(),
        at,
    };
    vec![
        carrier(&ASSIGNMENT, &[]),
        carrier(&POLICY, &[4]),
        carrier(&DROP, &[4, 2]),
        carrier(&LOCALITY, &[2]),
        carrier(&LB_ENDPOINT, &[2, 2]),
        carrier(&ENDPOINT, &[2, 2, 1]),
        carrier(&ADDITIONAL_ADDRESS, &[2, 2, 1, 4]),
        carrier(&ENDPOINT_HEALTH_CHECK, &[2, 2, 1, 2]),
        carrier(&ENDPOINT_TLVS, &[2, 2, 3, 2, 2, 2]),
        carrier(&SOCKET_ADDRESS, &[2, 2, 1, 1, 1]),
    ]
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
pub(super) fn provider() -> Option<CertificateProviderPluginInstance> {
    Some(CertificateProviderPluginInstance {
        instance_name: "default".into(),
        certificate_name: String::new(),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn socket(config: Any) -> Option<TransportSocket> {
    Some(TransportSocket { name: "s".into(), config_type: Some(ConfigType::TypedConfig(config)) })
}

fn common(validation: CertificateValidationContext) -> CommonTlsContext {
    let validation = ValidationContextType::ValidationContext(validation);
    CommonTlsContext { validation_context_type: Some(validation), ..CommonTlsContext::default() }
}

/// A cluster that verifies servers, and shows no certificate.
pub(super) fn upstream(change: impl FnOnce(&mut CommonTlsContext)) -> Vec<u8> {
    let matcher =
        StringMatcher { match_pattern: Some(MatchPattern::Exact("a".into())), ..StringMatcher::default() };
    let mut common = common(CertificateValidationContext {
        ca_certificate_provider_instance: provider(),
        match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
            san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
            matcher: Some(matcher),
            ..SubjectAltNameMatcher::default()
        }],
        ..CertificateValidationContext::default()
    });
    change(&mut common);
    let context = tls::UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    cluster::Cluster { transport_socket: socket(any(&context)), ..named() }.encode_to_vec()
}

/// A cluster that verifies servers by a secret.
fn sds_roots() -> Vec<u8> {
    let sds = tls::SdsSecretConfig { name: "s".into(), sds_config: Some(model::wire::ads()) };
    upstream(|common| {
        let combined = CombinedCertificateValidationContext {
            validation_context_sds_secret_config: Some(sds),
            ..Default::default()
        };
        common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(combined));
    })
}

/// PEM in form.
#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn inline(label: &str) -> Option<DataSource> {
    let text = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    Some(DataSource { specifier: Some(data_source::Specifier::InlineString(text)), ..Default::default() })
}

fn tls_certificate() -> Vec<u8> {
    let certificate = tls::TlsCertificate {
        certificate_chain: inline("CERTIFICATE"),
        private_key: inline("PRIVATE KEY"),
        ..Default::default()
    };
    tls::Secret { name: "s".into(), r#type: Some(tls::secret::Type::TlsCertificate(certificate)) }
        .encode_to_vec()
}

fn validation_context() -> Vec<u8> {
    let validation = CertificateValidationContext { trusted_ca: inline("CERTIFICATE"), ..Default::default() };
    tls::Secret { name: "s".into(), r#type: Some(tls::secret::Type::ValidationContext(validation)) }
        .encode_to_vec()
}

/// A client's certificate in files.
pub(super) fn from_files(common: &mut CommonTlsContext) {
    let file = || {
        let specifier = Some(data_source::Specifier::Filename("f".into()));
        Some(DataSource { specifier, ..Default::default() })
    };
    common.tls_certificates =
        vec![tls::TlsCertificate { certificate_chain: file(), private_key: file(), ..Default::default() }];
}

/// A server that verifies nobody.
fn downstream() -> Vec<u8> {
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext::default()),
        ..Default::default()
    };
    let common = CommonTlsContext {
        tls_certificate_provider_instance: provider(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..CommonTlsContext::default()
    };
    let context = tls::DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    let mut message = listener::Listener::decode(&*carriers::server(vec![])).unwrap();
    message.filter_chains[0].transport_socket = socket(any(&context));
    message.encode_to_vec()
}

fn tls_carriers() -> Vec<Carrier> {
    let client = |message, good, at| Carrier { message, kind: ResourceType::Cluster, good, at };
    let server = |message, at| Carrier { message, kind: ResourceType::Listener, good: downstream(), at };
    let secret = |message, good, at| Carrier { message, kind: ResourceType::Secret, good, at };
    let proxied = cluster::Cluster {
        transport_socket: socket(any(&Http11ProxyUpstreamTransport::default())),
        ..named()
    };
    let transport = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig {
            version: proxy_protocol_config::Version::V2.into(),
            added_tlvs: vec![TlvEntry { r#type: 1, value: b"a".to_vec(), ..Default::default() }],
            ..Default::default()
        }),
        transport_socket: socket(any(&RawBuffer::default())),
        ..Default::default()
    };
    let announced =
        || cluster::Cluster { transport_socket: socket(any(&transport)), ..named() }.encode_to_vec();
    let identified = upstream(|common| common.tls_certificate_provider_instance = provider());
    vec![
        client(&UPSTREAM, upstream(|_| {}), &[24, 3, 2]),
        server(&DOWNSTREAM, &[3, 6, 3, 2]),
        client(&COMMON, upstream(|_| {}), &[24, 3, 2, 1]),
        client(&COMBINED, sds_roots(), &[24, 3, 2, 1, 8]),
        client(&SDS, sds_roots(), &[24, 3, 2, 1, 8, 2]),
        secret(&SECRET, tls_certificate(), &[]),
        secret(&CERTIFICATE, tls_certificate(), &[2]),
        secret(&SECRET_VALIDATION, validation_context(), &[4]),
        server(&VALIDATION, &[3, 6, 3, 2, 1, 8, 1]),
        client(&VALIDATION, upstream(|_| {}), &[24, 3, 2, 1, 3]),
        client(&FILES, upstream(from_files), &[24, 3, 2, 1, 2]),
        client(&PROVIDER, identified, &[24, 3, 2, 1, 14]),
        client(&SAN, upstream(|_| {}), &[24, 3, 2, 1, 3, 15]),
        client(&HTTP_CONNECT, proxied.encode_to_vec(), &[24, 3, 2]),
        client(&PROXY_PROTOCOL, announced(), &[24, 3, 2]),
        client(&HEADER, announced(), &[24, 3, 2, 1]),
        client(&TLV, announced(), &[24, 3, 2, 1, 3]),
    ]
}
