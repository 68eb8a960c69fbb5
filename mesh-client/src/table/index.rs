//! Which routes a path can match, so that a call need not try them all.
//!
//! Promise: for every path, the candidates are, in order, a superset of the routes whose path matcher
//! matches it. So the first route that matches is the same as without an index; a property test compares.

use mesh_xds::{matcher::PathMatcher, resource::route::Route};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Fewer routes are looked through faster than looked up.
const WORTHWHILE: usize = 16;

/// Candidates by exact path, by gRPC service, and for everything else.
#[derive(Debug, Default)]
pub(crate) enum Index {
    /// Every route is a candidate.
    #[default]
    All,
    /// Looked up.
    By {
        paths: HashMap<Arc<str>, Box<[u32]>>,
        /// Key: `/package.Service/`.
        services: HashMap<Box<str>, Box<[u32]>>,
        other: Box<[u32]>,
    },
}

impl Index {
    pub(crate) fn new(routes: &[Arc<Route>]) -> Self {
        if routes.len() < WORTHWHILE {
            return Self::All;
        }
        Self::build(routes)
    }

    fn build(routes: &[Arc<Route>]) -> Self {
        let select = |can_match: &dyn Fn(&PathMatcher) -> bool| -> Box<[u32]> {
            let chosen = (0u32..).zip(routes).filter(|(_, route)| can_match(&route.matches.path));
            chosen.map(|(index, _)| index).collect()
        };
        let exact = |route: &Arc<Route>| match &route.matches.path {
            PathMatcher::Exact { value, ignore_case: false } => Some(value.clone()),
            _ => None,
        };
        let services: BTreeSet<&str> = routes.iter().filter_map(|route| service(literal(route)?)).collect();
        Self::By {
            paths: routes
                .iter()
                .filter_map(exact)
                .map(|path| (path.clone(), select(&|matcher| matcher.matches(&path))))
                .collect(),
            services: services
                .iter()
                .map(|service| ((*service).into(), select(&|matcher| can_match_in(matcher, service))))
                .collect(),
            other: select(&|matcher| can_match_elsewhere(matcher)),
        }
    }

    /// The candidates for a path, in order; none: every route is one.
    pub(crate) fn candidates(&self, path: &str) -> Option<&[u32]> {
        let Self::By { paths, services, other } = self else { return None };
        let found = paths.get(path).or_else(|| services.get(service(path)?));
        Some(found.unwrap_or(other))
    }
}

/// What paths are compared with, where case counts.
fn literal(route: &Arc<Route>) -> Option<&str> {
    match &route.matches.path {
        PathMatcher::Exact { value, ignore_case: false }
        | PathMatcher::Prefix { value, ignore_case: false } => Some(value),
        _ => None,
    }
}

/// `/package.Service/` of a path that begins so.
fn service(path: &str) -> Option<&str> {
    let method = path.strip_prefix('/')?.find('/')? + 2;
    path.get(..method)
}

/// Whether a matcher can match a path that begins with `service`.
fn can_match_in(matcher: &PathMatcher, service: &str) -> bool {
    match matcher {
        PathMatcher::Exact { value, ignore_case: false } => value.starts_with(service),
        PathMatcher::Prefix { value, ignore_case: false } => {
            value.starts_with(service) || service.starts_with(&**value)
        }
        _ => true,
    }
}

/// Whether a matcher can match a path that is not one of the exact ones, nor of one of the services.
fn can_match_elsewhere(matcher: &PathMatcher) -> bool {
    match matcher {
        PathMatcher::Exact { ignore_case: false, .. } => false,
        PathMatcher::Prefix { value, ignore_case: false } => service(value).is_none(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing;
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = String> {
        // A small alphabet, so that paths and matchers meet often.
        "/?[aAb]{0,2}(/[aAb]{0,2}){0,2}"
    }

    fn matcher() -> impl Strategy<Value = PathMatcher> {
        prop_oneof![
            3 => (path(), any::<bool>()).prop_map(|(path, fold)| PathMatcher::prefix(&path, fold)),
            3 => (path(), any::<bool>()).prop_map(|(path, fold)| PathMatcher::exact(&path, fold)),
            1 => path().prop_map(|path| PathMatcher::regex(&format!("{path}.*")).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn the_first_match_is_the_same_with_and_without_the_index(
            matchers in proptest::collection::vec(matcher(), 1..24),
            paths in proptest::collection::vec(path(), 1..40),
        ) {
            let routes: Vec<_> = matchers.into_iter().map(testing::route_for_path).collect();
            let index = Index::build(&routes);
            let own: Vec<String> = routes.iter().filter_map(|route| Some(literal(route)?.to_owned())).collect();
            for path in paths.iter().chain(&own) {
                let matching = |index: &u32| routes[*index as usize].matches.path.matches(path);
                let all: Vec<u32> = (0..routes.len() as u32).filter(matching).collect();
                let candidates = index.candidates(path).unwrap();
                prop_assert!(candidates.is_sorted());
                let found: Vec<u32> = candidates.iter().copied().filter(matching).collect();
                prop_assert_eq!(found, all, "path {}", path);
            }
        }
    }

    #[test]
    fn a_path_among_a_thousand_has_few_candidates() {
        let mut routes: Vec<_> = (0..1000)
            .map(|i| testing::route_for_path(PathMatcher::exact(&format!("/pkg.S{}/M{i}", i % 10), false)))
            .collect();
        routes.push(testing::route_for_path(PathMatcher::any()));
        let index = Index::new(&routes);
        assert_eq!(index.candidates("/pkg.S5/M5"), Some(&[5, 1000][..]));
        assert_eq!(index.candidates("/other/M"), Some(&[1000][..]));
        assert_eq!(index.candidates("/pkg.S5/Unknown").map(<[u32]>::len), Some(101));
    }
}
