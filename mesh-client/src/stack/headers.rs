//! Authority and path rewriting. Header rules are [`HeaderMutation::apply`](mesh_xds::resource::route::HeaderMutation).

use http::{Uri, uri::Authority};
use mesh_xds::{matcher::PathMatcher, resource::route::PathRewrite};
use std::borrow::Cow;

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
    use mesh_xds::resource::route::RegexRewrite;

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
