//! One target's configuration over time (gRFC A74): what it wants watched, and what is published.
//!
//! A change is published when it is complete. Until then what was published stays in force, its resources
//! stay watched, and changes *of those* (endpoints, above all) are still published, also below a cluster that is to
//! change itself. So it is when a new part cannot be had because the control plane is away, or was rejected: that costs
//! nothing that is good.
//!
//! When another control plane takes over (gRFC A71), what it says replaces what was published as a whole, once it
//! is complete; until then what was published stays as it is, for a view is never made of the words of two. If
//! all that the successor has is an error, the view of its predecessor stays too: nothing good is lost by a
//! change of control planes, unless the successor asks for that (`fail_on_data_errors`). A view from disk gives
//! way to anything.

use super::{
    ClusterConfig, Lookup, ServerXdsConfig, Source, XdsConfig, XdsError, XdsErrorCause,
    graph::{Clusters, Walk, Withheld, or_equal, routes_of},
    lookup::sharing,
};
use crate::{
    client::Key,
    name::{Name, ResourceType},
    resource::{
        AnyResource, Listener, RouteConfiguration,
        listener::{HttpConnectionManager, RouteSource},
        route::VirtualHost,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What follows from what is known.
#[derive(Debug)]
pub struct Resolution<T> {
    /// Everything that has to be watched from now on.
    pub wanted: BTreeSet<Key>,
    /// To be published, when it differs from what was.
    pub publish: Option<Result<Arc<T>, XdsError>>,
}

/// The part of a configuration above the clusters.
#[derive(Clone)]
struct Roots {
    listener: Arc<Listener>,
    http: Arc<HttpConnectionManager>,
    routes: Arc<RouteConfiguration>,
    virtual_host: Arc<VirtualHost>,
}

/// What is in force.
struct Published<T> {
    config: Result<Arc<T>, XdsError>,
    /// Who said it.
    sources: BTreeSet<Source>,
    /// What it is made of.
    wanted: BTreeSet<Key>,
    /// What of it can be used again as soon as a secret is there.
    withheld: Withheld,
}

impl<T> Published<T> {
    /// Whether somebody else speaks now for a part of it.
    fn is_superseded(&self, lookup: &impl Lookup) -> bool {
        self.config.is_ok() && !self.sources.iter().all(|source| lookup.is_current(*source))
    }

    /// Whether it is better than an error of those who speak now.
    fn outlives(&self, lookup: &impl Lookup, now: &BTreeSet<Source>) -> bool {
        self.sources.iter().all(|source| !source.stored)
            && !now.iter().any(|source| lookup.drops_data(*source))
    }
}

/// Whether there is something to go on with, of those who speak now.
fn in_force<T>(held: &Option<Published<T>>, lookup: &impl Lookup) -> bool {
    held.as_ref().is_some_and(|held| held.config.is_ok() && !held.is_superseded(lookup))
}

/// Decides between what follows from what is known now, and what is in force.
fn decide<T>(
    held: &mut Option<Published<T>>,
    walk: Walk<'_, impl Lookup>,
    lookup: &impl Lookup,
    next: Option<Result<Arc<T>, XdsError>>,
    is_same: impl Fn(&Result<Arc<T>, XdsError>, &Result<Arc<T>, XdsError>) -> bool,
) -> Resolution<T> {
    let Walk { mut wanted, sources, withheld, .. } = walk;
    let superseded = held.as_ref().filter(|held| held.is_superseded(lookup));
    let next =
        next.filter(|next| next.is_ok() || superseded.is_none_or(|held| !held.outlives(lookup, &sources)));
    let Some(next) = next else {
        if let Some(held) = held.as_ref().filter(|held| held.config.is_ok()) {
            wanted.extend(held.wanted.iter().cloned());
        }
        return Resolution { wanted, publish: None };
    };
    let same = held.as_ref().is_some_and(|held| is_same(&held.config, &next));
    let publish = (!same).then(|| next.clone());
    let config = match held.take() {
        Some(held) if same => held.config,
        _ => next,
    };
    *held = Some(Published { config, sources, wanted: wanted.clone(), withheld });
    Resolution { wanted, publish }
}

/// The change is not complete: publishes what is in force with what changed below it. `walk` is what was looked at for
/// the change, `below` for that.
fn move_on<T>(
    held: &mut Published<T>,
    walk: Walk<'_, impl Lookup>,
    below: Walk<'_, impl Lookup>,
    next: Result<Arc<T>, XdsError>,
    is_same: impl Fn(&Result<Arc<T>, XdsError>, &Result<Arc<T>, XdsError>) -> bool,
) -> Resolution<T> {
    let mut wanted = walk.wanted;
    wanted.extend(below.wanted);
    // What it was made of as a whole: it is there if the change is taken back.
    wanted.extend(held.wanted.iter().cloned());
    let same = is_same(&held.config, &next);
    if !same {
        held.config.clone_from(&next);
    }
    (held.sources, held.withheld) = (below.sources, below.withheld);
    Resolution { wanted, publish: (!same).then_some(next) }
}

/// A client's target.
pub struct ClientTarget {
    listener: Name,
    authority: Arc<str>,
    published: Option<Published<XdsConfig>>,
}

impl ClientTarget {
    /// A target that resolves by this listener, with the virtual host for this authority.
    pub fn new(listener: Name, authority: Arc<str>) -> Self {
        Self { listener, authority, published: None }
    }

    /// What follows from what is known now.
    pub fn resolve(&mut self, lookup: &impl Lookup) -> Resolution<XdsConfig> {
        let in_force = in_force(&self.published, lookup);
        let mut walk = Walk::new(lookup, in_force);
        let next = match self.roots(&mut walk) {
            None => None,
            Some(Err(error)) if self.outlasts(&error, &walk, lookup) => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(roots)) => self.complete(&mut walk, &roots).map(Ok),
        };
        if next.is_none()
            && in_force
            && let Some(held) = &mut self.published
            && let Ok(current) = &held.config
        {
            let mut below = walk.anew();
            let names: BTreeSet<Name> = current.virtual_host.clusters().cloned().collect();
            below.keep(ResourceType::Listener, &self.listener);
            if let RouteSource::Rds(name) = &current.http.routes {
                below.keep(ResourceType::RouteConfiguration, name);
            }
            let clusters = below.clusters_in_force(&mut walk, &names, &current.clusters, &held.withheld);
            let version = walk.version(&self.listener);
            let next = Arc::new(XdsConfig { clusters, version, ..XdsConfig::clone(current) });
            return move_on(held, walk, below, Ok(next), same_config);
        }
        decide(&mut self.published, walk, lookup, next, same_config)
    }

    /// Whether what is in force stays although something new was rejected.
    fn outlasts(&self, error: &XdsError, walk: &Walk<'_, impl Lookup>, lookup: &impl Lookup) -> bool {
        let strict = walk.sources.iter().any(|source| lookup.drops_data(*source));
        self.current().is_some() && !strict && matches!(error.cause, XdsErrorCause::Rejected(_))
    }

    /// The configuration in force, if there is one.
    fn current(&self) -> Option<&Arc<XdsConfig>> {
        self.published.as_ref()?.config.as_ref().ok()
    }

    /// Listener and routes; `None` while one of them is not known.
    fn roots(&self, walk: &mut Walk<'_, impl Lookup>) -> Option<Result<Roots, XdsError>> {
        let before = self.current();
        let listener = match walk.listener(&self.listener)? {
            Ok(listener) => or_equal(listener, before.map(|before| &before.listener)),
            Err(error) => return Some(Err(error)),
        };
        let http = match walk.api(&listener) {
            Ok(http) => http,
            Err(error) => return Some(Err(error)),
        };
        let routes = match &http.routes {
            RouteSource::Inline(routes) => routes.clone(),
            RouteSource::Rds(name) => match walk.routes(name)? {
                Ok(routes) => or_shared(routes, before.map(|before| &before.routes)),
                Err(error) => return Some(Err(error)),
            },
        };
        let virtual_host = match walk.virtual_host(&routes, &self.authority) {
            Ok(host) => host,
            Err(error) => return Some(Err(error)),
        };
        let http = match before.filter(|before| *before.http == *http) {
            Some(before) => before.http.clone(),
            None => Arc::new(http.clone()),
        };
        Some(Ok(Roots { listener, http, routes, virtual_host }))
    }

    /// The configuration of these roots; `None` while a cluster is not known.
    fn complete(&self, walk: &mut Walk<'_, impl Lookup>, roots: &Roots) -> Option<Arc<XdsConfig>> {
        let empty = BTreeMap::new();
        let before = self.current();
        let clusters_before = before.map_or(&empty, |before| &before.clusters);
        let names: BTreeSet<Name> = roots.virtual_host.clusters().cloned().collect();
        let clusters = walk.clusters(&names, clusters_before)?;
        let Roots { listener, http, routes, virtual_host } = roots.clone();
        let version = walk.version(&self.listener);
        Some(Arc::new(XdsConfig { listener, http, routes, virtual_host, clusters, version }))
    }
}

/// With the parts of `before` that say the same. The client's cache shares them already, within what one control
/// plane said.
fn or_shared(
    routes: Arc<RouteConfiguration>,
    before: Option<&Arc<RouteConfiguration>>,
) -> Arc<RouteConfiguration> {
    let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &routes)) else { return routes };
    let old = AnyResource::RouteConfiguration(before.clone());
    match sharing(AnyResource::RouteConfiguration(routes.clone()), &old) {
        AnyResource::RouteConfiguration(shared) => shared,
        _ => routes,
    }
}

/// Whether both say the same, their versions aside.
fn same_config(current: &Result<Arc<XdsConfig>, XdsError>, next: &Result<Arc<XdsConfig>, XdsError>) -> bool {
    match (current, next) {
        (Ok(current), Ok(next)) => {
            Arc::ptr_eq(&current.listener, &next.listener)
                && Arc::ptr_eq(&current.http, &next.http)
                && Arc::ptr_eq(&current.routes, &next.routes)
                && Arc::ptr_eq(&current.virtual_host, &next.virtual_host)
                && same_clusters(&current.clusters, &next.clusters)
        }
        (Err(current), Err(next)) => current == next,
        _ => false,
    }
}

fn same_clusters(current: &Clusters, next: &Clusters) -> bool {
    current.len() == next.len()
        && current
            .iter()
            .zip(next)
            .all(|((name, current), (other, next))| name == other && same(current, next))
}

fn same<T>(current: &Result<Arc<T>, XdsError>, next: &Result<Arc<T>, XdsError>) -> bool {
    match (current, next) {
        (Ok(current), Ok(next)) => Arc::ptr_eq(current, next),
        (Err(current), Err(next)) => current == next,
        _ => false,
    }
}

/// One cluster by itself (the dynamic subscriptions of gRFC A74).
pub struct ClusterTarget {
    cluster: Name,
    published: Option<Published<ClusterConfig>>,
}

impl ClusterTarget {
    /// This cluster, whether or not a route names it.
    pub fn new(cluster: Name) -> Self {
        Self { cluster, published: None }
    }

    /// What follows from what is known now.
    pub fn resolve(&mut self, lookup: &impl Lookup) -> Resolution<ClusterConfig> {
        let current = self.published.as_ref().map(|published| published.config.clone());
        let before = current.map(|current| (self.cluster.clone(), current)).into_iter().collect();
        let in_force = in_force(&self.published, lookup);
        let mut walk = Walk::new(lookup, in_force);
        let next = walk.clusters([&self.cluster], &before).and_then(|clusters| clusters.into_values().next());
        if next.is_none()
            && (in_force || self.lacks_a_secret(lookup))
            && let Some(held) = &mut self.published
        {
            let mut below = walk.anew();
            let clusters = below.clusters_in_force(&mut walk, [&self.cluster], &before, &held.withheld);
            if let Some(next) = clusters.into_values().next() {
                return move_on(held, walk, below, next, same);
            }
        }
        decide(&mut self.published, walk, lookup, next, same)
    }
}

impl ClusterTarget {
    /// Whether a secret is all that what was published lacks, to those who speak now.
    fn lacks_a_secret(&self, lookup: &impl Lookup) -> bool {
        self.published.as_ref().is_some_and(|held| {
            held.config.is_err()
                && held.withheld.contains_key(&self.cluster)
                && held.sources.iter().all(|source| lookup.is_current(*source))
        })
    }
}

/// A server's listener (gRFC A36).
pub struct ServerTarget {
    listener: Name,
    published: Option<Published<ServerXdsConfig>>,
}

impl ServerTarget {
    /// A server configured by this listener.
    pub fn new(listener: Name) -> Self {
        Self { listener, published: None }
    }

    /// What follows from what is known now.
    pub fn resolve(&mut self, lookup: &impl Lookup) -> Resolution<ServerXdsConfig> {
        let in_force = in_force(&self.published, lookup);
        let mut walk = Walk::new(lookup, in_force);
        let current = self.published.as_ref().and_then(|published| published.config.as_ref().ok());
        let next = match walk.listener(&self.listener) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(listener)) => {
                let listener = or_equal(listener, current.map(|current| &current.listener));
                self.complete(&mut walk, listener)
            }
        };
        if next.is_none()
            && in_force
            && let Some(held) = &mut self.published
            && let Ok(current) = &held.config
        {
            let mut below = walk.anew();
            below.keep(ResourceType::Listener, &self.listener);
            let one = |(name, before): (&Name, &Result<Arc<RouteConfiguration>, XdsError>)| {
                let now = below.routes(name).map_or_else(
                    || before.clone(),
                    |now| now.map(|routes| or_shared(routes, before.as_ref().ok())),
                );
                (name.clone(), now)
            };
            let routes = current.routes.iter().map(one).collect();
            let version = walk.version(&self.listener);
            let listener = current.listener.clone();
            return move_on(
                held,
                walk,
                below,
                Ok(Arc::new(ServerXdsConfig { listener, routes, version })),
                same_server,
            );
        }
        decide(&mut self.published, walk, lookup, next, same_server)
    }

    /// The configuration of a listener; `None` while some of its routes are not known.
    fn complete(
        &self,
        walk: &mut Walk<'_, impl Lookup>,
        listener: Arc<Listener>,
    ) -> Option<Result<Arc<ServerXdsConfig>, XdsError>> {
        let names = match walk.server(&listener) {
            Ok(server) => routes_of(server),
            Err(error) => return Some(Err(error)),
        };
        let current = self.published.as_ref().and_then(|published| published.config.as_ref().ok());
        let mut routes = BTreeMap::new();
        let mut complete = true;
        for name in names {
            let before = current.and_then(|current| current.routes.get(&name)?.as_ref().ok());
            match walk.routes(&name) {
                Some(known) => {
                    routes.insert(name, known.map(|routes| or_shared(routes, before)));
                }
                None => complete = false,
            }
        }
        let version = walk.version(&self.listener);
        complete.then(|| Ok(Arc::new(ServerXdsConfig { listener, routes, version })))
    }
}

fn same_server(
    current: &Result<Arc<ServerXdsConfig>, XdsError>,
    next: &Result<Arc<ServerXdsConfig>, XdsError>,
) -> bool {
    match (current, next) {
        (Ok(current), Ok(next)) => {
            Arc::ptr_eq(&current.listener, &next.listener)
                && current.routes.len() == next.routes.len()
                && current
                    .routes
                    .iter()
                    .zip(&next.routes)
                    .all(|((name, current), (other, next))| name == other && same(current, next))
        }
        (Err(current), Err(next)) => current == next,
        _ => false,
    }
}
