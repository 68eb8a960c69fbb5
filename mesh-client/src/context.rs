//! What a call made inside a request handler inherits from the request being handled.
//!
//! A server scopes [`Incoming`] around its handler; every mesh call made by the handler's task then ends
//! when the request it serves ends, whether the handler passes a deadline on or not. It is task-local: a
//! task that the handler spawns inherits nothing, unless the spawned future is wrapped in
//! [`Incoming::scope`] as well.

use crate::timeout;
use http::HeaderName;
use std::future::Future;
use tokio::time::Instant;

tokio::task_local! {
    static INCOMING: Incoming;
}

/// The request that the current task serves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Incoming {
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// Its caller, an authenticated peer, has tried before and will see to further tries; or serves such a
    /// request itself. Calls made meanwhile are not retried, so that a chain of hops makes attempts in
    /// proportion to its length, and not to a power of it.
    pub retry: bool,
}

/// Sent with calls that are made while a retry is served. Believed from authenticated peers only.
pub(crate) const RETRY: HeaderName = HeaderName::from_static("x-mesh-retry");

/// gRPC's own mark of a retry (gRFC A6): how many attempts there were before.
pub(crate) const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

impl Incoming {
    /// From the headers of a request received now. An unreadable `grpc-timeout` is no deadline, as in
    /// tonic. Whether it is a retry is read only with `authenticated`: anybody else could switch retries off.
    pub fn from_headers(headers: &http::HeaderMap, authenticated: bool, now: Instant) -> Self {
        let deadline = headers
            .get(timeout::GRPC_TIMEOUT)
            .and_then(|value| timeout::parse(value.as_bytes()).ok())
            .and_then(|left| now.checked_add(left));
        let tried = |value: &http::HeaderValue| value.as_bytes().iter().any(|digit| *digit != b'0');
        let retry = authenticated
            && (headers.contains_key(RETRY) || headers.get(PREVIOUS_ATTEMPTS).is_some_and(tried));
        Self { deadline, retry }
    }

    /// The request that the current task serves, if it serves one.
    pub fn current() -> Option<Self> {
        INCOMING.try_with(Clone::clone).ok()
    }

    /// Runs `handler` as the handler of this request.
    pub async fn scope<F: Future>(self, handler: F) -> F::Output {
        INCOMING.scope(self, handler).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_handler_sees_the_deadline_of_its_request_and_a_spawned_task_does_not() {
        let now = Instant::now();
        let mut headers = http::HeaderMap::new();
        headers.insert("grpc-timeout", http::HeaderValue::from_static("250m"));
        let incoming = Incoming::from_headers(&headers, false, now);
        incoming
            .scope(async {
                let seen = Incoming::current().and_then(|incoming| incoming.deadline);
                assert_eq!(seen, Some(now + Duration::from_millis(250)));
                let spawned = tokio::spawn(async { Incoming::current().is_none() });
                assert!(spawned.await.unwrap());
            })
            .await;
        assert!(Incoming::current().is_none());
    }

    #[test]
    fn an_unreadable_timeout_is_no_deadline() {
        let mut headers = http::HeaderMap::new();
        headers.insert("grpc-timeout", http::HeaderValue::from_static("soon"));
        assert_eq!(Incoming::from_headers(&headers, false, Instant::now()).deadline, None);
    }

    #[test]
    fn a_retry_is_believed_from_an_authenticated_peer_only() {
        let with = |name: HeaderName, value| {
            let mut headers = http::HeaderMap::new();
            headers.insert(name, http::HeaderValue::from_static(value));
            headers
        };
        let retry = |headers: &http::HeaderMap, authenticated| {
            Incoming::from_headers(headers, authenticated, Instant::now()).retry
        };
        for headers in [with(RETRY, "1"), with(PREVIOUS_ATTEMPTS, "1"), with(PREVIOUS_ATTEMPTS, "20")] {
            assert!(retry(&headers, true) && !retry(&headers, false));
        }
        assert!(!retry(&with(PREVIOUS_ATTEMPTS, "0"), true) && !retry(&http::HeaderMap::new(), true));
    }
}
