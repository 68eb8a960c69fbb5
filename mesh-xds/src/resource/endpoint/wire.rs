//! ClusterLoadAssignment, to and from protobuf.
//!
//! The same message stands in clusters that need no discovery, where an address may be a name: [`Address`].

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

mod gather;

use self::gather::Gathered;
use super::{
    ClusterLoadAssignment, DropOverload, Endpoint, EndpointHealthCheck, HealthStatus, LocalityEndpoints,
    Priority,
};
use crate::{
    field_path::{Faults, Path},
    name::{Name, ResourceType},
    resource::{
        Locality, ParseContext, Resource,
        canonical::{self, Inside, METADATA, Shape},
        cluster::{HostPort, Tlv, wire::tlv},
        sealed, wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::config::{
        core::v3::{self as core, Metadata, PerHostConfig},
        endpoint::v3::{self as proto, locality_lb_endpoints::LbConfig},
    },
    google::protobuf::value::Kind,
};
use prost::{Message, Name as _};
use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
};

const TLS_NAMESPACE: &str = "envoy.transport_socket_match";
const TLS_KEY: &str = "tlsMode";
const TLS_VALUE: &str = "istio";
const LB_NAMESPACE: &str = "envoy.lb";
const HASH_KEY: &str = "hash_key";
/// Typed metadata of an endpoint or locality: the proxy in front of it (gRFC A86).
const PROXY: &str = "envoy.http11_proxy_transport_socket.proxy_address";
/// Typed metadata of an endpoint: what it is told besides what all of the cluster are (Envoy).
const TLVS: &str = "envoy.transport_sockets.proxy_protocol";
/// The longest name that DNS has.
const MAX_HOST: usize = 253;

static LB_ENDPOINT: Shape = Shape(&[(3, Inside::Message(&METADATA))]);
static LOCALITY: Shape = Shape(&[(2, Inside::Message(&LB_ENDPOINT))]);
/// `ClusterLoadAssignment`
pub(in crate::resource) static SHAPE: Shape = Shape(&[(2, Inside::Message(&LOCALITY))]);

impl Resource for ClusterLoadAssignment {
    const TYPE: ResourceType = ResourceType::ClusterLoadAssignment;

    fn to_proto(&self) -> Bytes {
        let message =
            assignment_proto(&self.name, &self.priorities, &self.drops, self.overprovisioning_factor);
        canonical::sorted(&message.encode_to_vec(), &SHAPE).into()
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        Vec::new()
    }
}

/// How an endpoint is addressed.
pub(in crate::resource) trait Address: Sized {
    /// What must not come twice in an assignment.
    fn read(host: &proto::Endpoint, at: &Path<'_>, faults: &mut Faults) -> Option<Self>;

    /// Notes an address that stands twice.
    fn once(&self, seen: &mut HashSet<SocketAddr>, at: &Path<'_>, faults: &mut Faults);

    /// The address, and additional ones.
    fn write(&self) -> (Option<core::Address>, Vec<proto::endpoint::AdditionalAddress>);
}

impl Address for Vec<SocketAddr> {
    fn read(host: &proto::Endpoint, at: &Path<'_>, faults: &mut Faults) -> Option<Self> {
        let first = wire::socket_address(&host.address, &at.field("address"), faults);
        let list = at.field("additional_addresses");
        let more = wire::every(&host.additional_addresses, &list, faults, |additional, at, faults| {
            wire::socket_address(&additional.address, &at.field("address"), faults)
        });
        let mut all = vec![first?];
        all.extend(more?);
        Some(all)
    }

    fn once(&self, seen: &mut HashSet<SocketAddr>, at: &Path<'_>, faults: &mut Faults) {
        for address in self {
            if !seen.insert(*address) {
                let at = at.field("address");
                faults.reject::<()>(&at, format_args!("{address} stands twice in the assignment"));
            }
        }
    }

    fn write(&self) -> (Option<core::Address>, Vec<proto::endpoint::AdditionalAddress>) {
        let mut addresses = self.iter().copied().map(wire::socket_address_proto);
        let first = addresses.next();
        let additional =
            addresses.map(|address| proto::endpoint::AdditionalAddress { address: Some(address) });
        (first, additional.collect())
    }
}

impl Address for HostPort {
    fn read(host: &proto::Endpoint, at: &Path<'_>, faults: &mut Faults) -> Option<Self> {
        if !host.additional_addresses.is_empty() {
            let at = at.field("additional_addresses");
            faults.reject::<()>(&at, "a name has all addresses that DNS gives it");
        }
        let at = at.field("address");
        let Some(core::address::Address::SocketAddress(address)) =
            faults.required(&at, &host.address)?.address.as_ref()
        else {
            return faults.reject(&at, "must be a socket_address");
        };
        let here = at.field("socket_address");
        if !address.resolver_name.is_empty() {
            faults.reject::<()>(&here.field("resolver_name"), "custom resolvers are not supported");
        }
        let name = address.address.as_str();
        let valid = !name.is_empty()
            && name.len() <= MAX_HOST
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        if !valid {
            return faults.reject(&here.field("address"), format_args!("`{name}` is not a host name"));
        }
        let port = wire::port(address, &here, faults)?;
        Some(Self { host: name.into(), port })
    }

    fn once(&self, _: &mut HashSet<SocketAddr>, _: &Path<'_>, _: &mut Faults) {}

    fn write(&self) -> (Option<core::Address>, Vec<proto::endpoint::AdditionalAddress>) {
        let socket = core::SocketAddress {
            address: self.host.to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(self.port.into())),
            ..core::SocketAddress::default()
        };
        let address = core::Address { address: Some(core::address::Address::SocketAddress(socket)) };
        (Some(address), Vec::new())
    }
}

pub(in crate::resource) fn assignment_proto<A: Address>(
    name: &Name,
    priorities: &[Priority<A>],
    drops: &[DropOverload],
    overprovisioning_factor: NonZeroU32,
) -> proto::ClusterLoadAssignment {
    let mut endpoints = Vec::new();
    for (priority, localities) in (0..).zip(priorities) {
        endpoints.extend(localities.localities.iter().map(|locality| encode(locality, priority)));
    }
    let drops = drops.iter().map(|drop| proto::cluster_load_assignment::policy::DropOverload {
        category: drop.category.to_string(),
        drop_percentage: Some(wire::fraction_proto(drop.fraction)),
    });
    let policy = proto::cluster_load_assignment::Policy {
        drop_overloads: drops.collect(),
        overprovisioning_factor: (overprovisioning_factor != ClusterLoadAssignment::OVERPROVISIONING)
            .then(|| wire::u32_value(overprovisioning_factor.get()))
            .flatten(),
        ..Default::default()
    };
    proto::ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints,
        policy: (policy != Default::default()).then_some(policy),
        ..Default::default()
    }
}

fn encode<A: Address>(locality: &LocalityEndpoints<A>, priority: u32) -> proto::LocalityLbEndpoints {
    proto::LocalityLbEndpoints {
        locality: Some(wire::locality_proto(&locality.locality)),
        lb_endpoints: locality.endpoints.iter().map(|endpoint| endpoint_proto(endpoint)).collect(),
        load_balancing_weight: wire::u32_value(locality.weight.get()),
        priority,
        ..Default::default()
    }
}

fn endpoint_proto<A: Address>(endpoint: &Endpoint<A>) -> proto::LbEndpoint {
    let (address, additional_addresses) = endpoint.addresses.write();
    let string = |value: &str| Kind::StringValue(value.into());
    let mut metadata =
        wire::metadata(TLS_NAMESPACE, [endpoint.mesh_tls.then(|| (TLS_KEY, string(TLS_VALUE)))])
            .unwrap_or_default();
    let hash_key = endpoint.hash_key.as_deref().map(|key| (HASH_KEY, string(key)));
    metadata
        .filter_metadata
        .extend(wire::metadata(LB_NAMESPACE, [hash_key]).unwrap_or_default().filter_metadata);
    if let Some(proxy) = endpoint.proxy {
        metadata.typed_filter_metadata.insert(PROXY.into(), wire::any(&wire::socket_address_proto(proxy)));
    }
    if let Some(tlvs) = &endpoint.tlvs {
        let config = PerHostConfig { added_tlvs: tlv::proto(tlvs) };
        metadata.typed_filter_metadata.insert(TLVS.into(), wire::any(&config));
    }
    proto::LbEndpoint {
        health_status: health_proto(endpoint.health).into(),
        metadata: (metadata != Metadata::default()).then_some(metadata),
        load_balancing_weight: wire::u32_value(endpoint.weight.get()),
        host_identifier: Some(proto::lb_endpoint::HostIdentifier::Endpoint(proto::Endpoint {
            address,
            hostname: endpoint.hostname.as_deref().unwrap_or_default().into(),
            additional_addresses,
            health_check_config: endpoint.health_check.as_deref().map(health_check_proto),
            ..Default::default()
        })),
    }
}

fn health_check_proto(check: &EndpointHealthCheck) -> proto::endpoint::HealthCheckConfig {
    proto::endpoint::HealthCheckConfig {
        port_value: check.port.map_or(0, u32::from),
        hostname: check.hostname.as_deref().unwrap_or_default().into(),
        address: check.address.map(wire::socket_address_proto),
        disable_active_health_check: check.disabled,
    }
}

pub(in crate::resource) fn health_proto(health: HealthStatus) -> core::HealthStatus {
    match health {
        HealthStatus::Unknown => core::HealthStatus::Unknown,
        HealthStatus::Healthy => core::HealthStatus::Healthy,
        HealthStatus::Degraded => core::HealthStatus::Degraded,
        HealthStatus::Draining => core::HealthStatus::Draining,
        HealthStatus::Unhealthy => core::HealthStatus::Unhealthy,
    }
}

pub(in crate::resource) fn health(value: i32) -> HealthStatus {
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
        let Assignment { priorities, drops, overprovisioning_factor } =
            assignment(proto, Place::Discovered, at, faults)?;
        Some(Self { name, priorities, drops, overprovisioning_factor })
    }
}

/// The content of an assignment.
pub(in crate::resource) struct Assignment<A> {
    pub(in crate::resource) priorities: Vec<Priority<A>>,
    pub(in crate::resource) drops: Vec<DropOverload>,
    pub(in crate::resource) overprovisioning_factor: NonZeroU32,
}

/// Where an assignment stands.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::resource) enum Place {
    /// It came by EDS: localities must be named and weighed (gRFC A27).
    Discovered,
    /// In the cluster itself, where people write endpoints only: a locality that is not said is the empty one,
    /// a weight that is not said is 1, and entries of one locality are one.
    Inline,
}

pub(in crate::resource) fn assignment<A: Address>(
    proto: &proto::ClusterLoadAssignment,
    place: Place,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Assignment<A>> {
    let mut by_priority = BTreeMap::<u32, Gathered<A>>::new();
    let mut addresses = HashSet::new();
    let list = at.field("endpoints");
    for (i, locality) in proto.endpoints.iter().enumerate() {
        let at = list.index(i);
        if let Some(parsed) = locality_endpoints(locality, place, &mut addresses, &at, faults) {
            by_priority.entry(locality.priority).or_default().add(parsed, place, &at, faults);
        }
    }
    for (expected, priority) in (0..).zip(by_priority.keys()) {
        if *priority != expected {
            return faults
                .reject(&list, format_args!("priority {expected} is missing, but {priority} is there"));
        }
    }
    let at = at.field("policy");
    let none = proto::cluster_load_assignment::Policy::default();
    let policy = proto.policy.as_ref().unwrap_or(&none);
    if policy.endpoint_stale_after.is_some() {
        let reason = "is not supported: endpoints are used until they are replaced";
        faults.reject::<()>(&at.field("endpoint_stale_after"), reason);
    }
    if policy.weighted_priority_health {
        let reason = "is not supported: a priority is used or not, as a whole (gRFC A56)";
        faults.reject::<()>(&at.field("weighted_priority_health"), reason);
    }
    let factor = policy.overprovisioning_factor.as_ref().map(|factor| NonZeroU32::new(factor.value));
    let overprovisioning_factor = match factor {
        None => Some(ClusterLoadAssignment::OVERPROVISIONING),
        Some(Some(factor)) => Some(factor),
        Some(None) => faults.reject(&at.field("overprovisioning_factor"), "must not be 0"),
    };
    let list = at.field("drop_overloads");
    let drops = wire::every(&policy.drop_overloads, &list, faults, |drop, at, faults| {
        let at = at.field("drop_percentage");
        let fraction = wire::fraction(faults.required(&at, &drop.drop_percentage)?, &at, faults)?;
        Some(DropOverload { category: drop.category.as_str().into(), fraction })
    });
    Some(Assignment {
        priorities: by_priority.into_values().map(|gathered| gathered.priority).collect(),
        drops: drops?,
        overprovisioning_factor: overprovisioning_factor?,
    })
}

/// `None` also for a locality of weight 0, which stands for nothing (gRFC A27): nothing of it is read but whether it
/// says which it is, as in Go. (C-core and Java do not ask for that either.)
fn locality_endpoints<A: Address>(
    proto: &proto::LocalityLbEndpoints,
    place: Place,
    addresses: &mut HashSet<SocketAddr>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<LocalityEndpoints<A>> {
    let locality = match (&proto.locality, place) {
        (None, Place::Inline) => Some(Locality::default()),
        (locality, _) => faults.required(&at.field("locality"), locality).map(wire::locality),
    };
    let unsaid = u32::from(place == Place::Inline);
    let weight = NonZeroU32::new(proto.load_balancing_weight.as_ref().map_or(unsaid, |weight| weight.value))?;
    let elsewhere = match &proto.lb_config {
        None => None,
        Some(LbConfig::LedsClusterLocalityConfig(_)) => Some("leds_cluster_locality_config"),
        Some(LbConfig::LoadBalancerEndpoints(_)) => Some("load_balancer_endpoints"),
    };
    if let Some(field) = elsewhere {
        faults.reject::<()>(&at.field(field), "is not supported: send them in lb_endpoints");
    }
    let near = proxy(&proto.metadata, &at.field("metadata"), faults);
    let list = at.field("lb_endpoints");
    let mut endpoints = Vec::new();
    let mut sum = 0_u32;
    for (i, proto) in proto.lb_endpoints.iter().enumerate() {
        let at = list.index(i);
        if let Some(mut endpoint) = endpoint(proto, addresses, &at, faults) {
            match sum.checked_add(endpoint.weight.get()) {
                Some(total) => sum = total,
                None => return faults.reject(&at, "the weights of the locality sum to more than 4294967295"),
            }
            endpoint.proxy = endpoint.proxy.or(near);
            endpoints.push(Arc::new(endpoint));
        }
    }
    Some(LocalityEndpoints { locality: locality?, weight, endpoints })
}

fn endpoint<A: Address>(
    proto: &proto::LbEndpoint,
    addresses: &mut HashSet<SocketAddr>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Endpoint<A>> {
    use proto::lb_endpoint::HostIdentifier;
    let host = match &proto.host_identifier {
        Some(HostIdentifier::Endpoint(host)) => host,
        Some(HostIdentifier::EndpointName(_)) => {
            let reason = "is not supported: send the endpoint itself";
            return faults.reject(&at.field("endpoint_name"), reason);
        }
        None => return faults.reject(&at.field("endpoint"), "is required"),
    };
    let here = at.field("endpoint");
    let own = A::read(host, &here, faults);
    let weight = match &proto.load_balancing_weight {
        None => Some(NonZeroU32::MIN),
        Some(weight) => match NonZeroU32::new(weight.value) {
            Some(weight) => Some(weight),
            None => faults.reject(&at.field("load_balancing_weight"), "must not be 0"),
        },
    };
    let metadata_at = at.field("metadata");
    let proxy = proxy(&proto.metadata, &metadata_at, faults);
    let tlvs = tlvs(&proto.metadata, &metadata_at, faults);
    let check_at = here.field("health_check_config");
    let check = match &host.health_check_config {
        Some(check) => health_check(check, &check_at, faults).map(|check| check.map(Arc::new)),
        None => Some(None),
    };
    let own = own?;
    own.once(addresses, &here, faults);
    let string = |namespace, key| match wire::metadata_value(&proto.metadata, namespace, key) {
        Some(Kind::StringValue(value)) if !value.is_empty() => Some(value.as_str()),
        _ => None,
    };
    Some(Endpoint {
        addresses: own,
        weight: weight?,
        health: health(proto.health_status),
        hostname: (!host.hostname.is_empty()).then(|| host.hostname.as_str().into()),
        hash_key: string(LB_NAMESPACE, HASH_KEY).map(Arc::from),
        mesh_tls: string(TLS_NAMESPACE, TLS_KEY) == Some(TLS_VALUE),
        proxy,
        tlvs,
        health_check: check?,
    })
}

/// The proxy's address in typed metadata; one that cannot be read is a fault, and what is no address is as if it were
/// not there (gRFC A86).
fn proxy(metadata: &Option<Metadata>, at: &Path<'_>, faults: &mut Faults) -> Option<SocketAddr> {
    let any = metadata.as_ref()?.typed_filter_metadata.get(PROXY)?;
    if any.type_url != core::Address::type_url() {
        return None;
    }
    let list = at.field("typed_filter_metadata");
    let at = list.key(PROXY);
    let address: core::Address = wire::unpack(any, &at, faults)?;
    wire::socket_address(&Some(address), &at, faults)
}

/// What a header says of the endpoint alone; one that cannot be read is a fault, and what is something else is as if it
/// were not there, as in Envoy.
fn tlvs(metadata: &Option<Metadata>, at: &Path<'_>, faults: &mut Faults) -> Option<Arc<[Tlv]>> {
    let any = metadata.as_ref()?.typed_filter_metadata.get(TLVS)?;
    if any.type_url != PerHostConfig::type_url() {
        return None;
    }
    let list = at.field("typed_filter_metadata");
    let at = list.key(TLVS);
    let config: PerHostConfig = wire::unpack(any, &at, faults)?;
    tlv::parse(&config.added_tlvs, &at.field("added_tlvs"), faults).filter(|tlvs| !tlvs.is_empty())
}

/// `None` inside when it says nothing.
fn health_check(
    proto: &proto::endpoint::HealthCheckConfig,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<EndpointHealthCheck>> {
    let port = match u16::try_from(proto.port_value) {
        Ok(port) => Some((port != 0).then_some(port)),
        Err(_) => faults.reject(&at.field("port_value"), format_args!("{} is not a port", proto.port_value)),
    };
    let address = match &proto.address {
        Some(_) => wire::socket_address(&proto.address, &at.field("address"), faults).map(Some),
        None => Some(None),
    };
    let check = EndpointHealthCheck {
        disabled: proto.disable_active_health_check,
        port: port?,
        address: address?,
        hostname: (!proto.hostname.is_empty()).then(|| proto.hostname.as_str().into()),
    };
    Some((check != EndpointHealthCheck::default()).then_some(check))
}
