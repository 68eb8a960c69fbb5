//! One HTTP/2 connection as calls see it, and the guard of one stream on it.
//!
//! Requests go from the caller's task straight into h2: no queue, no second task, no reply channel between. Who
//! hands one over holds a lock for as long as h2's own bookkeeping takes; [`Line::close`] takes the same lock, so
//! that after it no request can slip onto a connection that is about to end.

use super::{
    Endpoint, Room,
    pump::{Pump, Pumping, Started},
};
use crate::{
    body::CallBody,
    cluster::{breaker::Permit, failure, outcome::Outcome},
    retry::{
        head::Head,
        replay::{Budget, Kept},
        spare::{self, Spare},
    },
};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::runtime::Handle;

/// While a socket takes nothing, no more than this is handed to h2 (and what one request has at once): what calls leave
/// behind that are given up meanwhile is kept there.
const MOST_UNWRITTEN: u64 = 16 << 20;
/// What h2 keeps of a request beside its messages, about.
const OF_A_REQUEST: u64 = 1 << 10;

/// What a connection's calls and its driver share.
pub(crate) struct Line {
    /// Gone with the last [`Conn`]: then the connection ends with its streams.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    open: AtomicBool,
    /// Requests handed to h2.
    sent: AtomicU64,
    /// Of those, the first that have been written to the socket for certain.
    written: AtomicU64,
    /// The same in bytes.
    bytes_sent: AtomicU64,
    bytes_written: AtomicU64,
    /// The socket takes nothing.
    blocked: AtomicBool,
    /// Where calls wait for this connection.
    room: OnceLock<Arc<Room>>,
    /// The peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    peer_limit: AtomicU32,
    /// Open, or about to be.
    streams: AtomicU32,
    /// Streams of this client itself, which are not among those.
    own: AtomicU32,
    /// Why this side has ended the connection, if it has.
    fate: OnceLock<&'static str>,
}

impl Line {
    pub(crate) fn new(sender: SendRequest<Bytes>) -> Arc<Self> {
        let line = Arc::new(Self {
            sender: Mutex::new(Some(sender)),
            open: AtomicBool::new(true),
            sent: AtomicU64::new(0),
            written: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            room: OnceLock::new(),
            peer_limit: AtomicU32::new(u32::MAX),
            streams: AtomicU32::new(0),
            own: AtomicU32::new(0),
            fate: OnceLock::new(),
        });
        #[cfg(test)]
        crate::testing::held::watch(&line, |line| {
            [("streams of a connection", line.streams.load(Ordering::SeqCst).into())]
        });
        line
    }

    /// For one who uses the connection alone, without a [`Conn`]; once.
    pub(crate) fn take_sender(&self) -> Option<SendRequest<Bytes>> {
        self.lock().take()
    }

    /// No request is handed over from now on.
    pub(super) fn close(&self) {
        let _nobody_is_handing_over = self.lock();
        self.open.store(false, Ordering::Relaxed);
    }

    /// The same, and the connection ends, for this reason.
    pub(super) fn end(&self, why: &'static str) -> String {
        self.fate.get_or_init(|| why);
        self.close();
        why.to_owned()
    }

    /// What has been handed over by now.
    pub(super) fn sent(&self) -> Handed {
        Handed { bytes: self.bytes_sent.load(Ordering::Relaxed), requests: self.sent.load(Ordering::Acquire) }
    }

    /// This is on its way.
    pub(super) fn set_written(&self, handed: Handed) {
        let held_up = self.is_held_up();
        self.written.store(handed.requests, Ordering::Release);
        self.bytes_written.store(handed.bytes, Ordering::Relaxed);
        if self.blocked.load(Ordering::Relaxed) {
            self.blocked.store(false, Ordering::Relaxed);
        }
        if held_up {
            self.tell_waiting();
        }
    }

    /// The socket takes nothing for now.
    pub(super) fn set_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// Takes no request for now: what was handed over before is not being written.
    fn is_held_up(&self) -> bool {
        let unwritten =
            || self.bytes_sent.load(Ordering::Relaxed) - self.bytes_written.load(Ordering::Relaxed);
        self.blocked.load(Ordering::Relaxed) && unwritten() >= MOST_UNWRITTEN
    }

    pub(super) fn set_peer_limit(&self, streams: usize) {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        if streams > self.peer_limit.swap(streams, Ordering::Relaxed) {
            self.tell_waiting();
        }
    }

    /// Nobody has begun to use it: it is no [`Conn`], and its sender is here.
    pub(super) fn is_unused(&self) -> bool {
        self.room.get().is_none() && self.lock().is_some()
    }

    /// There is room again.
    fn tell_waiting(&self) {
        if let Some(room) = self.room.get() {
            room.freed.notify_waiters();
        }
    }

    /// Streams that wait for an answer.
    pub(super) fn open_streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed).saturating_add(self.own.load(Ordering::Relaxed))
    }

    /// Somebody waits for an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.open_streams() > 0
    }

    fn lock(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        // h2 leaves nothing half done that a panic could expose here.
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection was given to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    pub(super) requests: u64,
    bytes: u64,
}

/// A connection that takes calls. It lives until its last stream ends, even when it is no longer offered.
pub(crate) struct Conn {
    line: Arc<Line>,
    /// It and its endpoint hold one another until it is offered no more.
    endpoint: Arc<Endpoint>,
    scheme: Scheme,
    requests: AtomicU32,
    /// Where request bodies are sent that take their time.
    runtime: Handle,
    _permit: Option<Permit>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("scheme", &self.scheme).field("streams", &self.streams()).finish()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // h2 ends a connection that nobody can send requests on any more.
        drop(self.line.lock().take());
    }
}

impl Conn {
    /// Needs a tokio runtime.
    pub(crate) fn new(
        line: Arc<Line>,
        endpoint: Arc<Endpoint>,
        scheme: Scheme,
        permit: Option<Permit>,
    ) -> Self {
        // It is this endpoint's from the first.
        let _ = line.room.set(Arc::clone(&endpoint.room));
        Self {
            line,
            endpoint,
            scheme,
            requests: AtomicU32::new(0),
            runtime: Handle::current(),
            _permit: permit,
        }
    }

    /// The connection ended or will take no more streams.
    pub(crate) fn is_closed(&self) -> bool {
        !self.line.open.load(Ordering::Relaxed)
    }

    /// It takes no request for now.
    pub(super) fn is_held_up(&self) -> bool {
        self.line.is_held_up()
    }

    /// Pretends that so many requests have begun.
    #[cfg(test)]
    pub(super) fn wear(&self, requests: u32) {
        self.requests.store(requests, Ordering::Relaxed);
    }

    pub(crate) fn streams(&self) -> u32 {
        self.line.streams.load(Ordering::SeqCst)
    }

    /// Requests begun on it.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How many streams of calls the peer allows: its SETTINGS_MAX_CONCURRENT_STREAMS, less those that this
    /// client has for itself. 0: it allows none at all.
    pub(crate) fn peer_limit(&self) -> u32 {
        let (limit, own) =
            (self.line.peer_limit.load(Ordering::Relaxed), self.line.own.load(Ordering::Relaxed));
        limit.saturating_sub(own).max(limit.min(1))
    }

    /// One stream of this client itself; none if that would leave none for calls.
    pub(super) fn enter_own(self: &Arc<Self>) -> Option<OwnStream> {
        if self.peer_limit() < 2 {
            return None;
        }
        self.line.own.fetch_add(1, Ordering::Relaxed);
        Some(OwnStream { conn: Arc::clone(self) })
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// One stream more, unless there are `cap`; how many requests that makes.
    pub(super) fn enter(&self, cap: u32) -> Option<u32> {
        let enter = |streams| (streams < cap).then(|| streams + 1);
        self.line.streams.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).ok()?;
        Some(self.requests.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// The URI as it is sent: HTTP/2 needs scheme and authority.
    fn complete(&self, uri: Uri) -> Uri {
        if uri.scheme() == Some(&self.scheme) && uri.authority().is_some() {
            return uri;
        }
        let mut parts = uri.into_parts();
        parts.scheme = Some(self.scheme.clone());
        let own = || self.endpoint.address.to_string().parse::<Authority>().ok();
        parts.authority = parts.authority.or_else(|| self.endpoint.authority()).or_else(own);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        // With all three it is a URI.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// What HTTP/1 says to the next hop has no place in HTTP/2: h2 would refuse the request for it.
fn strip(headers: &mut HeaderMap) {
    let of_hop = |(name, value): (&HeaderName, &HeaderValue)| match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => value != "trailers",
        _ => false,
    };
    while let Some(name) = headers.iter().find(|entry| of_hop(*entry)).map(|(name, _)| name.clone()) {
        headers.remove(name);
    }
}

/// A request that was not handed over.
pub(crate) enum Unsent {
    /// The connection takes none.
    Refused(Box<Request<CallBody>>),
    /// The connection failed at that very moment, and the request is gone.
    Lost(h2::Error),
}

/// A request that was handed over.
pub(crate) struct Sent {
    /// The response.
    pub(crate) response: ResponseFuture,
    /// The rest of the request.
    pub(crate) pumping: Pumping,
    /// Its place among the requests of the connection.
    pub(crate) number: u64,
    /// What is kept of it, if that was wanted and there is room.
    pub(crate) spare: Option<Spare>,
}

/// One stream on a connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    conn: Arc<Conn>,
}

impl Stream {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Self { conn }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.conn.endpoint
    }

    pub(crate) fn record(&self, outcome: Outcome) {
        self.conn.endpoint.record(outcome);
    }

    /// As [`Conn::send`].
    pub(crate) fn send(&self, request: Request<CallBody>, spares: &Arc<Budget>) -> Result<Sent, Unsent> {
        self.conn.send(request, Some(spares))
    }

    /// Why this side has ended the connection, if it has.
    pub(crate) fn fate(&self) -> Option<&'static str> {
        self.conn.line.fate.get().copied()
    }

    /// Whether this request may have reached the peer.
    pub(crate) fn may_have_arrived(&self, number: u64) -> bool {
        number <= self.conn.line.written.load(Ordering::Acquire)
    }
}

/// One stream of this client itself on a connection: no call, and not counted as one anywhere.
#[derive(Debug)]
pub(super) struct OwnStream {
    conn: Arc<Conn>,
}

impl OwnStream {
    /// As [`Conn::send`].
    pub(super) fn send(&self, request: Request<CallBody>) -> Result<Sent, Unsent> {
        self.conn.send(request, None)
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        self.conn.line.own.fetch_sub(1, Ordering::Relaxed);
        self.conn.endpoint.room.free_one();
    }
}

impl Conn {
    /// Hands a request to the connection, with as much of its body as there is; a connection that takes none
    /// gives it back. Of one that nobody else has kept, what was sent is kept within the budget, if there is one.
    fn send(&self, request: Request<CallBody>, spares: Option<&Arc<Budget>>) -> Result<Sent, Unsent> {
        let Self { line, runtime, .. } = self;
        let mut sender = line.lock();
        // None: nobody holds a `Conn` any more, which we do.
        let Some(sending) = sender.as_mut().filter(|_| line.open.load(Ordering::Relaxed)) else {
            return Err(Unsent::Refused(Box::new(request)));
        };
        match sending.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                // The driver is about to find out as well.
                line.open.store(false, Ordering::Relaxed);
                return Err(Unsent::Refused(Box::new(request)));
            }
            // Streams beyond the peer's limit wait in h2, one for each handle: this is another handle.
            Poll::Pending => *sending = sending.clone(),
        }
        let (parts, body) = request.into_parts();
        let spares = spares.filter(|_| matches!(body, CallBody::Tonic(_)));
        let kept = spares.map(|_| Box::new(Head::of(&parts.method, &parts.uri, &parts.headers)));
        let mut head = Request::new(());
        *head.method_mut() = parts.method;
        *head.uri_mut() = self.complete(parts.uri);
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = parts.headers;
        strip(head.headers_mut());
        let ended = http_body::Body::is_end_stream(&body);
        // It was ready and the head is legal, so it is taken: unless the connection failed in between.
        let (response, stream) = match sending.send_request(head, ended) {
            Ok(sent) => sent,
            Err(error) if failure::is_misuse(&error) => return Err(Unsent::Lost(error)),
            Err(error) => {
                line.open.store(false, Ordering::Relaxed);
                return Err(match kept {
                    Some(head) => Unsent::Refused(Box::new(head.request().map(|()| body))),
                    None => Unsent::Lost(error),
                });
            }
        };
        let number = line.sent.load(Ordering::Relaxed) + 1;
        line.sent.store(number, Ordering::Release);
        drop(sender);
        let Started { pumping, bytes, kept: sent } = if ended {
            let kept = spares.map(|_| spare::Sent::Whole(Kept::default()));
            Started { pumping: Pumping::none(), bytes: 0, kept }
        } else {
            Pump::new(stream, body).start(runtime, spares)
        };
        line.bytes_sent.fetch_add(OF_A_REQUEST + bytes, Ordering::Relaxed);
        let spare = spares.zip(kept).zip(sent);
        let spare = spare.and_then(|((budget, head), sent)| Spare::new(head, sent, budget));
        Ok(Sent { response, pumping, number, spare })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.conn.line.streams.fetch_sub(1, Ordering::SeqCst);
        self.conn.endpoint.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_for_the_next_hop_are_left_out() {
        let entry = |(name, value): (&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let kept = [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "me")];
        let left_out = [("connection", "close"), ("keep-alive", "5"), ("upgrade", "h2c")];
        let mut headers: HeaderMap = kept.into_iter().chain(left_out).map(entry).collect();
        strip(&mut headers);
        assert_eq!(headers, kept.into_iter().map(entry).collect());
        headers.insert("te", HeaderValue::from_static("gzip"));
        strip(&mut headers);
        assert!(!headers.contains_key("te"));
    }
}
