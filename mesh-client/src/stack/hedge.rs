//! Attempts of a call beside one another (gRPC A6; Envoy's `hedge_policy`).
//!
//! What a call is hedged by is the program's policy, if there is one for its method, else its route's ([`Hedged`]):
//! - A6, which the program gives, since xDS carries no service config: one attempt after the other,
//!   `hedging_delay` apart, or all at once; the next one without delay after a status that is not fatal.
//! - `initial_requests` and `additional_request_chance` (Envoy has the fields and no code; done as A6 would): so many
//!   attempts at once, five at most.
//! - `hedge_on_per_try_timeout` (Envoy): an attempt that exceeds `per_try_timeout` goes on while another one is
//!   made, after the back-off, as long as `num_retries` allows; it needs a retry policy, and every attempt may take
//!   as long as the call. A failure that the retry policy names is followed by another attempt after the back-off,
//!   unless one was made for it already.
//!
//! Promises, for all of them: the first answer that the policy does not name (A6's fatal ones included) is the call's,
//! and what the other attempts held is released before the caller has it. A failure that was decided here never ends
//! the call while another attempt is in flight, nor does one without an answer, unless A6 has it fatal. The last
//! failure is the call's when nothing is left. Every attempt but the first counts against the cluster's retry budget or
//! limit; the server's pushback stops or delays whatever has not been sent; a hop that serves a retry does not hedge.
//! One deadline covers all of it, and the request is kept once, within what retries may keep: when it is longer than
//! that, the attempt that is furthest goes on and the others end at once.

mod source;

pub(super) use source::Hedged;

use super::{
    Call, RETRY_DENIED,
    retry::{Answer, NO_ROOM, NO_TIME, SERVES_RETRY, SPENT, STOPPED, TOO_LONG, earlier, set_timeout},
};
use crate::{
    body::CallBody,
    call::{Started, Upstream},
    cluster::{AttemptContext, AttemptError, AttemptErrorKind},
    context::PREVIOUS_ATTEMPTS,
    retry::{
        backoff::{self, Growth, Pushback},
        head::Head,
        hedging::MOST,
        replay::Replay,
        throttle::THROTTLED,
    },
};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response, request::Parts};
use source::Failure;
use std::{
    future::{pending, poll_fn, ready},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;
use tonic::Status;

type Outcome<U> = Result<Response<<U as Upstream>::Body>, AttemptError>;

/// An attempt in flight.
struct Attempt<U: Upstream> {
    id: u32,
    /// How many there were before it, transparent ones aside.
    previous: u32,
    /// When it counts as slow; none: never, or it does already.
    slow_at: Option<Instant>,
    slow: bool,
    permit: Option<U::RetryPermit>,
    running: BoxFuture<'static, Outcome<U>>,
    /// Where it went, of one that had to wait before it was sent.
    went: Option<Arc<OnceLock<SocketAddr>>>,
}

/// An attempt that is to be made.
struct Due<P> {
    at: Instant,
    /// None: to be had when it is made.
    permit: Option<P>,
}

/// A call with several attempts.
struct Hedging<'a, U: Upstream> {
    call: &'a Call<'a, U>,
    by: Hedged,
    cluster: Arc<U>,
    context: AttemptContext,
    head: Head,
    replay: Replay,
    attempts: Vec<Attempt<U>>,
    due: Vec<Due<U::RetryPermit>>,
    ids: u32,
    /// Attempts sent, transparent ones aside.
    sent: u32,
    /// Of the retry policy's.
    retries: u32,
    growth: Growth,
    transparent: bool,
    /// Said by a server.
    not_before: Option<Instant>,
    /// Why there are no more attempts.
    denied: Option<&'static str>,
}

/// What there is to do.
enum Event<U: Upstream> {
    /// The attempt at this place is over.
    Ended(usize, Outcome<U>),
    /// What was sent is not kept any more: only this attempt may go on.
    Only(u32),
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
        by: Hedged,
        parts: Parts,
        body: tonic::body::Body,
    ) -> Result<Answer<U>, Status> {
        let mut context = self.context();
        by.prepare(&mut context);
        let replay = Replay::new(body, self.core.budget.clone());
        self.mirror(&parts, &replay);
        let mut hedging = Hedging {
            call: self,
            by,
            cluster: self.cluster()?.clone(),
            context,
            head: Head::of(&parts.method, &parts.uri, &parts.headers),
            replay,
            attempts: Vec::new(),
            due: Vec::new(),
            ids: 0,
            sent: 0,
            retries: 0,
            growth: Growth::default(),
            transparent: false,
            not_before: None,
            denied: self.serves_retry.then_some(SERVES_RETRY),
        };
        hedging.begin();
        hedging.run().await
    }
}

impl<U: Upstream> Hedging<'_, U> {
    /// The attempts that are made at once.
    fn begin(&mut self) {
        self.send(None, None);
        match &self.by {
            Hedged::Program(policy) if policy.delay.is_zero() => {
                for _ in 1..policy.attempts {
                    self.hedge(None);
                }
            }
            Hedged::Program(_) => self.wait_to_hedge(),
            Hedged::Route(hedge, _) => {
                let chance = hedge.additional_request_chance;
                let more = u32::from(chance.hit(self.call.core.dice.roll().u32(0..1_000_000)));
                let wanted = hedge.initial_requests.get().saturating_add(more).min(MOST);
                for _ in 1..wanted {
                    if self.is_throttled() {
                        break;
                    }
                    let Some(permit) = self.permit() else { break };
                    self.send(Some(permit), None);
                }
            }
        }
    }

    /// Sends A6's next attempt, if there may be one, and has the one after it wait; with the permit of one that failed.
    fn hedge(&mut self, permit: Option<U::RetryPermit>) {
        self.due.clear();
        if self.may_follow()
            && self.is_within(Instant::now())
            && let Some(permit) = self.leave(permit)
        {
            self.send(Some(permit), None);
            self.wait_to_hedge();
        }
    }

    /// Has A6's next attempt wait for its time.
    fn wait_to_hedge(&mut self) {
        if let Hedged::Program(policy) = self.by
            && self.may_follow()
        {
            let at = Instant::now().checked_add(policy.delay);
            self.due = at.map(|at| Due { at, permit: None }).into_iter().collect();
        }
    }

    /// Whether the policy has another attempt.
    fn has_more(&self) -> bool {
        match &self.by {
            Hedged::Program(policy) => self.sent < policy.attempts,
            Hedged::Route(_, retry) => retry.as_ref().is_some_and(|policy| self.retries < policy.num_retries),
        }
    }

    /// Whether there may be one, as far as is known.
    fn may_follow(&self) -> bool {
        self.has_more() && self.denied.is_none()
    }

    /// Leave for one more attempt, with the permit of one that failed if there is one. Without it there are no more.
    fn leave(&mut self, permit: Option<U::RetryPermit>) -> Option<U::RetryPermit> {
        let why = if !self.replay.is_repeatable() {
            TOO_LONG
        } else if self.is_throttled() {
            THROTTLED
        } else {
            match permit.or_else(|| self.permit()) {
                Some(permit) => return Some(permit),
                None => NO_ROOM,
            }
        };
        self.denied = Some(why);
        None
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
        self.learn();
        let now = Instant::now();
        let deadline = self.call.deadline.map(|deadline| deadline.at);
        let (per_try, goes_on) = (self.by.per_try(), self.by.goes_on());
        let told = if goes_on { deadline } else { earlier(deadline, per_try, now) };
        self.context.deadline = earlier(told, self.by.idle(), now);
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
            (None, _) if self.attempts.is_empty() && !self.by.is_own() => counters.retries.add_one(),
            (None, _) => counters.hedges.add_one(),
        }
        self.sent += u32::from(previous.is_none());
        self.ids += 1;
        let id = self.ids;
        let mut went = None;
        let running: BoxFuture<'static, Outcome<U>> = match self.cluster.begin(request, &mut self.context) {
            Started::Sent(exchange) => Box::pin(exchange),
            Started::Failed(error) => Box::pin(ready(Err(error))),
            Started::Later(request) => {
                let (cluster, mut context) = (self.cluster.clone(), self.context.clone());
                let tell = went.insert(Arc::new(OnceLock::new())).clone();
                Box::pin(async move {
                    let exchange = cluster.begin_later(request, &mut context).await?;
                    if let Some(endpoint) = context.tried.last() {
                        // It is set once.
                        let _ = tell.set(endpoint);
                    }
                    exchange.await
                })
            }
        };
        let slow_at = per_try.filter(|_| goes_on).and_then(|after| now.checked_add(after));
        self.attempts.push(Attempt { id, previous: place, slow_at, slow: false, permit, running, went });
    }

    /// Takes in where attempts went that had to wait: others avoid it.
    fn learn(&mut self) {
        for attempt in &mut self.attempts {
            if let Some(endpoint) = attempt.went.as_ref().and_then(|went| went.get()) {
                self.context.tried.push(*endpoint);
                attempt.went = None;
            }
        }
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
                event = poll_fn(|cx| self.poll(cx)) => match event {
                    Event::Only(id) => self.keep_only(id),
                    Event::Ended(index, outcome) => {
                        if let Some(answer) = self.ended(index, outcome) {
                            return answer;
                        }
                    }
                },
                () = timer => self.on_time(),
            }
            if self.attempts.is_empty() && self.due.is_empty() {
                return Err(self.call.explain(Status::internal(SPENT), self.sent, self.denied));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<U>> {
        // The first to look at, since an attempt that may not go on must not win.
        if let Poll::Ready(only) = self.replay.poll_only(cx)
            && self.attempts.iter().any(|attempt| attempt.id != only)
        {
            return Poll::Ready(Event::Only(only));
        }
        for (index, attempt) in self.attempts.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = attempt.running.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(index, outcome));
            }
        }
        Poll::Pending
    }

    /// The request has become too long to be kept: the attempt that is furthest goes on.
    fn keep_only(&mut self, id: u32) {
        self.attempts.retain(|attempt| attempt.id == id);
        self.due.clear();
        self.denied = Some(TOO_LONG);
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
                match self.due.swap_remove(index).permit {
                    Some(permit) => self.send(Some(permit), None),
                    None => self.hedge(None),
                }
            }
        }
    }

    /// Another attempt of the retry policy is to be made, after this long, if one may be; with the permit of one that
    /// failed.
    fn plan(&mut self, now: Instant, wait: Duration, permit: Option<U::RetryPermit>) {
        if !self.may_follow() {
            return;
        }
        let at = now.checked_add(wait).map(|at| self.not_before.into_iter().fold(at, Instant::max));
        let Some(at) = at.filter(|at| self.is_within(*at)) else {
            self.denied = Some(NO_TIME);
            return;
        };
        if let Some(permit) = self.leave(permit) {
            self.retries += 1;
            self.due.push(Due { at, permit: Some(permit) });
        }
    }

    /// An attempt is over. The call's answer, if it has one now.
    fn ended(&mut self, index: usize, outcome: Outcome<U>) -> Option<Result<Answer<U>, Status>> {
        self.learn();
        let mut attempt = self.attempts.swap_remove(index);
        let id = attempt.id;
        // A response that is the call's may need the rest of its request.
        let only = match &outcome {
            Ok(_) => self.replay.only(),
            Err(_) => self.replay.give_up(id),
        };
        if let Some(only) = only {
            self.keep_only(only);
            if only != id && !self.attempts.is_empty() {
                return None;
            }
        }
        let judged = self.judge(&outcome);
        if let Some(throttle) =
            self.call.core.throttle.as_ref().filter(|_| !matches!(judged, Judged::Unprocessed))
        {
            throttle.count(matches!(judged, Judged::Failed), outcome.as_ref().ok());
        }
        match judged {
            Judged::Final => return Some(self.answer(id, outcome, attempt.permit)),
            // Since it was judged, an attempt beside it may have outgrown what is kept: that one goes on.
            Judged::Unprocessed if !self.replay.is_repeatable() && !self.attempts.is_empty() => return None,
            Judged::Unprocessed => {
                let refused = |error: &AttemptError| error.kind == AttemptErrorKind::RefusedStream;
                self.transparent |= outcome.as_ref().err().is_some_and(refused);
                self.send(attempt.permit, Some(attempt.previous));
                return None;
            }
            Judged::Failed => {
                // It may have outgrown what is kept since: then the others miss what it has sent.
                if outcome.is_ok()
                    && let Some(only) = self.replay.give_up(id)
                {
                    self.keep_only(only);
                }
                let headers = outcome.as_ref().ok().map(Response::headers);
                self.follow(headers, attempt.slow, attempt.permit.take());
            }
            // What was decided here is not to be tried again and again until it is decided otherwise.
            Judged::Passed if self.attempts.is_empty() && self.by.is_own() => self.due.clear(),
            Judged::Passed => {}
        }
        if self.attempts.is_empty() && self.due.is_empty() {
            return Some(self.answer(id, outcome, attempt.permit));
        }
        None
    }

    fn judge(&self, outcome: &Outcome<U>) -> Judged {
        match outcome {
            Ok(response) if self.by.names(response) => Judged::Failed,
            Ok(_) => Judged::Final,
            Err(error) => match error.kind {
                // Superseded by an attempt that was further, unless the caller's own body failed.
                AttemptErrorKind::RequestBody if self.replay.is_failed() => Judged::Final,
                kind if kind.is_unprocessed()
                    && !(kind == AttemptErrorKind::RefusedStream && self.transparent)
                    && self.replay.is_repeatable()
                    && self.is_within(Instant::now()) =>
                {
                    Judged::Unprocessed
                }
                kind => match self.by.failure(kind, error.status.code()) {
                    Failure::Named => Judged::Failed,
                    Failure::Fatal => Judged::Final,
                    Failure::Passed => Judged::Passed,
                },
            },
        }
    }

    /// What a failure that the policy names is followed by; `slow`: by something already.
    fn follow(&mut self, headers: Option<&HeaderMap>, slow: bool, permit: Option<U::RetryPermit>) {
        let now = Instant::now();
        let pushback = headers.map_or(Pushback::None, Pushback::read);
        match pushback {
            Pushback::Stop => {
                self.denied = Some(STOPPED);
                self.due.clear();
                return;
            }
            Pushback::After(wait) => {
                self.growth.begin_anew();
                // Whatever is to be sent waits for that.
                self.not_before = self.not_before.into_iter().chain(now.checked_add(wait)).max();
                for due in &mut self.due {
                    due.at = self.not_before.into_iter().fold(due.at, Instant::max);
                }
            }
            Pushback::None => {}
        }
        let retry = match &self.by {
            Hedged::Program(_) => return self.follow_at_once(now, permit),
            Hedged::Route(_, _) if slow => return,
            Hedged::Route(_, retry) => retry.as_deref(),
        };
        let asked = || {
            let limited = retry.and_then(|policy| policy.rate_limited.as_ref());
            let (headers, limited) = headers.zip(limited)?;
            backoff::reset(headers, limited, SystemTime::now())
        };
        let wait = match pushback {
            Pushback::After(wait) => Some(wait),
            Pushback::None | Pushback::Stop => asked(),
        };
        let wait = wait.unwrap_or_else(|| self.back_off());
        self.plan(now, wait, permit);
    }

    /// A6's next attempt is made at once, unless a server has asked for a wait; with the permit of the one that failed.
    fn follow_at_once(&mut self, now: Instant, permit: Option<U::RetryPermit>) {
        match self.not_before.filter(|at| *at > now) {
            None => self.hedge(permit),
            Some(at) if self.may_follow() && self.is_within(at) => self.due = vec![Due { at, permit: None }],
            Some(_) => {
                self.due.clear();
                self.denied.get_or_insert(NO_TIME);
            }
        }
    }

    fn back_off(&mut self) -> Duration {
        let Self { by, growth, call, .. } = self;
        by.retry().map_or(Duration::ZERO, |policy| growth.wait(policy.back_off, &mut call.core.dice.roll()))
    }

    /// Ends the call with this attempt; whatever else is in flight is given up.
    fn answer(
        &mut self,
        id: u32,
        outcome: Outcome<U>,
        permit: Option<U::RetryPermit>,
    ) -> Result<Answer<U>, Status> {
        self.attempts.clear();
        self.due.clear();
        self.replay.commit_to(id);
        let failed = !matches!(self.judge(&outcome), Judged::Final);
        let denied = self.denied.filter(|_| failed && self.has_more());
        match outcome {
            Ok(mut response) => {
                if let Some(denied) = denied {
                    response.headers_mut().insert(RETRY_DENIED, HeaderValue::from_static(denied));
                }
                let counted = self.call.core.counted(self.by.named(), &response);
                Ok(Answer { response, permit, idle: self.by.idle(), counted })
            }
            Err(error) => {
                let limit = self.by.idle().map(|idle| ("per_try_idle_timeout", idle));
                let per_try = self.by.per_try().filter(|_| !self.by.goes_on());
                let limit = match (per_try.map(|per_try| ("per_try_timeout", per_try)), limit) {
                    (Some(one), Some(other)) => Some(if other.1 < one.1 { other } else { one }),
                    (one, other) => one.or(other),
                };
                let Call { core, compiled, deadline, .. } = self.call;
                Err(core.over(compiled, *deadline, error, self.sent, limit, denied))
            }
        }
    }

    /// Whether the call is not over then.
    fn is_within(&self, at: Instant) -> bool {
        self.call.deadline.is_none_or(|deadline| at < deadline.at)
    }
}
