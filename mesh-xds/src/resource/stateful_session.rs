//! Session affinity by cookie (gRFC A55, A60).

pub(super) mod wire;

use std::{sync::Arc, time::Duration};

/// `envoy.extensions.filters.http.stateful_session.v3.StatefulSession`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSession {
    /// Absent: the filter does nothing.
    pub cookie: Option<SessionCookie>,
}

/// `envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState`.
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
