//! The attempts of a call: one, or as many as its retry policy allows (gRFC A6, A44).
//!
//! A request that no server has processed is sent again whatever the policy says, and without one (A6's transparent
//! retries): at once and uncounted, once if a server refused it, and until the deadline if it was never written. A
//! response with messages commits the call, as does a request too long to keep. A retry must find room in the cluster's budget and time before the deadline; when it does
//! not, the failure that would have been hidden is returned, and says why it was not retried.

use super::{Call, Core, RETRY_DENIED, deadline::Deadline, hedge::Hedged};
use crate::{
    body::CallBody,
    call::Upstream,
    cluster::{AttemptContext, AttemptError, AttemptErrorKind, Elsewhere},
    context::PREVIOUS_ATTEMPTS,
    lb::Dice,
    retry::{
        backoff::{self, Growth, Pushback},
        codes::Codes,
        head::Head,
        hedging::Hedging,
        policy,
        replay::Replay,
        spare::Spare,
        throttle::{Counted, THROTTLED, Throttle},
    },
    table::Compiled,
    timeout,
};
use http::{HeaderValue, Request, Response, request::Parts};
use mesh_xds::resource::retry::RetryPolicy;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;
use tonic::Status;

/// A response, and what belongs to it.
pub(super) struct Answer<U: Upstream> {
    pub(super) response: Response<U::Body>,
    /// Held while a retry's response lasts.
    pub(super) permit: Option<U::RetryPermit>,
    /// Longest silence of the response.
    pub(super) idle: Option<Duration>,
    /// Present where the response's status counts for throttling.
    pub(super) counted: Option<Box<Counted>>,
}

/// What follows a failed attempt.
enum Next {
    /// Another one, without counting it: no server has processed this one.
    Transparent,
    /// Another one, after this long.
    After(Duration),
    /// Nothing: it is no failure that the policy names.
    Over,
    /// Nothing, though it is one; why.
    Denied(&'static str),
    /// Nothing, though it is one: too many fail.
    Throttled,
}

impl<U: Upstream> Call<'_, U> {
    /// The cluster, if there is one.
    pub(super) fn cluster(&self) -> Result<&Arc<U>, Status> {
        self.choice.cluster.as_ref().map_err(|why| {
            let message = format!("cluster {}: {why}", self.choice.name);
            self.explain(Status::unavailable(message), 0, None)
        })
    }

    /// What attempts are made with.
    pub(super) fn context(&self) -> AttemptContext {
        AttemptContext {
            deadline: self.deadline.map(|deadline| deadline.at),
            ends: self.deadline.map(|deadline| deadline.at),
            hash: self.hash,
            session: self.session.clone(),
            wait_for_ready: self.wait_for_ready,
            priority: self.forwarding.priority,
            auto_host_rewrite: self.forwarding.auto_host_rewrite,
            ..AttemptContext::default()
        }
    }

    /// The policy by which this request is retried.
    pub(super) fn policy(&self, parts: &Parts) -> Option<&Arc<RetryPolicy>> {
        let policy = self.forwarding.retry.as_ref()?;
        policy::applies(policy, &self.core.seen(&parts.uri, &parts.headers)).then_some(policy)
    }

    /// The first attempt of a call that may make more.
    pub(super) fn repeatable(
        &self,
        cluster: &Arc<U>,
        policy: Option<&Arc<RetryPolicy>>,
        parts: Parts,
        body: tonic::body::Body,
        now: Instant,
    ) -> Result<(Request<CallBody>, Box<Repeatable<U>>), Status> {
        let mut context = self.context();
        if let Some(policy) = policy.filter(|policy| policy.avoid_previous_hosts) {
            context.selection_attempts = policy.host_selection_attempts;
        }
        let every = policy.and_then(|policy| policy.previous_priorities);
        context.elsewhere = every.map(|every| Box::new(Elsewhere::new(every)));
        let mut again = Box::new(Repeatable {
            cluster: cluster.clone(),
            context,
            policy: policy.cloned(),
            head: Head::of(&parts.method, &parts.uri, &parts.headers),
            replay: Replay::new(body, self.core.budget.clone()),
            serves_retry: self.serves_retry,
            attempts: 0,
            retries: 0,
            growth: Growth::default(),
            transparent: false,
            permit: None,
        });
        self.mirror(&parts, &again.replay);
        let head = Request::from_parts(parts, ());
        match again.request(Some(head), self.deadline, now) {
            Some(request) => Ok((request, again)),
            None => Err(self.explain(Status::internal(SPENT), 0, None)),
        }
    }

    /// Sends the request until it is answered or there is nothing more to try.
    /// With `own`, a policy of the program, nothing that the route says of retries and hedges counts.
    pub(super) async fn attempts(
        &self,
        own: Option<Hedging>,
        parts: Parts,
        body: tonic::body::Body,
    ) -> Result<Answer<U>, Status> {
        let of_route = || {
            let hedge = self.forwarding.hedge.filter(|_| !self.serves_retry)?;
            Some(Hedged::Route(hedge, self.policy(&parts).cloned()))
        };
        if let Some(hedged) = own.map(Hedged::Program).or_else(of_route) {
            return Box::pin(self.hedged(hedged, parts, body)).await;
        }
        let cluster = self.cluster()?;
        let policy = self.policy(&parts);
        if policy.is_none() && self.forwarding.mirrors.is_empty() {
            let mut context = self.context();
            let mut request = Request::from_parts(parts, CallBody::Tonic(body));
            set_timeout(&mut request, context.deadline, Instant::now);
            return match cluster.attempt(request, &mut context).await {
                Ok(response) => Ok(Answer { response, permit: None, idle: None, counted: None }),
                Err(error) => {
                    let (cluster, core) = (cluster.clone(), self.core);
                    match core.unrepeated(self.compiled, self.deadline, cluster, context, error) {
                        Verdict::Over(result) => result,
                        Verdict::Again(again, wait) => {
                            core.repeat(self.compiled, self.deadline, again, wait).await
                        }
                    }
                }
            };
        }
        let (request, mut again) = self.repeatable(cluster, policy, parts, body, Instant::now())?;
        let result = cluster.attempt(request, &mut again.context).await;
        match self.core.judge(self.compiled, self.deadline, again, result) {
            Verdict::Over(result) => result,
            Verdict::Again(again, wait) => self.core.repeat(self.compiled, self.deadline, again, wait).await,
        }
    }
}

/// A body that was kept for another attempt is not there.
pub(super) const SPENT: &str = "the request cannot be sent again";

/// Why there is no further attempt.
pub(super) const SERVES_RETRY: &str =
    "the request being served is itself a retry, and its caller tries again";
pub(super) const TOO_LONG: &str = "the request is longer than what is kept of it";
pub(super) const STOPPED: &str = "the server said not to (grpc-retry-pushback-ms)";
pub(super) const NO_TIME: &str = "there is no time left for it";
pub(super) const NO_ROOM: &str = "the cluster has as many retries in flight as it may";

/// A call that may make another attempt: what it takes, and how many there were.
pub(super) struct Repeatable<U: Upstream> {
    pub(super) cluster: Arc<U>,
    pub(super) context: AttemptContext,
    /// None: it is only copied, or sent again if no server has processed it.
    policy: Option<Arc<RetryPolicy>>,
    head: Head,
    replay: Replay,
    /// The caller's caller retries, this hop does not.
    serves_retry: bool,
    attempts: u32,
    retries: u32,
    growth: Growth,
    /// An attempt that a server had refused was repeated.
    transparent: bool,
    /// Held from the first retry on.
    permit: Option<U::RetryPermit>,
}

/// What follows an attempt.
pub(super) enum Verdict<U: Upstream> {
    /// Nothing.
    Over(Result<Answer<U>, Status>),
    /// Another one, after a wait if there is one.
    Again(Box<Repeatable<U>>, Option<Duration>),
}

impl<U: Upstream> Repeatable<U> {
    fn idle(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|policy| policy.per_try_idle_timeout)
    }

    fn per_try(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|policy| policy.per_try_timeout)
    }

    /// The next attempt's request; the first one has its head already. None: its body is gone.
    fn request(
        &mut self,
        head: Option<Request<()>>,
        deadline: Option<Deadline>,
        now: Instant,
    ) -> Option<Request<CallBody>> {
        let body = CallBody::Replay(self.replay.attempt()?);
        let told = earlier(deadline.map(|deadline| deadline.at), self.per_try(), now);
        // Silence is measured here: a server that goes on talking has all the time that it is told.
        self.context.deadline = earlier(told, self.idle(), now);
        let mut request = head.unwrap_or_else(|| self.head.request()).map(|()| body);
        if let Some(session) = &mut self.context.session {
            session.repeats(self.retries > 0);
        }
        if self.retries > 0 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(self.retries));
        }
        set_timeout(&mut request, told, || now);
        self.attempts += 1;
        Some(request)
    }

    /// What follows this outcome.
    fn next(
        &mut self,
        result: &Result<Response<U::Body>, AttemptError>,
        deadline: Option<Deadline>,
        dice: &Dice,
        throttle: Option<&Throttle>,
    ) -> Next {
        let Self { policy, replay, serves_retry, retries, growth, transparent, .. } = self;
        let now = Instant::now;
        let is_over = || deadline.is_some_and(|deadline| deadline.at <= now());
        if let Err(AttemptError { kind, .. }) = result
            && kind.is_unprocessed()
            && !(*kind == AttemptErrorKind::RefusedStream && *transparent)
            && replay.is_repeatable()
            && !is_over()
        {
            return Next::Transparent;
        }
        let Some(policy) = policy else { return Next::Over };
        let (retriable, headers) = match result {
            Ok(response) => {
                (policy::response(policy, response.status(), response.headers()), Some(response.headers()))
            }
            Err(error) => (policy::failure(policy.on, error.kind, error.status.code()), None),
        };
        let allowed = throttle.is_none_or(|throttle| throttle.count(retriable, result.as_ref().ok()));
        if !retriable || *retries >= policy.num_retries || is_over() {
            return Next::Over;
        }
        if *serves_retry {
            return Next::Denied(SERVES_RETRY);
        }
        if !replay.is_repeatable() {
            return Next::Denied(TOO_LONG);
        }
        if !allowed {
            return Next::Throttled;
        }
        let pushback = headers.map_or(Pushback::None, Pushback::read);
        let asked = headers
            .zip(policy.rate_limited.as_ref())
            .and_then(|(headers, rate_limited)| backoff::reset(headers, rate_limited, SystemTime::now()));
        let wait = match (pushback, asked) {
            (Pushback::Stop, _) => return Next::Denied(STOPPED),
            (Pushback::After(wait), _) => {
                growth.begin_anew();
                wait
            }
            (Pushback::None, Some(wait)) => wait,
            (Pushback::None, None) => growth.wait(policy.back_off, &mut dice.roll()),
        };
        match deadline {
            Some(deadline) if now() + wait >= deadline.at => Next::Denied(NO_TIME),
            _ => Next::After(wait),
        }
    }
}

impl<U: Upstream> Core<U> {
    /// What follows the failed attempt of a call that has no policy.
    pub(super) fn unrepeated(
        &self,
        compiled: &Compiled<U>,
        deadline: Option<Deadline>,
        cluster: Arc<U>,
        context: AttemptContext,
        mut error: AttemptError,
    ) -> Verdict<U> {
        let spare = error.spare.take().and_then(|spare| Spare::into_parts(*spare, &self.budget));
        let Some((head, replay)) = spare else {
            return Verdict::Over(Err(self.over(compiled, deadline, error, 1, None, None)));
        };
        let again = Box::new(Repeatable {
            cluster,
            context,
            policy: None,
            head: *head,
            replay,
            serves_retry: false,
            attempts: 1,
            retries: 0,
            growth: Growth::default(),
            transparent: false,
            permit: None,
        });
        self.judge(compiled, deadline, again, Err(error))
    }

    /// What follows an attempt that ended so.
    pub(super) fn judge(
        &self,
        compiled: &Compiled<U>,
        deadline: Option<Deadline>,
        mut again: Box<Repeatable<U>>,
        result: Result<Response<U::Body>, AttemptError>,
    ) -> Verdict<U> {
        let denied = match again.next(&result, deadline, &self.dice, self.throttle.as_deref()) {
            Next::Over => None,
            Next::Denied(why) => Some(why),
            Next::Throttled => {
                self.counters.retries_throttled.add_one();
                Some(THROTTLED)
            }
            Next::Transparent => {
                again.transparent |= result.is_err_and(|error| error.kind == AttemptErrorKind::RefusedStream);
                self.counters.transparent_retries.add_one();
                return Verdict::Again(again, None);
            }
            Next::After(wait) => {
                if again.permit.is_none() {
                    again.permit = again.cluster.retry_permit(again.context.priority);
                }
                if again.permit.is_some() {
                    // The stream of the failed attempt, in `result`, ends before the wait begins.
                    again.retries += 1;
                    self.counters.retries.add_one();
                    return Verdict::Again(again, Some(wait));
                }
                self.counters.retries_denied.add_one();
                Some(NO_ROOM)
            }
        };
        again.replay.commit();
        Verdict::Over(match result {
            Ok(mut response) => {
                if let Some(denied) = denied {
                    response.headers_mut().insert(RETRY_DENIED, HeaderValue::from_static(denied));
                }
                let idle = again.idle();
                let named = again.policy.as_ref().map(|policy| policy::codes(policy.on));
                let counted = self.counted(named, &response);
                Ok(Answer { response, permit: again.permit, idle, counted })
            }
            Err(error) => {
                let limit = match (again.per_try(), again.idle()) {
                    (Some(per_try), Some(idle)) if idle < per_try => Some(("per_try_idle_timeout", idle)),
                    (Some(per_try), _) => Some(("per_try_timeout", per_try)),
                    (None, idle) => idle.map(|idle| ("per_try_idle_timeout", idle)),
                };
                Err(self.over(compiled, deadline, error, again.attempts, limit, denied))
            }
        })
    }

    /// Whose status is to be counted when the response ends. `named`: by the call's policy.
    pub(super) fn counted(&self, named: Option<Codes>, response: &Response<U::Body>) -> Option<Box<Counted>> {
        Counted::new(self.throttle.as_ref()?, named?, response)
    }

    /// Makes further attempts, the next one after this wait.
    pub(super) async fn repeat(
        &self,
        compiled: &Compiled<U>,
        deadline: Option<Deadline>,
        mut again: Box<Repeatable<U>>,
        mut wait: Option<Duration>,
    ) -> Result<Answer<U>, Status> {
        loop {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                // Whoever finds out that a connection is gone gets a chance to, before it is picked again.
                None => tokio::task::yield_now().await,
            }
            let Some(request) = again.request(None, deadline, Instant::now()) else {
                return Err(self.explain(compiled, Status::internal(SPENT), again.attempts, None));
            };
            let cluster = again.cluster.clone();
            let result = cluster.attempt(request, &mut again.context).await;
            match self.judge(compiled, deadline, again, result) {
                Verdict::Over(result) => return result,
                Verdict::Again(once_more, then) => (again, wait) = (once_more, then),
            }
        }
    }
}

impl<U: Upstream> Core<U> {
    /// The status of a call whose last attempt failed. `limit`: what an attempt may take, and its name.
    pub(super) fn over(
        &self,
        compiled: &Compiled<U>,
        deadline: Option<Deadline>,
        error: AttemptError,
        attempts: u32,
        limit: Option<(&'static str, Duration)>,
        denied: Option<&'static str>,
    ) -> Status {
        let late = error.kind == AttemptErrorKind::DeadlineExceeded;
        match deadline.filter(|deadline| late && deadline.at <= Instant::now()) {
            Some(deadline) => {
                let what = self.explain(compiled, error.status, attempts, None);
                Status::deadline_exceeded(format!("{} ({deadline})", what.message()))
            }
            None => {
                let status = match limit.filter(|_| late) {
                    Some((name, limit)) => {
                        let message = format!("{} ({name} {limit:?})", error.status.message());
                        Status::deadline_exceeded(message)
                    }
                    None => error.status,
                };
                self.explain(compiled, status, attempts, denied)
            }
        }
    }
}

/// The earlier of two ends.
pub(super) fn earlier(deadline: Option<Instant>, within: Option<Duration>, now: Instant) -> Option<Instant> {
    let within = within.and_then(|within| now.checked_add(within));
    deadline.into_iter().chain(within).min()
}

/// What is left is what the server is told.
pub(super) fn set_timeout(
    request: &mut Request<CallBody>,
    deadline: Option<Instant>,
    now: impl FnOnce() -> Instant,
) {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(now());
        request.headers_mut().insert(timeout::GRPC_TIMEOUT, timeout::format(left));
    }
}
