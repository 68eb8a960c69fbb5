//! The connectivity of one endpoint: when to dial, when to wait, what to report. Sans-IO.
//!
//! Promises: at most one dial at a time; after a failed one the next waits gRPC's backoff (1 s, ×1.6, ±20 %,
//! at most 120 s, counted from the start of the dial that failed); the first dial after the loss of a connection
//! that worked is immediate; a peer that accepts and hangs up is dialled at most once per backoff.
//! `TransientFailure` is sticky until a connection is up, so that calls fail fast meanwhile (gRFC A61, A62).

use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const BASE: Duration = Duration::from_secs(1);
const FACTOR: f64 = 1.6;
const LONGEST: Duration = Duration::from_secs(120);
/// A connection that lived as long as this worked; its loss says nothing about the next dial. Short, because
/// servers let go of sound connections as well: gRPC's C-core does at every change of its configuration.
const STABLE: Duration = Duration::from_secs(1);

/// What an endpoint reports to the picker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connectivity {
    /// No connection, and none wanted until a call comes.
    Idle,
    /// The first dial, or the first after a connection was lost.
    Connecting,
    /// At least one connection takes calls.
    Ready,
    /// The last dial failed, for this reason; the next is under way or waits for its time.
    TransientFailure(Arc<str>),
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The balancer wants connections from now on.
    Wanted,
    /// It wants one when a call comes, and none again when that is lost until the next call comes.
    WantedLazily,
    /// It does not; the caller closes all it has.
    Unwanted,
    /// A call came while idle.
    Kicked,
    /// The dial that was asked for succeeded: one more connection takes calls.
    Dialled,
    /// It failed.
    DialFailed(Arc<str>),
    /// A connection no longer takes calls: lost, or the peer said GOAWAY.
    Lost {
        /// How long it had been up.
        lived: Duration,
        /// Why.
        reason: Arc<str>,
    },
    /// A connection was closed here, because it had no calls.
    IdledOut,
    /// A connection was closed here, because a newer one took its place.
    Replaced,
    /// One connection more is wanted: the others are full, or one is to be replaced.
    More,
    /// All connections were closed here, and new ones are to be made in another way.
    Reset,
    /// The time of [`Machine::wake_at`] has come.
    Woke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Rest,
    Running { started: Instant },
    Waiting { until: Instant },
}

/// The state of one endpoint.
#[derive(Debug)]
pub(crate) struct Machine {
    wanted: bool,
    lazy: bool,
    idle: bool,
    usable: usize,
    more: bool,
    dial: Dial,
    last_start: Option<Instant>,
    /// Failed dials since the last connection.
    failures: u32,
    /// A connection was lost, and none since has lived long: the next loss is not followed by an immediate dial.
    flapping: bool,
    reason: Option<Arc<str>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            wanted: false,
            lazy: false,
            idle: true,
            usable: 0,
            more: false,
            dial: Dial::Rest,
            last_start: None,
            failures: 0,
            flapping: false,
            reason: None,
        }
    }

    /// Takes in what happened; true asks the caller to dial now.
    pub(crate) fn on(&mut self, now: Instant, input: Input, rng: &mut fastrand::Rng) -> bool {
        match input {
            Input::Wanted => {
                self.wanted = true;
                self.lazy = false;
                self.idle = false;
            }
            Input::WantedLazily => {
                self.wanted = true;
                self.lazy = true;
            }
            Input::Unwanted => {
                *self = Self { last_start: self.last_start, flapping: self.flapping, ..Self::new() };
            }
            Input::Kicked => self.idle = false,
            Input::Dialled => {
                self.dial = Dial::Rest;
                self.usable += 1;
                self.more = false;
                self.reason = None;
                self.failures = 0;
            }
            Input::DialFailed(reason) => {
                self.reason = Some(reason);
                self.back_off(now, rng);
            }
            Input::Lost { lived, reason } => {
                self.usable = self.usable.saturating_sub(1);
                let again = std::mem::replace(&mut self.flapping, true) && lived < STABLE;
                if again && self.usable == 0 && self.dial == Dial::Rest {
                    self.reason = Some(reason);
                    self.back_off(now, rng);
                } else if self.lazy && self.usable == 0 && self.dial == Dial::Rest {
                    self.idle = true;
                }
            }
            Input::IdledOut => {
                self.usable = self.usable.saturating_sub(1);
                self.idle = self.usable == 0 && self.dial == Dial::Rest;
            }
            Input::Replaced => self.usable = self.usable.saturating_sub(1),
            Input::More => self.more = true,
            Input::Reset => {
                self.usable = 0;
                self.more = false;
                self.failures = 0;
                self.reason = None;
                self.dial = Dial::Rest;
                self.idle |= self.lazy;
            }
            Input::Woke => {}
        }
        self.next_dial(now)
    }

    fn back_off(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.failures = self.failures.saturating_add(1);
        let from = self.last_start.unwrap_or(now);
        self.dial = Dial::Waiting { until: (from + backoff(self.failures, rng)).max(now) };
    }

    fn next_dial(&mut self, now: Instant) -> bool {
        if !self.wanted || self.idle || (self.usable > 0 && !self.more) {
            if matches!(self.dial, Dial::Waiting { .. }) {
                self.dial = Dial::Rest;
            }
            return false;
        }
        let due = match self.dial {
            Dial::Rest => true,
            Dial::Running { .. } => false,
            Dial::Waiting { until } => until <= now,
        };
        if due {
            self.dial = Dial::Running { started: now };
            self.last_start = Some(now);
        }
        due
    }

    /// When to say [`Input::Woke`].
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self.dial {
            Dial::Waiting { until } => Some(until),
            Dial::Rest | Dial::Running { .. } => None,
        }
    }

    pub(crate) fn connectivity(&self) -> Connectivity {
        if self.usable > 0 {
            return Connectivity::Ready;
        }
        match (&self.reason, self.wanted && !self.idle) {
            (Some(reason), true) => Connectivity::TransientFailure(Arc::clone(reason)),
            (None, true) => Connectivity::Connecting,
            (_, false) => Connectivity::Idle,
        }
    }
}

/// gRPC's connection backoff: 1 s, then ×1.6 up to 120 s, each ±20 %.
pub(super) fn backoff(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = (BASE.as_secs_f64() * FACTOR.powi(exponent)).min(LONGEST.as_secs_f64());
    Duration::from_secs_f64(seconds * (0.8 + 0.4 * rng.f64()))
}

#[cfg(test)]
mod tests;
