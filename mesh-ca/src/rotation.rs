//! When to fetch an identity, when to try again, when to worry. Sans-IO: time and randomness come in,
//! decisions go out.
//!
//! Renewal happens at half of the life that is left on receipt (± 1 %, so that workloads started
//! together do not renew together), counted from receipt because issuers backdate the beginning
//! against clock skew. A failed renewal is tried again with doubling, jittered delays (at most 150 s,
//! and short against the life left), while the certificate in hand is served until it expires. Same
//! schedule as Istio's agent (`security/pkg/nodeagent/cache`) and ztunnel.

use std::time::{Duration, SystemTime};

/// When a held identity is looked at again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// At this share of its remaining life (0.5: half-life), within ± `jitter` of that life.
    Share {
        /// Between 0 and 1, exclusive.
        share: f64,
        /// Also a share of the life; 0.01 spreads renewals over 2 % of it.
        jitter: f64,
    },
    /// Every so often, whatever its life: for sources that somebody else renews, as files.
    Every(Duration),
    /// Never: the identity is all there will be.
    Never,
}

impl Schedule {
    /// Half-life ± 1 %.
    pub const HALF_LIFE: Self = Self::Share { share: 0.5, jitter: 0.01 };
}

/// Delays between failed attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// Never longer than this while an identity is held.
    pub longest: Duration,
    /// Never longer than this while there is none: the workload can do nothing until it has one.
    pub longest_without_identity: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(150),
            longest_without_identity: Duration::from_secs(10),
        }
    }
}

/// Nothing is scheduled closer than this, lest an odd certificate make a busy loop.
const SHORTEST: Duration = Duration::from_millis(50);

/// How well off a workload is. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// An identity is held and its renewal is not failing.
    Fresh,
    /// The last renewal failed; there is time.
    Overdue,
    /// The last renewal failed and less than a fifth of the life is left.
    Ending,
    /// The identity has expired: handshakes fail until a new one comes.
    Expired,
    /// There has never been an identity.
    Absent,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// Time passed, or something begins. Spurious wakes are harmless.
    Wake,
    /// The fetch brought an identity that ends at this time.
    Fetched {
        /// The leaf's last moment of validity.
        not_after: SystemTime,
    },
    /// The fetch failed.
    Failed,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outputs {
    /// Fetch now; exactly one `Fetched` or `Failed` must follow.
    pub fetch: bool,
    /// Otherwise wake the machine at this time; none while fetching or when nothing will happen.
    pub wake: Option<SystemTime>,
    /// How well off the workload is now.
    pub stage: Stage,
}

/// The life of the identity in hand.
#[derive(Clone, Copy, Debug)]
struct Life {
    received: SystemTime,
    not_after: SystemTime,
}

/// The machine.
#[derive(Debug)]
pub struct Rotation {
    schedule: Schedule,
    backoff: Backoff,
    random: fastrand::Rng,
    life: Option<Life>,
    /// Failures since the last success.
    failures: u32,
    fetching: bool,
    /// The next attempt; none for never.
    due: Option<SystemTime>,
}

impl Rotation {
    /// A machine that will ask for a fetch on its first wake. Equal seeds decide equally.
    pub fn new(now: SystemTime, schedule: Schedule, backoff: Backoff, seed: u64) -> Self {
        Self {
            schedule,
            backoff,
            random: fastrand::Rng::with_seed(seed),
            life: None,
            failures: 0,
            fetching: false,
            due: Some(now),
        }
    }

    /// Takes one event and decides.
    pub fn on(&mut self, now: SystemTime, input: Input) -> Outputs {
        let mut fetch = false;
        match input {
            Input::Wake => {
                if !self.fetching && self.due.is_some_and(|due| now >= due) {
                    self.fetching = true;
                    fetch = true;
                }
            }
            Input::Fetched { not_after } => {
                self.fetching = false;
                self.failures = 0;
                self.life = Some(Life { received: now, not_after });
                self.due = self.next_fetch(now, not_after);
            }
            Input::Failed => {
                self.fetching = false;
                self.failures = self.failures.saturating_add(1);
                self.due = Some(now + self.retry_delay(now));
            }
        }
        let stage = self.stage(now);
        Outputs { fetch, wake: self.next_wake(now, stage), stage }
    }

    /// How well off the workload is at `now`.
    pub fn stage(&self, now: SystemTime) -> Stage {
        let Some(life) = self.life else { return Stage::Absent };
        if now > life.not_after {
            Stage::Expired
        } else if self.failures == 0 {
            Stage::Fresh
        } else if now >= life.ending() {
            Stage::Ending
        } else {
            Stage::Overdue
        }
    }

    fn next_fetch(&mut self, now: SystemTime, not_after: SystemTime) -> Option<SystemTime> {
        let delay = match self.schedule {
            Schedule::Never => return None,
            Schedule::Every(interval) => self.jittered(interval, 0.01),
            Schedule::Share { share, jitter } => {
                let left = not_after.duration_since(now).unwrap_or_default();
                let share = share + jitter * self.random_sign();
                left.mul_f64(share.clamp(0.0, 1.0))
            }
        };
        Some(now + delay.max(SHORTEST))
    }

    fn retry_delay(&mut self, now: SystemTime) -> Duration {
        let doubled = self.backoff.first.saturating_mul(1 << (self.failures - 1).min(20));
        let left = self.life.and_then(|life| life.not_after.duration_since(now).ok());
        let longest = match (self.schedule, left) {
            // Files are looked at as often as was asked for, broken or not.
            (Schedule::Every(interval), _) => interval.min(self.backoff.longest),
            // Always several attempts before the end.
            (_, Some(left)) => (left / 4).min(self.backoff.longest),
            (_, None) => self.backoff.longest_without_identity,
        };
        self.jittered(doubled.min(longest), 0.2).max(SHORTEST)
    }

    /// The next attempt, or the next change of stage if that is sooner: it must be reported.
    fn next_wake(&self, now: SystemTime, stage: Stage) -> Option<SystemTime> {
        if self.fetching {
            return None;
        }
        let change = self.life.and_then(|life| match stage {
            Stage::Overdue => Some(life.ending()),
            // One instant later: the last moment is still valid.
            Stage::Fresh | Stage::Ending => Some(life.not_after + Duration::from_millis(1)),
            Stage::Expired | Stage::Absent => None,
        });
        let next = match (self.due, change) {
            (Some(due), Some(change)) => Some(due.min(change)),
            (one, other) => one.or(other),
        };
        next.map(|time| time.max(now))
    }

    fn jittered(&mut self, duration: Duration, jitter: f64) -> Duration {
        duration.mul_f64(1.0 + jitter * self.random_sign())
    }

    /// Between -1 and 1.
    fn random_sign(&mut self) -> f64 {
        self.random.f64() * 2.0 - 1.0
    }
}

impl Life {
    /// When four fifths of the life have passed.
    fn ending(&self) -> SystemTime {
        let whole = self.not_after.duration_since(self.received).unwrap_or_default();
        self.received + whole.mul_f64(0.8)
    }
}

#[cfg(test)]
mod tests;
