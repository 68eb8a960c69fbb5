//! Attempts of a call beside one another (Envoy's `hedge_policy`; gRFC A6).
//!
//! There is no other source of a hedging policy: gRPC's own stands in service configs, which xDS does not carry, and
//! Istio has none. What Envoy does is done as Envoy does it; what Envoy has a field for and no code, as A6 says:
//! - `initial_requests` and `additional_request_chance` (A6): so many attempts at once, five at most.
//! - `hedge_on_per_try_timeout` (Envoy): an attempt that exceeds `per_try_timeout` goes on while another one is
//!   made, after the back-off, as long as `num_retries` allows; it needs a retry policy, and every attempt may take
//!   as long as the call.
//!
//! Promises: the first answer that the retry policy does not name (A6's fatal ones included) is the call's, and what
//! the other attempts held is released before the caller has it. A failure that the policy names is followed by
//! another attempt after the back-off, unless one was made for it already; a failure without an answer, or one that
//! was decided here, never ends the call while another attempt is in flight. The last failure is the call's when
//! nothing is left. Every attempt but the first counts against the cluster's retry budget or limit; the server's
//! pushback stops or delays whatever has not been sent; a hop that serves a retry does not hedge. One deadline covers
//! all of it, and the request is kept once, within what retries may keep: when it is longer than that, the attempt
//! that is furthest goes on and the others end.

use super::{
    Call, RETRY_DENIED,
    retry::{Answer, SPENT, earlier, set_timeout},
};
use crate::{
    body::CallBody,
    call::{Started, Upstream},
    cluster::{AttemptContext, AttemptError, AttemptErrorKind, Elsewhere},
    context::PREVIOUS_ATTEMPTS,
    retry::{
        backoff::{self, Growth, Pushback},
        head::Head,
        policy,
        replay::Replay,
        throttle::THROTTLED,
    },
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, Response, request::Parts};
use mesh_xds::resource::retry::{HedgePolicy, RetryPolicy};
use std::{
    future::{pending, ready},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;
use tonic::Status;

/// Attempts at once are never more (A6's bound).
const MOST: u32 = 5;

type Outcome<U> = Result<Response<<U as Upstream>::Body>, AttemptError>;

/// An attempt in flight.
struct Attempt<P> {
    id: u32,
    /// How many there were before it, transparent ones aside.
    previous: u32,
    /// When it counts as slow; none: never, or it does already.
    slow_at: Option<Instant>,
    slow: bool,
    permit: Option<P>,
}

/// An attempt that is to be made.
struct Due<P> {
    at: Instant,
    permit: P,
}

/// A call with several attempts.
struct Hedging<'a, U: Upstream> {
    call: &'a Call<'a, U>,
    hedge: HedgePolicy,
    policy: Option<Arc<RetryPolicy>>,
    cluster: Arc<U>,
    context: AttemptContext,
    head: Head,
    replay: Replay,
    running: FuturesUnordered<BoxFuture<'static, (u32, Outcome<U>)>>,
    attempts: Vec<Attempt<U::RetryPermit>>,
    due: Vec<Due<U::RetryPermit>>,
    ids: u32,
    /// Attempts sent, transparent ones aside.
    sent: u32,
    /// Of the policy's.
    retries: u32,
    growth: Growth,
    transparent: bool,
    /// Said by a server.
    not_before: Option<Instant>,
    /// Why there are no more attempts.
    denied: Option<&'static str>,
}

/// What an outcome means.
enum Judged {
    /// The call ends with it.
    Final,
    /// No server has processed it: again, at once.
    Unprocessed,
    /// A failure that the policy names.
    Failed,
    /// A failure that ends the call only if nothing else is left.
    Passed,
}

impl<U: Upstream> Call<'_, U> {
    /// Sends the request to as many endpoints as the policy says.
    pub(super) async fn hedged(
        &self,
        hedge: HedgePolicy,
        parts: Parts,
        body: tonic::body::Body,
    ) -> Result<Answer<U>, Status> {
        let policy = self.policy(&parts).cloned();
        let mut context = self.context();
        if let Some(policy) = policy.as_ref().filter(|policy| policy.avoid_previous_hosts) {
            context.selection_attempts = policy.host_selection_attempts;
        }
        let every = policy.as_ref().and_then(|policy| policy.previous_priorities);
        context.elsewhere = every.map(|every| Box::new(Elsewhere::new(every)));
        let replay = Replay::new(body, self.core.budget.clone());
        self.mirror(&parts, &replay);
        let mut hedging = Hedging {
            call: self,
            hedge,
            policy,
            cluster: self.cluster()?.clone(),
            context,
            head: Head::of(&parts.method, &parts.uri, &parts.headers),
            replay,
            running: FuturesUnordered::new(),
            attempts: Vec::new(),
            due: Vec::new(),
            ids: 0,
            sent: 0,
            retries: 0,
            growth: Growth::default(),
            transparent: false,
            not_before: None,
            denied: None,
        };
        hedging.begin();
        hedging.run().await
    }
}

impl<U: Upstream> Hedging<'_, U> {
    /// The attempts that are made at once.
    fn begin(&mut self) {
        let chance = self.hedge.additional_request_chance;
        let more = u32::from(chance.hit(self.call.core.dice.roll().u32(0..1_000_000)));
        let wanted = self.hedge.initial_requests.get().saturating_add(more).min(MOST);
        self.send(None, None);
        for _ in 1..wanted {
            if self.is_throttled() {
                break;
            }
            let Some(permit) = self.permit() else { break };
            self.send(Some(permit), None);
        }
    }

    /// So many calls fail that there may be no more attempts.
    fn is_throttled(&self) -> bool {
        let core = self.call.core;
        let throttled = core.throttle.as_ref().is_some_and(|throttle| !throttle.allows());
        if throttled {
            core.counters.retries_throttled.add_one();
        }
        throttled
    }

    /// Leave for one more attempt.
    fn permit(&self) -> Option<U::RetryPermit> {
        let permit = self.cluster.retry_permit(self.context.priority);
        if permit.is_none() {
            self.call.core.counters.retries_denied.add_one();
        }
        permit
    }

    /// Sends an attempt; `previous`: in the place of one that had so many before it.
    fn send(&mut self, permit: Option<U::RetryPermit>, previous: Option<u32>) {
        // It counts these as `ids` does.
        let Some(body) = self.replay.beside() else { return };
        let now = Instant::now();
        let deadline = self.call.deadline.map(|deadline| deadline.at);
        let per_try = self.per_try();
        let told = if self.hedge.on_per_try_timeout { deadline } else { earlier(deadline, per_try, now) };
        self.context.deadline = earlier(told, self.idle(), now);
        let mut request = self.head.request().map(|()| CallBody::Replay(body));
        let place = previous.unwrap_or(self.sent);
        if let Some(session) = &mut self.context.session {
            session.repeats(place > 0);
        }
        if place > 0 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(place));
        }
        set_timeout(&mut request, told, || now);
        let counters = &self.call.core.counters;
        match (previous, self.sent) {
            (Some(_), _) => counters.transparent_retries.add_one(),
            (None, 0) => {}
            (None, _) if self.attempts.is_empty() => counters.retries.add_one(),
            (None, _) => counters.hedges.add_one(),
        }
        self.sent += u32::from(previous.is_none());
        self.ids += 1;
        let id = self.ids;
        let running: BoxFuture<'static, Outcome<U>> = match self.cluster.begin(request, &mut self.context) {
            Started::Sent(exchange) => Box::pin(exchange),
            Started::Failed(error) => Box::pin(ready(Err(error))),
            // Where it will go is not known to attempts that are made before it is sent.
            Started::Later(request) => {
                let (cluster, mut context) = (self.cluster.clone(), self.context.clone());
                Box::pin(async move { cluster.begin_later(request, &mut context).await?.await })
            }
        };
        self.running.push(Box::pin(async move { (id, running.await) }));
        let slow_at =
            per_try.filter(|_| self.hedge.on_per_try_timeout).and_then(|after| now.checked_add(after));
        self.attempts.push(Attempt { id, previous: place, slow_at, slow: false, permit });
    }

    async fn run(mut self) -> Result<Answer<U>, Status> {
        loop {
            let times = self.due.iter().map(|due| due.at);
            let wake = times.chain(self.attempts.iter().filter_map(|attempt| attempt.slow_at)).min();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((id, outcome)) = self.running.next() => {
                    if let Some(answer) = self.ended(id, outcome) {
                        return answer;
                    }
                }
                () = timer => self.on_time(),
            }
            if self.attempts.is_empty() && self.due.is_empty() {
                return Err(self.call.explain(Status::internal(SPENT), self.sent, self.denied));
            }
        }
    }

    /// Attempts that are due are made; those that have become slow are followed by others.
    fn on_time(&mut self) {
        let now = Instant::now();
        let slow = self.attempts.iter_mut().filter(|attempt| attempt.slow_at.is_some_and(|at| at <= now));
        let became = slow.map(|attempt| (attempt.slow, attempt.slow_at) = (true, None)).count();
        for _ in 0..became {
            let wait = self.back_off();
            self.plan(now, wait, None);
        }
        for index in (0..self.due.len()).rev() {
            if self.due.get(index).is_some_and(|due| due.at <= now) {
                let due = self.due.swap_remove(index);
                self.send(Some(due.permit), None);
            }
        }
    }

    /// Another attempt is to be made, after this long, if one may be; with the permit of one that failed.
    fn plan(&mut self, now: Instant, wait: Duration, permit: Option<U::RetryPermit>) {
        let Some(policy) = &self.policy else { return };
        if self.retries >= policy.num_retries || self.denied.is_some() {
            return;
        }
        if !self.replay.is_repeatable() {
            self.denied = Some("the request is longer than what is kept of it");
            return;
        }
        let at = now.checked_add(wait).map(|at| self.not_before.into_iter().fold(at, Instant::max));
        let at = at.filter(|at| self.call.deadline.is_none_or(|deadline| *at < deadline.at));
        let Some(at) = at else {
            self.denied = Some("there is no time left for it");
            return;
        };
        if self.is_throttled() {
            self.denied = Some(THROTTLED);
            return;
        }
        match permit.or_else(|| self.permit()) {
            Some(permit) => {
                self.retries += 1;
                self.due.push(Due { at, permit });
            }
            None => self.denied = Some("the cluster has as many retries in flight as it may"),
        }
    }

    /// An attempt is over. The call's answer, if it has one now.
    fn ended(&mut self, id: u32, outcome: Outcome<U>) -> Option<Result<Answer<U>, Status>> {
        let index = self.attempts.iter().position(|attempt| attempt.id == id)?;
        let mut attempt = self.attempts.swap_remove(index);
        let judged = self.judge(&outcome);
        if let Some(throttle) =
            self.call.core.throttle.as_ref().filter(|_| !matches!(judged, Judged::Unprocessed))
        {
            throttle.count(matches!(judged, Judged::Failed), outcome.as_ref().ok());
        }
        match judged {
            Judged::Final => return Some(self.answer(id, outcome, attempt.permit)),
            Judged::Unprocessed => {
                let refused = |error: &AttemptError| error.kind == AttemptErrorKind::RefusedStream;
                self.transparent |= outcome.as_ref().err().is_some_and(refused);
                self.send(attempt.permit, Some(attempt.previous));
                return None;
            }
            Judged::Failed => {
                let headers = outcome.as_ref().ok().map(Response::headers);
                self.follow(headers, attempt.slow, attempt.permit.take());
            }
            Judged::Passed => {}
        }
        if self.attempts.is_empty() && self.due.is_empty() {
            return Some(self.answer(id, outcome, attempt.permit));
        }
        None
    }

    fn judge(&self, outcome: &Outcome<U>) -> Judged {
        let policy = self.policy.as_deref();
        match outcome {
            Ok(response) => {
                let named = policy
                    .is_some_and(|policy| policy::response(policy, response.status(), response.headers()));
                if named { Judged::Failed } else { Judged::Final }
            }
            Err(error) => match error.kind {
                // Superseded by an attempt that was further, unless the caller's own body failed.
                AttemptErrorKind::RequestBody if self.replay.is_failed() => Judged::Final,
                kind if kind.is_unprocessed()
                    && !(kind == AttemptErrorKind::RefusedStream && self.transparent)
                    && self.replay.is_repeatable()
                    && !self.is_over() =>
                {
                    Judged::Unprocessed
                }
                kind if policy
                    .is_some_and(|policy| policy::failure(policy.on, kind, error.status.code())) =>
                {
                    Judged::Failed
                }
                _ => Judged::Passed,
            },
        }
    }

    /// What a failure that the policy names is followed by; `slow`: by something already.
    fn follow(&mut self, headers: Option<&HeaderMap>, slow: bool, permit: Option<U::RetryPermit>) {
        let now = Instant::now();
        let asked = headers
            .zip(self.policy.as_deref().and_then(|policy| policy.rate_limited.as_ref()))
            .and_then(|(headers, limited)| backoff::reset(headers, limited, SystemTime::now()));
        let wait = match (headers.map_or(Pushback::None, Pushback::read), asked) {
            (Pushback::Stop, _) => {
                self.denied = Some("the server said not to (grpc-retry-pushback-ms)");
                self.due.clear();
                return;
            }
            (Pushback::After(wait), _) => {
                self.growth.begin_anew();
                // Whatever is to be sent waits for that.
                self.not_before = self.not_before.into_iter().chain(now.checked_add(wait)).max();
                for due in &mut self.due {
                    due.at = self.not_before.into_iter().fold(due.at, Instant::max);
                }
                wait
            }
            (Pushback::None, _) if slow => return,
            (Pushback::None, Some(wait)) => wait,
            (Pushback::None, None) => self.back_off(),
        };
        if !slow {
            self.plan(now, wait, permit);
        }
    }

    fn back_off(&mut self) -> Duration {
        let Self { policy, growth, call, .. } = self;
        let wait = |policy: &Arc<RetryPolicy>| growth.wait(policy.back_off, &mut call.core.dice.roll());
        policy.as_ref().map(wait).unwrap_or_default()
    }

    /// Ends the call with this attempt; whatever else is in flight is given up.
    fn answer(
        &mut self,
        id: u32,
        outcome: Outcome<U>,
        permit: Option<U::RetryPermit>,
    ) -> Result<Answer<U>, Status> {
        self.running = FuturesUnordered::new();
        self.attempts.clear();
        self.due.clear();
        self.replay.commit_to(id);
        let failed = !matches!(self.judge(&outcome), Judged::Final);
        let denied = self.denied.filter(|_| failed);
        match outcome {
            Ok(mut response) => {
                if let Some(denied) = denied {
                    response.headers_mut().insert(RETRY_DENIED, HeaderValue::from_static(denied));
                }
                let counted = self.call.core.counted(self.policy.as_ref(), &response);
                Ok(Answer { response, permit, idle: self.idle(), counted })
            }
            Err(error) => {
                let limit = self.idle().map(|idle| ("per_try_idle_timeout", idle));
                let per_try = self.per_try().filter(|_| !self.hedge.on_per_try_timeout);
                let limit = match (per_try.map(|per_try| ("per_try_timeout", per_try)), limit) {
                    (Some(one), Some(other)) => Some(if other.1 < one.1 { other } else { one }),
                    (one, other) => one.or(other),
                };
                let Call { core, compiled, deadline, .. } = self.call;
                Err(core.over(compiled, *deadline, error, self.sent, limit, denied))
            }
        }
    }

    fn is_over(&self) -> bool {
        self.call.deadline.is_some_and(|deadline| deadline.at <= Instant::now())
    }

    fn idle(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|policy| policy.per_try_idle_timeout)
    }

    fn per_try(&self) -> Option<Duration> {
        self.policy.as_ref().and_then(|policy| policy.per_try_timeout)
    }
}
