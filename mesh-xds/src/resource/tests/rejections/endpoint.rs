//! ClusterLoadAssignment (gRFC A27).

use super::*;
use envoy_types::pb::{
    envoy::config::{
        core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
        endpoint::v3::{
            self as pb, Endpoint, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::{Policy, policy::DropOverload},
            endpoint::AdditionalAddress,
            lb_endpoint::HostIdentifier,
        },
    },
    google::protobuf::UInt32Value,
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
        ],
    );
}

#[test]
fn a_locality_without_weight_is_left_out_and_no_endpoints_are_fine() {
    let mut message = good();
    message.endpoints[1].load_balancing_weight = Some(UInt32Value { value: 0 });
    let parse = |m: &pb::ClusterLoadAssignment| ClusterLoadAssignment::parse(&m.encode_to_vec(), &context());
    assert_eq!(parse(&message).unwrap().priorities.len(), 1);
    message.endpoints.clear();
    assert!(parse(&message).unwrap().priorities.is_empty());
}
