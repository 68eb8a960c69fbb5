//! HTTPMatchRequest to route matches.
//!
//! Our own client and Envoys are asked for pseudo headers as for any other. Other gRPC clients do not see
//! them as headers, so what gRPC fixes is decided here (a request is a POST, by `http`), and `:authority`
//! per domain of the virtual host. Their rule that an absent header matches nothing, inverted or not
//! (A28), is made up for by one route with the header and one without it.

use crate::{
    compile::client::ClientKind,
    model::{HttpMatch, Pattern, StringMatch},
};
use mesh_xds::{
    matcher::{
        FullRegex, HeaderMatch, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher, StringPattern,
    },
    resource::route::{QueryMatcher, RouteMatch},
};

/// A route match, and what is asked of the authority besides.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compile) struct Match {
    pub(in crate::compile) route: RouteMatch,
    pub(in crate::compile) authority: Vec<Test>,
}

/// A condition on a pseudo header that is decided here.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compile) struct Test {
    pattern: StringMatch,
    invert: bool,
}

impl Test {
    /// Whether it holds for a value.
    pub(in crate::compile) fn holds(&self, value: &str) -> bool {
        matches(&self.pattern, value) != self.invert
    }
}

/// More than this many alternatives of one match are not worth a client's memory.
const MAX_ALTERNATIVES: usize = 64;

/// The match that takes every request.
pub(in crate::compile) fn everything() -> Match {
    let route = RouteMatch {
        path: PathMatcher::prefix("/", false),
        headers: Vec::new(),
        query: Vec::new(),
        fraction: None,
    };
    Match { route, authority: Vec::new() }
}

/// The route matches that together mean `condition`; none when no request can match it.
pub(in crate::compile) fn alternatives(condition: &HttpMatch, kind: &ClientKind) -> Vec<Match> {
    let grpc = matches!(kind, ClientKind::Grpc { .. });
    let Some(split) = Split::of(condition, grpc) else { return Vec::new() };
    let Some(path) = path(&split.path, condition.ignore_uri_case) else { return Vec::new() };
    let Some(query) = query(condition) else { return Vec::new() };
    let mut headers = vec![split.wanted];
    for (matcher, missing_matches) in split.unwanted {
        if !grpc || matcher.kind == HeaderMatch::Present(true) {
            headers.iter_mut().for_each(|list| list.push(matcher.clone()));
            continue;
        }
        let absent = HeaderMatcher { kind: HeaderMatch::Present(false), invert: false, ..matcher.clone() };
        let absent =
            Some(HeaderMatcher { treat_missing_as_empty: false, ..absent }).filter(|_| missing_matches);
        let present = HeaderMatcher { treat_missing_as_empty: false, ..matcher };
        headers = headers
            .iter()
            .flat_map(|list| {
                let with = |one: &HeaderMatcher| [list.as_slice(), std::slice::from_ref(one)].concat();
                [Some(with(&present)), absent.as_ref().map(with)]
            })
            .flatten()
            .collect();
        if headers.len() > MAX_ALTERNATIVES {
            tracing::warn!("too many `withoutHeaders` for a gRPC client; the route is left out for it");
            return Vec::new();
        }
    }
    headers
        .into_iter()
        .map(|headers| Match {
            route: RouteMatch { path: path.clone(), headers, query: query.clone(), fraction: None },
            authority: split.authority.clone(),
        })
        .collect()
}

/// The conditions of a match by what they are asked of.
struct Split<'a> {
    path: Vec<&'a StringMatch>,
    authority: Vec<Test>,
    wanted: Vec<HeaderMatcher>,
    /// With the answer for a request that has no such header.
    unwanted: Vec<(HeaderMatcher, bool)>,
}

impl<'a> Split<'a> {
    /// `None` when no request can match.
    fn of(condition: &'a HttpMatch, grpc: bool) -> Option<Self> {
        let mut split = Self {
            path: condition.uri.iter().collect(),
            authority: Vec::new(),
            wanted: Vec::new(),
            unwanted: Vec::new(),
        };
        let method = condition.method.iter().map(|pattern| (":method", pattern, false));
        let scheme = condition.scheme.iter().map(|pattern| (":scheme", pattern, false));
        let authority = condition.authority.iter().map(|pattern| (":authority", pattern, false));
        let wanted = condition.headers.iter().map(|(name, pattern)| (name.as_str(), pattern, false));
        let unwanted = condition.without_headers.iter().map(|(name, pattern)| (name.as_str(), pattern, true));
        for (name, pattern, invert) in scheme.chain(method).chain(authority).chain(wanted).chain(unwanted) {
            let Ok(name) = HeaderOrPseudo::parse(name) else {
                // `:status`, which no request has.
                if invert { continue } else { return None }
            };
            let test = Test { pattern: pattern.clone(), invert };
            match name {
                HeaderOrPseudo::Method if grpc && test.holds("POST") => {}
                // Between processes of a mesh, requests are sent as `http`; TLS is the transport's.
                HeaderOrPseudo::Scheme if grpc && test.holds("http") => {}
                HeaderOrPseudo::Method | HeaderOrPseudo::Scheme if grpc => return None,
                HeaderOrPseudo::Authority if grpc => split.authority.push(test),
                HeaderOrPseudo::Path if grpc && !invert => split.path.push(pattern),
                HeaderOrPseudo::Path if grpc => {
                    tracing::warn!(
                        "`withoutHeaders` on `:path` cannot be told to a gRPC client; the route is left out"
                    );
                    return None;
                }
                name if invert => split.unwanted.push(unwanted_header(name, pattern)?),
                name => split.wanted.push(header(name, pattern)?),
            }
        }
        Some(split)
    }
}

fn unwanted_header(name: HeaderOrPseudo, pattern: &StringMatch) -> Option<(HeaderMatcher, bool)> {
    let mut matcher = header(name, pattern)?.inverted();
    matcher.treat_missing_as_empty = *pattern != StringMatch::Present;
    Some((matcher, !matches(pattern, "")))
}

/// One matcher that means all the conditions; `None` when nothing can match them.
fn path(conditions: &[&StringMatch], ignore_case: bool) -> Option<PathMatcher> {
    let mut all = conditions.iter().copied().filter(|condition| **condition != StringMatch::Present);
    let Some(mut best) = all.next() else { return Some(everything().route.path) };
    for other in all {
        best = match (best, other) {
            (StringMatch::Exact(value), test) | (test, StringMatch::Exact(value)) => {
                if !matches(test, value) {
                    return None;
                }
                if matches!(best, StringMatch::Exact(_)) { best } else { other }
            }
            (StringMatch::Prefix(one), StringMatch::Prefix(two)) if one.starts_with(two.as_str()) => best,
            (StringMatch::Prefix(one), StringMatch::Prefix(two)) if two.starts_with(one.as_str()) => other,
            (StringMatch::Prefix(_), StringMatch::Prefix(_)) => return None,
            _ => {
                tracing::warn!(
                    "`uri` and `:path` cannot be asked of one request together; the route is left out"
                );
                return None;
            }
        };
    }
    Some(match best {
        StringMatch::Exact(value) => PathMatcher::exact(value, ignore_case),
        StringMatch::Prefix(value) => PathMatcher::prefix(value, ignore_case),
        StringMatch::Regex(pattern) => PathMatcher::Regex(regex(pattern)?),
        StringMatch::Present => return Some(everything().route.path),
    })
}

fn header(name: HeaderOrPseudo, pattern: &StringMatch) -> Option<HeaderMatcher> {
    Some(match string(pattern)? {
        Some(matcher) => HeaderMatcher::string(name, matcher),
        None => HeaderMatcher::present(name),
    })
}

fn query(condition: &HttpMatch) -> Option<Vec<QueryMatcher>> {
    let pairs = condition.query_params.iter();
    pairs
        .map(|(name, pattern)| Some(QueryMatcher { name: name.as_str().into(), value: string(pattern)? }))
        .collect()
}

/// The matcher of a pattern; `Some(None)` when it only has to be there.
fn string(pattern: &StringMatch) -> Option<Option<StringMatcher>> {
    let pattern = match pattern {
        StringMatch::Exact(value) => StringPattern::Exact(value.as_str().into()),
        StringMatch::Prefix(value) if value.is_empty() => return Some(None),
        StringMatch::Prefix(value) => StringPattern::Prefix(value.as_str().into()),
        StringMatch::Regex(pattern) => StringPattern::Regex(regex(pattern)?),
        StringMatch::Present => return Some(None),
    };
    Some(Some(StringMatcher { pattern, ignore_case: false }))
}

/// The compiled form; the model has compiled it once already, so it is never `None`.
fn regex(pattern: &Pattern) -> Option<FullRegex> {
    FullRegex::new(pattern.as_str()).ok()
}

fn matches(pattern: &StringMatch, value: &str) -> bool {
    match pattern {
        StringMatch::Exact(wanted) => wanted == value,
        StringMatch::Prefix(prefix) => value.starts_with(prefix.as_str()),
        StringMatch::Regex(pattern) => regex(pattern).is_some_and(|regex| regex.matches(value)),
        StringMatch::Present => !value.is_empty(),
    }
}
