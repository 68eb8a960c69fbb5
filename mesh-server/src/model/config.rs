//! A set of objects with the indexes that questions need. Built once, never changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::MeshSettings;
use super::authorization::AuthorizationPolicy;
use super::destination_rule::DestinationRule;
use super::kubernetes::EndpointSlice;
use super::object::{Kind, Object, ObjectId};
use super::peer_authentication::PeerAuthentication;
use super::service::Service;
use super::value::{Labels, selects};
use super::virtual_service::{self, Delegate, HttpRoute, Unresolved, VirtualService};
use super::workload::{WorkloadEntry, WorkloadGroup};

/// What was written, indexed.
///
/// Lists are in Istio's "oldest wins" order: files have no age, so by name, then namespace.
#[derive(Debug, Default)]
pub struct Config {
    settings: Arc<MeshSettings>,
    objects: Vec<Object>,
    services: BTreeMap<String, Vec<Arc<Service>>>,
    virtual_services: Vec<Arc<VirtualService>>,
    /// The same, with delegates' routes in place.
    resolved: Vec<Arc<VirtualService>>,
    /// Indexes into `virtual_services` by exact host; those with a wildcard host are in `wildcards`.
    exact_hosts: HashMap<String, Vec<usize>>,
    wildcards: Vec<usize>,
    /// Rules as written.
    destination_rules: Vec<Arc<DestinationRule>>,
    /// Names of the subsets that any rule defines, by exact host; and the rules of wildcards that define some.
    subsets: HashMap<String, HashSet<String>>,
    wildcard_subsets: Vec<Arc<DestinationRule>>,
    /// Names of the subsets that VirtualServices send calls to, whether they exist or not.
    routed_subsets: HashSet<String>,
    /// By namespace; rules of one namespace, host and audience are one.
    merged_rules: HashMap<String, Vec<Arc<DestinationRule>>>,
    /// By namespace and name of the Service.
    slices: HashMap<(String, String), Vec<Arc<EndpointSlice>>>,
    workload_entries: BTreeMap<String, Vec<Arc<WorkloadEntry>>>,
    /// By namespace and each of their labels, in the same order.
    labelled_entries: HashMap<Label, Vec<Arc<WorkloadEntry>>>,
    /// Services with a selector, by namespace and the first label of it; and those whose selector is empty.
    selecting: HashMap<Label, Vec<Arc<Service>>>,
    selecting_all: HashMap<String, Vec<Arc<Service>>>,
    workload_groups: BTreeMap<(String, String), Arc<WorkloadGroup>>,
    peer_authentications: BTreeMap<String, Vec<Arc<PeerAuthentication>>>,
    authorization_policies: BTreeMap<String, Vec<Arc<AuthorizationPolicy>>>,
    /// Why there is no service of a host that is written down.
    unserved: BTreeMap<String, Arc<str>>,
}

/// Namespace, key and value.
type Label = (String, String, String);

fn label(namespace: &str, (key, value): (&String, &String)) -> Label {
    (namespace.to_owned(), key.clone(), value.clone())
}

impl Config {
    /// Indexes objects. Of two with the same name the first is used: analysis reports the other.
    pub fn new(settings: Arc<MeshSettings>, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut unique: BTreeMap<ObjectId, Object> = BTreeMap::new();
        for object in objects {
            unique.entry(object.origin().id.clone()).or_insert(object);
        }
        let mut config = Self { settings, ..Self::default() };
        for object in unique.values() {
            config.index(object);
        }
        config.objects = unique.into_values().collect();
        config.resolved = config.virtual_services.iter().map(|root| config.resolve(root).0).collect();
        config.merged_rules = merge(&config.destination_rules);
        // A Kubernetes Service is the owner of its name; a ServiceEntry for it only adds to it.
        for services in config.services.values_mut() {
            services.sort_by_key(|service| service.origin.id.kind);
            decorate(services);
        }
        config.index_selectors();
        config
    }

    fn index_selectors(&mut self) {
        for service in self.services.values().flatten() {
            let Some(selector) = service.selector() else { continue };
            match selector.iter().next() {
                Some(first) => self.selecting.entry(label(&service.namespace, first)).or_default(),
                None => self.selecting_all.entry(service.namespace.clone()).or_default(),
            }
            .push(service.clone());
        }
        for (namespace, entries) in &self.workload_entries {
            for entry in entries {
                for pair in &entry.spec.labels {
                    self.labelled_entries.entry(label(namespace, pair)).or_default().push(entry.clone());
                }
            }
        }
    }

    fn index(&mut self, object: &Object) {
        let ObjectId { name, namespace, .. } = object.origin().id.clone();
        match object {
            Object::Service(object) => self.add_service(&object.service),
            Object::ServiceEntry(object) => {
                for service in &object.services {
                    self.add_service(service);
                }
            }
            Object::EndpointSlice(object) => {
                self.slices.entry((namespace, object.service.clone())).or_default().push(object.clone());
            }
            Object::VirtualService(object) => self.add_virtual_service(object),
            Object::DestinationRule(object) => self.add_destination_rule(object),
            Object::WorkloadEntry(object) => {
                self.workload_entries.entry(namespace).or_default().push(object.clone());
            }
            Object::WorkloadGroup(object) => {
                self.workload_groups.insert((namespace, name), object.clone());
            }
            Object::PeerAuthentication(object) => {
                self.peer_authentications.entry(namespace).or_default().push(object.clone());
            }
            Object::AuthorizationPolicy(object) => {
                self.authorization_policies.entry(namespace).or_default().push(object.clone());
            }
        }
    }

    fn add_virtual_service(&mut self, object: &Arc<VirtualService>) {
        let age = self.virtual_services.len();
        self.virtual_services.push(object.clone());
        let destinations = object.http.iter().flat_map(HttpRoute::leads_to);
        let subsets = destinations.filter_map(|destination| destination.subset.as_ref());
        self.routed_subsets.extend(subsets.map(|subset| subset.value.clone()));
        for host in &object.hosts {
            let ages = match host.value.exact() {
                Some(name) => self.exact_hosts.entry(name.to_owned()).or_default(),
                None => &mut self.wildcards,
            };
            if ages.last() != Some(&age) {
                ages.push(age);
            }
        }
    }

    fn add_destination_rule(&mut self, object: &Arc<DestinationRule>) {
        self.destination_rules.push(object.clone());
        if object.subsets.is_empty() {
            return;
        }
        let names = object.subsets.iter().map(|subset| subset.name.value.clone());
        match object.host.value.exact() {
            Some(host) => self.subsets.entry(host.to_owned()).or_default().extend(names),
            None => self.wildcard_subsets.push(object.clone()),
        }
    }

    /// A VirtualService with its delegates' routes in place, and what of it leads nowhere.
    pub(crate) fn resolve(&self, root: &Arc<VirtualService>) -> (Arc<VirtualService>, Vec<Unresolved>) {
        virtual_service::resolve(root, |delegate| {
            let Delegate { name, namespace } = delegate.clone();
            match self.object(&ObjectId { kind: Kind::VirtualService, name, namespace }) {
                Some(Object::VirtualService(found)) => Some(found),
                _ => None,
            }
        })
    }

    fn add_service(&mut self, service: &Arc<Service>) {
        self.services.entry(service.hostname.clone()).or_default().push(service.clone());
    }

    /// The settings that its objects were read with.
    pub fn settings(&self) -> &Arc<MeshSettings> {
        &self.settings
    }

    /// All objects, by kind, name and namespace.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// One object.
    pub fn object(&self, id: &ObjectId) -> Option<&Object> {
        let index = self.objects.binary_search_by(|object| object.origin().id.cmp(id)).ok()?;
        self.objects.get(index)
    }

    /// All services by host name. A host has several when several namespaces define it.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().flatten()
    }

    /// With hosts whose only definitions are refused, and why.
    pub(crate) fn with_unserved(mut self, unserved: impl IntoIterator<Item = (String, Arc<str>)>) -> Self {
        self.unserved = unserved.into_iter().collect();
        self
    }

    /// Why there is no service of a host, when it is written down.
    pub(crate) fn unserved(&self, hostname: &str) -> Option<&Arc<str>> {
        self.unserved.get(hostname)
    }

    /// The definitions of one host, the one that wins first.
    pub fn services_named(&self, hostname: &str) -> &[Arc<Service>] {
        self.services.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// The service a client in `namespace` means by a host name: of its own namespace first, then
    /// one that is exported to it.
    pub fn service(&self, namespace: &str, hostname: &str) -> Option<&Arc<Service>> {
        let services = self.services_named(hostname);
        let visible = || services.iter().filter(|service| service.export_to.reaches(namespace));
        visible().find(|service| service.namespace == namespace).or_else(|| visible().next())
    }

    /// VirtualServices as written, oldest first.
    pub fn virtual_services(&self) -> &[Arc<VirtualService>] {
        &self.virtual_services
    }

    /// The VirtualServices that may claim a host, delegates' routes in place, each with its age: smaller is
    /// older.
    pub(crate) fn claimants(&self, hostname: &str) -> impl Iterator<Item = (usize, &Arc<VirtualService>)> {
        let exact = self.exact_hosts.get(hostname).into_iter().flatten();
        exact.chain(&self.wildcards).filter_map(|age| Some((*age, self.resolved.get(*age)?)))
    }

    /// DestinationRules as written, oldest first.
    pub fn destination_rules(&self) -> &[Arc<DestinationRule>] {
        &self.destination_rules
    }

    /// Whether any DestinationRule defines this subset of a host.
    pub(crate) fn has_subset(&self, hostname: &str, subset: &str) -> bool {
        let of_wildcard =
            |rule: &Arc<DestinationRule>| rule.host.value.matches(hostname) && rule.subset(subset).is_some();
        self.subsets.get(hostname).is_some_and(|names| names.contains(subset))
            || self.wildcard_subsets.iter().any(of_wildcard)
    }

    /// Whether any VirtualService sends calls to a subset of this name, of whatever host.
    pub(crate) fn routes_name_subset(&self, subset: &str) -> bool {
        self.routed_subsets.contains(subset)
    }

    /// The DestinationRules of a namespace, merged.
    pub(crate) fn merged_rules(&self, namespace: &str) -> &[Arc<DestinationRule>] {
        self.merged_rules.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The slices of a Kubernetes Service.
    pub fn slices(&self, namespace: &str, service: &str) -> &[Arc<EndpointSlice>] {
        self.slices.get(&(namespace.to_owned(), service.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The WorkloadEntries of a namespace.
    pub fn workload_entries(&self, namespace: &str) -> &[Arc<WorkloadEntry>] {
        self.workload_entries.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The WorkloadEntries of a namespace that a selector selects.
    pub(crate) fn workload_entries_selected<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<WorkloadEntry>> {
        let having = |pair| self.labelled_entries.get(&label(namespace, pair)).map_or(&[][..], Vec::as_slice);
        let fewest = selector.iter().map(having).min_by_key(|those| those.len());
        let those = fewest.unwrap_or_else(|| self.workload_entries(namespace));
        those.iter().filter(|entry| selects(selector, &entry.spec.labels))
    }

    /// The services that a workload with these labels answers for.
    pub(crate) fn services_selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let by_label = labels.iter().filter_map(|pair| self.selecting.get(&label(namespace, pair)));
        let those = by_label.chain(self.selecting_all.get(namespace)).flatten();
        those.filter(|service| service.selector().is_some_and(|selector| selects(selector, labels)))
    }

    /// A WorkloadGroup: the template for workloads that register.
    pub fn workload_group(&self, namespace: &str, name: &str) -> Option<&Arc<WorkloadGroup>> {
        self.workload_groups.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All WorkloadGroups.
    pub fn workload_groups(&self) -> impl Iterator<Item = &Arc<WorkloadGroup>> {
        self.workload_groups.values()
    }

    /// The PeerAuthentications of a namespace, oldest first.
    pub fn peer_authentications(&self, namespace: &str) -> &[Arc<PeerAuthentication>] {
        self.peer_authentications.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The AuthorizationPolicies written in a namespace, oldest first.
    pub fn authorization_policies_in(&self, namespace: &str) -> &[Arc<AuthorizationPolicy>] {
        self.authorization_policies.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// True when some object of a kind exists.
    pub fn has(&self, kind: Kind) -> bool {
        self.objects.iter().any(|object| object.origin().id.kind == kind)
    }
}

/// A ServiceEntry for the host of a Kubernetes Service adds its identities to it, and nothing else.
fn decorate(services: &mut Vec<Arc<Service>>) {
    let is_kubernetes = |service: &Arc<Service>| service.origin.id.kind == Kind::Service;
    if services.len() < 2 || !services.first().is_some_and(is_kubernetes) {
        return;
    }
    let names: Vec<String> =
        services.iter().skip(1).flat_map(|entry| entry.subject_alt_names.iter().cloned()).collect();
    services.truncate(1);
    if let Some(service) = services.first_mut().filter(|_| !names.is_empty()) {
        Arc::make_mut(service).subject_alt_names.extend(names);
    }
}

/// Rules of one namespace, host, audience and selector become one: subsets united by name, the
/// first policy kept (Istio's `ENABLE_ENHANCED_DESTINATIONRULE_MERGE`). One that is refused fails the calls of all.
fn merge(rules: &[Arc<DestinationRule>]) -> HashMap<String, Vec<Arc<DestinationRule>>> {
    let mut merged: HashMap<String, Vec<Arc<DestinationRule>>> = HashMap::new();
    for rule in rules {
        let of_namespace = merged.entry(rule.origin.id.namespace.clone()).or_default();
        let same = of_namespace.iter_mut().find(|other| {
            other.host.value == rule.host.value
                && other.export_to == rule.export_to
                && other.selector == rule.selector
        });
        let Some(same) = same else {
            of_namespace.push(rule.clone());
            continue;
        };
        let same = Arc::make_mut(same);
        if same.policy.is_none() {
            same.policy.clone_from(&rule.policy);
        }
        if same.refused.is_none() {
            same.refused.clone_from(&rule.refused);
        }
        for subset in &rule.subsets {
            if same.subset(&subset.name.value).is_none() {
                same.subsets.push(subset.clone());
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests;
