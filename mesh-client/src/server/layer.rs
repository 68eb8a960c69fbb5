//! Judges every request before the program's services see it.
//!
//! In order: the connection must be this server's; spoofable headers go; path and authority are read; the
//! connection's current rules decide (routes, then the HTTP filters with their overrides, gRFC A36, A39,
//! A41). What is let through runs as the handler of an incoming request, so that the calls it makes inherit
//! its deadline, and counts as in flight until its response has ended. What goes wrong fails closed.

use super::{
    connection::{ConnectInfo, Rules},
    http::{Call, Verdict},
    request,
    state::{self, InFlight, Shared},
};
use crate::{context::Incoming, timeout};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use mesh_xds::matcher::Headers;
use pin_project::pin_project;
use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::{Status, transport::server::TcpConnectInfo};
use tower_layer::Layer;
use tower_service::Service;

/// Guards the services of a tonic server: `Server::builder().layer(server.layer())`.
#[derive(Clone)]
pub struct InboundLayer {
    server: Arc<Shared>,
}

impl InboundLayer {
    pub(super) fn new(server: Arc<Shared>) -> Self {
        Self { server }
    }
}

impl fmt::Debug for InboundLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboundLayer")
    }
}

impl<S> Layer<S> for InboundLayer {
    type Service = Inbound<S>;

    fn layer(&self, inner: S) -> Inbound<S> {
        Inbound { inner, server: self.server.clone() }
    }
}

/// A service that is only reached by requests which the mesh lets through.
#[derive(Clone)]
pub struct Inbound<S> {
    inner: S,
    server: Arc<Shared>,
}

impl<S: fmt::Debug> fmt::Debug for Inbound<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inbound").field(&self.inner).finish()
    }
}

impl<S, B, R> Service<Request<B>> for Inbound<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = Response<InboundBody<R>>;
    type Error = S::Error;
    type Future = InboundFuture<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let incoming = match admit(&self.server, &mut request) {
            Ok(incoming) => incoming,
            Err(status) => return InboundFuture(State::Refused(Some(status))),
        };
        let guard = self.server.in_flight();
        let handler = Box::pin(incoming.clone().scope(self.inner.call(request)));
        InboundFuture(State::Handler { handler, after: Some((incoming, guard)) })
    }
}

/// Lets the request through, prepared for its handler, or says how to refuse it.
fn admit<B>(server: &Shared, request: &mut Request<B>) -> Result<Incoming, Status> {
    let Some(ConnectInfo(connection)) = request.extensions().get::<ConnectInfo>().cloned() else {
        tracing::error!("a request came over a connection that is not from MeshServer::incoming(): refused");
        return Err(Status::unavailable("this server accepts calls only over the connections of the mesh"));
    };
    if !state::same(&connection.server, server) {
        tracing::error!(?connection, "a request came over a connection of another MeshServer: refused");
        return Err(Status::unavailable("this server accepts calls only over its own connections"));
    }
    let uri = request.uri().clone();
    let path = request::path(request.method(), &uri)?;
    let authenticated = connection.security.peer().is_some();
    let incoming = Incoming::from_headers(request.headers(), authenticated, Instant::now());
    request::strip(request.headers_mut());
    let authority = request::authority(&uri, request.headers_mut())?;
    if let Some(left) = request.headers().get(timeout::GRPC_TIMEOUT) {
        timeout::parse(left.as_bytes()).map_err(|error| Status::internal(error.to_string()))?;
    }
    let scheme = if connection.security.is_tls() { "https" } else { "http" };
    let headers = Headers { map: request.headers(), authority: &authority, path, scheme };
    let call = Call { headers, connection: &connection };
    let rules = connection.rules();
    let verdict = match &**rules {
        _ if connection.has_expired() => Verdict::Unavailable("the peer's certificate has ended".into()),
        Rules::Chain(chain) => chain.http.judge(&call),
        Rules::Refused(reason) => Verdict::Unavailable(reason.clone()),
    };
    match verdict {
        Verdict::Serve => {}
        Verdict::Denied { filter, policy } => {
            server.denied();
            let peer = connection.security.peer().map(ToString::to_string);
            let policy = policy.as_deref().unwrap_or("none allows it");
            let (remote, peer) = (connection.remote, peer.as_deref().unwrap_or("unauthenticated"));
            tracing::warn!(%remote, peer, path, %filter, policy, "request denied");
            return Err(Status::permission_denied("RBAC: access denied"));
        }
        Verdict::Unavailable(reason) => {
            tracing::info!(remote = %connection.remote, path, %reason, "request refused");
            // Names of the configuration are not for everyone who can connect.
            return Err(Status::unavailable(
                "the mesh does not let this server take the call: its log says why",
            ));
        }
    }
    let extensions = request.extensions_mut();
    if let Some(peer) = connection.security.peer() {
        extensions.insert(peer.clone());
    }
    // So that `tonic::Request::remote_addr` works as it does without the mesh.
    let (local_addr, remote_addr) = (Some(connection.local), Some(connection.remote));
    extensions.insert(TcpConnectInfo { local_addr, remote_addr });
    Ok(incoming)
}

/// The response of an [`Inbound`].
pub struct InboundFuture<R, E>(State<R, E>);

enum State<R, E> {
    Refused(Option<Status>),
    Handler {
        handler: Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>,
        after: Option<(Incoming, InFlight)>,
    },
}

impl<R, E> Future for InboundFuture<R, E> {
    type Output = Result<Response<InboundBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Refused(status) => {
                let status = status.take().unwrap_or_else(|| Status::internal("polled after completion"));
                Poll::Ready(Ok(status.into_http()))
            }
            State::Handler { handler, after } => {
                let response = ready!(handler.as_mut().poll(cx))?;
                let after = after.take();
                Poll::Ready(Ok(response.map(|inner| InboundBody { inner: Some(inner), after })))
            }
        }
    }
}

impl<R, E> fmt::Debug for InboundFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboundFuture")
    }
}

/// The body of a response: keeps its request in flight until it ends or is dropped.
#[pin_project]
pub struct InboundBody<R> {
    /// Absent: the response is a status only.
    #[pin]
    inner: Option<R>,
    after: Option<(Incoming, InFlight)>,
}

impl<R> Default for InboundBody<R> {
    fn default() -> Self {
        Self { inner: None, after: None }
    }
}

impl<R> fmt::Debug for InboundBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboundBody")
    }
}

impl<R: Body<Data = Bytes>> Body for InboundBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        let Some(mut inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let Some((incoming, _)) = this.after else { return inner.poll_frame(cx) };
        // A streamed response may still make calls while it is read.
        let frame = std::future::poll_fn(|cx| inner.as_mut().poll_frame(cx));
        let polled = pin!(incoming.clone().scope(frame)).poll(cx);
        if matches!(polled, Poll::Ready(None)) {
            *this.after = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
