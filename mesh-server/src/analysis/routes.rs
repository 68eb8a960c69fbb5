//! Routes that no request can reach (IST0130) and matches that an earlier one covers (IST0131).

use super::{Code, Finding, Position, Severity};
use crate::model::{HttpAction, HttpMatch, HttpRoute, Model, StringMatch, VirtualService};

pub(super) fn analyze(model: &Model, findings: &mut Vec<Finding>) {
    for object in model.config.virtual_services() {
        unreachable(object, findings);
        ineffective(object, findings);
    }
}

fn unreachable(object: &VirtualService, findings: &mut Vec<Finding>) {
    let mut earlier: Vec<&HttpMatch> = Vec::new();
    let mut catch_all: Option<&HttpRoute> = None;
    for route in &object.http {
        let duplicate = !route.matches.is_empty()
            && route.matches.iter().all(|own| earlier.iter().any(|other| same(own, other)));
        if let Some(first) = catch_all {
            findings.push(
                warning(object, route.at, "no request reaches this route: an earlier one takes everything")
                    .with_related(object.origin.at(first.at), "takes every request")
                    .with_help("move the route without `match` to the end"),
            );
        } else if duplicate {
            findings.push(warning(
                object,
                route.at,
                "no request reaches this route: earlier routes have the same matches",
            ));
        }
        let takes_all = route.matches.is_empty()
            || route.matches.iter().any(|own| own.is_catch_all() && for_everyone(own));
        // What a delegate takes is said by its routes.
        let delegates = matches!(route.action, HttpAction::Delegate(_));
        if catch_all.is_none() && takes_all && !delegates {
            catch_all = Some(route);
        }
        earlier.extend(&route.matches);
    }
}

fn warning(object: &VirtualService, at: Position, message: &str) -> Finding {
    Finding::new(Code::VirtualServiceUnreachableRule, Severity::Warning, message)
        .at(object.origin.at(at))
        .about(&object.origin.id)
}

fn ineffective(object: &VirtualService, findings: &mut Vec<Finding>) {
    let mut earlier: Vec<&HttpMatch> = Vec::new();
    for own in object.http.iter().flat_map(|route| &route.matches) {
        if let Some(other) = earlier.iter().find(|other| same(own, other) || covers(other, own)) {
            findings.push(
                Finding::new(
                    Code::VirtualServiceIneffectiveMatch,
                    Severity::Info,
                    "an earlier match already takes these requests",
                )
                .at(object.origin.at(own.at))
                .about(&object.origin.id)
                .with_related(object.origin.at(other.at), "this one"),
            );
        }
        earlier.push(own);
    }
}

/// True when a match asks nothing of the client.
fn for_everyone(matched: &HttpMatch) -> bool {
    matched.for_mesh.is_none() && matched.source_labels.is_empty() && matched.source_namespace.is_none()
}

fn same(a: &HttpMatch, b: &HttpMatch) -> bool {
    same_but_uri(a, b) && a.uri == b.uri && a.ignore_uri_case == b.ignore_uri_case
}

/// True when `wide` takes everything that `narrow` takes, by the prefix of its path.
fn covers(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    let Some(StringMatch::Prefix(prefix)) = &wide.uri else { return false };
    let starts = match &narrow.uri {
        Some(StringMatch::Prefix(path) | StringMatch::Exact(path)) => path.starts_with(prefix.as_str()),
        _ => false,
    };
    starts && wide.ignore_uri_case == narrow.ignore_uri_case && same_but_uri(wide, narrow)
}

fn same_but_uri(a: &HttpMatch, b: &HttpMatch) -> bool {
    let get = StringMatch::Exact("GET".to_owned());
    let sorted = |pairs: &[(String, StringMatch)]| {
        let mut pairs = pairs.to_vec();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    };
    // As in Istio: a match without a method counts as GET here.
    a.method.as_ref().unwrap_or(&get) == b.method.as_ref().unwrap_or(&get)
        && a.scheme == b.scheme
        && a.authority == b.authority
        && sorted(&a.headers) == sorted(&b.headers)
        && sorted(&a.without_headers) == sorted(&b.without_headers)
        && sorted(&a.query_params) == sorted(&b.query_params)
        && a.port == b.port
        && a.source_labels == b.source_labels
        && a.source_namespace == b.source_namespace
        && a.for_mesh == b.for_mesh
}
