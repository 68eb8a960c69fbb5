//! What a call is hedged by: its route's policies as Envoy has them, or the program's as gRPC A6 has it. Never both.

use crate::{
    cluster::{AttemptContext, AttemptErrorKind, Elsewhere},
    retry::{codes::Codes, hedging::Hedging, policy},
};
use http::Response;
use mesh_xds::resource::retry::{HedgePolicy, RetryPolicy};
use std::{sync::Arc, time::Duration};
use tonic::Code;

/// A6 has the attempts of a call go to distinct endpoints: the balancer is asked so often, then whatever is left is taken.
const PICKS: u32 = 5;

/// By what a call is hedged.
pub(in crate::stack) enum Hedged {
    /// By its route: Envoy's policy, and the retry policy of the request if it has one.
    Route(HedgePolicy, Option<Arc<RetryPolicy>>),
    /// By the program: A6's policy.
    Program(Hedging),
}

/// What a failure means.
pub(super) enum Failure {
    /// The policy names it: another attempt may follow.
    Named,
    /// It ends the call (A6).
    Fatal,
    /// It ends the call only if nothing else is left.
    Passed,
}

impl Hedged {
    /// By the program.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Program(_))
    }

    /// The retry policy, where one counts.
    pub(super) fn retry(&self) -> Option<&RetryPolicy> {
        match self {
            Self::Route(_, retry) => retry.as_deref(),
            Self::Program(_) => None,
        }
    }

    pub(super) fn prepare(&self, context: &mut AttemptContext) {
        match self {
            Self::Route(_, retry) => {
                let Some(policy) = retry else { return };
                if policy.avoid_previous_hosts {
                    context.selection_attempts = policy.host_selection_attempts;
                }
                context.elsewhere = policy.previous_priorities.map(|every| Box::new(Elsewhere::new(every)));
            }
            Self::Program(_) => (context.selection_attempts, context.distinct) = (PICKS, true),
        }
    }

    /// What an attempt may take. One that exceeds it goes on where [`Self::goes_on`].
    pub(super) fn per_try(&self) -> Option<Duration> {
        self.retry().and_then(|policy| policy.per_try_timeout)
    }

    /// An attempt that is slow goes on, and another one is made.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Self::Route(hedge, _) if hedge.on_per_try_timeout)
    }

    /// Longest silence of an attempt and of the response.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.retry().and_then(|policy| policy.per_try_idle_timeout)
    }

    /// Statuses of failures, for throttling; none: they are not counted.
    pub(super) fn named(&self) -> Option<Codes> {
        match self {
            Self::Route(_, retry) => retry.as_ref().map(|policy| policy::codes(policy.on)),
            Self::Program(hedging) => Some(hedging.non_fatal),
        }
    }

    /// Whether the policy names a response as a failure.
    pub(super) fn names<B>(&self, response: &Response<B>) -> bool {
        let (status, headers) = (response.status(), response.headers());
        match self {
            Self::Route(_, retry) => {
                retry.as_ref().is_some_and(|policy| policy::response(policy, status, headers))
            }
            Self::Program(hedging) => {
                policy::code(status, headers).is_some_and(|code| hedging.non_fatal.has(code))
            }
        }
    }

    /// What an attempt without a response means.
    pub(super) fn failure(&self, kind: AttemptErrorKind, code: Code) -> Failure {
        match self {
            Self::Route(_, retry) => {
                match retry.as_ref().is_some_and(|policy| policy::failure(policy.on, kind, code)) {
                    true => Failure::Named,
                    false => Failure::Passed,
                }
            }
            Self::Program(hedging) => match kind {
                // Decided here, or superseded by an attempt that was further.
                AttemptErrorKind::LocalOverflow
                | AttemptErrorKind::Dropped
                | AttemptErrorKind::SessionLost
                | AttemptErrorKind::RequestBody => Failure::Passed,
                AttemptErrorKind::NoEndpoint
                | AttemptErrorKind::NeverSent
                | AttemptErrorKind::RefusedStream
                | AttemptErrorKind::Reset
                | AttemptErrorKind::DeadlineExceeded => match hedging.non_fatal.has(code) {
                    true => Failure::Named,
                    false => Failure::Fatal,
                },
            },
        }
    }
}
