//! Workloads: what listens somewhere and may be selected by a service.
//!
//! WorkloadEntry and WorkloadGroup are configuration; a [`RegisteredWorkload`] registers itself and
//! lives as long as its stream, so [`Workloads`] is a value of its own: an endpoint that comes or
//! goes does not rebuild the configuration.
//! <https://istio.io/latest/docs/reference/config/networking/workload-entry/>

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::node::Node;
use super::object::{Metadata, Origin, spec};
use super::read::{self, Map, Report};
use super::schema;
use super::shards::Shards;
use super::value::{Host, Labels, Locality, selects};
use crate::analysis::Code;

/// Where a workload listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An address.
    Ip(IpAddr),
    /// A DNS name. Nothing resolves it in this version, and whoever writes one is told.
    Name(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Whether an endpoint should get calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Yes.
    #[default]
    Healthy,
    /// No new ones; those it has may end.
    Draining,
    /// No.
    Unhealthy,
}

/// The namespace and name of a service account: the identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The fields of a WorkloadEntry, wherever it is written (an object, a ServiceEntry's endpoint).
#[derive(Clone, Debug)]
pub struct WorkloadSpec {
    /// Where it listens.
    pub address: Address,
    /// Port numbers by the service port's name; these beat the service's target port.
    pub ports: BTreeMap<String, u16>,
    /// What selectors and subsets see.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Its share within its locality; at least one.
    pub weight: u32,
    /// What it runs as.
    pub service_account: Option<String>,
}

/// A WorkloadEntry object.
#[derive(Clone, Debug)]
pub struct WorkloadEntry {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// Its fields; the labels include the object's own.
    pub spec: WorkloadSpec,
}

/// A WorkloadGroup: what the workloads that register with it have in common.
#[derive(Clone, Debug)]
pub struct WorkloadGroup {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// Labels of every workload in it: `metadata.labels` of the group over the template's.
    pub labels: Labels,
    /// Ports by the service port's name.
    pub ports: BTreeMap<String, u16>,
    /// Where they run.
    pub locality: Locality,
    /// Their share; at least one.
    pub weight: u32,
    /// What they must run as.
    pub service_account: Option<String>,
}

/// A workload that registered itself and whose stream is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredWorkload {
    /// Unique in its namespace: `<group>-<address>` in Istio.
    pub name: String,
    /// The namespace of its verified identity.
    pub namespace: String,
    /// The service account of its verified identity.
    pub service_account: String,
    /// Where it listens.
    pub address: IpAddr,
    /// Port numbers by service port name; `""` is for every port that is not named.
    pub ports: BTreeMap<String, u16>,
    /// What selectors and subsets see; the group's labels are already among them.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Its share within its locality; at least one.
    pub weight: u32,
    /// Whether it should get calls.
    pub health: Health,
    /// The WorkloadGroup it registered with; none is fine when its identity is verified.
    pub group: Option<String>,
}

impl RegisteredWorkload {
    /// What a workload, or a member of a group, of this name is registered as: no two names and addresses make the same.
    /// So an IPv6 address is written in full. A base has no dots.
    pub(crate) fn name_at(base: &str, address: IpAddr) -> String {
        match address {
            IpAddr::V4(address) => format!("{base}-{address}"),
            IpAddr::V6(address) => {
                let groups = address.segments().map(|group| format!("{group:04x}"));
                format!("{base}-{}", groups.join("-"))
            }
        }
    }

    /// Its name when another process at its address has the one without a port.
    pub(crate) fn name_with_port(&self) -> Option<String> {
        self.ports.values().min().map(|port| format!("{}{}", self.name, self.port_suffix(*port)))
    }

    /// Not a dash where a port could be one of the address's groups.
    fn port_suffix(&self, port: u16) -> String {
        let dash = if self.address.is_ipv4() { '-' } else { '.' };
        format!("{dash}{port}")
    }

    /// Whether it registered as a workload, or as a member of a group, of this name.
    pub(crate) fn is_called(&self, base: &str) -> bool {
        let plain = Self::name_at(base, self.address);
        let rest = self.name.strip_prefix(&plain);
        let is_port = |rest| self.ports.values().min().is_some_and(|port| self.port_suffix(*port) == rest);
        rest.is_some_and(|rest| rest.is_empty() || is_port(rest))
    }
}

/// The workloads that registered themselves: an immutable value, cheap to change, and indexed by what they are
/// looked up by.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    namespaces: Shards<String, Namespace>,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    by_name: Shards<String, Arc<RegisteredWorkload>>,
    /// By one label and its value, and by name.
    by_label: Shards<(String, String), Shards<String, Arc<RegisteredWorkload>>>,
    by_address: Shards<IpAddr, Vec<Arc<RegisteredWorkload>>>,
}

impl Namespace {
    fn insert(&mut self, workload: &Arc<RegisteredWorkload>) {
        self.remove(&workload.name);
        for (key, value) in &workload.labels {
            let pair = (key.clone(), value.clone());
            let mut those = self.by_label.get(&pair).cloned().unwrap_or_default();
            those.insert(workload.name.clone(), workload.clone());
            self.by_label.insert(pair, those);
        }
        let mut those = self.by_address.get(&workload.address).cloned().unwrap_or_default();
        those.push(workload.clone());
        self.by_address.insert(workload.address, those);
        self.by_name.insert(workload.name.clone(), workload.clone());
    }

    fn remove(&mut self, name: &str) {
        let Some(workload) = self.by_name.get(name).cloned() else { return };
        self.by_name.remove(name);
        for (key, value) in &workload.labels {
            let pair = (key.clone(), value.clone());
            let mut those = self.by_label.get(&pair).cloned().unwrap_or_default();
            those.remove(name);
            if those.is_empty() {
                self.by_label.remove(&pair);
            } else {
                self.by_label.insert(pair, those);
            }
        }
        let mut those = self.by_address.get(&workload.address).cloned().unwrap_or_default();
        those.retain(|one| one.name != name);
        if those.is_empty() {
            self.by_address.remove(&workload.address);
        } else {
            self.by_address.insert(workload.address, those);
        }
    }

    /// The workloads that have every pair of a selector, in no order.
    fn selected<'a>(&'a self, selector: &'a Labels) -> Vec<&'a Arc<RegisteredWorkload>> {
        if selector.is_empty() {
            return self.by_name.iter().map(|(_, workload)| workload).collect();
        }
        let having = |(key, value): (&String, &String)| self.by_label.get(&(key.clone(), value.clone()));
        // A pair that none has: nothing is selected.
        let Some(mut those) = selector.iter().map(having).collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        those.sort_by_key(|those| those.len());
        let fewest = those.first().into_iter().flat_map(|those| those.iter()).map(|(_, workload)| workload);
        fewest.filter(|workload| selects(selector, &workload.labels)).collect()
    }
}

fn by_name(mut workloads: Vec<&Arc<RegisteredWorkload>>) -> std::vec::IntoIter<&Arc<RegisteredWorkload>> {
    workloads.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    workloads.into_iter()
}

impl Workloads {
    /// With a workload added, or replaced when its namespace has one of the same name.
    #[must_use]
    pub fn with(&self, workload: RegisteredWorkload) -> Self {
        let mut next = self.clone();
        let workload = Arc::new(workload);
        let mut namespace = next.namespaces.get(&workload.namespace).cloned().unwrap_or_default();
        namespace.insert(&workload);
        next.namespaces.insert(workload.namespace.clone(), namespace);
        next
    }

    /// Without a workload.
    #[must_use]
    pub fn without(&self, namespace: &str, name: &str) -> Self {
        let mut next = self.clone();
        if let Some(mut workloads) = next.namespaces.get(namespace).cloned() {
            workloads.remove(name);
            if workloads.by_name.is_empty() {
                next.namespaces.remove(namespace);
            } else {
                next.namespaces.insert(namespace.to_owned(), workloads);
            }
        }
        next
    }

    /// One workload.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Arc<RegisteredWorkload>> {
        self.namespaces.get(namespace)?.by_name.get(name)
    }

    /// The workloads of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<RegisteredWorkload>> {
        let those = self.namespaces.get(namespace);
        by_name(those.into_iter().flat_map(|those| those.by_name.iter()).map(|(_, one)| one).collect())
    }

    /// The workloads of a namespace at an address, by name.
    pub fn at_address(
        &self,
        namespace: &str,
        address: IpAddr,
    ) -> impl Iterator<Item = &Arc<RegisteredWorkload>> {
        let those = self.namespaces.get(namespace).and_then(|those| those.by_address.get(&address));
        by_name(those.into_iter().flatten().collect())
    }

    /// The workloads of a namespace that a selector selects, by name. Costs what the rarest of its labels has.
    pub fn selected<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<RegisteredWorkload>> {
        by_name(self.namespaces.get(namespace).map(|those| those.selected(selector)).unwrap_or_default())
    }

    /// All of them, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RegisteredWorkload>> {
        by_name(
            self.namespaces.iter().flat_map(|(_, those)| those.by_name.iter()).map(|(_, one)| one).collect(),
        )
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.namespaces.iter().map(|(_, workloads)| workloads.by_name.len()).sum()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }
}

const WORKLOAD: &[&str] = &["address", "labels", "locality", "network", "ports", "serviceAccount", "weight"];

impl WorkloadSpec {
    pub(crate) fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let map = report.map(node, "a workload entry", WORKLOAD)?;
        let template = Template::read(&map, report);
        let address = map.one("address", report, address);
        if !map.has("address") {
            if map.has("network") {
                report.unsupported(map.key_at("network"), "a workload with a `network` and no `address`");
            } else {
                report.error(node.at, "a workload entry needs `address`");
            }
        }
        Some(Self {
            address: address?,
            ports: template.ports,
            labels: template.labels,
            locality: template.locality,
            weight: template.weight,
            service_account: template.service_account,
        })
    }
}

/// What entries and group templates share.
struct Template {
    ports: BTreeMap<String, u16>,
    labels: Labels,
    locality: Locality,
    weight: u32,
    service_account: Option<String>,
}

impl Template {
    fn read(map: &Map<'_>, report: &mut Report) -> Self {
        map.ignored("network", report, "`network`");
        Self {
            ports: map.one("ports", report, ports).unwrap_or_default(),
            labels: map.one("labels", report, read::labels).unwrap_or_default(),
            locality: map
                .one("locality", report, read::text)
                .map(|text| Locality::parse(&text))
                .unwrap_or_default(),
            weight: map.one("weight", report, read::count).unwrap_or(0).max(1),
            service_account: map
                .one("serviceAccount", report, read::text)
                .filter(|account| !account.is_empty()),
        }
    }
}

fn ports(node: &Node, report: &mut Report) -> Option<BTreeMap<String, u16>> {
    let mut ports = BTreeMap::new();
    for entry in report.entries(node, "ports")? {
        if entry.key.is_empty() {
            report.error(entry.key_at, "a port needs a name");
        }
        if let Some(port) = read::port(&entry.node, report) {
            ports.insert(entry.key.clone(), port);
        }
    }
    Some(ports)
}

fn address(node: &Node, report: &mut Report) -> Option<Address> {
    let text = read::some_text(node, report)?;
    if let Ok(ip) = text.parse() {
        return Some(Address::Ip(ip));
    }
    if text.starts_with("unix://") {
        report.unsupported(node.at, "Unix socket endpoints");
        return None;
    }
    match Host::parse(&text) {
        Ok(Host::Exact(name)) => Some(Address::Name(name)),
        Ok(Host::Wildcard(_)) | Err(_) => {
            report.fail(node.at, format!("{text:?} is neither an IP address nor a host name"))
        }
    }
}

impl WorkloadEntry {
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        let mut spec = WorkloadSpec::read(node, report)?;
        if let Address::Name(name) = &spec.address {
            let message = format!("`{name}` is resolved only for services with `resolution: DNS`");
            report.warn(Code::SchemaWarning, node.at, message);
        }
        let mut labels = metadata.labels;
        labels.append(&mut spec.labels);
        spec.labels = labels;
        Some(Self { origin: metadata.origin, spec })
    }
}

impl WorkloadGroup {
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        let map = spec(node, report, &["metadata", "template", "probe"])?;
        if let Some(probe) = map.get("probe") {
            schema::check(probe, "probe", &schema::PROBE, report);
            map.ignored("probe", report, "`probe` (a workload reports its health on its own stream)");
        }
        let group_labels = map.one("metadata", report, |node, report| {
            let map = report.map(node, "metadata", &["labels", "annotations"])?;
            if let Some(annotations) = map.get("annotations") {
                let texts = schema::Shape::Dict(&schema::Shape::Text);
                schema::check(annotations, "annotations", &texts, report);
            }
            map.one("labels", report, read::labels)
        });
        let template = map.required("template", "a WorkloadGroup", report, |node, report| {
            let map = report.map(node, "template", WORKLOAD)?;
            for key in ["address", "labels"] {
                if map.has(key) {
                    report.error(map.key_at(key), format!("a template must not have `{key}`"));
                }
            }
            Some(Template::read(&map, report))
        })?;
        let mut labels = template.labels;
        labels.extend(group_labels.unwrap_or_default());
        Some(Self {
            origin: metadata.origin,
            labels,
            ports: template.ports,
            locality: template.locality,
            weight: template.weight,
            service_account: template.service_account,
        })
    }
}

#[cfg(test)]
mod tests;
