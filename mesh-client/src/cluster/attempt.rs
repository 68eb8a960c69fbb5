//! One attempt: drop, pick, breaker, send; wait where that can help.
//!
//! Promises: nothing here takes a lock or allocates unless the call must wait or fails; an endpoint that is not
//! connected is never picked; a request that dying connections hand back goes to another endpoint, however many they
//! are, unseen by the caller; waiting ends with the deadline, and every error names the cluster and the cause. Drops
//! are drawn once per attempt and before anything else (A27); breakers count from the pick to the end of the stream
//! (A32).

use super::{
    Cluster, Elsewhere, Session, Shared,
    elsewhere::{Tried, Where},
    failure,
    session::Stay,
    snapshot::{Hope, Snapshot},
    track::Tracking,
};
use crate::{
    body::{CallBody, TrackedBody},
    call::Started,
    cluster::breaker::{Permit, of_priority},
    endpoint::{
        Endpoint, Reserved, WaitingForRoom,
        conn::{Sent, Stream, Unsent},
        pump::Pumping,
    },
    retry::spare::Spare,
};
use h2::client::ResponseFuture;
use http::{Request, Response, uri::Authority};
use mesh_xds::resource::route::RoutingPriority;
use pin_project::pin_project;
use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::{
    sync::{futures::Notified, watch},
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tonic::{Code, Status};

/// After so many connections that hand a request back, it waits for news of them: each of them has ended, which the
/// cluster is about to hear.
const HAND_BACKS: u32 = 16;

/// What a call brings to its attempts, and learns from them. One for all attempts of a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttemptContext {
    /// End of this attempt, up to the response headers: the earlier of the call's deadline and the per-try
    /// timeout.
    pub(crate) deadline: Option<Instant>,
    /// End of the response. Whoever set it bounds the response; one that is dropped after it counts as timed out.
    pub(crate) ends: Option<Instant>,
    /// Wait though every endpoint failed (gRPC's wait-for-ready).
    pub(crate) wait_for_ready: bool,
    /// How often a pick is repeated to avoid an endpoint of `tried` (`previous_hosts`); 0: not avoided.
    pub(crate) selection_attempts: u32,
    /// Whether, once these picks are spent, any endpoint that was not tried is looked for: as long as there is one.
    pub(crate) distinct: bool,
    /// Filled in by every attempt, if they are to be avoided.
    pub(crate) tried: Tried,
    /// Of a call whose attempts avoid the priorities it has tried (`previous_priorities`).
    pub(crate) elsewhere: Option<Box<Elsewhere>>,
    /// Of a call that has one.
    pub(crate) session: Option<Box<Session>>,
    /// Whose limits it counts against.
    pub(crate) priority: RoutingPriority,
    /// The endpoint's hostname becomes `:authority`, if it has one (gRFC A81).
    pub(crate) auto_host_rewrite: bool,
    /// What the endpoint's hostname took the place of.
    pub(crate) authority: Option<Authority>,
    /// Of the call, for clusters that balance by it; none: it may go anywhere.
    pub(crate) hash: Option<u64>,
    /// Told when a call that waits is to give up: its cluster of clusters has another leaf for it.
    pub(crate) moved: Option<watch::Receiver<()>>,
}

/// What a retry needs to know of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptErrorKind {
    /// The connection ended before the request was sent. It may be sent again.
    NeverSent,
    /// The endpoint refused the stream unprocessed (REFUSED_STREAM, GOAWAY). It may be sent again.
    RefusedStream,
    /// The stream was reset or the connection lost; it may have been processed.
    Reset,
    /// The caller's own request body failed, or its head is none that could be sent. Not retried, not counted against
    /// an endpoint.
    RequestBody,
    /// A circuit breaker is open. Not retried, not counted against an endpoint.
    LocalOverflow,
    /// Dropped by `drop_overloads`. Not retried.
    Dropped,
    /// No endpoint is connected, nor about to be.
    NoEndpoint,
    /// The endpoint of its session, which is strict, cannot be used. Not retried.
    SessionLost,
    /// The attempt's deadline passed.
    DeadlineExceeded,
}

impl AttemptErrorKind {
    /// The request was sent, or was to be, and no server has looked at it.
    pub(crate) fn is_unprocessed(self) -> bool {
        matches!(self, Self::NeverSent | Self::RefusedStream)
    }
}

/// A failed attempt.
pub(crate) struct AttemptError {
    /// For the caller: names cluster, endpoint and cause.
    pub(crate) status: Status,
    /// For the retry.
    pub(crate) kind: AttemptErrorKind,
    /// The request, if it was not sent.
    pub(crate) request: Option<Box<Request<CallBody>>>,
    /// What was kept of it, if it was sent and no server has processed it; none where a policy keeps it.
    pub(crate) spare: Option<Box<Spare>>,
}

impl AttemptError {
    /// Whether an endpoint may have seen the request.
    pub(crate) fn was_sent(&self) -> bool {
        use AttemptErrorKind::{DeadlineExceeded, RefusedStream, Reset};
        self.request.is_none() && matches!(self.kind, DeadlineExceeded | RefusedStream | Reset)
    }
}

impl fmt::Debug for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, kind, request, spare } = self;
        let (unsent, spare) = (request.is_some(), spare.is_some());
        f.debug_struct("AttemptError")
            .field("kind", kind)
            .field("status", status)
            .field("unsent", &unsent)
            .field("spare", &spare)
            .finish()
    }
}

/// Why a request was not sent.
#[allow(clippy::large_enum_variant)] // As above.
enum Unstarted {
    /// It has to wait: for room on this endpoint's connections among others, or for a connection.
    Later(Request<CallBody>, Option<SocketAddr>),
    Failed(AttemptError),
}

/// What a look at the snapshot gave.
pub(super) enum Choice {
    Go(Stream, Permit),
    /// Every connection has as many streams as it may, or takes nothing; this endpoint's among them.
    Busy(SocketAddr),
    /// Nothing is ready, but something may be soon.
    Later,
    Fail(AttemptErrorKind, String),
    /// The endpoint of a session cannot be used.
    Lost(Code, String),
}

/// A call that waits, counted by the breaker.
struct Waiting {
    changes: watch::Receiver<()>,
    _room: WaitingForRoom,
    _permit: Permit,
}

impl Cluster {
    /// Sends a request to an endpoint, if that can be done at once. Drops are drawn.
    pub(crate) fn begin(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> Started<Exchange> {
        if let Some(leaves) = &self.leaves {
            return leaves.begin(request, context);
        }
        match self.shared.start(request, context, true) {
            Ok(exchange) => Started::Sent(exchange),
            Err(Unstarted::Later(request, _)) => Started::Later(request),
            Err(Unstarted::Failed(error)) => Started::Failed(error),
        }
    }

    /// As [`Self::begin`], as soon as that can be done.
    pub(crate) async fn begin_later(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> Result<Exchange, AttemptError> {
        match &self.leaves {
            None => self.shared.start_later(request, context).await,
            Some(leaves) => leaves.begin_later(request, context).await,
        }
    }
}

/// Why a call waits no more.
enum Woken {
    Changed,
    /// To another leaf.
    Moved,
    Late,
}

/// Waits for something to change.
async fn wait(
    changes: &mut watch::Receiver<()>,
    freed: Pin<&mut Notified<'_>>,
    context: &mut AttemptContext,
) -> Woken {
    let moved = &mut context.moved;
    let change = async {
        let moved = async {
            match moved {
                Some(moved) => drop(moved.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error would be the end of the cluster, which the caller holds.
            _ = changes.changed() => Woken::Changed,
            () = freed => Woken::Changed,
            () = moved => Woken::Moved,
        }
    };
    match context.deadline {
        Some(deadline) => timeout_at(deadline, change).await.unwrap_or(Woken::Late),
        None => change.await,
    }
}

/// To the endpoint's hostname, or back to what it was at first: `original`.
fn rewrite_authority(request: &mut Request<CallBody>, endpoint: &Endpoint, original: &mut Option<Authority>) {
    if original.is_none() {
        *original = request.uri().authority().cloned();
    }
    let authority = endpoint.authority().or_else(|| original.clone());
    if authority.is_none() || request.uri().authority() == authority.as_ref() {
        return;
    }
    let original = request.uri().clone();
    let mut parts = original.clone().into_parts();
    parts.authority = authority;
    // Scheme is needed beside an authority; the connection corrects it.
    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
    *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or(original);
}

/// A request that was sent, up to the headers of its response; dropping it abandons it.
#[pin_project]
pub(crate) struct Exchange {
    response: ResponseFuture,
    /// Gone with the response.
    held: Option<(Tracking, Pumping)>,
    /// Gone with the response, too.
    spare: Option<Spare>,
    /// Among the requests of its connection.
    number: u64,
    deadline: Option<Instant>,
    /// Of the response.
    ends: Option<Instant>,
    /// Set when there is something to wait for.
    #[pin]
    timer: Option<Sleep>,
}

impl Future for Exchange {
    type Output = Result<Response<TrackedBody>, AttemptError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = Pin::new(this.response).poll(cx);
        if polled.is_pending() {
            let Some(deadline) = *this.deadline else { return Poll::Pending };
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(deadline)));
            }
            if this.timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_pending()) {
                return Poll::Pending;
            }
        }
        this.timer.set(None);
        // Polled after its end it is pending for ever.
        let Some((mut tracking, pumping)) = this.held.take() else { return Poll::Pending };
        Poll::Ready(match polled {
            Poll::Ready(Ok(mut response)) => {
                tracking.on_headers(response.status(), response.headers_mut(), *this.ends);
                if let Some(spare) = this.spare.take() {
                    spare.commit();
                }
                Ok(response.map(|incoming| TrackedBody::new(incoming, tracking, pumping)))
            }
            Poll::Ready(Err(error)) => {
                let mut error = tracking.failed(*this.number, &error);
                error.spare = this.spare.take().filter(|_| error.kind.is_unprocessed()).map(Box::new);
                Err(error)
            }
            Poll::Pending => Err(tracking.late()),
        })
    }
}

impl Shared {
    fn draw_drop(&self, snapshot: &Snapshot) -> Option<String> {
        let drops = &snapshot.config.endpoints.drops;
        if drops.is_empty() {
            return None;
        }
        let mut rng = self.dice.roll();
        let hit = drops.iter().find(|drop| drop.fraction.hit(rng.u32(0..1_000_000)))?;
        if let Some(load) = &*self.load.load() {
            load.dropped(&hit.category);
        }
        Some(format!("call dropped by the control plane's drop_overload {}", hit.category))
    }

    fn choose(&self, context: &mut AttemptContext, may_drop: bool) -> Choice {
        let snapshot = self.snapshot.load();
        if may_drop && let Some(reason) = self.draw_drop(&snapshot) {
            return Choice::Fail(AttemptErrorKind::Dropped, reason);
        }
        if let Some(session) = &context.session {
            match self.stay(&snapshot, session) {
                Stay::Anywhere => {}
                Stay::Later => return Choice::Later,
                Stay::Lost(code, reason) => return Choice::Lost(code, reason),
                Stay::With(endpoint) => {
                    return match endpoint.reserve() {
                        Reserved::Stream(stream) => self.admit(&snapshot, stream, context),
                        Reserved::Full => Choice::Busy(endpoint.address),
                        Reserved::Gone => Choice::Later,
                    };
                }
            }
        }
        let picker = match context.elsewhere.as_mut() {
            None => None,
            Some(elsewhere) => match self.elsewhere(&snapshot, elsewhere, context.hash) {
                Where::Anywhere => None,
                Where::To(picker) => Some(picker),
                Where::Later => return Choice::Later,
            },
        };
        // A priority of which there is hope is waited for.
        let hope = &snapshot.hope;
        let fails = match hope {
            Hope::Fail(reason) if picker.is_none() && !context.wait_for_ready => Some(reason),
            Hope::Fail(_) | Hope::Wait(_) => None,
        };
        let picker = picker.unwrap_or(&snapshot.picker);
        if picker.is_hashed() {
            return self.choose_by_hash(&snapshot, picker, fails, context);
        }
        for endpoint in &snapshot.idle {
            endpoint.kick();
        }
        let mut busy = None;
        let mut stream = None;
        for attempt in 0..=context.selection_attempts {
            let Some(endpoint) = picker.pick(&self.dice) else { break };
            let repeats = attempt < context.selection_attempts || context.distinct;
            if repeats && context.tried.contains(endpoint.address) {
                continue;
            }
            match endpoint.reserve() {
                Reserved::Stream(reserved) => stream = Some(reserved),
                Reserved::Full => busy = Some(endpoint),
                Reserved::Gone => {}
            }
            break;
        }
        if stream.is_none() && context.distinct {
            let mut others =
                picker.iter(&self.dice).filter(|endpoint| !context.tried.contains(endpoint.address));
            stream = others.find_map(|endpoint| match endpoint.reserve() {
                Reserved::Stream(reserved) => Some(reserved),
                Reserved::Full | Reserved::Gone => None,
            });
        }
        if stream.is_none() {
            // The picker is a moment old: any other that is still there.
            for endpoint in picker.iter(&self.dice) {
                match endpoint.reserve() {
                    Reserved::Stream(reserved) => {
                        stream = Some(reserved);
                        break;
                    }
                    Reserved::Full => busy = Some(endpoint),
                    Reserved::Gone => {}
                }
            }
        }
        match (stream, busy) {
            (Some(stream), _) => self.admit(&snapshot, stream, context),
            (None, Some(endpoint)) => Choice::Busy(endpoint.address),
            (None, None) => match fails {
                Some(reason) if picker.is_empty() => {
                    Choice::Fail(AttemptErrorKind::NoEndpoint, reason.to_string())
                }
                _ => Choice::Later,
            },
        }
    }

    /// Sends the call on a stream if the breaker lets it.
    pub(super) fn admit(&self, snapshot: &Snapshot, stream: Stream, context: &mut AttemptContext) -> Choice {
        let (breakers, priority) = (&snapshot.config.cluster.circuit_breakers, context.priority);
        match self.counters.request(priority, breakers.of(priority).max_requests) {
            Some(permit) => {
                if context.selection_attempts > 0 {
                    context.tried.push(stream.endpoint().address);
                }
                if let Some(elsewhere) = &mut context.elsewhere {
                    elsewhere.attempted(stream.endpoint().priority());
                }
                Choice::Go(stream, permit)
            }
            None => {
                self.count_refused(priority);
                let (limit, of) = (breakers.of(priority).max_requests, of_priority(priority));
                let reason = format!("circuit breaker: max_requests{of} ({limit}) are in flight");
                Choice::Fail(AttemptErrorKind::LocalOverflow, reason)
            }
        }
    }

    fn begin_waiting(&self, priority: RoutingPriority) -> Result<Waiting, String> {
        let snapshot = self.snapshot.load();
        let limits = snapshot.config.cluster.circuit_breakers.of(priority);
        match self.counters.pending(priority, &limits) {
            Some(permit) => {
                let (changes, room) = (self.changed.subscribe(), self.room.enter());
                Ok(Waiting { changes, _room: room, _permit: permit })
            }
            None => {
                self.count_refused(priority);
                Err(format!(
                    "circuit breaker: max_pending_requests{} ({}) wait for a connection; {}",
                    of_priority(priority),
                    limits.max_pending_requests.unwrap_or(u32::MAX),
                    snapshot.hope.reason()
                ))
            }
        }
    }

    /// A call that the circuit breaker does not let through is a drop without a category (gRFC A32).
    fn count_refused(&self, priority: RoutingPriority) {
        self.counters.refused(priority);
        if let Some(load) = &*self.load.load() {
            load.refused();
        }
    }

    fn late(&self, busy: Option<SocketAddr>) -> String {
        match busy {
            Some(address) => format!(
                "deadline exceeded while waiting: every connection, endpoint {address}'s among them, has as many \
                 streams as it may, or takes nothing"
            ),
            None => format!("deadline exceeded while waiting: {}", self.snapshot.load().hope.reason()),
        }
    }

    /// Picks, and sends; again, where a connection gives the request back.
    #[allow(clippy::result_large_err)] // A box would be paid by every call that waits.
    fn start(
        &self,
        mut request: Request<CallBody>,
        context: &mut AttemptContext,
        mut may_drop: bool,
    ) -> Result<Exchange, Unstarted> {
        for _ in 0..HAND_BACKS {
            let (stream, permit) = match self.choose(context, std::mem::take(&mut may_drop)) {
                Choice::Go(stream, permit) => (stream, permit),
                Choice::Busy(address) => return Err(Unstarted::Later(request, Some(address))),
                Choice::Later => return Err(Unstarted::Later(request, None)),
                Choice::Fail(kind, reason) => {
                    return Err(Unstarted::Failed(self.unsent(kind, &reason, request)));
                }
                Choice::Lost(code, reason) => {
                    let status = Status::new(code, format!("cluster {}: {reason}", self.name));
                    let request = Some(Box::new(request));
                    let kind = AttemptErrorKind::SessionLost;
                    return Err(Unstarted::Failed(AttemptError { status, kind, request, spare: None }));
                }
            };
            if context.auto_host_rewrite {
                rewrite_authority(&mut request, stream.endpoint(), &mut context.authority);
            }
            let tracking = Tracking::new(stream, permit, context.deadline);
            match tracking.stream().send(request, &self.spares) {
                Ok(Sent { response, pumping, number, spare }) => {
                    let (held, ends) = (Some((tracking, pumping)), context.ends);
                    let deadline = context.deadline;
                    return Ok(Exchange { response, held, spare, number, deadline, ends, timer: None });
                }
                Err(Unsent::Refused(back)) => {
                    tracking.finish_unsent();
                    request = *back;
                }
                Err(Unsent::Lost(error)) => {
                    let status = failure::before_response(tracking.stream(), &error);
                    tracking.finish_unsent();
                    let kind = match failure::is_misuse(&error) {
                        true => AttemptErrorKind::RequestBody,
                        false => AttemptErrorKind::NeverSent,
                    };
                    let error = AttemptError { status, kind, request: None, spare: None };
                    return Err(Unstarted::Failed(error));
                }
            }
        }
        Err(Unstarted::Later(request, None))
    }

    /// As [`Self::start`], whenever that is.
    pub(super) async fn start_later(
        &self,
        mut request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> Result<Exchange, AttemptError> {
        let mut waiting = match self.begin_waiting(context.priority) {
            Ok(waiting) => waiting,
            Err(reason) => return Err(self.unsent(AttemptErrorKind::LocalOverflow, &reason, request)),
        };
        loop {
            // Seen before looking: a change in between ends the wait below.
            waiting.changes.mark_unchanged();
            // The same for room. Every call that waits listens, since each of them takes what it finds.
            let mut freed = pin!(self.room.freed());
            freed.as_mut().enable();
            let busy = match self.start(request, context, false) {
                Ok(exchange) => return Ok(exchange),
                Err(Unstarted::Failed(error)) => return Err(error),
                Err(Unstarted::Later(back, busy)) => {
                    request = back;
                    busy
                }
            };
            match wait(&mut waiting.changes, freed, context).await {
                Woken::Changed => {}
                Woken::Moved => {
                    let reason = "another cluster is to be used";
                    return Err(self.unsent(AttemptErrorKind::NoEndpoint, reason, request));
                }
                Woken::Late => {
                    let reason = self.late(busy);
                    return Err(self.unsent(AttemptErrorKind::DeadlineExceeded, &reason, request));
                }
            }
        }
    }

    fn unsent(&self, kind: AttemptErrorKind, reason: &str, request: Request<CallBody>) -> AttemptError {
        let (status, request) = (self.status(kind, reason), Some(Box::new(request)));
        AttemptError { status, kind, request, spare: None }
    }

    fn status(&self, kind: AttemptErrorKind, reason: &str) -> Status {
        let message = format!("cluster {}: {reason}", self.name);
        match kind {
            AttemptErrorKind::DeadlineExceeded => Status::deadline_exceeded(message),
            _ => Status::unavailable(message),
        }
    }
}
