//! Fault injection (gRFC A33, Envoy's HTTPFault).

pub(super) mod wire;

use crate::matcher::{Fraction, HeaderMatcher};
use std::time::Duration;

/// Delay first, then abort; independent draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Delay before the call goes on.
    pub delay: Option<FaultDelay>,
    /// Status instead of the call.
    pub abort: Option<FaultAbort>,
    /// Only requests that match all of these; empty: all.
    pub headers: Vec<HeaderMatcher>,
    /// Faults active at once in the process; absent: unlimited; 0: none.
    pub max_active: Option<u32>,
}

/// A delay.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultDelay {
    /// How long.
    pub kind: DelayKind,
    /// How often.
    pub fraction: Fraction,
}

/// Where the length of a delay comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayKind {
    /// Fixed; never zero.
    Fixed(Duration),
    /// `x-envoy-fault-delay-request` (milliseconds), `x-envoy-fault-delay-request-percentage`.
    Header,
}

/// An abort.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultAbort {
    /// With what.
    pub kind: AbortKind,
    /// How often.
    pub fraction: Fraction,
}

/// Where the status of an abort comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortKind {
    /// An HTTP status, 200..=599, mapped to a gRPC one.
    Http(u16),
    /// A gRPC status code.
    Grpc(u32),
    /// `x-envoy-fault-abort-request`, `x-envoy-fault-abort-grpc-request`, `…-request-percentage`.
    Header,
}
