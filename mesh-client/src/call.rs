//! What passes between the stages of a call: the seam to the clusters, and the response's body.

use crate::{
    body::{CallBody, TrackedBody},
    cluster::{AttemptContext, AttemptError, Cluster, Exchange, breaker::Permit},
    retry::throttle::Counted,
    stack::deadline::Deadline,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use mesh_xds::resource::route::RoutingPriority;
use pin_project::pin_project;
use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

/// What attempts run on: a live cluster, or a fake of one in tests.
pub(crate) trait Upstream: Send + Sync + 'static {
    /// Body of a response; its end is the end of the attempt.
    type Body: Body<Data = Bytes, Error = Status> + Late + Place + Unpin + Send + 'static;
    /// Held while a retry is in flight; counts against the cluster's retry limit.
    type RetryPermit: Send + Unpin + 'static;
    /// A request that was sent, up to the headers of its response. Dropping it abandons the request.
    type Exchange: Future<Output = Result<Response<Self::Body>, AttemptError>> + Send + 'static;

    /// Sends a request, if that can be done at once. It is over at the context's deadline.
    fn begin(&self, request: Request<CallBody>, context: &mut AttemptContext) -> Started<Self::Exchange>;

    /// Sends a request that has to wait, as soon as that can be done.
    fn begin_later(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> impl Future<Output = Result<Self::Exchange, AttemptError>> + Send;

    /// Leave to retry; none when the cluster's retry limit is reached.
    fn retry_permit(&self, priority: RoutingPriority) -> Option<Self::RetryPermit>;

    /// Calls are balanced by their hash.
    fn wants_hash(&self) -> bool;

    /// One try, however long it has to wait.
    fn attempt(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> impl Future<Output = Result<Response<Self::Body>, AttemptError>> + Send {
        let started = self.begin(request, context);
        async move {
            match started {
                Started::Sent(exchange) => exchange.await,
                Started::Failed(error) => Err(error),
                Started::Later(request) => Box::pin(self.begin_later(request, context)).await?.await,
            }
        }
    }
}

/// A response from an endpoint.
pub(crate) trait Place {
    /// The endpoint; none when it has ended.
    fn endpoint(&self) -> Option<SocketAddr>;
}

/// A response that may take too long.
pub(crate) trait Late {
    /// It has: that counts against whoever sends it. Where it comes from, for the status: `cluster c: endpoint
    /// 10.0.0.7:9080: `; empty when it has ended.
    fn late(self) -> String;
}

/// What became of a request at once.
#[allow(clippy::large_enum_variant)] // The large ones are the usual ones.
pub(crate) enum Started<E> {
    /// It was sent.
    Sent(E),
    /// It has to wait.
    Later(Request<CallBody>),
    /// It failed.
    Failed(AttemptError),
}

impl Upstream for Cluster {
    type Body = TrackedBody;
    type RetryPermit = Permit;
    type Exchange = Exchange;

    fn begin(&self, request: Request<CallBody>, context: &mut AttemptContext) -> Started<Exchange> {
        Self::begin(self, request, context)
    }

    fn begin_later(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> impl Future<Output = Result<Exchange, AttemptError>> + Send {
        Self::begin_later(self, request, context)
    }

    fn retry_permit(&self, priority: RoutingPriority) -> Option<Permit> {
        Self::retry_permit(self, priority)
    }

    fn wants_hash(&self) -> bool {
        Self::wants_hash(self)
    }
}

/// When a response must be over.
pub(crate) struct Bounds {
    /// The target, for the status.
    pub(crate) target: Arc<str>,
    /// End of the call.
    pub(crate) deadline: Option<Deadline>,
    /// Longest silence (`per_try_idle_timeout`).
    pub(crate) idle: Option<Duration>,
    /// Present where its status counts for throttling.
    pub(crate) counted: Option<Box<Counted>>,
}

/// A response's body, bounded by the call's deadline.
pub(crate) struct BoundedBody<B, P> {
    /// Gone once the time was up, which ends the attempt.
    body: Option<B>,
    bounds: Option<Bounds>,
    /// Set when there is something to wait for: most answers come as a whole.
    timers: Option<Box<Timers>>,
    /// Held until the end.
    permit: Option<P>,
    /// A message has come.
    begun: bool,
}

/// What ends a response that does not end.
struct Timers {
    deadline: Option<Pin<Box<Sleep>>>,
    idle: Option<Pin<Box<Sleep>>>,
}

impl<B, P> BoundedBody<B, P> {
    pub(crate) fn new(body: B, bounds: Option<Bounds>, permit: Option<P>) -> Self {
        Self { body: Some(body), bounds, timers: None, permit, begun: false }
    }

    /// Without content.
    pub(crate) fn ended() -> Self {
        Self { body: None, bounds: None, timers: None, permit: None, begun: false }
    }

    /// The response is complete with this; nothing can be late any more.
    fn complete(&mut self, last: Option<&Result<Frame<Bytes>, Status>>) {
        self.permit = None;
        self.timers = None;
        if let Some(counted) = self.bounds.take().and_then(|bounds| bounds.counted) {
            match last {
                Some(Err(status)) => counted.code(status.code()),
                Some(Ok(frame)) => counted.trailers(frame.trailers_ref()),
                None => counted.trailers(None),
            }
        }
    }

    /// Whether the deadline has passed. Asked for every message but the first: they may be ready without end, or be
    /// asked for late. An answer of one message need not read a clock.
    fn is_over(&mut self) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            return false;
        }
        let deadline = self.bounds.as_ref().and_then(|bounds| bounds.deadline);
        deadline.is_some_and(|deadline| deadline.at <= Instant::now())
    }

    /// Waits for the end of the time; whether it was the deadline's.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(bounds) = &self.bounds else { return Poll::Pending };
        let timers = self.timers.get_or_insert_with(|| {
            Box::new(Timers {
                deadline: bounds.deadline.map(|deadline| Box::pin(sleep_until(deadline.at))),
                idle: bounds.idle.map(|idle| Box::pin(tokio::time::sleep(idle))),
            })
        });
        let late = |sleep: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>| {
            sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
        };
        if late(&mut timers.deadline, cx) {
            return Poll::Ready(true);
        }
        if late(&mut timers.idle, cx) { Poll::Ready(false) } else { Poll::Pending }
    }

    /// The end of a response that took too long.
    fn late(&mut self, by_deadline: bool) -> Status
    where
        B: Late,
    {
        let place = self.body.take().map(Late::late).unwrap_or_default();
        self.permit = None;
        self.timers = None;
        let mut bounds = self.bounds.take();
        if let Some(counted) = bounds.as_mut().and_then(|bounds| bounds.counted.take()) {
            counted.code(Code::DeadlineExceeded);
        }
        match bounds {
            Some(Bounds { target, deadline: Some(deadline), .. }) if by_deadline => {
                deadline.exceeded(&target, &format!("{place}the response had not ended"))
            }
            Some(Bounds { target, idle, .. }) => Status::deadline_exceeded(format!(
                "target {target}: {place}the response was silent for {:?} (per_try_idle_timeout)",
                idle.unwrap_or_default()
            )),
            None => Status::deadline_exceeded("the response had not ended"),
        }
    }
}

impl<B, P> Body for BoundedBody<B, P>
where
    B: Body<Data = Bytes, Error = Status> + Late + Unpin,
    P: Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if this.bounds.is_none() {
            if !matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) && polled.is_ready() {
                this.permit = None;
            }
            return polled;
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                if this.is_over() {
                    return Poll::Ready(Some(Err(this.late(true))));
                }
                if let Some(Timers { idle: Some(idle), .. }) = this.timers.as_deref_mut()
                    && let Some(limit) = this.bounds.as_ref().and_then(|bounds| bounds.idle)
                {
                    idle.as_mut().reset(Instant::now() + limit);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(last) => {
                this.complete(last.as_ref());
                Poll::Ready(last)
            }
            Poll::Pending => {
                let by_deadline = std::task::ready!(this.poll_late(cx));
                Poll::Ready(Some(Err(this.late(by_deadline))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// The body of a response, as the application sees it.
#[pin_project]
pub struct MeshBody {
    #[pin]
    kind: Kind,
}

#[pin_project(project = KindProjection)]
#[allow(clippy::large_enum_variant)] // The large one is the one that is used.
enum Kind {
    Mesh(#[pin] BoundedBody<TrackedBody, Permit>),
    Other(#[pin] tonic::body::Body),
}

impl From<BoundedBody<TrackedBody, Permit>> for MeshBody {
    fn from(body: BoundedBody<TrackedBody, Permit>) -> Self {
        Self { kind: Kind::Mesh(body) }
    }
}

impl From<tonic::body::Body> for MeshBody {
    fn from(body: tonic::body::Body) -> Self {
        Self { kind: Kind::Other(body) }
    }
}

impl Default for MeshBody {
    /// Empty.
    fn default() -> Self {
        tonic::body::Body::empty().into()
    }
}

impl fmt::Debug for MeshBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Mesh(_) => "MeshBody(from an endpoint)",
            Kind::Other(_) => "MeshBody(not from an endpoint)",
        })
    }
}

impl Body for MeshBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.project().kind.project() {
            KindProjection::Mesh(body) => body.poll_frame(cx),
            KindProjection::Other(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Mesh(body) => body.is_end_stream(),
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Mesh(body) => body.size_hint(),
            Kind::Other(body) => body.size_hint(),
        }
    }
}
