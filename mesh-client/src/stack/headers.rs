//! Header, authority and path rewriting (gRFC A111; Envoy's route, virtual host and weighted cluster levels).
//!
//! Levels apply from the most specific to the least; within one, additions in order, then removals.

use http::{HeaderMap, Uri, uri::Authority};
use mesh_xds::{
    matcher::PathMatcher,
    resource::route::{AppendAction, HeaderMutation, PathRewrite},
};
use std::borrow::Cow;

/// Applies one level.
pub(crate) fn mutate(headers: &mut HeaderMap, mutation: &HeaderMutation) {
    for addition in &mutation.add {
        let (name, value) = (&addition.name, || addition.value.clone());
        match addition.action {
            AppendAction::AppendIfExistsOrAdd => {
                headers.append(name, value());
            }
            AppendAction::AddIfAbsent => {
                headers.entry(name).or_insert_with(value);
            }
            AppendAction::OverwriteIfExistsOrAdd => {
                headers.insert(name, value());
            }
            AppendAction::OverwriteIfExists => {
                if headers.contains_key(name) {
                    headers.insert(name, value());
                }
            }
        }
    }
    for name in &mutation.remove {
        headers.remove(name);
    }
}

/// The URI of an attempt: with scheme and authority, and the path rewritten. Falls back to the path as it was
/// when the rewritten one is none.
pub(crate) fn uri(
    original: &Uri,
    authority: &Authority,
    path: &PathMatcher,
    rewrite: Option<&PathRewrite>,
) -> Uri {
    let rewritten = rewrite.and_then(|rewrite| {
        let new = rewritten(original.path(), path, rewrite);
        let with_query = match original.query() {
            Some(query) => format!("{new}?{query}"),
            None => new.into_owned(),
        };
        with_query.parse().ok()
    });
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query = rewritten.or_else(|| original.path_and_query().cloned());
    Uri::from_parts(parts).unwrap_or_else(|_| original.clone())
}

fn rewritten<'a>(path: &'a str, matched: &PathMatcher, rewrite: &PathRewrite) -> Cow<'a, str> {
    match rewrite {
        PathRewrite::Prefix(new) => {
            let rest = path.get(matched.matched_len(path)..).unwrap_or_default();
            format!("{new}{rest}").into()
        }
        PathRewrite::Regex(rewrite) => rewrite.apply(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use mesh_xds::resource::route::{HeaderAddition, RegexRewrite};

    #[test]
    fn the_four_actions_and_then_the_removals() {
        let addition = |name: &'static str, action| HeaderAddition {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static("new"),
            action,
        };
        for (action, present, absent) in [
            (AppendAction::AppendIfExistsOrAdd, &["old", "new"][..], &["new"][..]),
            (AppendAction::AddIfAbsent, &["old"], &["new"]),
            (AppendAction::OverwriteIfExistsOrAdd, &["new"], &["new"]),
            (AppendAction::OverwriteIfExists, &["new"], &[]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("there", HeaderValue::from_static("old"));
            headers.insert("gone", HeaderValue::from_static("old"));
            let mutation = HeaderMutation {
                add: vec![addition("there", action), addition("not-there", action), addition("gone", action)],
                remove: vec![HeaderName::from_static("gone")],
            };
            mutate(&mut headers, &mutation);
            let values = |name: &str| -> Vec<String> {
                headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
            };
            assert_eq!(values("there"), present, "{action:?}");
            assert_eq!(values("not-there"), absent, "{action:?}");
            assert!(values("gone").is_empty());
        }
    }

    #[test]
    fn the_path_is_rewritten_and_the_query_stays() {
        let authority = Authority::from_static("reviews:9080");
        let prefix = |new: &str| PathRewrite::Prefix(new.into());
        let regex = |pattern: &str, substitution: &str| {
            PathRewrite::Regex(RegexRewrite::new(pattern, substitution).unwrap())
        };
        for (path, matched, rewrite, expected) in [
            ("/a.B/C?q=1", PathMatcher::prefix("/a.", false), Some(prefix("/x.")), "/x.B/C?q=1"),
            ("/a.B/C", PathMatcher::exact("/a.B/C", false), Some(prefix("/x.Y/Z")), "/x.Y/Z"),
            ("/a.B/C", PathMatcher::regex("/a.*").unwrap(), Some(prefix("/x.Y/Z")), "/x.Y/Z"),
            ("/a.B/C", PathMatcher::separated_prefix("/a.B", false).unwrap(), Some(prefix("/x")), "/x/C"),
            ("/a.B/C", PathMatcher::any(), Some(regex("^/a\\.(.*)/(.*)$", "/b.\\1/\\2x")), "/b.B/Cx"),
            ("/a.B/C", PathMatcher::any(), None, "/a.B/C"),
        ] {
            let found = uri(&path.parse().unwrap(), &authority, &matched, rewrite.as_ref());
            assert_eq!(found, format!("http://reviews:9080{expected}").as_str());
        }
    }
}
