//! A call, from the generated client to the response: the one place that knows the order of things.
//!
//! What most calls need is done at once, when the call is made, and nothing is boxed: see [`flight`]. What a call
//! may have to wait for, faults and retries are one future. Faults come before rewriting, so that they see the
//! request as the caller made it (in Envoy, too, the fault filter comes before the router).

mod affinity;
mod cookie;
pub(crate) mod deadline;
mod fault;
mod flight;
mod hash;
mod headers;
mod hedge;
mod mirror;
mod retry;
mod route;
#[cfg(test)]
mod tests;

pub(crate) use affinity::session_of;
pub(crate) use fault::ActiveFaults;
pub(crate) use flight::{Begun, Flight, Slow};

use crate::{
    call::{BoundedBody, Bounds, Place, Upstream},
    cluster::Session,
    context::{Incoming, RETRY},
    lb::Dice,
    retry::{
        hedging::{Hedging, HedgingPolicies},
        replay::Budget,
        throttle::{Counted, Throttle, Throttling},
    },
    snapshot::Snapshot,
    table::{Choice, Compiled, Forwarding, named::Named},
    telemetry::Counters,
    timeout::GRPC_TIMEOUT,
};
use deadline::Deadline;
use hash::Hashed;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{SET_COOKIE, USER_AGENT},
    request::Parts,
    uri::Authority,
};
use mesh_xds::{balancing::Caller, config::XdsError, resource::route::HeaderMutation};
use mirror::Mirrors;
use retry::Answer;
use std::{fmt::Write, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status};

/// Memory for the bodies of a channel's calls that may be repeated.
const REPLAY_BUDGET: usize = 16 << 20;

pub(crate) const OWN_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("mesh-client/", env!("CARGO_PKG_VERSION")));

/// Why a call was over before it began.
const NOT_SENT: &str = "the call was not sent: its time was over";
/// Says, beside a failure that was not retried, why it was not.
pub(crate) const RETRY_DENIED: HeaderName = HeaderName::from_static("mesh-retry-denied");

/// Makes this call wait for an endpoint, or not, whatever the mesh's default: put it into the request's
/// extensions (gRPC's wait-for-ready).
///
/// A call that waits does so until its deadline; have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// Everything that the calls to one target share.
pub(crate) struct Core<U> {
    /// As in the target: `reviews:9080`.
    pub(crate) target: Arc<str>,
    /// The same, as it is sent.
    pub(crate) authority: Authority,
    pub(crate) snapshot: Snapshot<U>,
    pub(crate) settings: CallSettings,
    pub(crate) dice: Dice,
    pub(crate) counters: Arc<Counters>,
    caller: Caller,
    budget: Arc<Budget>,
    /// If retries are throttled.
    throttle: Option<Arc<Throttle>>,
    mirrors: Mirrors,
    /// Clusters that requests name.
    named: Arc<Named<U>>,
}

/// What the mesh says about all calls.
#[derive(Clone, Debug)]
pub(crate) struct CallSettings {
    /// Wait for an endpoint when a call does not say.
    pub(crate) wait_for_ready: bool,
    /// Calls made in a handler end when the request that it serves does.
    pub(crate) propagate_deadlines: bool,
    /// Calls made while a retry is served may be retried as well.
    pub(crate) retry_at_every_hop: bool,
    /// Retries and hedges of each target are throttled.
    pub(crate) throttling: Option<Throttling>,
    /// The program's, for calls of these methods. Never without one.
    pub(crate) hedging: Option<Arc<HedgingPolicies>>,
    /// Faults active in the process.
    pub(crate) faults: ActiveFaults,
    /// Of this process, as far as it is known: for policies that hash the caller's address.
    pub(crate) address: Arc<str>,
}

/// A response as the caller gets it.
type Answered<U> = Response<BoundedBody<<U as Upstream>::Body, <U as Upstream>::RetryPermit>>;

/// How a call came out. The large variant is the usual one.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Outcome<U: Upstream> {
    /// A response.
    Response(Answered<U>),
    /// The control plane does not know the target.
    UnknownHost {
        /// Untouched.
        request: Box<Request<tonic::body::Body>>,
        /// End of the call.
        deadline: Option<Deadline>,
        /// What the control plane said.
        error: XdsError,
    },
}

/// What a call brings along.
pub(crate) struct Opening {
    /// When it began, if anything depends on it.
    began: Option<Instant>,
    deadline: Option<Deadline>,
    wait_for_ready: bool,
    /// It is made while a retry is served: its caller retries, this hop does not.
    serves_retry: bool,
}

impl Opening {
    /// When the call began. The clock is read when this is asked first: before the first wait.
    fn began(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now)
    }
}

/// A call that has its route.
struct Call<'a, U> {
    core: &'a Core<U>,
    compiled: &'a Compiled<U>,
    forwarding: &'a Forwarding<U>,
    choice: &'a Choice<U>,
    deadline: Option<Deadline>,
    wait_for_ready: bool,
    /// It is made while a retry is served: its caller retries, this hop does not.
    serves_retry: bool,
    /// For a cluster that balances by it.
    hash: Option<u64>,
    /// Of a call that has one.
    session: Option<Box<Session>>,
}

impl<U: Upstream> Core<U> {
    pub(crate) fn new(authority: Authority, settings: CallSettings, seed: u64, named: Arc<Named<U>>) -> Self {
        // Targets draw apart from one another.
        let dice = Dice::new(seed ^ twox_hash::XxHash64::oneshot(0, authority.as_str().as_bytes()));
        let budget = Budget::new(REPLAY_BUDGET);
        #[cfg(test)]
        crate::testing::held::watch(&budget, |budget| {
            [("bytes for retries of a target", (REPLAY_BUDGET - budget.left()) as u64)]
        });
        Self {
            target: authority.as_str().into(),
            snapshot: Snapshot::new(),
            caller: Caller { channel: dice.roll().u64(..), address: settings.address.clone() },
            throttle: settings.throttling.map(Throttle::new),
            settings,
            dice,
            authority,
            counters: Arc::default(),
            budget,
            mirrors: Mirrors::default(),
            named,
        }
    }

    /// What calls hold: bytes kept for retries, faults, copies under way. For tests.
    #[cfg(test)]
    pub(crate) fn held(&self) -> [(&'static str, u64); 3] {
        [
            ("bytes for retries", (REPLAY_BUDGET - self.budget.left()) as u64),
            ("faults", u64::from(self.settings.faults.active())),
            ("copies", self.mirrors.under_way() as u64),
        ]
    }

    /// How the program hedges such calls.
    fn own_hedging(&self, uri: &Uri) -> Option<Hedging> {
        self.settings.hedging.as_ref()?.of(uri.path()).map(|entry| entry.hedging)
    }

    /// Counts a call that failed without an answer.
    fn failed_here(&self, status: &Status) {
        self.counters.failed_here.add_one();
        if status.code() == Code::DeadlineExceeded {
            self.counters.deadline_exceeded.add_one();
        }
        tracing::debug!(target: "mesh_client::call", code = ?status.code(), message = status.message(), "call failed");
    }

    /// What the call is bound by before it has its route.
    fn open(&self, request: &Request<tonic::body::Body>) -> Result<Opening, Status> {
        let incoming = Incoming::current();
        let serves_retry = !self.settings.retry_at_every_hop && incoming.as_ref().is_some_and(|i| i.retry);
        let incoming = incoming.filter(|_| self.settings.propagate_deadlines);
        let mut began = None;
        let now = || *began.get_or_insert_with(Instant::now);
        let deadline = Deadline::of_caller(request.headers(), incoming, now)?;
        let wait_for_ready = match request.extensions().get::<WaitForReady>() {
            Some(WaitForReady(wait)) => *wait,
            None => self.settings.wait_for_ready,
        };
        Ok(Opening { began, deadline, wait_for_ready, serves_retry })
    }

    /// The call on its route: which cluster, and until when.
    fn enter<'a>(
        &'a self,
        compiled: &'a Compiled<U>,
        uri: &Uri,
        opening: &mut Opening,
    ) -> Result<Call<'a, U>, Status> {
        let (forwarding, choice) = self.choose(compiled, uri)?;
        Ok(self.enter_by(compiled, forwarding, choice, opening))
    }

    /// As [`Self::enter`], to this cluster.
    fn enter_by<'a>(
        &'a self,
        compiled: &'a Compiled<U>,
        forwarding: &'a Forwarding<U>,
        choice: &'a Choice<U>,
        opening: &mut Opening,
    ) -> Call<'a, U> {
        let deadline = Deadline::within(opening.deadline, forwarding.limit, || opening.began());
        let Opening { wait_for_ready, serves_retry, .. } = *opening;
        let (hash, session) = (None, None);
        Call {
            core: self,
            compiled,
            forwarding,
            choice,
            deadline,
            wait_for_ready,
            serves_retry,
            hash,
            session,
        }
    }

    /// A call that needs more than one look, or more than one attempt. It has its route, or waits for one.
    pub(crate) async fn go_on(&self, slow: Slow<U>) -> Result<Outcome<U>, Status> {
        let result = self.routed(slow).await;
        if let Err(status) = &result {
            self.failed_here(status);
        }
        result
    }

    async fn routed(&self, slow: Slow<U>) -> Result<Outcome<U>, Status> {
        let mut struck = None;
        let (request, mut opening, compiled, hedging) = match slow {
            Slow::Waiting(waiting) => return self.wait(waiting).await,
            Slow::Failed(about, error) => return self.see_through(about, Err(error)).await,
            Slow::Routed(request, opening, compiled, hedging) => (request, opening, compiled, hedging),
            Slow::Struck(request, opening, compiled, fault) => {
                struck = Some(fault);
                (request, opening, compiled, None)
            }
            Slow::Looking(request, opening) => {
                let Opening { deadline, wait_for_ready, .. } = opening;
                match self.route(request.uri(), request.headers(), deadline, wait_for_ready).await? {
                    route::Found::Route(compiled) => {
                        let hedging = self.own_hedging(request.uri());
                        (request, opening, compiled, hedging)
                    }
                    route::Found::UnknownHost(error) => {
                        return Ok(Outcome::UnknownHost { request: Box::new(request), deadline, error });
                    }
                }
            }
        };
        let named = self.named(&compiled, request.headers(), &mut opening).await?;
        let mut call = match (&named, &struck) {
            (Some((forwarding, choice)), _) => self.enter_by(&compiled, forwarding, choice, &mut opening),
            (None, None) => self.enter(&compiled, request.uri(), &mut opening)?,
            (None, Some(struck)) => self.enter_struck(&compiled, request.uri(), struck, &mut opening)?,
        };
        let affinity = call.begin_session(request.uri(), request.headers())?;
        let Call { choice, deadline, .. } = call;
        if let Some(deadline) = deadline.filter(|deadline| deadline.at <= Instant::now()) {
            return Err(deadline.exceeded(&self.target, NOT_SENT));
        }
        if let Some(response) = call.inject_faults(request.uri(), request.headers(), struck).await? {
            return Ok(Outcome::Response(response));
        }
        let (mut parts, body) = request.into_parts();
        call.rewrite(&mut parts);
        let Hashed { hash, cookie } = call.hash(&parts);
        call.hash = hash;
        let Answer { mut response, permit, idle, counted } = call.attempts(hedging, parts, body).await?;
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, *cookie);
        }
        let session = affinity.zip(response.body().endpoint());
        let mut response = self.finished(response, deadline, &choice.response, idle, permit, counted)?;
        if let Some((affinity, host)) = session {
            Self::tell_session(&affinity, response.headers_mut(), host, choice);
        }
        Ok(Outcome::Response(response))
    }

    /// The response as the caller gets it.
    fn finished(
        &self,
        mut response: Response<U::Body>,
        deadline: Option<Deadline>,
        rules: &[HeaderMutation],
        idle: Option<Duration>,
        permit: Option<U::RetryPermit>,
        counted: Option<Box<Counted>>,
    ) -> Result<Answered<U>, Status> {
        if let Some(deadline) = deadline.filter(|deadline| deadline.is_meant_by(response.headers())) {
            return Err(deadline.exceeded(&self.target, "the server ended the call"));
        }
        for mutation in rules {
            mutation.apply(response.headers_mut());
        }
        let bounds = (deadline.is_some() || idle.is_some() || counted.is_some()).then(|| Bounds {
            target: self.target.clone(),
            deadline,
            idle,
            counted,
        });
        Ok(response.map(|body| BoundedBody::new(body, bounds, permit)))
    }

    /// A failure, with the call's circumstances. `attempts` are those that were made.
    fn explain(&self, compiled: &Compiled<U>, status: Status, attempts: u32, denied: Option<&str>) -> Status {
        let mut message = format!("target {}: {}{}", self.target, shown(compiled), status.message());
        if attempts > 1 {
            let _ = write!(message, " (attempt {attempts})");
        }
        if let Some(denied) = denied {
            let _ = write!(message, " (not retried: {denied})");
        }
        let version = self.snapshot.version();
        if !version.is_empty() {
            let _ = write!(message, " [configuration {version}]");
        }
        let mut metadata = status.metadata().clone();
        if let Some(denied) = denied.and_then(|denied| HeaderValue::from_str(denied).ok()) {
            let mut headers: HeaderMap = metadata.into_headers();
            headers.insert(RETRY_DENIED, denied);
            metadata = tonic::metadata::MetadataMap::from_headers(headers);
        }
        Status::with_metadata(status.code(), message, metadata)
    }
}

impl<U: Upstream> Call<'_, U> {
    /// The request as it is sent, except for what differs between attempts.
    fn rewrite(&self, parts: &mut Parts) {
        if self.deadline.is_some() {
            // What is left is told when it is sent.
            parts.headers.remove(GRPC_TIMEOUT);
        }
        if self.serves_retry {
            parts.headers.insert(RETRY, HeaderValue::from_static("1"));
        }
        self.core.rewrite(parts, self.compiled, self.forwarding, self.choice);
    }

    /// A failure, with the call's circumstances. `attempts` are those that were made.
    fn explain(&self, status: Status, attempts: u32, denied: Option<&str>) -> Status {
        self.core.explain(self.compiled, status, attempts, denied)
    }
}

impl<U> Core<U> {
    /// What a route and one of its clusters make of a request.
    fn rewrite(
        &self,
        parts: &mut Parts,
        compiled: &Compiled<U>,
        forwarding: &Forwarding<U>,
        choice: &Choice<U>,
    ) {
        for mutation in &choice.request {
            mutation.apply(&mut parts.headers);
        }
        let authority = choice.authority.as_ref().or(parts.uri.authority()).unwrap_or(&self.authority);
        let path = &compiled.route.matches.path;
        parts.uri = headers::uri(&parts.uri, authority, path, forwarding.path_rewrite.as_ref());
        parts.headers.entry(USER_AGENT).or_insert(OWN_USER_AGENT);
    }
}

/// A route in an error: its name, and where it was written.
fn shown<U>(compiled: &Compiled<U>) -> String {
    let route = &compiled.route;
    match (&*route.name, &route.origin) {
        ("", None) => String::new(),
        ("", Some(origin)) => format!("route of {origin}: "),
        (name, None) => format!("route {name}: "),
        (name, Some(origin)) => format!("route {name} ({origin}): "),
    }
}
