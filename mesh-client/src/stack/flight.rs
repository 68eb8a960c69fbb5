//! The common call: its route is there, an endpoint is ready, no fault happens to it, and there is no copy to make.
//!
//! Everything up to handing the request to the endpoint's connection happens in [`Core::begin`], without a wait;
//! what is left is a future that has a name and needs no box. Promises: no allocation, no lock and no task hop of
//! its own; at most one look at the clock, and none without a deadline. A retry policy costs two allocations: what
//! another attempt would need, and the kept body. Whatever else there is to do goes the long way:
//! [`Core::go_on`].

use super::{
    Answered, Call, Core, NOT_SENT, Opening, Outcome,
    fault::Struck,
    retry::{Answer, Repeatable, Verdict, set_timeout},
    route::Found,
};
use crate::{
    body::CallBody,
    call::{Started, Upstream},
    cluster::{AttemptContext, AttemptError},
    retry::hedging::Hedging,
    stack::deadline::Deadline,
    table::Compiled,
};
use http::{Request, Response};
use mesh_xds::resource::route::HeaderMutation;
use pin_project::pin_project;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
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
pub(crate) enum Slow<U: Upstream> {
    /// It has no route yet.
    Looking(Request<tonic::body::Body>, Opening),
    /// It has its route, of which one look is enough: a look may draw. If the program hedges it, so.
    Routed(Request<tonic::body::Body>, Opening, Arc<Compiled<U>>, Option<Hedging>),
    /// It has its route, the program does not hedge it, and this fault happens to it.
    Struck(Request<tonic::body::Body>, Opening, Arc<Compiled<U>>, Struck),
    /// No endpoint takes it at this moment.
    Waiting(Waiting<U>),
    /// Its first attempt has failed.
    Failed(About<U>, AttemptError),
}

/// A request that waits to be sent.
pub(crate) struct Waiting<U: Upstream> {
    request: Request<CallBody>,
    about: About<U>,
}

/// What is known of a call that makes its attempts.
pub(crate) struct About<U: Upstream> {
    compiled: Arc<Compiled<U>>,
    deadline: Option<Deadline>,
    /// Applied to the response.
    rules: Option<Arc<[HeaderMutation]>>,
    /// Where it goes, and with what: unless that is in `again`.
    cluster: Arc<U>,
    context: AttemptContext,
    /// For another attempt.
    again: Option<Box<Repeatable<U>>>,
}

/// A request on its way, up to the headers of its response. Dropping it cancels the call.
#[pin_project]
pub(crate) struct Flight<U: Upstream> {
    core: Arc<Core<U>>,
    /// Gone with the first attempt.
    about: Option<About<U>>,
    #[pin]
    attempt: Attempt<U>,
}

#[pin_project(project = AttemptProjection)]
enum Attempt<U: Upstream> {
    First(#[pin] U::Exchange),
    More(Pin<Box<dyn Future<Output = Result<Answered<U>, Status>> + Send>>),
}

impl<U: Upstream> Future for Flight<U> {
    type Output = Result<Answered<U>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let AttemptProjection::First(exchange) = this.attempt.as_mut().project() {
            let result = ready!(exchange.poll(cx));
            // Polled after its end it is pending for ever.
            let Some(about) = this.about.take() else { return Poll::Pending };
            match this.core.ended(about, result) {
                Ended::Over(result) => {
                    return Poll::Ready(result.inspect_err(|status| this.core.failed_here(status)));
                }
                Ended::Again(about, again, wait) => {
                    let core = this.core.clone();
                    this.attempt.set(Attempt::More(Box::pin(async move {
                        core.ended_at_last(about, again, wait).await
                    })));
                }
            }
        }
        match this.attempt.project() {
            AttemptProjection::First(_) => Poll::Pending,
            AttemptProjection::More(more) => {
                let result = ready!(more.as_mut().poll(cx));
                Poll::Ready(result.inspect_err(|status| this.core.failed_here(status)))
            }
        }
    }
}

/// What follows the first attempt.
enum Ended<U: Upstream> {
    Over(Result<Answered<U>, Status>),
    Again(About<U>, Box<Repeatable<U>>, Option<Duration>),
}

impl<U: Upstream> Core<U> {
    fn ended(&self, mut about: About<U>, result: Result<Response<U::Body>, AttemptError>) -> Ended<U> {
        let answer = match (about.again.take(), result) {
            (None, Ok(response)) => Ok(Answer { response, permit: None, idle: None, counted: None }),
            (None, Err(error)) => {
                let (cluster, context) = (about.cluster.clone(), std::mem::take(&mut about.context));
                match self.unrepeated(&about.compiled, about.deadline, cluster, context, error) {
                    Verdict::Over(answer) => answer,
                    Verdict::Again(again, wait) => return Ended::Again(about, again, wait),
                }
            }
            (Some(again), result) => match self.judge(&about.compiled, about.deadline, again, result) {
                Verdict::Over(answer) => answer,
                Verdict::Again(again, wait) => return Ended::Again(about, again, wait),
            },
        };
        Ended::Over(self.answer(&about, answer))
    }

    async fn ended_at_last(
        &self,
        about: About<U>,
        again: Box<Repeatable<U>>,
        wait: Option<Duration>,
    ) -> Result<Answered<U>, Status> {
        let answer = self.repeat(&about.compiled, about.deadline, again, wait).await;
        self.answer(&about, answer)
    }

    fn answer(&self, about: &About<U>, answer: Result<Answer<U>, Status>) -> Result<Answered<U>, Status> {
        let Answer { response, permit, idle, counted } = answer?;
        let rules = about.rules.as_deref().unwrap_or_default();
        self.finished(response, about.deadline, rules, idle, permit, counted)
    }

    /// Sends a request that waits, and sees it through.
    pub(super) async fn wait(&self, waiting: Waiting<U>) -> Result<Outcome<U>, Status> {
        let Waiting { request, mut about } = waiting;
        let About { cluster, context, again, .. } = &mut about;
        let context = again.as_mut().map_or(context, |again| &mut again.context);
        let result = match cluster.begin_later(request, context).await {
            Ok(exchange) => exchange.await,
            Err(error) => Err(error),
        };
        self.see_through(about, result).await
    }

    /// The rest of a call whose first attempt ended so.
    pub(super) async fn see_through(
        &self,
        about: About<U>,
        result: Result<Response<U::Body>, AttemptError>,
    ) -> Result<Outcome<U>, Status> {
        let answered = match self.ended(about, result) {
            Ended::Over(answered) => answered,
            Ended::Again(about, again, wait) => self.ended_at_last(about, again, wait).await,
        };
        answered.map(Outcome::Response)
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
        let hedging = self.own_hedging(request.uri());
        if hedging.is_some() || !compiled.is_plain() {
            return Ok(Begun::Slow(Slow::Routed(request, opening, compiled, hedging)));
        }
        let mut call = self.enter(&compiled, request.uri(), &mut opening)?;
        let Call { choice, deadline, .. } = call;
        if let Some(deadline) = deadline.filter(|deadline| deadline.at <= opening.began()) {
            return Err(deadline.exceeded(&self.target, NOT_SENT));
        }
        if let Some(struck) = call.strike(0, request.uri(), request.headers()) {
            return Ok(Begun::Slow(Slow::Struck(request, opening, compiled, struck)));
        }
        let (mut parts, body) = request.into_parts();
        call.rewrite(&mut parts);
        // It gives no cookie: that would not be plain.
        call.hash = call.hash(&parts).hash;
        let cluster = call.cluster()?;
        let mut context = call.context();
        let (request, mut again) = match call.policy(&parts) {
            None => {
                let mut request = Request::from_parts(parts, CallBody::Tonic(body));
                set_timeout(&mut request, context.deadline, || opening.began());
                (request, None)
            }
            policy => {
                let (request, again) = call.repeatable(cluster, policy, parts, body, opening.began())?;
                (request, Some(again))
            }
        };
        let started = cluster.begin(request, again.as_mut().map_or(&mut context, |again| &mut again.context));
        let rules = (!choice.response.is_empty()).then(|| choice.response.clone());
        let cluster = cluster.clone();
        let about = About { compiled, deadline, rules, cluster, context, again };
        Ok(match started {
            Started::Sent(exchange) => Begun::Flight(Flight {
                core: self.clone(),
                about: Some(about),
                attempt: Attempt::First(exchange),
            }),
            Started::Later(request) => Begun::Slow(Slow::Waiting(Waiting { request, about })),
            Started::Failed(error) => Begun::Slow(Slow::Failed(about, error)),
        })
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
