//! What passes between the stages of a call: the seam to the clusters, and the response's body.

use crate::{
    body::{CallBody, TrackedBody},
    cluster::{AttemptContext, AttemptError, Cluster, breaker::Permit},
    stack::deadline::Deadline,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// What attempts run on: a live cluster, or a fake of one in tests.
pub(crate) trait Upstream: Send + Sync + 'static {
    /// Body of a response; its end is the end of the attempt.
    type Body: Body<Data = Bytes, Error = Status> + Unpin + Send + 'static;
    /// Held while a retry is in flight; counts against the cluster's retry limit.
    type RetryPermit: Send + 'static;

    /// One try, over at the context's deadline. Dropping the future abandons it.
    fn attempt(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> impl Future<Output = Result<Response<Self::Body>, AttemptError>> + Send;

    /// Leave to retry; none when the cluster's retry limit is reached.
    fn retry_permit(&self) -> Option<Self::RetryPermit>;
}

impl Upstream for Cluster {
    type Body = TrackedBody;
    type RetryPermit = Permit;

    fn attempt(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> impl Future<Output = Result<Response<TrackedBody>, AttemptError>> + Send {
        let started = self.begin(request, context);
        self.finish(started, context)
    }

    fn retry_permit(&self) -> Option<Permit> {
        Self::retry_permit(self)
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
}

/// A response's body, bounded by the call's deadline.
#[pin_project]
pub(crate) struct BoundedBody<B, P> {
    /// Gone once the time was up, which ends the attempt.
    body: Option<B>,
    #[pin]
    deadline: Option<Sleep>,
    #[pin]
    idle: Option<Sleep>,
    bounds: Option<Bounds>,
    /// Held until the end.
    permit: Option<P>,
}

impl<B, P> BoundedBody<B, P> {
    pub(crate) fn new(body: B, bounds: Option<Bounds>, permit: Option<P>) -> Self {
        let deadline =
            bounds.as_ref().and_then(|bounds| bounds.deadline).map(|deadline| sleep_until(deadline.at));
        let idle = bounds.as_ref().and_then(|bounds| bounds.idle).map(tokio::time::sleep);
        Self { body: Some(body), deadline, idle, bounds, permit }
    }

    /// Without content.
    pub(crate) fn ended() -> Self {
        Self { body: None, deadline: None, idle: None, bounds: None, permit: None }
    }
}

impl<B, P> Body for BoundedBody<B, P>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        // Asked first: frames may be ready without end.
        let over = this.bounds.as_ref().and_then(|bounds| bounds.deadline);
        let over = over.is_some_and(|deadline| deadline.at <= Instant::now());
        if !over && let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            if let (Some(idle), Some(limit)) =
                (this.idle.as_mut().as_pin_mut(), this.bounds.as_ref().and_then(|bounds| bounds.idle))
            {
                idle.reset(Instant::now() + limit);
            }
            if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
                // The response is complete; nothing can be late any more.
                *this.permit = None;
                *this.bounds = None;
                this.deadline.set(None);
                this.idle.set(None);
            }
            return Poll::Ready(frame);
        }
        let late = |sleep: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>| {
            sleep.as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready())
        };
        let (timed_out, silent) = (over || late(this.deadline, cx), !over && late(this.idle, cx));
        if !timed_out && !silent {
            return Poll::Pending;
        }
        *this.body = None;
        *this.permit = None;
        Poll::Ready(Some(Err(match this.bounds {
            Some(Bounds { target, deadline: Some(deadline), .. }) if timed_out => {
                deadline.exceeded(target, "the response had not ended")
            }
            Some(Bounds { target, idle, .. }) => Status::deadline_exceeded(format!(
                "target {target}: the response was silent for {:?} (per_try_idle_timeout)",
                idle.unwrap_or_default()
            )),
            None => Status::deadline_exceeded("the response had not ended"),
        })))
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
