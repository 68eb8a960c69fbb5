//! The route table of a target: its configuration, compiled so that a call only has to look.
//!
//! A table is immutable. Everything that configuration decides is decided when it is built: which filters
//! apply to which route, which retry policy holds, which cluster a name stands for. Clusters are shared by
//! tables and channels ([`registry`]), so a new table costs no connection.

mod build;
mod index;
pub(crate) mod named;
pub(crate) mod registry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use build::same_table;

use crate::{lb::draw::Draw, stack::deadline::Limit};
use http::{HeaderMap, HeaderName, uri::Authority};
use index::Index;
use mesh_xds::{
    matcher::Headers,
    resource::{
        fault::Fault,
        retry::{HedgePolicy, RetryPolicy},
        route::{
            DirectResponse, HashKey, HashPolicy, HeaderMutation, Mirror, PathRewrite, Redirect, Route,
            RouteMatch, RoutingPriority,
        },
        stateful_session::StatefulSession,
    },
};
use std::sync::Arc;

/// What a target's calls are decided by.
pub(crate) struct RouteTable<U> {
    /// Name of the virtual host, for errors.
    pub(crate) virtual_host: Arc<str>,
    routes: Box<[Arc<Compiled<U>>]>,
    index: Index,
}

/// A route, compiled.
pub(crate) struct Compiled<U> {
    /// As configured.
    pub(crate) route: Arc<Route>,
    /// What happens to its requests.
    pub(crate) action: Action<U>,
}

/// What happens to a request.
pub(crate) enum Action<U> {
    /// It is sent.
    Forward(Box<Forwarding<U>>),
    /// It is answered here.
    Answer(Answer),
    /// It fails; why.
    Fail(&'static str),
}

/// An answer without an endpoint.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// To the response, in order; only levels that change something.
    pub(crate) response: Box<[HeaderMutation]>,
}

/// What a route answers by itself.
pub(crate) enum Reply {
    /// With a status and a text.
    Direct(Arc<DirectResponse>),
    /// To another place, which a gRPC client does not go to.
    Redirect(Arc<Redirect>),
}

impl<U> Compiled<U> {
    /// Nothing is copied or sent twice at once; callers are given no cookies, there are no sessions, and requests name
    /// no clusters. Faults are drawn for each call.
    pub(crate) fn is_plain(&self) -> bool {
        match &self.action {
            Action::Forward(forwarding) => {
                let Forwarding { mirrors, hash, hedge, choices, by_header, .. } = &**forwarding;
                let gives_cookie = |policy: &HashPolicy| matches!(&policy.key, HashKey::Cookie(cookie) if cookie.ttl.is_some());
                let few = mirrors.is_empty() && hedge.is_none() && by_header.is_none();
                few && !hash.iter().any(gives_cookie) && choices.iter().all(|choice| choice.session.is_none())
            }
            Action::Answer(_) | Action::Fail(_) => true,
        }
    }
}

/// Where to and how.
pub(crate) struct Forwarding<U> {
    /// The route's bound of a call.
    pub(crate) limit: Option<Limit>,
    /// Which circuit breakers its calls count against.
    pub(crate) priority: RoutingPriority,
    /// The route's policy, else its virtual host's.
    pub(crate) retry: Option<Arc<RetryPolicy>>,
    /// Attempts beside one another: the route's policy, else its virtual host's.
    pub(crate) hedge: Option<HedgePolicy>,
    /// What calls are hashed by, where their cluster balances so.
    pub(crate) hash: Box<[HashPolicy]>,
    /// The path sent.
    pub(crate) path_rewrite: Option<PathRewrite>,
    /// `:authority` becomes the endpoint's hostname.
    pub(crate) auto_host_rewrite: bool,
    /// Copies.
    pub(crate) mirrors: Box<[(Mirror, Destination<U>)]>,
    /// The cluster is named by the request.
    pub(crate) by_header: Option<ByHeader<U>>,
    choices: Box<[Choice<U>]>,
    draw: Draw,
}

/// The cluster is named by a header (Envoy's `cluster_header`).
pub(crate) struct ByHeader<U> {
    header: HeaderName,
    /// What holds whichever it is, without the cluster.
    choice: Choice<U>,
}

impl<U> ByHeader<U> {
    /// The name in a request: of several values the first, as in Envoy.
    pub(crate) fn name<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, String> {
        let header = &self.header;
        let Some(value) = headers.get(header) else {
            return Err(format!("header {header} is to name the cluster, and the request does not have it"));
        };
        let name = value.to_str().ok().filter(|name| (1..=named::LONGEST).contains(&name.len()));
        name.ok_or_else(|| format!("what header {header} says cannot be the name of a cluster"))
    }

    /// What holds for calls that name this cluster.
    pub(crate) fn choice(&self, name: &str, cluster: Destination<U>) -> Choice<U> {
        let Choice { name: _, cluster: _, session, faults, request, response, authority } = &self.choice;
        Choice {
            name: name.into(),
            cluster,
            session: session.clone(),
            faults: faults.clone(),
            request: request.clone(),
            response: response.clone(),
            authority: authority.clone(),
        }
    }
}

/// A cluster, or why there is none.
pub(crate) type Destination<U> = Result<Arc<U>, Arc<str>>;

/// One of a route's clusters.
pub(crate) struct Choice<U> {
    /// The cluster's name.
    pub(crate) name: Arc<str>,
    /// The cluster.
    pub(crate) cluster: Destination<U>,
    /// How calls stay with their endpoint.
    pub(crate) session: Option<Arc<StatefulSession>>,
    /// Faults that apply here.
    pub(crate) faults: Box<[Arc<Fault>]>,
    /// To the request, in order; only levels that change something.
    pub(crate) request: Box<[HeaderMutation]>,
    /// To the response, in order; only levels that change something.
    pub(crate) response: Arc<[HeaderMutation]>,
    /// Sent instead of the target's.
    pub(crate) authority: Option<Authority>,
}

impl<U> Forwarding<U> {
    /// A cluster, by weight, whatever its state (A28). None if the route has none, which parsing excludes.
    pub(crate) fn choose(&self, rng: impl FnOnce() -> fastrand::Rng) -> Option<&Choice<U>> {
        match &*self.choices {
            [only] => Some(only),
            several => several.get(self.draw.draw(&mut rng())?),
        }
    }

    /// Every cluster, for status.
    pub(crate) fn choices(&self) -> &[Choice<U>] {
        &self.choices
    }
}

impl<U> RouteTable<U> {
    /// The first route that matches.
    pub(crate) fn route(
        &self,
        request: &Headers<'_>,
        query: Option<&str>,
        rng: impl Fn() -> fastrand::Rng,
    ) -> Option<&Arc<Compiled<U>>> {
        let matches = |compiled: &&Arc<Compiled<U>>| is_match(&compiled.route.matches, request, query, &rng);
        match self.index.candidates(request.path) {
            None => self.routes.iter().find(matches),
            Some(candidates) => {
                candidates.iter().filter_map(|&route| self.routes.get(route as usize)).find(matches)
            }
        }
    }

    /// In order.
    pub(crate) fn routes(&self) -> &[Arc<Compiled<U>>] {
        &self.routes
    }
}

/// Whether a request satisfies a match. The fraction is drawn last: only for what matches otherwise.
fn is_match(
    matches: &RouteMatch,
    request: &Headers<'_>,
    query: Option<&str>,
    rng: impl Fn() -> fastrand::Rng,
) -> bool {
    matches.miss(request, query).is_none()
        && matches.fraction.is_none_or(|fraction| fraction.hit(rng().u32(0..1_000_000)))
}
