//! Which object applies: Istio's rules of precedence, as pure functions of a [`Config`].

use std::sync::Arc;

use super::authorization::AuthorizationPolicy;
use super::config::Config;
use super::destination_rule::{DestinationRule, EffectivePolicy, TrafficPolicy};
use super::peer_authentication::{MtlsMode, PeerAuthentication};
use super::service::Service;
use super::value::{Labels, selects};
use super::virtual_service::{HttpMatch, HttpRoute, VirtualService};

/// Whose configuration is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientScope {
    /// The client's namespace.
    pub namespace: String,
    /// The client's labels.
    pub labels: Labels,
}

/// A route with one of its matches: what becomes one route in xDS.
#[derive(Clone, Copy, Debug)]
pub struct EffectiveRoute<'a> {
    /// The route.
    pub route: &'a HttpRoute,
    /// Which requests; all of them without.
    pub matched: Option<&'a HttpMatch>,
}

impl VirtualService {
    /// The routes a client gets, in order: each match on its own, those that are for other clients
    /// left out, nothing behind the first that takes everything. Empty means that the object is
    /// nothing to this client.
    pub fn routes_for<'a>(&'a self, client: &ClientScope) -> Vec<EffectiveRoute<'a>> {
        let mut routes = Vec::new();
        for route in &self.http {
            if route.matches.is_empty() {
                routes.push(EffectiveRoute { route, matched: None });
                return routes;
            }
            for matched in &route.matches {
                if matched.applies_to(&client.namespace, &client.labels) {
                    routes.push(EffectiveRoute { route, matched: Some(matched) });
                    if matched.is_catch_all() {
                        return routes;
                    }
                }
            }
        }
        routes
    }

    /// How close this object is to a client; smaller wins. `None`: not for it.
    fn closeness(&self, namespace: &str) -> Option<u8> {
        if !self.for_mesh || !self.export_to.reaches(namespace) {
            return None;
        }
        let own = &self.origin.id.namespace;
        Some(match &self.export_to {
            export if export.is_private_to(own) && own == namespace => 0,
            super::value::ExportTo::Namespaces(_) => 1,
            _ => 2,
        })
    }

    /// The specificity of the host by which this object claims a name.
    fn claims(&self, hostname: &str) -> Option<(bool, usize)> {
        self.hosts
            .iter()
            .filter(|host| host.value.matches(hostname))
            .map(|host| host.value.specificity())
            .max()
    }
}

impl Config {
    /// The VirtualService that routes a client's calls to a host: the most specific host wins, then
    /// private before exported before public, then the oldest. One whose routes are all for other
    /// clients does not count.
    pub fn virtual_service_for(&self, client: &ClientScope, hostname: &str) -> Option<&Arc<VirtualService>> {
        self.claimants(hostname)
            .filter_map(|(age, object)| {
                let rank =
                    (object.claims(hostname)?, std::cmp::Reverse(object.closeness(&client.namespace)?));
                Some(((rank, std::cmp::Reverse(age)), object))
            })
            .filter(|(_, object)| !object.routes_for(client).is_empty())
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, object)| object)
    }

    /// The DestinationRule of a client for a service: of the client's namespace, else of the
    /// service's, else of the root namespace; the most specific host within it. Rules of several
    /// namespaces are never merged.
    pub fn destination_rule_for(
        &self,
        client: &ClientScope,
        service: &Service,
    ) -> Option<&Arc<DestinationRule>> {
        let root = self.settings().root_namespace.as_str();
        let own = self.best_rule(&client.namespace, client, &service.hostname, |rule| {
            client.namespace != root || rule.export_to.is_private_to(root)
        });
        let exported =
            |rule: &DestinationRule| rule.selector.is_none() && rule.export_to.reaches(&client.namespace);
        own.or_else(|| self.best_rule(&service.namespace, client, &service.hostname, exported))
            .or_else(|| self.best_rule(root, client, &service.hostname, exported))
    }

    fn best_rule(
        &self,
        namespace: &str,
        client: &ClientScope,
        hostname: &str,
        allowed: impl Fn(&DestinationRule) -> bool,
    ) -> Option<&Arc<DestinationRule>> {
        let for_client = |rule: &DestinationRule| match &rule.selector {
            Some(selector) => {
                rule.origin.id.namespace == client.namespace && selects(selector, &client.labels)
            }
            None => true,
        };
        self.merged_rules(namespace)
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.host.value.matches(hostname) && for_client(rule) && allowed(rule))
            .max_by_key(|(age, rule)| {
                (rule.host.value.specificity(), rule.selector.is_some(), std::cmp::Reverse(*age))
            })
            .map(|(_, rule)| rule)
    }

    /// The policy of a destination's port, and of a subset of it when one is named.
    pub fn effective_traffic_policy(
        &self,
        rule: Option<&DestinationRule>,
        subset: Option<&str>,
        port: u16,
    ) -> EffectivePolicy {
        let destination = rule.and_then(|rule| rule.policy.as_ref());
        let subset = subset.and_then(|name| rule?.subset(name)?.policy.as_ref());
        TrafficPolicy::effective(destination, subset, port)
    }

    /// What a workload accepts on one of its own ports: mesh, then namespace, then workload; the
    /// oldest of each level; PERMISSIVE when nobody says anything.
    pub fn peer_authentication_mode(&self, namespace: &str, labels: &Labels, port: u16) -> MtlsMode {
        let root = self.settings().root_namespace.as_str();
        let for_all = |namespace: &str| {
            self.peer_authentications(namespace).iter().find(|policy| policy.selector.is_empty())
        };
        let mode = |policy: Option<&Arc<PeerAuthentication>>| policy.and_then(|policy| policy.mode);
        let mesh = mode(for_all(root)).unwrap_or(MtlsMode::Permissive);
        let of_namespace = mode(for_all(namespace)).unwrap_or(mesh);
        let workload = self
            .peer_authentications(namespace)
            .iter()
            .find(|policy| !policy.selector.is_empty() && selects(&policy.selector, labels));
        let of_port = workload.and_then(|policy| policy.ports.get(&port).copied().flatten());
        of_port.or(mode(workload)).unwrap_or(of_namespace)
    }

    /// The AuthorizationPolicies of a workload: those of the root namespace and of its own whose
    /// selector has it.
    pub fn authorization_policies(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        let root = self.settings().root_namespace.as_str();
        let of_mesh = self.authorization_policies_in(root).iter();
        let of_namespace =
            self.authorization_policies_in(if namespace == root { "" } else { namespace }).iter();
        let labels = labels.clone();
        of_mesh.chain(of_namespace).filter(move |policy| selects(&policy.selector, &labels))
    }
}

#[cfg(test)]
mod tests;
