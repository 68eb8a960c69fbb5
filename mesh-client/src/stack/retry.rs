//! The attempts of a call: one, or as many as its retry policy allows (gRFC A6, A44).
//!
//! Nothing is buffered without a policy. A response with messages commits the call, as does a request too
//! long to keep. A retry must find room in the cluster's budget and time before the deadline; when it does
//! not, the failure that would have been hidden is returned, and says why it was not retried.

use super::{Call, Core, RETRY_DENIED, deadline::Deadline};
use crate::{
    body::CallBody,
    call::Upstream,
    cluster::{AttemptContext, AttemptError, AttemptErrorKind},
    context::PREVIOUS_ATTEMPTS,
    retry::{
        backoff::{self, Pushback},
        policy,
        replay::Replay,
    },
    table::Compiled,
    timeout,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, request::Parts};
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
}

/// How an attempt ended that may be followed by another.
enum Failed<B> {
    Response(Response<B>),
    Error(AttemptError),
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
}

/// The head of a request that may be sent again: less than a copy of it, since most are sent once.
struct Head {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Head {
    fn of(parts: &Parts) -> Self {
        let entry = |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone());
        let mut headers = Vec::with_capacity(parts.headers.len());
        headers.extend(parts.headers.iter().map(entry));
        Self { method: parts.method.clone(), uri: parts.uri.clone(), headers }
    }

    fn request(&self, body: CallBody) -> Request<CallBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}

impl<U: Upstream> Call<'_, U> {
    /// The cluster, if there is one.
    pub(super) fn cluster(&self) -> Result<&Arc<U>, Status> {
        self.choice.cluster.as_ref().map_err(|why| {
            let message = format!("cluster {}: {why}", self.choice.name);
            self.explain(Status::unavailable(message), 0, None)
        })
    }

    /// Sends the request until it is answered or there is nothing more to try.
    pub(super) async fn attempts(&self, parts: Parts, body: tonic::body::Body) -> Result<Answer<U>, Status> {
        let cluster = self.cluster()?;
        let seen = self.core.seen(&parts.uri, &parts.headers);
        let policy = self.forwarding.retry.as_ref().filter(|policy| policy::applies(policy, &seen));
        let mut context = AttemptContext {
            wait_for_ready: self.wait_for_ready,
            auto_host_rewrite: self.forwarding.auto_host_rewrite,
            ..AttemptContext::default()
        };
        if policy.is_none() && self.forwarding.mirrors.is_empty() {
            context.deadline = self.deadline.map(|deadline| deadline.at);
            let mut request = Request::from_parts(parts, CallBody::Tonic(body));
            set_timeout(&mut request, context.deadline);
            return match cluster.attempt(request, &mut context).await {
                Ok(response) => Ok(Answer { response, permit: None, idle: None }),
                Err(error) => Err(self.over(error, 1, None, None)),
            };
        }
        let replay = Replay::new(body, self.core.budget.clone());
        self.mirror(&parts, &replay);
        self.repeat(cluster, parts, replay, policy, context).await
    }

    async fn repeat(
        &self,
        cluster: &Arc<U>,
        parts: Parts,
        replay: Replay,
        policy: Option<&Arc<RetryPolicy>>,
        mut context: AttemptContext,
    ) -> Result<Answer<U>, Status> {
        if let Some(policy) = policy.filter(|policy| policy.avoid_previous_hosts) {
            context.selection_attempts = policy.host_selection_attempts;
        }
        let idle = policy.and_then(|policy| policy.per_try_idle_timeout);
        let (mut attempts, mut retries, mut transparent) = (0, 0, false);
        let mut permit = None;
        let (head, mut first) = (Head::of(&parts), Some(parts));
        loop {
            let Some(body) = replay.attempt() else {
                // Only the first attempt is made without asking; it always has its body.
                return Err(self.explain(
                    Status::internal("the request cannot be sent again"),
                    attempts,
                    None,
                ));
            };
            let per_try = policy.and_then(|policy| policy.per_try_timeout);
            let told = earlier(self.deadline.map(|deadline| deadline.at), per_try);
            // Silence is measured here: a server that goes on talking has all the time that it is told.
            context.deadline = earlier(told, idle);
            let body = CallBody::Replay(body);
            let mut request = match first.take() {
                Some(parts) => Request::from_parts(parts, body),
                None => head.request(body),
            };
            if retries > 0 {
                request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(retries));
            }
            set_timeout(&mut request, told);
            attempts += 1;
            let result = cluster.attempt(request, &mut context).await;
            let next = match policy {
                Some(policy) => self.next(policy, &result, &replay, retries, transparent),
                None => Next::Over,
            };
            let failed = match result {
                Ok(response) => Failed::Response(response),
                Err(error) => Failed::Error(error),
            };
            let denied = match next {
                Next::Over => None,
                Next::Denied(why) => Some(why),
                Next::Transparent => {
                    transparent = true;
                    self.core.counters.transparent_retries.add_one();
                    continue;
                }
                Next::After(wait) => {
                    if permit.is_none() {
                        permit = cluster.retry_permit();
                    }
                    if permit.is_some() {
                        // The stream of the failed attempt ends before the wait begins.
                        drop(failed);
                        retries += 1;
                        self.core.counters.retries.add_one();
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                    self.core.counters.retries_denied.add_one();
                    Some("the cluster has as many retries in flight as it may")
                }
            };
            replay.commit();
            return match failed {
                Failed::Response(mut response) => {
                    if let Some(denied) = denied {
                        response.headers_mut().insert(RETRY_DENIED, HeaderValue::from_static(denied));
                    }
                    Ok(Answer { response, permit, idle })
                }
                Failed::Error(error) => {
                    let limit = match (per_try, idle) {
                        (Some(per_try), Some(idle)) if idle < per_try => Some(("per_try_idle_timeout", idle)),
                        (Some(per_try), _) => Some(("per_try_timeout", per_try)),
                        (None, idle) => idle.map(|idle| ("per_try_idle_timeout", idle)),
                    };
                    Err(self.over(error, attempts, limit, denied))
                }
            };
        }
    }

    /// What follows this outcome.
    fn next(
        &self,
        policy: &RetryPolicy,
        result: &Result<Response<U::Body>, AttemptError>,
        replay: &Replay,
        retries: u32,
        transparent: bool,
    ) -> Next {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline.at <= now) {
            return Next::Over;
        }
        let (retriable, headers) = match result {
            Ok(response) => {
                (policy::response(policy, response.status(), response.headers()), Some(response.headers()))
            }
            Err(error) => {
                let unprocessed =
                    matches!(error.kind, AttemptErrorKind::RefusedStream | AttemptErrorKind::NeverSent);
                if unprocessed && !transparent && replay.is_repeatable() {
                    return Next::Transparent;
                }
                (policy::failure(policy.on, error.kind, error.status.code()), None)
            }
        };
        if !retriable {
            return Next::Over;
        }
        if retries >= policy.num_retries {
            return Next::Over;
        }
        if self.serves_retry {
            return Next::Denied("the request being served is itself a retry, and its caller tries again");
        }
        if !replay.is_repeatable() {
            return Next::Denied("the request is longer than what is kept of it");
        }
        let pushback = headers.map_or(Pushback::None, Pushback::read);
        let asked = headers
            .zip(policy.rate_limited.as_ref())
            .and_then(|(headers, rate_limited)| backoff::reset(headers, rate_limited, SystemTime::now()));
        let wait = match (pushback, asked) {
            (Pushback::Stop, _) => return Next::Denied("the server said not to (grpc-retry-pushback-ms)"),
            (Pushback::After(wait), _) => wait,
            (Pushback::None, Some(wait)) => wait,
            (Pushback::None, None) => backoff::wait(policy.back_off, retries, &mut self.core.dice.roll()),
        };
        match self.deadline {
            Some(deadline) if now + wait >= deadline.at => Next::Denied("there is no time left for it"),
            _ => Next::After(wait),
        }
    }
}

impl<U: Upstream> Call<'_, U> {
    fn over(
        &self,
        error: AttemptError,
        attempts: u32,
        limit: Option<(&'static str, Duration)>,
        denied: Option<&'static str>,
    ) -> Status {
        self.core.over(self.compiled, self.deadline, error, attempts, limit, denied)
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

fn earlier(deadline: Option<Instant>, within: Option<Duration>) -> Option<Instant> {
    let within = within.and_then(|within| Instant::now().checked_add(within));
    deadline.into_iter().chain(within).min()
}

/// What is left is what the server is told.
fn set_timeout(request: &mut Request<CallBody>, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        request.headers_mut().insert(timeout::GRPC_TIMEOUT, timeout::format(left));
    }
}
