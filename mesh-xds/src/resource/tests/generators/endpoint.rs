//! Endpoints of clusters.

use super::{address, cluster::tlv, fraction, name, some_text, text, weight};
use crate::resource::{Locality, cluster::HostPort, endpoint::*};
use proptest::{collection::vec, option, prelude::*};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

pub(super) fn locality() -> impl Strategy<Value = Locality> {
    (text(), text(), text()).prop_map(|(region, zone, sub_zone)| Locality { region, zone, sub_zone })
}

pub(super) fn host() -> impl Strategy<Value = HostPort> {
    let host = prop_oneof!["[a-z][a-z0-9-]{0,8}([.][a-z]{1,5}){0,3}", Just("::1".to_owned())];
    (host, any::<u16>()).prop_map(|(host, port)| HostPort { host: host.into(), port })
}

pub(super) fn endpoint<A: std::fmt::Debug>(
    addresses: impl Strategy<Value = A>,
) -> impl Strategy<Value = Endpoint<A>> {
    let health = prop_oneof![
        Just(HealthStatus::Unknown),
        Just(HealthStatus::Healthy),
        Just(HealthStatus::Degraded),
        Just(HealthStatus::Draining),
        Just(HealthStatus::Unhealthy),
    ];
    let check = (any::<bool>(), option::of(1..=u16::MAX), option::of(address()), option::of(some_text()))
        .prop_map(|(disabled, port, address, hostname)| EndpointHealthCheck {
            disabled,
            port,
            address,
            hostname,
        })
        .prop_filter("it says something", |check| *check != EndpointHealthCheck::default());
    (
        (addresses, weight(), health, option::of(some_text()), option::of(some_text())),
        (any::<bool>(), option::of(address()), option::of(check), option::of(vec(tlv(), 1..3))),
    )
        .prop_map(|((addresses, weight, health, hostname, hash_key), (mesh_tls, proxy, check, tlvs))| {
            Endpoint {
                addresses,
                weight,
                health,
                hostname,
                hash_key,
                mesh_tls,
                proxy,
                tlvs: tlvs.map(Into::into),
                health_check: check.map(Arc::new),
            }
        })
}

/// Priorities whose localities differ and are not empty of endpoints without addresses; `keep` says what of an
/// endpoint's addresses may stay.
pub(super) fn priorities<A: std::fmt::Debug + Clone + 'static>(
    addresses: impl Strategy<Value = A> + 'static,
    keep: fn(&mut A, &mut BTreeSet<SocketAddr>) -> bool,
) -> impl Strategy<Value = Vec<Priority<A>>> {
    let endpoints = (locality(), weight(), vec(endpoint(addresses).boxed(), 0..3));
    vec(vec(endpoints, 1..3), 0..3).prop_map(move |priorities| {
        let mut seen = BTreeSet::new();
        let priorities = priorities.into_iter().map(|localities| {
            let mut by_locality = BTreeMap::new();
            for (locality, weight, mut endpoints) in localities {
                endpoints.retain_mut(|endpoint: &mut Endpoint<A>| keep(&mut endpoint.addresses, &mut seen));
                by_locality.insert(locality, (weight, endpoints.into_iter().map(Arc::new).collect()));
            }
            let localities = by_locality
                .into_iter()
                .map(|(locality, (weight, endpoints))| LocalityEndpoints { locality, weight, endpoints });
            Priority { localities: localities.collect() }
        });
        priorities.collect()
    })
}

pub(super) fn drops() -> impl Strategy<Value = Vec<DropOverload>> {
    let drop = (text(), fraction()).prop_map(|(category, fraction)| DropOverload { category, fraction });
    vec(drop, 0..2)
}

pub(crate) fn assignment() -> impl Strategy<Value = ClusterLoadAssignment> {
    let priorities = priorities(vec(address(), 1..3), |addresses, seen| {
        addresses.retain(|address| seen.insert(*address));
        !addresses.is_empty()
    });
    (name(), priorities, drops(), weight()).prop_map(|(name, priorities, drops, overprovisioning_factor)| {
        ClusterLoadAssignment { name, priorities, drops, overprovisioning_factor }
    })
}
