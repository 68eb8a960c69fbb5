//! From an [`XdsConfig`] to a [`RouteTable`].

use super::{
    Action, Answer, ByHeader, Choice, Compiled, Destination, Forwarding, Reply, RouteTable, index::Index,
};
use crate::{lb::draw::Draw, stack::deadline::Limit};
use http::uri::Authority;
use mesh_xds::{
    config::{ClusterConfig, Effective, XdsConfig},
    name::Name,
    resource::route::{Destination as ConfiguredDestination, Forward, HeaderMutation, Route, RouteAction},
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
        let effective = |weighted| self.config.effective(route, forward, weighted);
        let (choices, draw): (Box<[Choice<U>]>, _) = match &forward.destination {
            ConfiguredDestination::Cluster(name) => {
                ([self.choice(name, &effective(None))].into(), Draw::default())
            }
            ConfiguredDestination::Weighted(weighted) => (
                weighted.iter().map(|one| self.choice(&one.cluster, &effective(Some(one)))).collect(),
                Draw::new(weighted.iter().map(|weighted| weighted.weight.get())),
            ),
            ConfiguredDestination::Header(_) => (Box::default(), Draw::default()),
        };
        let by_header = match &forward.destination {
            ConfiguredDestination::Header(header) => {
                // Every call takes the name and the cluster that it has.
                Some(ByHeader { header: header.clone(), choice: self.choice(&"".into(), &effective(None)) })
            }
            ConfiguredDestination::Cluster(_) | ConfiguredDestination::Weighted(_) => None,
        };
        let mirrors =
            forward.mirrors.iter().map(|mirror| (mirror.clone(), self.destination(&mirror.cluster)));
        Forwarding {
            limit: effective(None).time_limit().map(Limit::from),
            priority: forward.priority,
            retry: effective(None).retry().cloned(),
            hedge: effective(None).hedge().copied(),
            hash: forward.hash.as_slice().into(),
            path_rewrite: forward.path_rewrite.clone(),
            auto_host_rewrite: forward.auto_host_rewrite,
            mirrors: mirrors.collect(),
            by_header,
            choices,
            draw,
        }
    }

    fn answer(&self, route: &Route, reply: Reply) -> Action<U> {
        let levels = self.config.header_levels(route, None);
        Action::Answer(Answer { reply, response: changes(levels.iter().map(|(_, level)| &level.response)) })
    }

    fn choice(&self, name: &Name, effective: &Effective<'_>) -> Choice<U> {
        let levels = effective.headers();
        let headers = || levels.iter().map(|(_, headers)| *headers);
        Choice {
            name: name.clone(),
            cluster: self.destination(name),
            session: effective.session().cloned(),
            faults: effective.faults().cloned().collect(),
            request: changes(headers().map(|level| &level.request)),
            response: changes(headers().map(|level| &level.response)).into(),
            authority: effective
                .authority()
                .and_then(|(_, value)| Authority::try_from(value.as_bytes()).ok()),
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
