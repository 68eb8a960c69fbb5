//! One HTTP/2 connection as calls see it, and the guard of one stream on it.

use super::Endpoint;
use crate::{
    body::CallBody,
    cluster::{breaker::Permit, outcome::Outcome},
};
use http::{Request, Response, Uri, uri::Scheme};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2::SendRequest},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// A connection that takes calls. It lives until its last stream ends, even when it is no longer offered.
pub(crate) struct Conn {
    sender: SendRequest<CallBody>,
    scheme: Scheme,
    streams: AtomicU32,
    requests: AtomicU32,
    peer_limit: AtomicU32,
    _permit: Option<Permit>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("scheme", &self.scheme).field("streams", &self.streams).finish()
    }
}

impl Conn {
    pub(crate) fn new(sender: SendRequest<CallBody>, scheme: Scheme, permit: Option<Permit>) -> Self {
        Self {
            sender,
            scheme,
            streams: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            peer_limit: AtomicU32::new(u32::MAX),
            _permit: permit,
        }
    }

    /// The connection ended or will take no more streams.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(crate) fn streams(&self) -> u32 {
        self.streams.load(Ordering::SeqCst)
    }

    /// Requests begun on it.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub(crate) fn peer_limit(&self) -> u32 {
        self.peer_limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_peer_limit(&self, streams: usize) {
        self.peer_limit.store(u32::try_from(streams).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// One stream more, unless there are `cap`; how many requests that makes.
    pub(super) fn enter(&self, cap: u32) -> Option<u32> {
        let enter = |streams| (streams < cap).then(|| streams + 1);
        self.streams.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).ok()?;
        Some(self.requests.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// The URI as it is sent: HTTP/2 needs scheme and authority.
    fn complete(&self, uri: Uri, fallback: impl FnOnce() -> Option<http::uri::Authority>) -> Uri {
        if uri.scheme() == Some(&self.scheme) && uri.authority().is_some() {
            return uri;
        }
        let original = uri.clone();
        let mut parts = uri.into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = parts.authority.or_else(fallback);
        Uri::from_parts(parts).unwrap_or(original)
    }
}

/// One stream on a connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    endpoint: Arc<Endpoint>,
    conn: Arc<Conn>,
}

impl Stream {
    pub(super) fn new(endpoint: Arc<Endpoint>, conn: Arc<Conn>) -> Self {
        Self { endpoint, conn }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn record(&self, outcome: Outcome) {
        self.endpoint.record(outcome);
    }

    /// Sends a request; a request that was not sent is in the error.
    pub(crate) async fn send(
        &self,
        mut request: Request<CallBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<CallBody>>> {
        let uri = std::mem::take(request.uri_mut());
        *request.uri_mut() = self.conn.complete(uri, || {
            let own = || self.endpoint.address.to_string().parse().ok();
            self.endpoint.authority().or_else(own)
        });
        *request.version_mut() = http::Version::HTTP_2;
        self.conn.sender.clone().try_send_request(request).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.conn.streams.fetch_sub(1, Ordering::SeqCst);
        self.endpoint.leave();
    }
}
