//! Reports with responses: in the trailers that carry the status of a call.

use super::recorder::{CallMetricsRecorder, ServerMetricsRecorder};
use crate::cluster::{answer::GRPC_STATUS, track::BINARY};
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use mesh_xds::orca;
use pin_project::pin_project;
use prost::Message as _;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tower_layer::Layer;
use tower_service::Service;

/// Lets handlers say what their calls cost, and sends it to their clients with the status of each call. For
/// `tonic::transport::Server::layer`; with a mesh, after that of the server.
#[derive(Clone, Debug, Default)]
pub struct CallMetricsLayer {
    server: Option<ServerMetricsRecorder>,
}

impl CallMetricsLayer {
    /// What handlers say in the [`CallMetricsRecorder`] of their requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// And, with every response, what the server says of itself.
    pub fn with_server_metrics(server: ServerMetricsRecorder) -> Self {
        Self { server: Some(server) }
    }
}

impl<S> Layer<S> for CallMetricsLayer {
    type Service = CallMetrics<S>;

    fn layer(&self, inner: S) -> CallMetrics<S> {
        CallMetrics { inner, server: self.server.clone() }
    }
}

/// A service whose responses carry load reports.
#[derive(Clone, Debug)]
pub struct CallMetrics<S> {
    inner: S,
    server: Option<ServerMetricsRecorder>,
}

/// Where the report of a call comes from.
#[derive(Debug)]
struct Source {
    call: CallMetricsRecorder,
    server: Option<ServerMetricsRecorder>,
}

impl Source {
    /// Adds the report to what carries the status. One that the handler put there itself stays.
    fn write(&self, headers: &mut HeaderMap) {
        let Some(report) = self.call.report(self.server.as_ref()) else { return };
        if let Ok(value) = HeaderValue::try_from(BINARY.encode(report.encode_to_vec())) {
            headers.entry(orca::TRAILER).or_insert(value);
        }
    }
}

impl<S, B, R> Service<Request<B>> for CallMetrics<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<CallMetricsBody<R>>;
    type Error = S::Error;
    type Future = CallMetricsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = CallMetricsRecorder::default();
        request.extensions_mut().insert(call.clone());
        let source = Source { call, server: self.server.clone() };
        CallMetricsFuture { inner: self.inner.call(request), source: Some(source) }
    }
}

/// The response of a [`CallMetrics`].
#[pin_project]
#[derive(Debug)]
pub struct CallMetricsFuture<F> {
    #[pin]
    inner: F,
    source: Option<Source>,
}

impl<F, R, E> Future for CallMetricsFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CallMetricsBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let mut source = this.source.take();
        if response.headers().contains_key(GRPC_STATUS) {
            // There will be no trailers.
            if let Some(source) = source.take() {
                source.write(response.headers_mut());
            }
        }
        Poll::Ready(Ok(response.map(|inner| CallMetricsBody { inner, source })))
    }
}

/// The body of such a response.
#[pin_project]
#[derive(Debug, Default)]
pub struct CallMetricsBody<R> {
    #[pin]
    inner: R,
    /// Gone with the trailers.
    source: Option<Source>,
}

impl<R: Body<Data = Bytes>> Body for CallMetricsBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        let mut polled = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
            && let Some(source) = this.source.take()
        {
            source.write(trailers);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
