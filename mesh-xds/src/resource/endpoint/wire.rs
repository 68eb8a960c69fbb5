//! ClusterLoadAssignment, to and from protobuf.

use super::{ClusterLoadAssignment, DropOverload, Endpoint, HealthStatus, LocalityEndpoints, Priority};
use crate::{
    field_path::{Faults, Path},
    name::{Name, ResourceType},
    resource::{ParseContext, Resource, sealed, wire},
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::config::{core::v3 as core, endpoint::v3 as proto},
    google::protobuf::value::Kind,
};
use prost::Message;
use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    num::NonZeroU32,
};

const TLS_NAMESPACE: &str = "envoy.transport_socket_match";
const TLS_KEY: &str = "tlsMode";
const TLS_VALUE: &str = "istio";

impl Resource for ClusterLoadAssignment {
    const TYPE: ResourceType = ResourceType::ClusterLoadAssignment;

    fn to_proto(&self) -> Bytes {
        let mut endpoints = Vec::new();
        for (priority, localities) in (0..).zip(&self.priorities) {
            endpoints.extend(localities.localities.iter().map(|locality| encode(locality, priority)));
        }
        let drops = self.drops.iter().map(|drop| proto::cluster_load_assignment::policy::DropOverload {
            category: drop.category.to_string(),
            drop_percentage: Some(wire::fraction_proto(drop.fraction)),
        });
        let drop_overloads: Vec<_> = drops.collect();
        let policy = (!drop_overloads.is_empty())
            .then(|| proto::cluster_load_assignment::Policy { drop_overloads, ..Default::default() });
        proto::ClusterLoadAssignment {
            cluster_name: self.name.to_string(),
            endpoints,
            policy,
            ..Default::default()
        }
        .encode_to_vec()
        .into()
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        Vec::new()
    }
}

fn encode(locality: &LocalityEndpoints, priority: u32) -> proto::LocalityLbEndpoints {
    let lb_endpoints = locality.endpoints.iter().map(|endpoint| {
        let mut addresses = endpoint.addresses.iter().copied().map(wire::socket_address_proto);
        let address = addresses.next();
        let additional =
            addresses.map(|address| proto::endpoint::AdditionalAddress { address: Some(address) });
        proto::LbEndpoint {
            health_status: health_proto(endpoint.health).into(),
            metadata: wire::metadata(
                TLS_NAMESPACE,
                [endpoint.mesh_tls.then(|| (TLS_KEY, Kind::StringValue(TLS_VALUE.into())))],
            ),
            load_balancing_weight: wire::u32_value(endpoint.weight.get()),
            host_identifier: Some(proto::lb_endpoint::HostIdentifier::Endpoint(proto::Endpoint {
                address,
                hostname: endpoint.hostname.as_deref().unwrap_or_default().into(),
                additional_addresses: additional.collect(),
                ..Default::default()
            })),
        }
    });
    proto::LocalityLbEndpoints {
        locality: Some(wire::locality_proto(&locality.locality)),
        lb_endpoints: lb_endpoints.collect(),
        load_balancing_weight: wire::u32_value(locality.weight.get()),
        priority,
        ..Default::default()
    }
}

fn health_proto(health: HealthStatus) -> core::HealthStatus {
    match health {
        HealthStatus::Unknown => core::HealthStatus::Unknown,
        HealthStatus::Healthy => core::HealthStatus::Healthy,
        HealthStatus::Degraded => core::HealthStatus::Degraded,
        HealthStatus::Draining => core::HealthStatus::Draining,
        HealthStatus::Unhealthy => core::HealthStatus::Unhealthy,
    }
}

fn health(value: i32) -> HealthStatus {
    match core::HealthStatus::try_from(value) {
        Ok(core::HealthStatus::Unknown) => HealthStatus::Unknown,
        Ok(core::HealthStatus::Healthy) => HealthStatus::Healthy,
        Ok(core::HealthStatus::Degraded) => HealthStatus::Degraded,
        Ok(core::HealthStatus::Draining) => HealthStatus::Draining,
        // A status that is not known here is not one to send calls to.
        _ => HealthStatus::Unhealthy,
    }
}

impl sealed::Parse for ClusterLoadAssignment {
    type Proto = proto::ClusterLoadAssignment;

    fn proto_name(proto: &Self::Proto) -> &str {
        &proto.cluster_name
    }

    fn from_message(
        proto: &Self::Proto,
        name: Name,
        _: &ParseContext,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let mut by_priority = BTreeMap::<u32, Priority>::new();
        let mut addresses = HashSet::new();
        let list = at.field("endpoints");
        for (i, locality) in proto.endpoints.iter().enumerate() {
            let at = list.index(i);
            if let Some(parsed) = locality_endpoints(locality, &mut addresses, &at, faults) {
                let priority = by_priority.entry(locality.priority).or_default();
                add_locality(priority, parsed, &at, faults);
            }
        }
        for (expected, priority) in (0..).zip(by_priority.keys()) {
            if *priority != expected {
                return faults
                    .reject(&list, format!("priority {expected} is missing, but {priority} is there"));
            }
        }
        let policy = at.field("policy");
        let drops = proto.policy.as_ref().map_or(&[][..], |policy| &policy.drop_overloads);
        let drops = wire::every(drops, &policy.field("drop_overloads"), faults, |drop, at, faults| {
            let at = at.field("drop_percentage");
            let fraction = wire::fraction(faults.required(&at, &drop.drop_percentage)?, &at, faults)?;
            Some(DropOverload { category: drop.category.as_str().into(), fraction })
        });
        Some(Self { name, priorities: by_priority.into_values().collect(), drops: drops? })
    }
}

/// `None` also for a locality of weight 0, which stands for nothing (gRFC A27).
fn locality_endpoints(
    proto: &proto::LocalityLbEndpoints,
    addresses: &mut HashSet<SocketAddr>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<LocalityEndpoints> {
    let locality = faults.required(&at.field("locality"), &proto.locality).map(wire::locality);
    let list = at.field("lb_endpoints");
    let mut endpoints = Vec::new();
    let mut sum = 0_u32;
    for (i, proto) in proto.lb_endpoints.iter().enumerate() {
        let at = list.index(i);
        if let Some(endpoint) = endpoint(proto, addresses, &at, faults) {
            match sum.checked_add(endpoint.weight.get()) {
                Some(total) => sum = total,
                None => return faults.reject(&at, "the weights of the locality sum to more than 4294967295"),
            }
            endpoints.push(endpoint);
        }
    }
    let weight = NonZeroU32::new(proto.load_balancing_weight.as_ref().map_or(0, |weight| weight.value))?;
    Some(LocalityEndpoints { locality: locality?, weight, endpoints })
}

fn add_locality(priority: &mut Priority, locality: LocalityEndpoints, at: &Path<'_>, faults: &mut Faults) {
    if priority.localities.iter().any(|other| other.locality == locality.locality) {
        faults.reject::<()>(&at.field("locality"), "stands twice in one priority");
    }
    let sum: u64 = priority.localities.iter().map(|other| u64::from(other.weight.get())).sum();
    if sum + u64::from(locality.weight.get()) > u64::from(u32::MAX) {
        let at = at.field("load_balancing_weight");
        faults.reject::<()>(&at, "the weights of the priority sum to more than 4294967295");
    }
    priority.localities.push(locality);
}

fn endpoint(
    proto: &proto::LbEndpoint,
    addresses: &mut HashSet<SocketAddr>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Endpoint> {
    let Some(proto::lb_endpoint::HostIdentifier::Endpoint(host)) = &proto.host_identifier else {
        return faults.reject(&at.field("endpoint"), "is required");
    };
    let here = at.field("endpoint");
    let first = wire::socket_address(&host.address, &here.field("address"), faults);
    let list = here.field("additional_addresses");
    let more = wire::every(&host.additional_addresses, &list, faults, |additional, at, faults| {
        wire::socket_address(&additional.address, &at.field("address"), faults)
    });
    let weight = match &proto.load_balancing_weight {
        None => Some(NonZeroU32::MIN),
        Some(weight) => match NonZeroU32::new(weight.value) {
            Some(weight) => Some(weight),
            None => faults.reject(&at.field("load_balancing_weight"), "must not be 0"),
        },
    };
    let mut all = vec![first?];
    all.extend(more?);
    for address in &all {
        if !addresses.insert(*address) {
            faults.reject::<()>(&here.field("address"), format!("{address} stands twice in the assignment"));
        }
    }
    let tls = wire::metadata_value(&proto.metadata, TLS_NAMESPACE, TLS_KEY);
    Some(Endpoint {
        addresses: all,
        weight: weight?,
        health: health(proto.health_status),
        hostname: (!host.hostname.is_empty()).then(|| host.hostname.as_str().into()),
        mesh_tls: matches!(tls, Some(Kind::StringValue(mode)) if mode == TLS_VALUE),
    })
}
