//! The routes and HTTP filters of one filter chain, ready to judge requests (gRFC A36, A39, A41).
//!
//! Overrides are resolved when the configuration comes: each route carries the filters that hold for it, in
//! order. A request is judged by the filters of its route first; then the route's action must be the one
//! that a server has. Everything that is missing or misplaced refuses the request.

use super::{authz, connection::Connection};
use mesh_xds::{
    config::XdsError,
    matcher::{DomainPattern, Headers},
    name::Name,
    resource::{
        filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter},
        listener::{HttpConnectionManager, RouteSource},
        rbac::Rbac,
        route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost},
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// A request as policies see it: what [`super::request`] read, over a connection.
pub(super) struct Call<'a> {
    /// Path, authority and headers.
    pub(super) headers: Headers<'a>,
    pub(super) connection: &'a Connection,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The handler gets it.
    Serve,
    /// A policy denies it. Not for the peer to know.
    Denied {
        /// Instance name of the filter.
        filter: Arc<str>,
        /// The policy that matched, if one did.
        policy: Option<Arc<str>>,
    },
    /// It cannot be judged, or leads nowhere.
    Unavailable(Arc<str>),
}

/// Routes and filters; or why every request is refused.
pub(super) struct Http(Result<Hosts, Arc<str>>);

/// A RouteConfiguration, and its virtual hosts ready to judge.
struct Hosts {
    config: Arc<RouteConfiguration>,
    hosts: Vec<Host>,
}

struct Host {
    domains: Vec<DomainPattern>,
    routes: Vec<GuardedRoute>,
}

/// A route, and the filters that hold for it.
struct GuardedRoute {
    route: Arc<Route>,
    filters: Vec<Filter>,
}

/// One filter in force.
enum Filter {
    Rbac {
        name: Arc<str>,
        rbac: Arc<Rbac>,
    },
    /// Cannot be honoured by a server, so refuses.
    Unusable(Arc<str>),
}

/// Routes by name, as the control plane sent them.
type Routes = BTreeMap<Name, Result<Arc<RouteConfiguration>, XdsError>>;

impl Http {
    pub(super) fn new(manager: &HttpConnectionManager, routes: &Routes) -> Self {
        let config = match &manager.routes {
            RouteSource::Inline(config) => config,
            RouteSource::Rds(name) => match routes.get(name) {
                Some(Ok(config)) => config,
                Some(Err(error)) => return Self(Err(error.to_string().into())),
                None => return Self(Err(format!("route configuration {name} has not come").into())),
            },
        };
        let hosts = config.virtual_hosts.iter().map(|host| Host::new(host, &manager.filters)).collect();
        Self(Ok(Hosts { config: config.clone(), hosts }))
    }

    #[cfg(test)]
    pub(super) fn broken(why: &str) -> Self {
        Self(Err(why.into()))
    }

    /// Why every request is refused, if it is.
    pub(super) fn broken_by(&self) -> Option<&Arc<str>> {
        self.0.as_ref().err()
    }

    /// Judges a request.
    pub(super) fn judge(&self, call: &Call<'_>) -> Verdict {
        let Hosts { config, hosts } = match &self.0 {
            Ok(hosts) => hosts,
            Err(reason) => return Verdict::Unavailable(reason.clone()),
        };
        let unavailable = |reason: String| Verdict::Unavailable(reason.into());
        let Some(host) = select(hosts, config.compared(call.headers.authority)) else {
            return unavailable(format!("no virtual host for authority {:?}", call.headers.authority));
        };
        let Some(guarded) = host.routes.iter().find(|guarded| matches(&guarded.route.matches, call)) else {
            return Verdict::Unavailable("no route matches".into());
        };
        for filter in &guarded.filters {
            match filter {
                Filter::Rbac { name, rbac } => {
                    if let Err(policy) = authz::judge(rbac, call) {
                        return Verdict::Denied { filter: name.clone(), policy };
                    }
                }
                Filter::Unusable(reason) => return Verdict::Unavailable(reason.clone()),
            }
        }
        match &guarded.route.action {
            RouteAction::NonForwarding => Verdict::Serve,
            RouteAction::Forward(_) => {
                unavailable(format!("route {:?} forwards, and a server cannot", guarded.route.name))
            }
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => {
                unavailable(format!("route {:?} answers, and is for clients", guarded.route.name))
            }
            RouteAction::Unsupported(action) => unavailable(format!(
                "the action of route {:?} is {action}, which a server does not have",
                guarded.route.name
            )),
        }
    }
}

impl Host {
    fn new(host: &VirtualHost, filters: &[HttpFilter]) -> Self {
        let guard = |route: &Arc<Route>| GuardedRoute {
            route: route.clone(),
            filters: filters
                .iter()
                .filter_map(|filter| in_force(filter, [&route.overrides, &host.overrides]))
                .collect(),
        };
        Self { domains: host.domains.clone(), routes: host.routes.iter().map(guard).collect() }
    }
}

/// What a filter does for a route: the most specific override replaces its configuration whole.
fn in_force(filter: &HttpFilter, overrides: [&FilterOverrides; 2]) -> Option<Filter> {
    let unusable = |what: &str| Some(Filter::Unusable(format!("HTTP filter {}: {what}", filter.name).into()));
    let config = match overrides.into_iter().find_map(|level| level.get(&filter.name)) {
        Some(FilterOverride::Disabled) => return None,
        Some(FilterOverride::Config(config)) => config,
        Some(_) => return unusable("its override is for a filter of another type"),
        None if filter.disabled => return None,
        None => &filter.config,
    };
    match (&filter.config, config) {
        (FilterConfig::Router, FilterConfig::Router) => None,
        (FilterConfig::Rbac(_), FilterConfig::Rbac(rbac)) => {
            Some(Filter::Rbac { name: filter.name.clone(), rbac: rbac.clone() })
        }
        (FilterConfig::Fault(_), FilterConfig::Fault(_)) => unusable("a server does not inject faults"),
        (one, other) if std::mem::discriminant(one) != std::mem::discriminant(other) => {
            unusable("its override is for a filter of another type")
        }
        // Accepted only when [`crate::FEATURES`] has it.
        _ => unusable("a server does not have this filter"),
    }
}

/// The virtual host for an authority: exact, then suffix, then prefix, then any; the longest pattern wins.
fn select<'a>(hosts: &'a [Host], authority: &str) -> Option<&'a Host> {
    let mut best = None;
    for host in hosts {
        let rank = host.domains.iter().filter_map(|domain| domain.rank(authority)).max();
        // The first of two equal ones stays.
        if rank.is_some() && rank > best.map(|(rank, _)| rank).unwrap_or(None) {
            best = Some((rank, host));
        }
    }
    best.map(|(_, host)| host)
}

fn matches(wanted: &RouteMatch, call: &Call<'_>) -> bool {
    wanted.path.matches(call.headers.path)
        && wanted.headers.iter().all(|header| header.matches(&call.headers))
        // The path of a gRPC call has no query, so nothing that is asked of one holds.
        && wanted.query.is_empty()
        && wanted.fraction.is_none_or(|fraction| fraction.hit(fastrand::u32(..1_000_000)))
}

#[cfg(test)]
mod tests;
