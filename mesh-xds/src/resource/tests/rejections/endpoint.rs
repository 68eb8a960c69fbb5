//! ClusterLoadAssignment (gRFC A27).

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::*;
use crate::resource::cluster::Tlv;
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                Address, Metadata, PerHostConfig, SocketAddress, SubstitutionFormatString, TlvEntry, address,
                socket_address::PortSpecifier,
            },
            endpoint::v3::{
                self as pb, Endpoint, LbEndpoint, LedsClusterLocalityConfig, LocalityLbEndpoints,
                cluster_load_assignment::{Policy, policy::DropOverload},
                endpoint::{AdditionalAddress, HealthCheckConfig},
                lb_endpoint::HostIdentifier,
                locality_lb_endpoints::LbConfig,
            },
        },
        r#type::v3::FractionalPercent,
    },
    google::protobuf::{Duration, Struct, UInt32Value, value::Kind},
};

fn socket(ip: &str, port: u32) -> Option<Address> {
    let port_specifier = Some(PortSpecifier::PortValue(port));
    let socket = SocketAddress { address: ip.into(), port_specifier, ..Default::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

fn locality(priority: u32, ip: &str) -> LocalityLbEndpoints {
    let endpoint = Endpoint { address: socket(ip, 80), ..Default::default() };
    LocalityLbEndpoints {
        locality: Some(Default::default()),
        lb_endpoints: vec![LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        }],
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        priority,
        ..Default::default()
    }
}

fn good() -> pb::ClusterLoadAssignment {
    pb::ClusterLoadAssignment {
        cluster_name: "c".into(),
        endpoints: vec![locality(0, "10.0.0.1"), locality(1, "10.0.0.2")],
        ..Default::default()
    }
}

fn first(message: &mut pb::ClusterLoadAssignment) -> &mut Endpoint {
    match &mut message.endpoints[0].lb_endpoints[0].host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        _ => panic!("no endpoint"),
    }
}

fn proxy(address: &Address) -> Option<Metadata> {
    let key = "envoy.http11_proxy_transport_socket.proxy_address".to_owned();
    let typed_filter_metadata = [(key, model::wire::any(address))].into();
    Some(Metadata { typed_filter_metadata, ..Metadata::default() })
}

fn tlv(kind: u32, value: &[u8]) -> TlvEntry {
    TlvEntry { r#type: kind, value: value.to_vec(), ..Default::default() }
}

fn tlvs(added_tlvs: Vec<TlvEntry>) -> Option<Metadata> {
    let key = "envoy.transport_sockets.proxy_protocol".to_owned();
    let typed_filter_metadata = [(key, model::wire::any(&PerHostConfig { added_tlvs }))].into();
    Some(Metadata { typed_filter_metadata, ..Metadata::default() })
}

#[test]
fn a_faulty_assignment_is_refused_with_the_place() {
    const HOST: &str = "endpoints[0].lb_endpoints[0].endpoint";
    let at = |rest: &str| -> &'static str { format!("{HOST}{rest}").leak() };
    refuses::<ClusterLoadAssignment, _>(
        &good(),
        &[
            (|m| m.endpoints[0].locality = None, "endpoints[0].locality", "required"),
            (|m| m.endpoints[1].priority = 2, "endpoints", "priority 1 is missing"),
            (|m| m.endpoints[0].load_balancing_weight = None, "endpoints", "priority 0 is missing"),
            (|m| m.endpoints[1].priority = u32::MAX, "endpoints", "priority 1 is missing"),
            (
                |m| {
                    m.endpoints[1].priority = 0;
                },
                "endpoints[1].locality",
                "twice in one priority",
            ),
            (
                |m| {
                    m.endpoints[1].priority = 0;
                    m.endpoints[1].locality.as_mut().unwrap().zone = "z".into();
                    m.endpoints[1].load_balancing_weight = Some(UInt32Value { value: u32::MAX });
                },
                "endpoints[1].load_balancing_weight",
                "more than 4294967295",
            ),
            (
                |m| m.endpoints[0].lb_endpoints[0].load_balancing_weight = Some(UInt32Value { value: 0 }),
                "endpoints[0].lb_endpoints[0].load_balancing_weight",
                "must not be 0",
            ),
            (|m| m.endpoints[0].lb_endpoints[0].host_identifier = None, at(""), "required"),
            (|m| first(m).address = None, at(".address"), "required"),
            (
                |m| first(m).address = socket("reviews", 80),
                at(".address.socket_address.address"),
                "literal IP",
            ),
            (
                |m| first(m).address = socket("10.0.0.1", 65536),
                at(".address.socket_address.port_value"),
                "not a port",
            ),
            (
                |m| {
                    let again = AdditionalAddress { address: socket("10.0.0.1", 80) };
                    first(m).additional_addresses.push(again);
                },
                at(".address"),
                "stands twice",
            ),
            (
                |m| m.endpoints[1] = LocalityLbEndpoints { priority: 1, ..locality(1, "10.0.0.1") },
                "endpoints[1].lb_endpoints[0].endpoint.address",
                "stands twice",
            ),
            (
                |m| {
                    let drop_overloads = vec![DropOverload::default()];
                    m.policy = Some(Policy { drop_overloads, ..Default::default() });
                },
                "policy.drop_overloads[0].drop_percentage",
                "required",
            ),
            (
                |m| {
                    let drop_percentage = Some(FractionalPercent { numerator: 1, denominator: 7 });
                    let drop = DropOverload { drop_percentage, ..Default::default() };
                    m.policy = Some(Policy { drop_overloads: vec![drop], ..Default::default() });
                },
                "policy.drop_overloads[0].drop_percentage",
                "denominator 7 is unknown",
            ),
            (
                |m| {
                    let overprovisioning_factor = Some(UInt32Value { value: 0 });
                    m.policy = Some(Policy { overprovisioning_factor, ..Default::default() });
                },
                "policy.overprovisioning_factor",
                "must not be 0",
            ),
            (
                |m| {
                    let endpoint_stale_after = Some(Duration { seconds: 1, nanos: 0 });
                    m.policy = Some(Policy { endpoint_stale_after, ..Default::default() });
                },
                "policy.endpoint_stale_after",
                "used until they are replaced",
            ),
            (
                |m| m.policy = Some(Policy { weighted_priority_health: true, ..Default::default() }),
                "policy.weighted_priority_health",
                "as a whole",
            ),
            (
                |m| {
                    m.endpoints[0].lb_config =
                        Some(LbConfig::LedsClusterLocalityConfig(LedsClusterLocalityConfig::default()));
                },
                "endpoints[0].leds_cluster_locality_config",
                "send them in lb_endpoints",
            ),
            (
                |m| {
                    m.endpoints[0].lb_endpoints[0].host_identifier =
                        Some(HostIdentifier::EndpointName("named".into()));
                },
                "endpoints[0].lb_endpoints[0].endpoint_name",
                "send the endpoint itself",
            ),
            (
                |m| {
                    let again = AdditionalAddress { address: socket("name", 80) };
                    first(m).additional_addresses.push(again);
                },
                at(".additional_addresses[0].address.socket_address.address"),
                "literal IP",
            ),
            (
                |m| {
                    first(m).health_check_config =
                        Some(HealthCheckConfig { port_value: 65_536, ..Default::default() })
                },
                at(".health_check_config.port_value"),
                "65536 is not a port",
            ),
            (
                |m| m.endpoints[0].lb_endpoints[0].metadata = proxy(&Address::default()),
                "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.http11_proxy_transport_socket.proxy_address\"]",
                "must be a socket_address",
            ),
            (
                |m| m.endpoints[0].lb_config = Some(LbConfig::LoadBalancerEndpoints(Default::default())),
                "endpoints[0].load_balancer_endpoints",
                "send them in lb_endpoints",
            ),
            (
                |m| {
                    let mut more = locality(0, "10.0.0.3").lb_endpoints.remove(0);
                    more.load_balancing_weight = Some(UInt32Value { value: u32::MAX });
                    m.endpoints[0].lb_endpoints.push(more);
                },
                "endpoints[0].lb_endpoints[1]",
                "the weights of the locality sum to more than 4294967295",
            ),
            (
                |m| {
                    first(m).health_check_config =
                        Some(HealthCheckConfig { address: socket("name", 80), ..Default::default() });
                },
                at(".health_check_config.address.socket_address.address"),
                "literal IP",
            ),
            (
                |m| m.endpoints[0].lb_endpoints[0].metadata = tlvs(vec![tlv(1, b"a"), tlv(256, b"a")]),
                "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.transport_sockets.proxy_protocol\"].added_tlvs[1].type",
                "256 must be less than 256",
            ),
            (
                |m| m.endpoints[0].lb_endpoints[0].metadata = tlvs(vec![tlv(1, b"")]),
                "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.transport_sockets.proxy_protocol\"].added_tlvs[0].value",
                "must not be empty",
            ),
            (
                |m| {
                    let format_string = Some(SubstitutionFormatString::default());
                    let entry = TlvEntry { format_string, ..tlv(1, b"a") };
                    m.endpoints[0].lb_endpoints[0].metadata = tlvs(vec![entry]);
                },
                "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.transport_sockets.proxy_protocol\"].added_tlvs[0].format_string",
                "write a value",
            ),
            (
                |m| {
                    let long = vec![tlv(1, b"a"), tlv(1, &vec![0; Tlv::MOST - 3 - 3])];
                    m.endpoints[0].lb_endpoints[0].metadata = tlvs(long);
                },
                "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.transport_sockets.proxy_protocol\"].added_tlvs",
                "at most 65499 bytes together",
            ),
            (
                |m| {
                    let mut metadata = tlvs(vec![]).unwrap();
                    metadata.typed_filter_metadata.values_mut().for_each(|any| any.value = vec![0xff]);
                    m.endpoints[0].lb_endpoints[0].metadata = Some(metadata);
                },
                "endpoints[0].lb_endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.transport_sockets.proxy_protocol\"]",
                "failed to decode",
            ),
            (
                |m| m.endpoints[0].metadata = proxy(&Address::default()),
                "endpoints[0].metadata.typed_filter_metadata\
                 [\"envoy.http11_proxy_transport_socket.proxy_address\"]",
                "must be a socket_address",
            ),
        ],
    );
}

#[test]
fn a_locality_without_weight_is_left_out_and_no_endpoints_are_fine() {
    let mut message = good();
    message.endpoints[1].load_balancing_weight = Some(UInt32Value { value: 0 });
    let parse = |m: &pb::ClusterLoadAssignment| ClusterLoadAssignment::parse(&m.encode_to_vec(), &context());
    assert_eq!(parse(&message).unwrap().priorities.len(), 1);
    // Go, C-core and Java leave it out before they look at what is in it.
    let unread = &mut message.endpoints[1];
    unread.priority = 7;
    unread.metadata = proxy(&Address::default());
    unread.lb_endpoints = good().endpoints[0].lb_endpoints.clone();
    unread.lb_endpoints.push(pb::LbEndpoint::default());
    unread.lb_config = Some(LbConfig::LedsClusterLocalityConfig(Default::default()));
    assert_eq!(parse(&message).unwrap().priorities.len(), 1);
    message.endpoints[1].load_balancing_weight = None;
    assert_eq!(parse(&message).unwrap().priorities.len(), 1);
    message.endpoints[1].load_balancing_weight = Some(UInt32Value { value: 1 });
    assert!(parse(&message).unwrap_err().rejected.faults.len() > 3);
    message.endpoints.clear();
    assert!(parse(&message).unwrap().priorities.is_empty());
}

#[test]
fn metadata_says_the_key_of_the_hash_and_the_proxy() {
    let mut message = good();
    let near = socket("10.9.9.9", 3128).unwrap();
    message.endpoints[0].metadata = proxy(&near);
    let mut metadata = proxy(&socket("10.8.8.8", 3128).unwrap()).unwrap();
    let key = envoy_types::pb::google::protobuf::Value { kind: Some(Kind::StringValue("k".into())) };
    let fields = [("hash_key".to_owned(), key)].into();
    metadata.filter_metadata.insert("envoy.lb".into(), Struct { fields });
    message.endpoints[1].lb_endpoints[0].metadata = Some(metadata);
    let parsed = ClusterLoadAssignment::parse(&message.encode_to_vec(), &context()).unwrap();
    let endpoint = |priority: usize| &parsed.priorities[priority].localities[0].endpoints[0];
    assert_eq!(endpoint(0).proxy, Some(([10, 9, 9, 9], 3128).into()), "the locality's");
    assert_eq!(endpoint(0).hash_key, None);
    assert_eq!(endpoint(1).proxy, Some(([10, 8, 8, 8], 3128).into()));
    assert_eq!(endpoint(1).hash_key.as_deref(), Some("k"));
}

/// gRFC A86: such an entry is ignored, and does not hide the locality's.
#[test]
fn a_proxy_that_is_no_address_is_as_if_it_were_not_there() {
    let other = |mut metadata: Metadata| {
        let any = model::wire::any(&SocketAddress::default());
        metadata.typed_filter_metadata.values_mut().for_each(|value| *value = any.clone());
        metadata
    };
    let near = proxy(&socket("10.9.9.9", 3128).unwrap());
    let mut message = good();
    message.endpoints[0].metadata = near.clone();
    message.endpoints[0].lb_endpoints[0].metadata = near.clone().map(other);
    message.endpoints[1].metadata = near.map(other);
    let parsed = ClusterLoadAssignment::parse(&message.encode_to_vec(), &context()).unwrap();
    let endpoint = |priority: usize| &parsed.priorities[priority].localities[0].endpoints[0];
    assert_eq!(endpoint(0).proxy, Some(([10, 9, 9, 9], 3128).into()));
    assert_eq!(endpoint(1).proxy, None);
}

/// Envoy passes over what is no `PerHostConfig`, and looks at an endpoint's metadata only.
#[test]
fn an_endpoints_tlvs_are_kept_in_order_and_what_is_something_else_is_as_if_it_were_not_there() {
    let most = vec![0; Tlv::MOST - 3 - 4];
    let mut message = good();
    message.endpoints[0].metadata = tlvs(vec![tlv(9, b"z")]);
    message.endpoints[0].lb_endpoints[0].metadata = tlvs(vec![tlv(0xe0, b"a"), tlv(0xe0, &most)]);
    let parsed = ClusterLoadAssignment::parse(&message.encode_to_vec(), &context()).unwrap();
    let endpoint = |priority: usize| &parsed.priorities[priority].localities[0].endpoints[0];
    let expected = [Tlv { kind: 0xe0, value: (*b"a").into() }, Tlv { kind: 0xe0, value: most.into() }];
    assert_eq!(endpoint(0).tlvs.as_deref(), Some(&expected[..]));
    assert_eq!(endpoint(1).tlvs, None);
    // It can be sent on.
    assert_eq!(ClusterLoadAssignment::parse(&parsed.to_proto(), &context()).unwrap(), parsed);

    let mut other = tlvs(vec![]).unwrap();
    other.typed_filter_metadata.values_mut().for_each(|any| *any = model::wire::any(&Address::default()));
    message.endpoints[0].metadata = None;
    for nothing in [tlvs(vec![]), Some(other)] {
        message.endpoints[0].lb_endpoints[0].metadata = nothing;
        let parsed = ClusterLoadAssignment::parse(&message.encode_to_vec(), &context()).unwrap();
        assert_eq!(parsed.priorities[0].localities[0].endpoints[0].tlvs, None);
    }
}
