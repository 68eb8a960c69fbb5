//! The endpoints of a service, from wherever they come: slices, entries, registered workloads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Model;
use super::distribution::NODE_LABEL;
use super::service::{EndpointSource, Resolution, Service, ServicePort, TargetPort};
use super::value::{Labels, Locality, selects};
use super::workload::{Address, Health, RegisteredWorkload, ServiceAccount, WorkloadSpec};

/// One place that answers for a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// Its own port, after mapping.
    pub port: u16,
    /// Where it runs.
    pub locality: Locality,
    /// Its share within its locality; at least one.
    pub weight: u32,
    /// Its labels, with Istio's topology labels added.
    pub labels: Labels,
    /// Whether it should get calls.
    pub health: Health,
    /// Its identity, when it is known.
    pub service_account: Option<ServiceAccount>,
    /// True when it speaks the mesh's mTLS (label `security.istio.io/tlsMode: istio`).
    pub tls: bool,
}

/// What all sources of endpoints have in common.
struct Workload<'a> {
    namespace: &'a str,
    address: Address,
    ports: &'a BTreeMap<String, u16>,
    labels: &'a Labels,
    locality: &'a Locality,
    weight: u32,
    health: Health,
    service_account: Option<&'a str>,
}

impl Model {
    /// The endpoints of a service's port whose labels include `subset`, each address and port once,
    /// in a stable order.
    pub fn endpoints(&self, service: &Service, port: &ServicePort, subset: &Labels) -> Vec<Endpoint> {
        // The first source that knows an address is believed: a workload about itself, then
        // entries, then slices.
        let mut found: BTreeMap<(Address, u16), Endpoint> = BTreeMap::new();
        let endpoints = self
            .selected_workloads(service)
            .map(|workload| workload.endpoint(port))
            .chain(self.slice_endpoints(service, port))
            .chain(self_resolving(service, port));
        for endpoint in endpoints {
            if selects(subset, &endpoint.labels) {
                found.entry((endpoint.address.clone(), endpoint.port)).or_insert(endpoint);
            }
        }
        found.into_values().collect()
    }

    /// The identities of a service's workloads: whom a client may expect to answer, together with
    /// the service's own `subject_alt_names`.
    pub fn service_accounts(&self, service: &Service) -> BTreeSet<ServiceAccount> {
        self.selected_workloads(service).filter_map(|workload| workload.account()).collect()
    }

    /// The services that a workload with these labels answers for: what its coming or going changes.
    pub fn services_selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        self.config.services_selecting(namespace, labels)
    }

    fn selected_workloads<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Workload<'a>> {
        let namespace = service.namespace.as_str();
        let fixed: &[WorkloadSpec] = match &service.endpoints {
            EndpointSource::Fixed(entries) => entries,
            _ => &[],
        };
        let selector = service.selector();
        let registered = selector
            .into_iter()
            .flat_map(move |selector| self.workloads.selected(namespace, selector))
            .map(|workload| Workload::registered(workload));
        let entries = selector
            .into_iter()
            .flat_map(move |selector| self.config.workload_entries_selected(namespace, selector))
            .map(move |entry| Workload::entry(namespace, &entry.spec));
        registered.chain(entries).chain(fixed.iter().map(move |spec| Workload::entry(namespace, spec)))
    }

    fn slice_endpoints(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let EndpointSource::Kubernetes { name, .. } = &service.endpoints else { return Vec::new() };
        let mut endpoints = Vec::new();
        for slice in self.config.slices(&service.namespace, name) {
            let Some((_, number)) = slice.ports.iter().find(|(name, _)| *name == port.name) else { continue };
            for endpoint in &slice.endpoints {
                let mut labels = with_topology(&slice.labels, &endpoint.locality);
                if let Some(node) = &endpoint.node {
                    labels.entry(NODE_LABEL.to_owned()).or_insert_with(|| node.clone());
                }
                endpoints.push(Endpoint {
                    address: endpoint.address.clone(),
                    port: *number,
                    weight: 1,
                    labels,
                    locality: endpoint.locality.clone(),
                    health: endpoint.health,
                    service_account: None,
                    tls: speaks_mtls(&slice.labels),
                });
            }
        }
        endpoints
    }
}

/// A service whose resolution is DNS and that names no endpoint: its host is what is resolved.
fn self_resolving(service: &Service, port: &ServicePort) -> Option<Endpoint> {
    let by_name = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    let none_given = matches!(&service.endpoints, EndpointSource::Fixed(entries) if entries.is_empty());
    (by_name && none_given).then(|| Endpoint {
        address: Address::Name(service.hostname.clone()),
        port: match port.target {
            TargetPort::Number(number) => number,
            TargetPort::Name(_) => port.number,
        },
        locality: Locality::default(),
        weight: 1,
        labels: Labels::new(),
        health: Health::Healthy,
        service_account: None,
        tls: false,
    })
}

impl<'a> Workload<'a> {
    fn registered(workload: &'a RegisteredWorkload) -> Self {
        Self {
            namespace: &workload.namespace,
            address: Address::Ip(workload.address),
            ports: &workload.ports,
            labels: &workload.labels,
            locality: &workload.locality,
            weight: workload.weight.max(1),
            health: workload.health,
            service_account: Some(&workload.service_account),
        }
    }

    fn entry(namespace: &'a str, spec: &'a WorkloadSpec) -> Self {
        Self {
            namespace,
            address: spec.address.clone(),
            ports: &spec.ports,
            labels: &spec.labels,
            locality: &spec.locality,
            weight: spec.weight,
            health: Health::Healthy,
            service_account: spec.service_account.as_deref(),
        }
    }

    /// The workload's own port for a service port: what the workload says of that name, then what it
    /// says of all, then the service's target port, then the service's port.
    fn port(&self, port: &ServicePort) -> u16 {
        let named = |name: &str| self.ports.get(name).copied();
        let target_name = match &port.target {
            TargetPort::Name(name) => named(name),
            TargetPort::Number(_) => None,
        };
        let said = named(&port.name).or(target_name).or_else(|| named(""));
        said.unwrap_or(match port.target {
            TargetPort::Number(number) => number,
            TargetPort::Name(_) => port.number,
        })
    }

    fn account(&self) -> Option<ServiceAccount> {
        let name = self.service_account?.to_owned();
        Some(ServiceAccount { namespace: self.namespace.to_owned(), name })
    }

    fn endpoint(&self, port: &ServicePort) -> Endpoint {
        Endpoint {
            address: self.address.clone(),
            port: self.port(port),
            locality: self.locality.clone(),
            weight: self.weight,
            labels: with_topology(self.labels, self.locality),
            health: self.health,
            service_account: self.account(),
            tls: speaks_mtls(self.labels),
        }
    }
}

fn speaks_mtls(labels: &Labels) -> bool {
    labels.get("security.istio.io/tlsMode").is_some_and(|mode| mode == "istio")
}

/// Subsets and failover may go by where an endpoint runs.
fn with_topology(labels: &Labels, locality: &Locality) -> Labels {
    let mut labels = labels.clone();
    for (key, value) in [
        ("topology.kubernetes.io/region", &locality.region),
        ("topology.kubernetes.io/zone", &locality.zone),
        ("topology.istio.io/subzone", &locality.sub_zone),
    ] {
        if !value.is_empty() {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    labels
}

#[cfg(test)]
mod tests;
