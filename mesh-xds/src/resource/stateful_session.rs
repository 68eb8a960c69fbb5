//! Session affinity by cookie (gRFC A55, A60) or by header (Envoy).

pub(super) mod wire;

use http::{HeaderName, StatusCode};
use std::{sync::Arc, time::Duration};

/// `envoy.extensions.filters.http.stateful_session.v3.StatefulSession`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSession {
    /// Absent: the filter does nothing.
    pub state: Option<SessionState>,
    /// A call whose session's endpoint cannot be used fails instead of going to another (Envoy's `strict`): with
    /// this status if the endpoint is not there at all, which is 503 unless something else is said.
    pub strict: Option<StatusCode>,
}

/// Where a caller keeps the endpoint of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// `envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState`.
    Cookie(SessionCookie),
    /// `envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState`: in this header, of requests and
    /// of responses.
    Header(HeaderName),
}

/// `envoy.type.http.v3.Cookie`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: Arc<str>,
    /// How long it lives; zero: as long as the caller.
    pub ttl: Duration,
    /// Path of the calls that it is for (RFC 6265, 5.1.4). Default `/`.
    pub path: Arc<str>,
    /// Further attributes of the cookie that is given.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl SessionCookie {
    /// Whether calls of this path have a session (RFC 6265, 5.1.4).
    pub fn is_for(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&*self.path) else { return false };
        rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_its_path_and_what_lies_below() {
        let cookie = |path: &str| SessionCookie {
            name: "s".into(),
            ttl: Duration::ZERO,
            path: path.into(),
            attributes: Vec::new(),
        };
        for (of, path, expected) in [
            ("/", "/r.Reviews/List", true),
            ("/r.Reviews", "/r.Reviews/List", true),
            ("/r.Reviews/", "/r.Reviews/List", true),
            ("/r.Reviews/List", "/r.Reviews/List", true),
            ("/r.Rev", "/r.Reviews/List", false),
            ("/r.Reviews/List", "/r.Reviews", false),
            ("/other", "/r.Reviews/List", false),
        ] {
            assert_eq!(cookie(of).is_for(path), expected, "{of} {path}");
        }
    }
}
