//! Where a redirect leads (Envoy's `RedirectAction`).

use super::RegexRewrite;
use crate::matcher::PathMatcher;
use std::sync::Arc;

/// `envoy.config.route.v3.RedirectAction`: what is not given stays as in the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// HTTP status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Another scheme.
    pub scheme: Option<Arc<str>>,
    /// Another host.
    pub host: Option<Arc<str>>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<RedirectPath>,
    /// Without the query.
    pub strip_query: bool,
}

/// Another path.
#[derive(Clone, Debug, PartialEq)]
pub enum RedirectPath {
    /// This one; it may bring a query, which then replaces the request's.
    Exact(Arc<str>),
    /// The part that the route matched becomes this.
    Prefix(Arc<str>),
    /// Every match of the expression is replaced.
    Regex(RegexRewrite),
}

impl Redirect {
    /// Where a request is sent that `matched` was satisfied by.
    pub fn location(
        &self,
        scheme: &str,
        authority: &str,
        path: &str,
        query: Option<&str>,
        matched: &PathMatcher,
    ) -> String {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => {
                (host, Some(port))
            }
            _ => (authority, None),
        };
        let scheme = self.scheme.as_deref().unwrap_or(scheme);
        // A port of the request belongs to the host of the request.
        let port = match (self.port, &self.host) {
            (Some(port), _) => Some(port.to_string()),
            (None, Some(_)) => None,
            (None, None) => port.map(str::to_owned),
        };
        let mut location = format!("{scheme}://{}", self.host.as_deref().unwrap_or(host));
        if let Some(port) = port {
            location.push(':');
            location.push_str(&port);
        }
        match &self.path {
            None => location.push_str(path),
            Some(RedirectPath::Exact(new)) => location.push_str(new),
            Some(RedirectPath::Prefix(new)) => {
                location.push_str(new);
                location.push_str(path.get(matched.matched_len(path)..).unwrap_or_default());
            }
            Some(RedirectPath::Regex(rewrite)) => location.push_str(&rewrite.apply(path)),
        }
        let brings_query = matches!(&self.path, Some(RedirectPath::Exact(new)) if new.contains('?'));
        if let Some(query) = query.filter(|_| !self.strip_query && !brings_query) {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_as_in_the_request() {
        let none =
            Redirect { status: 301, scheme: None, host: None, port: None, path: None, strip_query: false };
        let prefix = PathMatcher::prefix("/a.", false);
        let path = |path| Some(path);
        let regex = RegexRewrite::new("B", "D").unwrap();
        for (redirect, expected) in [
            (none.clone(), "http://h:1/a.B/C?q=1"),
            (Redirect { scheme: Some("https".into()), ..none.clone() }, "https://h:1/a.B/C?q=1"),
            (Redirect { host: Some("other".into()), ..none.clone() }, "http://other/a.B/C?q=1"),
            (Redirect { port: Some(2), ..none.clone() }, "http://h:2/a.B/C?q=1"),
            (Redirect { strip_query: true, ..none.clone() }, "http://h:1/a.B/C"),
            (
                Redirect { path: path(RedirectPath::Exact("/x?y=2".into())), ..none.clone() },
                "http://h:1/x?y=2",
            ),
            (Redirect { path: path(RedirectPath::Exact("/x".into())), ..none.clone() }, "http://h:1/x?q=1"),
            (
                Redirect { path: path(RedirectPath::Prefix("/z.".into())), ..none.clone() },
                "http://h:1/z.B/C?q=1",
            ),
            (Redirect { path: path(RedirectPath::Regex(regex)), ..none.clone() }, "http://h:1/a.D/C?q=1"),
        ] {
            assert_eq!(redirect.location("http", "h:1", "/a.B/C", Some("q=1"), &prefix), expected);
        }
        assert_eq!(none.location("http", "[::1]", "/", None, &PathMatcher::any()), "http://[::1]/");
    }
}
