//! Delegation: a root's route hands its requests to the routes of another VirtualService.
//!
//! Istio's rules (`mergeVirtualServicesIfNeeded`): one level; the delegate must be exported to the root's
//! namespace; a route of the delegate is kept when each of its matches lies within one of the root's, once for
//! every such pair; what the delegate does not say the root says. A delegate that is missing costs the route that
//! names it, and no other.

use super::{Delegate, HeaderChanges, HttpAction, HttpMatch, HttpRoute, VirtualService};
use crate::analysis::Position;
use crate::model::object::Origin;
use crate::model::value::{Located, StringMatch};
use std::sync::Arc;

/// Why requests that a root delegates reach nothing.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// There is no such VirtualService.
    Missing,
    /// It has hosts, so it is none.
    HasHosts,
    /// The root's namespace may not use it.
    NotExported,
    /// This route of it takes no request that the root delegates.
    OutsideRoot(Position),
}

/// A [`Problem`] with the reference that has it.
#[derive(Clone, Debug)]
pub(crate) struct Unresolved {
    pub(crate) delegate: Located<Delegate>,
    /// The delegate, if there is one.
    pub(crate) found: Option<Arc<VirtualService>>,
    pub(crate) problem: Problem,
}

/// A VirtualService with its delegates' routes in the place of those that name them.
pub(crate) fn resolve<'a>(
    root: &Arc<VirtualService>,
    lookup: impl Fn(&Delegate) -> Option<&'a Arc<VirtualService>>,
) -> (Arc<VirtualService>, Vec<Unresolved>) {
    let mut problems = Vec::new();
    if !root.http.iter().any(|route| matches!(route.action, HttpAction::Delegate(_))) {
        return (root.clone(), problems);
    }
    let mut http = Vec::new();
    for route in &root.http {
        let HttpAction::Delegate(name) = &route.action else {
            http.push(route.clone());
            continue;
        };
        let found = lookup(&name.value);
        let mut fault = |problem| {
            problems.push(Unresolved { delegate: name.clone(), found: found.cloned(), problem });
        };
        match found {
            None => fault(Problem::Missing),
            Some(found) if !found.hosts.is_empty() => fault(Problem::HasHosts),
            Some(found) if !found.export_to.reaches(&root.origin.id.namespace) => fault(Problem::NotExported),
            Some(found) => {
                let origin = Arc::new(found.origin.clone());
                for own in &found.http {
                    match merge(route, own, &origin) {
                        Some(merged) => http.push(merged),
                        None => fault(Problem::OutsideRoot(own.at)),
                    }
                }
            }
        }
    }
    (Arc::new(VirtualService { http, ..VirtualService::clone(root) }), problems)
}

/// The delegate's route as the root has it; `None` when some match of it lies outside of the root's.
fn merge(root: &HttpRoute, own: &HttpRoute, origin: &Arc<Origin>) -> Option<HttpRoute> {
    let mut merged = own.clone();
    merged.written_in = Some(origin.clone());
    merged.matches = matches(&root.matches, own)?;
    merged.name = joined(root.name.as_deref(), own.name.as_deref());
    let mut written = own.written.clone();
    let mut inherit = |block, is_own: bool| {
        if !is_own {
            written.replace(block, Some(&root.written));
        }
        !is_own
    };
    if inherit("rewrite", own.rewrite.is_some()) {
        merged.rewrite.clone_from(&root.rewrite);
    }
    if inherit("timeout", own.timeout.is_some()) {
        merged.timeout = root.timeout;
    }
    if inherit("retries", own.retries.is_some()) {
        merged.retries.clone_from(&root.retries);
    }
    if inherit("fault", own.fault.is_some()) {
        merged.fault.clone_from(&root.fault);
    }
    if inherit("headers", own.headers != HeaderChanges::default()) {
        merged.headers = root.headers.clone();
    }
    if own.mirrors.is_empty() {
        merged.mirrors.clone_from(&root.mirrors);
        merged.mirrors.iter_mut().for_each(|mirror| mirror.destination.host.at = own.at);
    }
    merged.written = written;
    Some(merged)
}

fn joined(root: Option<&str>, own: Option<&str>) -> Option<String> {
    match (root, own) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

fn matches(root: &[HttpMatch], own: &HttpRoute) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(own.matches.clone());
    }
    if own.matches.is_empty() {
        // Positions are in the delegate's file.
        return Some(root.iter().map(|root| HttpMatch { at: own.at, ..root.clone() }).collect());
    }
    let mut merged = Vec::new();
    for own in &own.matches {
        let before = merged.len();
        merged.extend(root.iter().filter(|root| within(own, root)).map(|root| both(root, own)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

/// Whether every condition of the delegate narrows, or repeats, the root's.
fn within(own: &HttpMatch, root: &HttpMatch) -> bool {
    let text = |own: &Option<StringMatch>, root: &Option<StringMatch>| match (own, root) {
        (Some(own), Some(root)) => narrows(own, root),
        _ => true,
    };
    let pairs = |own: &[(String, StringMatch)], root: &[(String, StringMatch)]| {
        own.iter().all(|(name, own)| {
            root.iter().filter(|(other, _)| other == name).all(|(_, root)| narrows(own, root))
        })
    };
    // What must not match may only be repeated: to exclude less would be to take more.
    let excluded = |own: &[(String, StringMatch)], root: &[(String, StringMatch)]| {
        own.iter()
            .all(|(name, own)| root.iter().filter(|(other, _)| other == name).all(|(_, root)| own == root))
    };
    text(&own.uri, &root.uri)
        && (own.uri.is_none() || root.uri.is_none() || own.ignore_uri_case == root.ignore_uri_case)
        && text(&own.scheme, &root.scheme)
        && text(&own.method, &root.method)
        && text(&own.authority, &root.authority)
        && pairs(&own.headers, &root.headers)
        && excluded(&own.without_headers, &root.without_headers)
        && pairs(&own.query_params, &root.query_params)
        && (own.port.is_none() || root.port.is_none() || own.port == root.port)
        && (own.source_namespace.is_none()
            || root.source_namespace.is_none()
            || own.source_namespace == root.source_namespace)
        && own
            .source_labels
            .iter()
            .all(|(key, value)| root.source_labels.get(key).is_none_or(|other| other == value))
        && !(own.for_mesh == Some(true) && root.for_mesh == Some(false))
}

/// Whether whatever satisfies the first satisfies the second; regular expressions are not compared.
fn narrows(own: &StringMatch, root: &StringMatch) -> bool {
    match (own, root) {
        (_, StringMatch::Present) => true,
        (StringMatch::Exact(own), StringMatch::Exact(root)) => own == root,
        (StringMatch::Exact(own) | StringMatch::Prefix(own), StringMatch::Prefix(root)) => {
            own.starts_with(root.as_str())
        }
        _ => false,
    }
}

/// All conditions of both; the delegate's where both ask the same thing.
fn both(root: &HttpMatch, own: &HttpMatch) -> HttpMatch {
    let or = |own: &Option<StringMatch>, root: &Option<StringMatch>| own.clone().or_else(|| root.clone());
    let pairs = |own: &[(String, StringMatch)], root: &[(String, StringMatch)]| {
        let added = root.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        own.iter().chain(added).cloned().collect()
    };
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(own.source_labels.clone());
    HttpMatch {
        name: joined(root.name.as_deref(), own.name.as_deref()),
        at: own.at,
        uri: or(&own.uri, &root.uri),
        ignore_uri_case: if own.uri.is_some() { own.ignore_uri_case } else { root.ignore_uri_case },
        scheme: or(&own.scheme, &root.scheme),
        method: or(&own.method, &root.method),
        authority: or(&own.authority, &root.authority),
        headers: pairs(&own.headers, &root.headers),
        without_headers: pairs(&own.without_headers, &root.without_headers),
        query_params: pairs(&own.query_params, &root.query_params),
        port: own.port.or(root.port),
        source_labels,
        source_namespace: own.source_namespace.clone().or_else(|| root.source_namespace.clone()),
        for_mesh: own.for_mesh.or(root.for_mesh),
    }
}

#[cfg(test)]
mod tests;
