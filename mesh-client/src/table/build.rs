//! From an [`XdsConfig`] to a [`RouteTable`].

use super::{Action, Answer, Choice, Compiled, Destination, Forwarding, Reply, RouteTable, index::Index};
use crate::{lb::draw::Draw, stack::deadline::Limit};
use http::uri::Authority;
use mesh_xds::{
    config::{ClusterConfig, XdsConfig},
    name::Name,
    resource::{
        fault::Fault,
        filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter},
        route::{
            Destination as ConfiguredDestination, Forward, HeaderMutation, HeaderMutations, HeaderValue,
            Route, RouteAction, WeightedCluster,
        },
    },
};
use std::{collections::BTreeMap, sync::Arc};

impl<U> RouteTable<U> {
    /// Compiles; `live` gives the live cluster for a configuration.
    pub(crate) fn build(config: &XdsConfig, mut live: impl FnMut(&Arc<ClusterConfig>) -> Arc<U>) -> Self {
        let clusters = config
            .clusters
            .iter()
            .map(|(name, cluster)| {
                let cluster = match cluster {
                    Ok(cluster) => Ok(live(cluster)),
                    Err(error) => Err(error.to_string().into()),
                };
                (name.clone(), cluster)
            })
            .collect();
        let builder = Builder { config, clusters };
        let routes = &config.virtual_host.routes;
        Self {
            virtual_host: config.virtual_host.name.clone(),
            routes: routes.iter().map(|route| Arc::new(builder.compile(route))).collect(),
            index: Index::new(routes),
        }
    }
}

/// Whether a table built from one configuration is right for the other: only endpoints, or how clusters treat
/// them, may differ. Those are the clusters' own affair.
pub(crate) fn same_table(one: &XdsConfig, other: &XdsConfig) -> bool {
    let names = |config: &XdsConfig| {
        let usable = |(name, cluster): (&Name, &Result<_, _>)| (name.clone(), cluster.is_ok());
        config.clusters.iter().map(usable).collect::<Vec<_>>()
    };
    let errors = |config: &XdsConfig| {
        config.clusters.values().filter_map(|cluster| cluster.as_ref().err().cloned()).collect::<Vec<_>>()
    };
    let headers =
        |config: &XdsConfig| (config.routes.headers.clone(), config.routes.most_specific_headers_last);
    Arc::ptr_eq(&one.virtual_host, &other.virtual_host)
        && (Arc::ptr_eq(&one.routes, &other.routes) || headers(one) == headers(other))
        && Arc::ptr_eq(&one.http, &other.http)
        && names(one) == names(other)
        && errors(one) == errors(other)
}

struct Builder<'a, U> {
    config: &'a XdsConfig,
    clusters: BTreeMap<Name, Destination<U>>,
}

/// What a weighted cluster says for itself.
#[derive(Default)]
struct Most<'a> {
    headers: Option<&'a HeaderMutations>,
    overrides: Option<&'a FilterOverrides>,
    authority: Option<&'a HeaderValue>,
}

impl<U> Builder<'_, U> {
    fn compile(&self, route: &Arc<Route>) -> Compiled<U> {
        let action = match &route.action {
            RouteAction::Forward(forward) => Action::Forward(Box::new(self.forward(route, forward))),
            RouteAction::NonForwarding => Action::Fail("its action is for servers (non_forwarding_action)"),
            RouteAction::DirectResponse(response) => self.answer(route, Reply::Direct(response.clone())),
            RouteAction::Redirect(redirect) => self.answer(route, Reply::Redirect(redirect.clone())),
            RouteAction::Unsupported(field) => Action::Fail(field),
        };
        Compiled { route: route.clone(), action }
    }

    fn forward(&self, route: &Route, forward: &Forward) -> Forwarding<U> {
        let choices: Box<[Choice<U>]> = match &forward.destination {
            ConfiguredDestination::Cluster(name) => {
                [self.choice(route, forward, name, &Most::default())].into()
            }
            ConfiguredDestination::Weighted(weighted) => weighted
                .iter()
                .map(|WeightedCluster { cluster, headers, overrides, authority, .. }| {
                    let (headers, overrides) = (Some(headers), Some(overrides));
                    let most = Most { headers, overrides, authority: authority.as_ref() };
                    self.choice(route, forward, cluster, &most)
                })
                .collect(),
            // Accepted only by a data path that has Feature::ClusterHeader.
            ConfiguredDestination::Header(_) => Box::default(),
        };
        let draw = match &forward.destination {
            ConfiguredDestination::Cluster(_) | ConfiguredDestination::Header(_) => Draw::default(),
            ConfiguredDestination::Weighted(weighted) => {
                Draw::new(weighted.iter().map(|weighted| weighted.weight.get()))
            }
        };
        let mirrors =
            forward.mirrors.iter().map(|mirror| (mirror.clone(), self.destination(&mirror.cluster)));
        Forwarding {
            limit: Limit::of(forward, &self.config.http),
            retry: forward.retry.clone().or_else(|| self.config.virtual_host.retry.clone()),
            hash: forward.hash.as_slice().into(),
            path_rewrite: forward.path_rewrite.clone(),
            auto_host_rewrite: forward.auto_host_rewrite,
            mirrors: mirrors.collect(),
            choices,
            draw,
        }
    }

    fn answer(&self, route: &Route, reply: Reply) -> Action<U> {
        let response = changes(self.levels(route, None).iter().map(|level| &level.response));
        Action::Answer(Answer { reply, response })
    }

    /// The header changes of all levels, in the order in which they are applied.
    fn levels<'b>(&'b self, route: &'b Route, most: Option<&'b HeaderMutations>) -> Vec<&'b HeaderMutations> {
        let (host, routes) = (&self.config.virtual_host, &self.config.routes);
        let mut levels: Vec<_> =
            most.into_iter().chain([&route.headers, &host.headers, &routes.headers]).collect();
        if routes.most_specific_headers_last {
            levels.reverse();
        }
        levels
    }

    fn choice(&self, route: &Route, forward: &Forward, name: &Name, most: &Most<'_>) -> Choice<U> {
        let host = &self.config.virtual_host;
        let levels = self.levels(route, most.headers);
        let overrides: Vec<&FilterOverrides> =
            most.overrides.into_iter().chain([&route.overrides, &host.overrides]).collect();
        Choice {
            name: name.clone(),
            cluster: self.destination(name),
            faults: self.config.http.filters.iter().filter_map(|filter| fault(filter, &overrides)).collect(),
            request: changes(levels.iter().map(|level| &level.request)),
            response: changes(levels.iter().map(|level| &level.response)).into(),
            authority: most
                .authority
                .or(forward.authority.as_ref())
                .and_then(|value| Authority::try_from(value.as_bytes()).ok()),
        }
    }

    fn destination(&self, name: &Name) -> Destination<U> {
        let missing = || Err(format!("cluster {name} is not part of the configuration").into());
        self.clusters.get(name).cloned().unwrap_or_else(missing)
    }
}

/// Those that change something.
fn changes<'a>(mutations: impl Iterator<Item = &'a HeaderMutation>) -> Box<[HeaderMutation]> {
    mutations.filter(|mutation| !mutation.add.is_empty() || !mutation.remove.is_empty()).cloned().collect()
}

/// The fault that a filter stands for on this route: the most specific level replaces the others (A39), and
/// may turn on a filter that is off.
fn fault(filter: &HttpFilter, overrides: &[&FilterOverrides]) -> Option<Arc<Fault>> {
    let config = match overrides.iter().find_map(|level| level.get(&filter.name)) {
        Some(FilterOverride::Disabled) => return None,
        Some(FilterOverride::Config(config)) => config,
        None if filter.disabled => return None,
        None => &filter.config,
    };
    match config {
        FilterConfig::Fault(fault) if fault.delay.is_some() || fault.abort.is_some() => Some(fault.clone()),
        // Servers enforce RBAC; the router is what comes after the filters.
        FilterConfig::Fault(_) | FilterConfig::Rbac(_) | FilterConfig::Router => None,
    }
}
