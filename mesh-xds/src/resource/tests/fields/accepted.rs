//! Resources with fields that neither single values nor the property tests show to be taken.

use super::{carriers, clusters};
use crate::resource::{
    ResourceType,
    wire::{self, any},
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3 as cluster,
            core::v3::{CidrRange, TypedExtensionConfig},
            listener::v3 as listener,
            route::v3 as route,
        },
        extensions::{
            filters::http::fault::v3::HttpFault,
            transport_sockets::tls::v3::{
                CertificateValidationContext, SdsSecretConfig, SubjectAltNameMatcher,
                common_tls_context::ValidationContextType,
            },
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{Duration, UInt32Value},
};
use prost::Message;

/// (message, field): the property tests make it deeper in a tree than the table's resource has it, and it comes back.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    // a_plugin_that_is_optional_leaves_out_its_routes, as a route without an action is left out
    ("RouteAction", "cluster_specifier_plugin"),
    ("RouteAction", "inline_cluster_specifier_plugin"),
    // a_cluster_comes_back_from_its_bytes
    ("MatchPredicate", "and_match"),
    ("MatchPredicate", "not_match"),
    // a_listener_comes_back_from_its_bytes
    ("JwtRequirement", "provider_and_audiences"),
    ("JwtRequirement", "requires_any"),
    ("RequirementRule", "requirement_name"),
    ("RateLimitStrategy", "token_bucket"),
    ("ExecuteFilterAction", "typed_config"),
];

pub(super) fn samples() -> Vec<(ResourceType, Vec<u8>)> {
    let mut all: Vec<_> =
        routes().into_iter().map(|m| (ResourceType::RouteConfiguration, m.encode_to_vec())).collect();
    all.extend(servers().into_iter().map(|m| (ResourceType::Listener, m.encode_to_vec())));
    all.extend(plain_clusters().into_iter().map(|m| (ResourceType::Cluster, m.encode_to_vec())));
    all.extend(tls().into_iter().map(|bytes| (ResourceType::Cluster, bytes)));
    all
}

fn routes() -> Vec<route::RouteConfiguration> {
    let extension =
        || TypedExtensionConfig { name: "p".into(), typed_config: Some(any(&HttpFault::default())) };
    let plugin = || route::ClusterSpecifierPlugin { extension: Some(extension()), is_optional: true };
    let of = |specifier| {
        let mut message = route::RouteConfiguration::decode(&*carriers::to_one()).unwrap();
        let host = &mut message.virtual_hosts[0];
        let mut first = host.routes[0].clone();
        let Some(route::route::Action::Route(action)) = &mut first.action else { panic!("{first:?}") };
        action.cluster_specifier = Some(specifier);
        host.routes.insert(0, first);
        message
    };
    use route::route_action::ClusterSpecifier;
    let mut declared = of(ClusterSpecifier::ClusterSpecifierPlugin("p".into()));
    declared.cluster_specifier_plugins = vec![plugin()];
    let mut overridden = route::RouteConfiguration::decode(&*carriers::to_one()).unwrap();
    overridden.typed_per_filter_config = [("f".to_owned(), any(&HttpFault::default()))].into();
    vec![declared, of(ClusterSpecifier::InlineClusterSpecifierPlugin(plugin())), overridden]
}

/// A chain that can never match, beside one that can.
fn servers() -> Vec<listener::Listener> {
    let of = |change: fn(&mut listener::FilterChainMatch)| {
        let mut message = listener::Listener::decode(&*carriers::server(vec![])).unwrap();
        let chain = message.filter_chains[0].clone();
        message.default_filter_chain = Some(listener::FilterChain { filter_chain_match: None, ..chain });
        change(message.filter_chains[0].filter_chain_match.as_mut().unwrap());
        message
    };
    vec![
        of(|m| m.destination_port = Some(UInt32Value { value: 1 })),
        of(|m| m.server_names = vec!["a".into()]),
        of(|m| m.application_protocols = vec!["h2".into()]),
        of(|m| {
            let network =
                CidrRange { address_prefix: "10.0.0.0".into(), prefix_len: Some(UInt32Value { value: 8 }) };
            m.direct_source_prefix_ranges = vec![network];
        }),
    ]
}

fn plain_clusters() -> Vec<cluster::Cluster> {
    let seconds = |seconds| Some(Duration { seconds, nanos: 0 });
    let mut warm = clusters::named();
    let slow = cluster::cluster::SlowStartConfig { slow_start_window: seconds(5), ..Default::default() };
    warm.lb_config =
        Some(cluster::cluster::LbConfig::RoundRobinLbConfig(cluster::cluster::RoundRobinLbConfig {
            slow_start_config: Some(slow),
        }));
    // The same options in each of the places that are looked at.
    let connected = clusters::connected();
    let options = connected.typed_extension_protocol_options.into_values().next().unwrap();
    let mut upstream = clusters::named();
    upstream.upstream_config = Some(TypedExtensionConfig { name: "u".into(), typed_config: Some(options) });
    #[expect(deprecated, reason = "Envoy still reads it")]
    let old = {
        let mut old = clusters::named();
        old.http2_protocol_options = Some(envoy_types::pb::envoy::config::core::v3::Http2ProtocolOptions {
            max_concurrent_streams: Some(UInt32Value { value: 7 }),
            ..Default::default()
        });
        old
    };
    vec![warm, upstream, old]
}

#[expect(deprecated, reason = "other control planes still send it")]
fn tls() -> Vec<Vec<u8>> {
    let exact =
        || StringMatcher { match_pattern: Some(MatchPattern::Exact("a".into())), ..Default::default() };
    let by_system = CertificateValidationContext {
        system_root_certs: Some(Default::default()),
        match_subject_alt_names: vec![exact()],
        ..Default::default()
    };
    let typed = SubjectAltNameMatcher { san_type: 2, matcher: Some(exact()), ..Default::default() };
    let by_provider = CertificateValidationContext {
        ca_certificate_provider_instance: clusters::provider(),
        match_typed_subject_alt_names: vec![typed],
        ..Default::default()
    };
    let validated = |validation| {
        clusters::upstream(|common| {
            common.validation_context_type = Some(ValidationContextType::ValidationContext(validation));
        })
    };
    let sds = SdsSecretConfig { name: "s".into(), sds_config: Some(wire::ads()) };
    let by_secret = clusters::upstream(|common| {
        common.validation_context_type = Some(ValidationContextType::ValidationContextSdsSecretConfig(sds));
    });
    vec![
        validated(by_system),
        validated(by_provider),
        by_secret,
        clusters::upstream(clusters::from_files),
        clusters::upstream(|common| common.tls_certificate_provider_instance = clusters::provider()),
    ]
}
