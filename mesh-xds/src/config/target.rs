//! One target's configuration over time (gRFC A74): what it wants watched, and what is published.
//!
//! A change is published when it is complete. Until then what was published stays in force, its resources
//! stay watched, and changes *of those* (endpoints, above all) are still published.

use super::{
    Lookup, ServerXdsConfig, XdsConfig, XdsError,
    graph::{Clusters, Walk, routes_of},
};
use crate::{
    client::Key,
    name::Name,
    resource::{
        Listener, RouteConfiguration,
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

/// A client's target.
pub struct ClientTarget {
    listener: Name,
    authority: Arc<str>,
    published: Option<Result<Arc<XdsConfig>, XdsError>>,
}

impl ClientTarget {
    /// A target that resolves by this listener, with the virtual host for this authority.
    pub fn new(listener: Name, authority: Arc<str>) -> Self {
        Self { listener, authority, published: None }
    }

    /// What follows from what is known now.
    pub fn resolve(&mut self, lookup: &impl Lookup) -> Resolution<XdsConfig> {
        let mut walk = Walk::new(lookup);
        let next = match self.roots(&mut walk) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(roots)) => self.complete(&mut walk, &roots).map(Ok),
        };
        let next = next.or_else(|| {
            // The change is not complete. What is in force may still have changed below.
            let Some(Ok(current)) = &self.published else { return None };
            let roots = Roots {
                listener: current.listener.clone(),
                http: current.http.clone(),
                routes: current.routes.clone(),
                virtual_host: current.virtual_host.clone(),
            };
            if let RouteSource::Rds(name) = &roots.http.routes {
                // Kept watched, so that it is there if the change is taken back.
                walk.wanted.insert((crate::name::ResourceType::RouteConfiguration, name.clone()));
            }
            self.complete(&mut walk, &roots).map(Ok)
        });
        let publish = next.filter(|next| !self.is_published(next));
        if let Some(next) = &publish {
            self.published = Some(next.clone());
        }
        Resolution { wanted: walk.wanted, publish }
    }

    /// The configuration in force, if there is one.
    fn current(&self) -> Option<&Arc<XdsConfig>> {
        self.published.as_ref()?.as_ref().ok()
    }

    /// Listener and routes; `None` while one of them is not known.
    fn roots(&self, walk: &mut Walk<'_, impl Lookup>) -> Option<Result<Roots, XdsError>> {
        let before = self.current();
        let listener = match walk.listener(&self.listener)? {
            Ok(listener) => listener,
            Err(error) => return Some(Err(error)),
        };
        let http = match walk.api(&listener) {
            Ok(http) => http,
            Err(error) => return Some(Err(error)),
        };
        let routes = match &http.routes {
            RouteSource::Inline(routes) => routes.clone(),
            RouteSource::Rds(name) => match walk.routes(name)? {
                Ok(routes) => routes,
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
        let version = walk.version();
        Some(Arc::new(XdsConfig { listener, http, routes, virtual_host, clusters, version }))
    }

    /// Whether this is what is published, its version aside.
    fn is_published(&self, next: &Result<Arc<XdsConfig>, XdsError>) -> bool {
        match (&self.published, next) {
            (Some(Ok(current)), Ok(next)) => {
                Arc::ptr_eq(&current.listener, &next.listener)
                    && Arc::ptr_eq(&current.http, &next.http)
                    && Arc::ptr_eq(&current.routes, &next.routes)
                    && Arc::ptr_eq(&current.virtual_host, &next.virtual_host)
                    && same_clusters(&current.clusters, &next.clusters)
            }
            (Some(Err(current)), Err(next)) => current == next,
            _ => false,
        }
    }
}

fn same_clusters(current: &Clusters, next: &Clusters) -> bool {
    current.len() == next.len()
        && current.iter().zip(next).all(|((name, current), (other, next))| {
            name == other
                && match (current, next) {
                    (Ok(current), Ok(next)) => Arc::ptr_eq(current, next),
                    (Err(current), Err(next)) => current == next,
                    _ => false,
                }
        })
}

/// A server's listener (gRFC A36).
pub struct ServerTarget {
    listener: Name,
    published: Option<Result<Arc<ServerXdsConfig>, XdsError>>,
}

impl ServerTarget {
    /// A server configured by this listener.
    pub fn new(listener: Name) -> Self {
        Self { listener, published: None }
    }

    /// What follows from what is known now.
    pub fn resolve(&mut self, lookup: &impl Lookup) -> Resolution<ServerXdsConfig> {
        let mut walk = Walk::new(lookup);
        let next = match walk.listener(&self.listener) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(listener)) => Self::complete(&mut walk, listener),
        };
        let next = next.or_else(|| match &self.published {
            Some(Ok(current)) => Self::complete(&mut walk, current.listener.clone()),
            _ => None,
        });
        let publish = next.filter(|next| !self.is_published(next));
        if let Some(next) = &publish {
            self.published = Some(next.clone());
        }
        Resolution { wanted: walk.wanted, publish }
    }

    /// The configuration of a listener; `None` while some of its routes are not known.
    fn complete(
        walk: &mut Walk<'_, impl Lookup>,
        listener: Arc<Listener>,
    ) -> Option<Result<Arc<ServerXdsConfig>, XdsError>> {
        let names = match walk.server(&listener) {
            Ok(server) => routes_of(server),
            Err(error) => return Some(Err(error)),
        };
        let mut routes = BTreeMap::new();
        let mut complete = true;
        for name in names {
            match walk.routes(&name) {
                Some(known) => {
                    routes.insert(name, known);
                }
                None => complete = false,
            }
        }
        let version = walk.version();
        complete.then(|| Ok(Arc::new(ServerXdsConfig { listener, routes, version })))
    }

    fn is_published(&self, next: &Result<Arc<ServerXdsConfig>, XdsError>) -> bool {
        match (&self.published, next) {
            (Some(Ok(current)), Ok(next)) => {
                Arc::ptr_eq(&current.listener, &next.listener)
                    && current.routes.len() == next.routes.len()
                    && current.routes.iter().zip(&next.routes).all(|((name, current), (other, next))| {
                        name == other
                            && match (current, next) {
                                (Ok(current), Ok(next)) => Arc::ptr_eq(current, next),
                                (Err(current), Err(next)) => current == next,
                                _ => false,
                            }
                    })
            }
            (Some(Err(current)), Err(next)) => current == next,
            _ => false,
        }
    }
}
