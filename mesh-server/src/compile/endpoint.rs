//! Endpoints of a cluster, as one client sees them.
//!
//! Locality preferences are Istio's (`loadbalancer.go`): fixed shares (`distribute`), or priorities by
//! nearness (`failover`, `failoverPriority`), the latter only with outlier detection, without which
//! nothing would ever be found unfit and a lower priority never used; or where the service asks for it
//! (`trafficDistribution`), as in Istio. With `zoneAwareLbSetting` the priorities are regions, and clients share
//! their calls between the zones of theirs.

mod locality;

use super::{Compiler, cluster::Destination, names::FAILING};
use crate::model::{
    Address, Endpoint as Found, FailoverLabel, Health, LocalityLb, MtlsMode, TrafficDistribution,
};
use mesh_xds::resource::{
    Locality,
    cluster::HostPort,
    endpoint::{ClusterLoadAssignment, Endpoint, HealthStatus, LocalityEndpoints, Priority},
};
use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, sync::Arc};

/// Endpoints of a priority with their shares, by where they are.
type ByLocality<A> = BTreeMap<Locality, Vec<(u32, Endpoint<A>)>>;

impl Compiler<'_> {
    /// The endpoints of a cluster by its name. A name would have to be resolved by the client, which an EDS
    /// cluster does not do: those are left out.
    pub(super) fn assignment(&self, name: &str) -> Option<ClusterLoadAssignment> {
        if let Some(cluster) = name.strip_prefix(FAILING) {
            return self.failing_assignment(name, cluster);
        }
        let destination = self.destination(name)?;
        let priorities = self.priorities(&destination, |one| match one.address {
            Address::Ip(ip) => Some(vec![SocketAddr::new(ip, one.port)]),
            Address::Name(_) => None,
        });
        Some(ClusterLoadAssignment { priorities, ..ClusterLoadAssignment::new(name) })
    }

    /// The endpoints of a cluster that its client finds by DNS. An address is a name that stands for itself.
    pub(super) fn named_endpoints(&self, destination: &Destination<'_, '_>) -> Vec<Priority<HostPort>> {
        self.priorities(destination, |one| {
            let host = match &one.address {
                Address::Ip(ip) => ip.to_string().into(),
                Address::Name(name) => name.as_str().into(),
            };
            Some(HostPort { host, port: one.port })
        })
    }

    fn priorities<A: Clone>(
        &self,
        destination: &Destination<'_, '_>,
        address: impl Fn(&Found) -> Option<A>,
    ) -> Vec<Priority<A>> {
        let found = self.endpoints_of(destination);
        let preference =
            destination.policy.blocks.load_balancer.as_ref().and_then(|block| block.locality.as_ref());
        // A DestinationRule goes before the service, that before the mesh.
        let by_service = preference.is_none() && destination.service.distribution != TrafficDistribution::Any;
        let label = |key: &&str| FailoverLabel { key: (*key).to_owned(), value: None };
        let otherwise = LocalityLb {
            enabled: true,
            distribute: Vec::new(),
            failover: Vec::new(),
            failover_priority: destination.service.distribution.labels().iter().map(label).collect(),
            zone_aware: None,
        };
        let preference = preference.unwrap_or(&otherwise);
        let failover = by_service
            || preference.zone_aware.is_some()
            || destination.policy.blocks.outlier_detection.is_some();

        let shares = locality::shares(preference, &self.client.locality);
        let mut by_priority: BTreeMap<u32, ByLocality<A>> = BTreeMap::new();
        for one in &found {
            let Some(address) = address(one) else { continue };
            let place = Locality {
                region: one.locality.region.as_str().into(),
                zone: one.locality.zone.as_str().into(),
                sub_zone: one.locality.sub_zone.as_str().into(),
            };
            let priority = match (&shares, failover) {
                (None, true) => locality::priority(preference, self.client, one),
                _ => 0,
            };
            let endpoint = self.endpoint(destination, one, address);
            by_priority.entry(priority).or_default().entry(place).or_default().push((one.weight, endpoint));
        }
        let mut priorities: Vec<Priority<A>> = by_priority.into_values().map(priority).collect();
        if let Some(shares) = shares {
            for priority in &mut priorities {
                locality::distribute(priority, &shares);
            }
            priorities.retain(|priority| !priority.localities.is_empty());
        }
        priorities
    }

    fn endpoint<A>(&self, destination: &Destination<'_, '_>, found: &Found, address: A) -> Endpoint<A> {
        let mode = || {
            let namespace = &destination.service.namespace;
            self.model.config.peer_authentication_mode(namespace, &found.labels, found.port)
        };
        Endpoint {
            health: match found.health {
                Health::Healthy => HealthStatus::Healthy,
                Health::Draining => HealthStatus::Draining,
                Health::Unhealthy => HealthStatus::Unhealthy,
            },
            mesh_tls: found.tls && mode() != MtlsMode::Disable,
            ..Endpoint::new(address)
        }
    }
}

/// The localities of a priority. A locality's weight is the sum of its endpoints' weights; both kinds
/// must not sum to more than a `u32` holds.
fn priority<A>(localities: BTreeMap<Locality, Vec<(u32, Endpoint<A>)>>) -> Priority<A> {
    let total: u64 = localities.values().flatten().map(|(weight, _)| u64::from(*weight)).sum();
    let scale = total / u64::from(u32::MAX) + 1;
    let scaled = |weight: u32| NonZeroU32::new((u64::from(weight) / scale) as u32).unwrap_or(NonZeroU32::MIN);
    let localities = localities.into_iter().map(|(locality, endpoints)| {
        let endpoints: Vec<Arc<Endpoint<A>>> = endpoints
            .into_iter()
            .map(|(weight, endpoint)| Arc::new(Endpoint { weight: scaled(weight), ..endpoint }))
            .collect();
        let weight = endpoints.iter().fold(0_u32, |sum, endpoint| sum.saturating_add(endpoint.weight.get()));
        let weight = NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN);
        LocalityEndpoints { locality, weight, endpoints }
    });
    Priority { localities: localities.collect() }
}

#[cfg(test)]
mod tests;
