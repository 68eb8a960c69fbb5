//! The bound of a call: the earliest of what its caller, the request being served and the route allow
//! (gRFC A31). It covers everything: waiting for configuration, injected delays, attempts, the waits
//! between them, and the response until its end.

use crate::{
    cluster::answer::GRPC_STATUS,
    context::Incoming,
    timeout::{self, GRPC_TIMEOUT},
};
use http::HeaderMap;
use mesh_xds::config::TimeLimit;
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::Status;

/// Kept back from an incoming request's time for its answer to travel: a tenth of it, but at most this.
const MARGIN: Duration = Duration::from_millis(5);

/// Who set a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The caller's `grpc-timeout`.
    Caller,
    /// The deadline of the request that the calling task serves.
    Incoming,
    /// The route's `max_stream_duration`.
    Route,
    /// The listener's `max_stream_duration`.
    Listener,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "the caller's grpc-timeout",
            Self::Incoming => "the deadline of the request being served",
            Self::Route => "the route's timeout (max_stream_duration)",
            Self::Listener => "the listener's max_stream_duration",
        })
    }
}

/// End of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) bound: Bound,
    /// What was left when the call began.
    allowed: Duration,
}

impl Deadline {
    fn after(now: Instant, allowed: Duration, bound: Bound) -> Option<Self> {
        Some(Self { at: now.checked_add(allowed)?, bound, allowed })
    }

    /// The bound that comes with the request: its `grpc-timeout`, or the deadline of the request being served.
    /// An unreadable timeout fails the call: it would otherwise be unbounded against the caller's will.
    pub(crate) fn of_caller(
        headers: &HeaderMap,
        incoming: Option<Incoming>,
        mut now: impl FnMut() -> Instant,
    ) -> Result<Option<Self>, Status> {
        let own = match headers.get(GRPC_TIMEOUT) {
            None => None,
            Some(value) => {
                let allowed = timeout::parse(value.as_bytes())
                    .map_err(|error| Status::internal(format!("{error}; the call carries {value:?}")))?;
                Self::after(now(), allowed, Bound::Caller)
            }
        };
        let inherited = incoming.and_then(|incoming| incoming.deadline).and_then(|at| {
            let now = now();
            let left = at.saturating_duration_since(now);
            Self::after(now, left - MARGIN.min(left / 10), Bound::Incoming)
        });
        Ok(Self::earlier(own, inherited))
    }

    /// With what the route allows as well.
    pub(crate) fn within(
        own: Option<Self>,
        limit: Option<Limit>,
        began: impl FnOnce() -> Instant,
    ) -> Option<Self> {
        let limit = limit.and_then(|limit| Self::after(began(), limit.duration, limit.bound));
        Self::earlier(own, limit)
    }

    fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.at < one.at { other } else { one }),
            (one, other) => one.or(other),
        }
    }

    /// Whether a response is the server's way of saying that this deadline came: tonic's server ends a call
    /// at its `grpc-timeout` with CANCELLED, a moment before or after we do.
    pub(crate) fn is_meant_by(&self, response: &HeaderMap) -> bool {
        const MOMENT: Duration = Duration::from_millis(10);
        let cancelled = response.get(GRPC_STATUS).is_some_and(|status| status == "1");
        cancelled && self.at <= Instant::now() + MOMENT
    }

    /// What the caller is told; `what` had not happened.
    pub(crate) fn exceeded(&self, target: &Arc<str>, what: &str) -> Status {
        Status::deadline_exceeded(format!("target {target}: {what} ({self})"))
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound, allowed, .. } = self;
        write!(f, "{allowed:?}, {bound}")
    }
}

/// What configuration allows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    duration: Duration,
    bound: Bound,
}

impl From<TimeLimit> for Limit {
    fn from(limit: TimeLimit) -> Self {
        let bound = match limit {
            TimeLimit::Route(_) => Bound::Route,
            TimeLimit::Listener(_) => Bound::Listener,
        };
        Self { duration: limit.duration(), bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{forward, http};
    use http::HeaderValue;
    use mesh_xds::resource::route::Forward;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn caller(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(value))])
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cancels_at_the_deadline_means_the_deadline() {
        let deadline = Deadline::after(Instant::now(), ms(100), Bound::Caller).unwrap();
        let answer = |status: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(status),
            )])
        };
        assert!(!deadline.is_meant_by(&answer("1")), "long before, it is somebody's cancellation");
        tokio::time::advance(ms(95)).await;
        assert!(deadline.is_meant_by(&answer("1")));
        assert!(!deadline.is_meant_by(&answer("14")));
        assert!(!deadline.is_meant_by(&HeaderMap::new()));
    }

    #[test]
    fn the_earliest_bound_wins_and_is_named() {
        let now = Instant::now();
        for (own, incoming, route, expected) in [
            (Some("100m"), None, None, Some((ms(100), Bound::Caller))),
            (Some("100m"), Some(ms(60)), None, Some((ms(55), Bound::Incoming))),
            (Some("100m"), Some(ms(10)), Some(ms(50)), Some((ms(9), Bound::Incoming))),
            (Some("100m"), Some(ms(200)), Some(ms(50)), Some((ms(50), Bound::Route))),
            (None, None, Some(ms(50)), Some((ms(50), Bound::Route))),
            (None, None, None, None),
        ] {
            let headers = own.map(caller).unwrap_or_default();
            let incoming = incoming.map(|left| Incoming { deadline: Some(now + left), retry: false });
            let deadline = Deadline::of_caller(&headers, incoming, || now).unwrap();
            let limit = route.map(|duration| Limit { duration, bound: Bound::Route });
            let found = Deadline::within(deadline, limit, || now);
            assert_eq!(
                found.map(|deadline| (deadline.at - now, deadline.bound)),
                expected,
                "{own:?} {route:?}"
            );
        }
    }

    #[test]
    fn an_unreadable_timeout_fails_the_call_instead_of_unbounding_it() {
        let error = Deadline::of_caller(&caller("soon"), None, Instant::now).unwrap_err();
        assert_eq!(error.code(), tonic::Code::Internal);
        assert!(error.message().contains("soon"), "{error}");
    }

    #[test]
    fn the_masks_of_a31() {
        let route = |max, header_max| {
            let mut route = forward("c");
            route.max_stream_duration = max;
            route.grpc_timeout_header_max = header_max;
            route
        };
        let mut listener = http();
        listener.max_stream_duration = Some(ms(7));
        let of = |route: Forward| TimeLimit::of(&route, &listener).map(|limit| Limit::from(limit).duration);
        assert_eq!(of(route(None, None)), Some(ms(7)));
        assert_eq!(of(route(Some(ms(5)), None)), Some(ms(5)));
        assert_eq!(of(route(Some(ms(5)), Some(ms(9)))), Some(ms(9)));
        assert_eq!(of(route(Some(Duration::ZERO), None)), None, "zero lifts the listener's");
        assert_eq!(of(route(Some(ms(5)), Some(Duration::ZERO))), None, "zero masks");
    }
}
