//! Route configurations: `outbound|9080||reviews.default.svc.cluster.local`, and for Envoys one that
//! holds every visible host (`http_proxy`).
//!
//! Istio's `BuildSidecarVirtualHostWrapper`: the virtual host of a service holds the routes of the one
//! VirtualService that applies to this client, or a default route to the service itself.

pub(super) mod action;
pub(super) mod matching;

use super::{Compiler, names::Outbound};
use crate::model::{EffectiveRoute, HttpAction, HttpMatch, HttpRoute, Service, VirtualService};
use matching::{Match, Test};
use mesh_xds::{
    matcher::DomainPattern,
    name::Name,
    resource::{
        Origin,
        filter::FilterOverrides,
        route::{HeaderMutations, Route, RouteAction, RouteConfiguration, VirtualHost},
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// Name of the route configuration of an Envoy's proxy listener, as in Istio.
pub(super) const HTTP_PROXY: &str = "http_proxy";

/// A route and what is asked of the authority.
struct Candidate {
    route: Arc<Route>,
    authority: Vec<Test>,
}

/// Istio's `defaultRoute` name.
const DEFAULT: &str = "default";

impl Compiler<'_> {
    /// The routes of one service port; `None` when this client cannot see such a service.
    pub(super) fn routes(&self, name: &str) -> Option<RouteConfiguration> {
        let outbound = Outbound::parse(name).filter(|outbound| outbound.subset.is_empty())?;
        let service = self.service(outbound.host)?;
        service.port(outbound.port)?;
        let mut routes = named(name);
        let domains = self.domains(service, outbound.port, true);
        self.virtual_hosts(service, outbound.port, domains, &mut routes);
        Some(with_room_for_bodies(routes))
    }

    /// The routes of every visible service, for an Envoy's proxy listener.
    pub(super) fn all_routes(&self) -> RouteConfiguration {
        let mut routes = named(HTTP_PROXY);
        let mut taken = BTreeSet::new();
        for service in self.services() {
            for port in &service.ports {
                // A host without a port can only mean one of several: port 80, or the only one.
                let bare = port.number == 80 || service.ports.len() == 1;
                let mut domains = self.domains(service, port.number, bare);
                domains.retain(|domain| taken.insert(domain.clone()));
                self.virtual_hosts(service, port.number, domains, &mut routes);
            }
        }
        with_room_for_bodies(routes)
    }

    /// The names that mean a service to this client, with and (if `bare`) without the port.
    fn domains(&self, service: &Service, port: u16, bare: bool) -> Vec<String> {
        let mut hosts = Vec::new();
        let suffix = format!(".svc.{}", self.client.domain);
        if let Some(short) = service.hostname.strip_suffix(&suffix) {
            if service.namespace == self.client.scope.namespace
                && let Some((name, _)) = short.split_once('.')
            {
                hosts.push(name.to_owned());
            }
            hosts.push(short.to_owned());
            hosts.push(format!("{short}.svc"));
        }
        hosts.push(service.hostname.clone());
        hosts.push(format!("{}.", service.hostname));
        hosts.extend(service.addresses.iter().map(|address| match address {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        }));
        let mut domains = Vec::with_capacity(hosts.len() * 2);
        for host in hosts {
            domains.push(format!("{host}:{port}"));
            if bare {
                domains.push(host);
            }
        }
        domains
    }

    /// Adds the virtual hosts of a service port. There is one, unless a match asks for the authority:
    /// then the domains part by what they answer.
    fn virtual_hosts(
        &self,
        service: &Service,
        port: u16,
        domains: Vec<String>,
        into: &mut RouteConfiguration,
    ) {
        let candidates = self.candidates(service, port);
        let mut groups: Vec<(Vec<bool>, Vec<String>)> = Vec::new();
        for domain in domains {
            let admitted: Vec<bool> =
                candidates.iter().map(|one| one.authority.iter().all(|test| test.holds(&domain))).collect();
            match groups.iter_mut().find(|(admits, _)| *admits == admitted) {
                Some((_, domains)) => domains.push(domain),
                None => groups.push((admitted, vec![domain])),
            }
        }
        for (i, (admitted, domains)) in groups.into_iter().enumerate() {
            let admitted =
                || candidates.iter().zip(&admitted).filter(|(_, admitted)| **admitted).map(|(one, _)| one);
            let name = match i {
                0 => format!("{}:{port}", service.hostname),
                i => format!("{}:{port}#{}", service.hostname, i + 1),
            };
            into.virtual_hosts.push(Arc::new(VirtualHost {
                name: name.into(),
                domains: domains
                    .iter()
                    .map(|domain| DomainPattern::Exact(domain.to_ascii_lowercase().into()))
                    .collect(),
                routes: admitted().map(|one| one.route.clone()).collect(),
                retry: None,
                hedge: None,
                overrides: FilterOverrides::new(),
                headers: HeaderMutations::default(),
            }));
        }
    }

    /// The routes to a service port, in order.
    fn candidates(&self, service: &Service, port: u16) -> Vec<Candidate> {
        let rule = self.model.config.virtual_service_for(&self.client.scope, &service.hostname);
        if let Some(rule) = rule {
            let candidates = self.translate(rule, port);
            // Nothing in it is for this client: as if it were not there.
            if !candidates.is_empty() {
                return candidates;
            }
        }
        let cluster = cluster_name(port, "", &service.hostname);
        let route = Route {
            name: DEFAULT.into(),
            matches: matching::everything().route,
            action: RouteAction::Forward(Box::new(action::plain(cluster, &self.client.kind, &|cluster| {
                self.hash_policy(cluster)
            }))),
            overrides: FilterOverrides::new(),
            headers: HeaderMutations::default(),
            origin: Some(self.origin(&service.origin.place(), &service.origin.id, std::iter::empty())),
        };
        vec![Candidate { route: Arc::new(route), authority: Vec::new() }]
    }

    fn translate(&self, rule: &VirtualService, port: u16) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for EffectiveRoute { route, matched } in rule.routes_for(&self.client.scope) {
            let Some(condition) = matched else {
                candidates.push(self.candidate(rule, route, None, matching::everything(), port));
                break;
            };
            if condition.port.is_some_and(|wanted| wanted != port) {
                continue;
            }
            for found in matching::alternatives(condition, &self.client.kind) {
                candidates.push(self.candidate(rule, route, Some(condition), found, port));
            }
            // A condition on the port is decided; behind a match for the rest nothing can be reached.
            let on_any_port = HttpMatch { port: None, ..condition.clone() };
            if on_any_port.is_catch_all() {
                break;
            }
        }
        candidates
    }

    fn candidate(
        &self,
        rule: &VirtualService,
        route: &HttpRoute,
        condition: Option<&HttpMatch>,
        found: Match,
        port: u16,
    ) -> Candidate {
        let cluster = |destination: &crate::model::Destination| {
            let host = &destination.host.value;
            let subset = destination.subset.as_ref().map_or("", |subset| &subset.value);
            cluster_name(self.destination_port(destination, port), subset, host)
        };
        let (action, headers) = match &route.action {
            HttpAction::Redirect(redirect) => (action::redirect(redirect, port), action::headers(route)),
            HttpAction::DirectResponse(answer) => (action::direct_response(answer), action::headers(route)),
            HttpAction::Route(_) | HttpAction::Delegate(_) => {
                let hash = |cluster: &Name| self.hash_policy(cluster);
                let (forward, headers) = action::forward(route, &self.client.kind, &cluster, &hash);
                (RouteAction::Forward(Box::new(forward)), headers)
            }
        };
        let mut name = route.name.clone().unwrap_or_default();
        if let Some(match_name) = condition.and_then(|condition| condition.name.as_deref()) {
            name = if name.is_empty() { match_name.to_owned() } else { format!("{name}.{match_name}") };
        }
        let route = Route {
            name: name.into(),
            matches: found.route,
            action,
            overrides: action::fault(route.fault.as_ref()),
            headers,
            origin: Some(self.origin_of_route(rule, route, condition)),
        };
        Candidate { route: Arc::new(route), authority: found.authority }
    }

    fn origin_of_route(
        &self,
        rule: &VirtualService,
        route: &HttpRoute,
        condition: Option<&HttpMatch>,
    ) -> Origin {
        let object = route.written_in.as_deref().unwrap_or(&rule.origin);
        // Counted as they are compiled: without those that never get anything.
        let (destinations, mirrors) = (route.destinations(), route.mirrors.iter());
        let only = destinations.len() == 1;
        let destinations = destinations.iter().filter(|one| one.weight > 0 || only);
        let mirrors = mirrors.filter(|mirror| mirror.share.millionths() > 0);
        let hosts = |key: &'static str| {
            move |(i, destination): (usize, &crate::model::Destination)| {
                (format!("{key}[{i}]"), object.at(destination.host.at))
            }
        };
        let settings = route.written.iter().map(|(setting, place)| (setting.to_owned(), place.clone()));
        let settings = settings
            .chain(condition.map(|condition| ("match".to_owned(), object.at(condition.at))))
            .chain(destinations.map(|one| &one.destination).enumerate().map(hosts("route")))
            .chain(mirrors.map(|mirror| &mirror.destination).enumerate().map(hosts("mirrors")));
        self.origin(&object.at(route.at), &object.id, settings)
    }

    /// The port of a destination: the one it names, the service's only one, else the one the client
    /// addressed.
    fn destination_port(&self, destination: &crate::model::Destination, addressed: u16) -> u16 {
        if let Some(port) = &destination.port {
            return port.value;
        }
        match self.service(&destination.host.value).map(|service| service.ports.as_slice()) {
            Some([only]) => only.number,
            _ => addressed,
        }
    }
}

fn named(name: &str) -> RouteConfiguration {
    RouteConfiguration::new(name.into(), Vec::new())
}

/// Direct responses may be longer than Envoy's default of 4 KiB allows.
fn with_room_for_bodies(mut routes: RouteConfiguration) -> RouteConfiguration {
    let length = |route: &Arc<Route>| match &route.action {
        RouteAction::DirectResponse(answer) => answer.body.len(),
        _ => 0,
    };
    let longest = routes.virtual_hosts.iter().flat_map(|host| &host.routes).map(length).max();
    routes.max_direct_response_body =
        longest.filter(|longest| *longest > 4096).and_then(|longest| u32::try_from(longest).ok());
    routes
}

/// The name of a cluster.
pub(super) fn cluster_name(port: u16, subset: &str, host: &str) -> Name {
    Outbound { port, subset, host }.to_string().into()
}

#[cfg(test)]
mod tests;
