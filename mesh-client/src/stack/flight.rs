//! The common call: its route is there, an endpoint is ready, and there is neither fault, copy nor retry policy.
//!
//! Everything up to handing the request to the endpoint's connection happens in [`Core::begin`], without a wait;
//! what is left is a future that has a name and needs no box. Promises: no allocation, no lock and no task hop of
//! its own; at most one look at the clock, and none without a deadline. Whatever else there is to do goes the long
//! way: [`Core::go_on`].

use super::{Answered, Call, Core, NOT_SENT, Opening, Outcome, route::Found};
use crate::{
    body::CallBody,
    call::{Started, Upstream},
    cluster::AttemptContext,
    stack::deadline::Deadline,
    table::Compiled,
};
use http::Request;
use mesh_xds::resource::route::HeaderMutation;
use pin_project::pin_project;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::Status;

/// What became of a call at once.
#[allow(clippy::large_enum_variant)] // The large ones are the usual ones.
pub(crate) enum Begun<U: Upstream> {
    /// The request was sent.
    Flight(Flight<U>),
    /// There is more to do.
    Slow(Slow<U>),
    /// It was sent to nobody, and will not be.
    Failed(Status),
}

/// A call that is not under way yet.
#[allow(clippy::large_enum_variant)] // It is boxed as part of a future.
pub(crate) enum Slow<U> {
    /// It has no route yet.
    Looking(Request<tonic::body::Body>, Opening),
    /// It has its route, of which one look is enough: a look may draw.
    Routed(Request<tonic::body::Body>, Opening, Arc<Compiled<U>>),
    /// No endpoint takes it at this moment.
    Waiting(Waiting<U>),
}

/// A request that waits to be sent.
pub(crate) struct Waiting<U> {
    request: Request<CallBody>,
    context: AttemptContext,
    cluster: Arc<U>,
    compiled: Arc<Compiled<U>>,
    deadline: Option<Deadline>,
    rules: Arc<[HeaderMutation]>,
}

/// A request on its way, up to the headers of its response. Dropping it cancels the call.
#[pin_project]
pub(crate) struct Flight<U: Upstream> {
    #[pin]
    exchange: U::Exchange,
    core: Arc<Core<U>>,
    compiled: Arc<Compiled<U>>,
    deadline: Option<Deadline>,
    /// Applied to the response.
    rules: Option<Arc<[HeaderMutation]>>,
}

impl<U: Upstream> Future for Flight<U> {
    type Output = Result<Answered<U>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let deadline = *this.deadline;
        let result = match ready!(this.exchange.poll(cx)) {
            Ok(response) => {
                this.core.finished(response, deadline, this.rules.as_deref().unwrap_or_default(), None, None)
            }
            Err(error) => Err(this.core.over(this.compiled, deadline, error, 1, None, None)),
        };
        Poll::Ready(result.inspect_err(|status| this.core.failed_here(status)))
    }
}

impl<U: Upstream> Core<U> {
    /// Begins a call: sends its request, if that takes neither a wait nor a second try.
    pub(crate) fn begin(self: &Arc<Self>, request: Request<tonic::body::Body>) -> Begun<U> {
        self.counters.calls.add_one();
        self.try_begin(request).unwrap_or_else(|status| {
            self.failed_here(&status);
            Begun::Failed(status)
        })
    }

    fn try_begin(self: &Arc<Self>, request: Request<tonic::body::Body>) -> Result<Begun<U>, Status> {
        let mut opening = self.open(&request)?;
        let compiled = match self.look(request.uri(), request.headers(), opening.wait_for_ready)? {
            Some(Found::Route(compiled)) => compiled,
            Some(Found::UnknownHost(_)) | None => {
                // It may wait from now on.
                opening.began();
                return Ok(Begun::Slow(Slow::Looking(request, opening)));
            }
        };
        if !compiled.is_plain() {
            return Ok(Begun::Slow(Slow::Routed(request, opening, compiled)));
        }
        let call = self.enter(&compiled, request.uri(), &mut opening)?;
        let Call { choice, forwarding, deadline, wait_for_ready, .. } = call;
        let cluster = call.cluster()?;
        let (mut parts, body) = request.into_parts();
        call.rewrite(&mut parts);
        if let Some(deadline) = deadline {
            let left = deadline.at.saturating_duration_since(opening.began());
            if left.is_zero() {
                return Err(deadline.exceeded(&self.target, NOT_SENT));
            }
            parts.headers.insert(crate::timeout::GRPC_TIMEOUT, crate::timeout::format(left));
        }
        let mut context = AttemptContext {
            deadline: deadline.map(|deadline| deadline.at),
            wait_for_ready,
            auto_host_rewrite: forwarding.auto_host_rewrite,
            ..AttemptContext::default()
        };
        match cluster.begin(Request::from_parts(parts, CallBody::Tonic(body)), &mut context) {
            Started::Sent(exchange) => {
                let rules = (!choice.response.is_empty()).then(|| choice.response.clone());
                Ok(Begun::Flight(Flight { exchange, core: self.clone(), compiled, deadline, rules }))
            }
            Started::Failed(error) => Err(self.over(&compiled, deadline, error, 1, None, None)),
            Started::Later(request) => {
                let (cluster, rules) = (cluster.clone(), choice.response.clone());
                Ok(Begun::Slow(Slow::Waiting(Waiting {
                    request,
                    context,
                    cluster,
                    compiled,
                    deadline,
                    rules,
                })))
            }
        }
    }
}

impl<U: Upstream> Core<U> {
    /// Sends a request that waits, and sees it through.
    pub(super) async fn wait(&self, waiting: Waiting<U>) -> Result<Outcome<U>, Status> {
        let Waiting { request, mut context, cluster, compiled, deadline, rules } = waiting;
        let result = match cluster.begin_later(request, &mut context).await {
            Ok(exchange) => exchange.await,
            Err(error) => Err(error),
        };
        match result {
            Ok(response) => self.finished(response, deadline, &rules, None, None).map(Outcome::Response),
            Err(error) => Err(self.over(&compiled, deadline, error, 1, None, None)),
        }
    }
}

/// As in [`Core::begin`], and waits for the end: for tests.
#[cfg(test)]
impl<U: Upstream> Core<U> {
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: Request<tonic::body::Body>,
    ) -> Result<Outcome<U>, Status> {
        match self.begin(request) {
            Begun::Flight(flight) => flight.await.map(Outcome::Response),
            Begun::Slow(slow) => self.go_on(slow).await,
            Begun::Failed(status) => Err(status),
        }
    }
}
