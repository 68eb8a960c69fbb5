//! Endpoints of clusters.

use super::{address, fraction, name, some_text, text, weight};
use crate::resource::{Locality, endpoint::*};
use proptest::{collection::vec, option, prelude::*};
use std::collections::{BTreeMap, BTreeSet};

pub(in crate::resource::tests) fn assignment() -> impl Strategy<Value = ClusterLoadAssignment> {
    let health = prop_oneof![
        Just(HealthStatus::Unknown),
        Just(HealthStatus::Healthy),
        Just(HealthStatus::Degraded),
        Just(HealthStatus::Draining),
        Just(HealthStatus::Unhealthy),
    ];
    let endpoint = (vec(address(), 1..3), weight(), health, option::of(some_text()), any::<bool>()).prop_map(
        |(addresses, weight, health, hostname, mesh_tls)| Endpoint {
            addresses,
            weight,
            health,
            hostname,
            mesh_tls,
        },
    );
    let locality =
        (text(), text(), text()).prop_map(|(region, zone, sub_zone)| Locality { region, zone, sub_zone });
    let endpoints = (locality, weight(), vec(endpoint, 0..3));
    let drop = (text(), fraction()).prop_map(|(category, fraction)| DropOverload { category, fraction });
    (name(), vec(vec(endpoints, 1..3), 0..3), vec(drop, 0..2)).prop_map(|(name, priorities, drops)| {
        let mut addresses = BTreeSet::new();
        let priorities = priorities.into_iter().map(|localities| {
            let mut by_locality = BTreeMap::new();
            for (locality, weight, endpoints) in localities {
                let endpoints: Vec<Endpoint> = endpoints
                    .into_iter()
                    .map(|mut endpoint| {
                        endpoint.addresses.retain(|address| addresses.insert(*address));
                        endpoint
                    })
                    .filter(|endpoint| !endpoint.addresses.is_empty())
                    .collect();
                by_locality.insert(locality, (weight, endpoints));
            }
            let localities = by_locality
                .into_iter()
                .map(|(locality, (weight, endpoints))| LocalityEndpoints { locality, weight, endpoints });
            Priority { localities: localities.collect() }
        });
        ClusterLoadAssignment { name, priorities: priorities.collect(), drops }
    })
}
