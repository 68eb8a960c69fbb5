//! One connection of HTTP/2, from its first request to its end.
//!
//! Every connection ends in time: at its greatest age, give or take a tenth, so that clients spread over replicas (as
//! gRPC's MAX_CONNECTION_AGE); when nothing was asked for a while; and at shutdown. It ends in three steps. The client
//! is asked to leave (GOAWAY) and opens its next streams elsewhere; what is still open after that is ended with
//! UNAVAILABLE, which every client takes for what it is, since streams of ADS, LRS and registration never end by
//! themselves; then it is cut. Tonic's own server has no jitter, and with a grace sends no GOAWAY.

use crate::peers::Grace;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_ca::issuer::PeerInfo;
use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, service::Routes};
use tower_service::Service as _;

/// A client that is silent for this long is asked whether it is there …
const KEEPALIVE: Duration = Duration::from_secs(30);
/// … and has this long to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams at once; a client has a handful.
const STREAMS: u32 = 256;

/// How long connections last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// Until the client is asked to leave, give or take a tenth; `None`: for ever.
    pub(crate) max: Option<Duration>,
    /// The same, while it asks for nothing.
    pub(crate) idle: Duration,
    /// From then on, until its streams are ended.
    pub(crate) grace: Duration,
    /// From then on, until it is cut.
    pub(crate) last: Duration,
}

impl Ages {
    pub(crate) fn new(max: Option<Duration>) -> Self {
        let seconds = Duration::from_secs;
        Self { max, idle: seconds(300), grace: seconds(10), last: seconds(5) }
    }
}

/// Serves until the connection is over.
pub(crate) async fn serve<T>(
    io: T,
    peer: PeerInfo,
    routes: Routes,
    ages: Ages,
    mut stop: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let calls = Calls {
        routes,
        peer,
        open: watch::Sender::new(0),
        grace: Grace::default(),
        over: CancellationToken::new(),
    };
    let (mut open, grace, over) = (calls.open.subscribe(), calls.grace.clone(), calls.over.clone());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS);
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), calls));

    let max = ages.max.map(|age| Instant::now() + age.mul_f64(0.9 + 0.2 * fastrand::f64()));
    let mut step = Step::Open { idle: Some(Instant::now() + ages.idle) };
    loop {
        let due = match step {
            Step::Open { idle } => [max, idle].into_iter().flatten().min(),
            Step::Leaving(until) | Step::Over(until) => Some(until),
        };
        let is_open = matches!(step, Step::Open { .. });
        let leave = tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended with an error");
                }
                return;
            }
            () = until(due) => true,
            // Its sender lives as long as the connection.
            _ = open.changed(), if is_open => {
                let idle = (*open.borrow_and_update() == 0).then(|| Instant::now() + ages.idle);
                step = Step::Open { idle };
                false
            }
            // An error means that the app is gone, which is the same.
            _ = stop.wait_for(|stop| *stop), if is_open => true,
        };
        if !leave {
            continue;
        }
        step = match step {
            Step::Open { .. } => {
                grace.begin();
                served.as_mut().graceful_shutdown();
                Step::Leaving(Instant::now() + ages.grace)
            }
            Step::Leaving(_) => {
                over.cancel();
                Step::Over(Instant::now() + ages.last)
            }
            Step::Over(_) => {
                tracing::debug!("a connection was cut whose client did not leave");
                return;
            }
        };
    }
}

/// How far the end of a connection is.
enum Step {
    /// It serves; until when, if nothing is asked for.
    Open { idle: Option<Instant> },
    /// The client was asked to leave; until when it may.
    Leaving(Instant),
    /// Its streams were ended; until when it may read that.
    Over(Instant),
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The calls of one connection.
struct Calls {
    routes: Routes,
    peer: PeerInfo,
    /// How many there are.
    open: watch::Sender<usize>,
    grace: Grace,
    over: CancellationToken,
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.grace.clone());
        let open = Open::new(&self.open);
        let over = Box::pin(self.over.clone().cancelled_owned());
        // Always ready, as a router of axum is.
        let called = self.routes.clone().call(request);
        Box::pin(async move {
            let response = called.await?;
            Ok(response.map(|body| Answer { body: Some(body), over, _open: open }))
        })
    }
}

/// Counts a call until it is dropped.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A response that ends with its connection, if not before.
struct Answer {
    /// Until it was ended.
    body: Option<tonic::body::Body>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: Open,
}

impl Body for Answer {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.over.as_mut().poll(cx).is_ready() {
            this.body = None;
            let status = Status::unavailable(
                "this connection has reached its age, or the control plane goes: connect again (GOAWAY)",
            );
            let mut trailers = http::HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
