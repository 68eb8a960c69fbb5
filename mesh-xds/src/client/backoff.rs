//! When to connect again (gRPC's connection backoff, with jitter on the first retry as well).
//!
//! After a failure: 1 s, growing by 1.6 up to 120 s, each ±20 %. After a stream that had a response: at once,
//! spread over a fifth of the initial delay so that a restarted control plane is not stormed by all of its
//! clients in the same millisecond.

use std::time::Duration;

/// Times of the backoff.
#[derive(Clone, Debug, PartialEq)]
pub struct BackoffSettings {
    /// Delay after the first failure.
    pub initial: Duration,
    /// Longest delay.
    pub max: Duration,
}

impl Default for BackoffSettings {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(120) }
    }
}

const MULTIPLIER: f64 = 1.6;
const JITTER: f64 = 0.2;

pub(crate) struct Backoff {
    settings: BackoffSettings,
    next: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(settings: BackoffSettings, seed: u64) -> Self {
        Self { next: settings.initial, settings, random: fastrand::Rng::with_seed(seed) }
    }

    /// Delay after a failure.
    pub(crate) fn failed(&mut self) -> Duration {
        let delay = self.next.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.random.f64());
        self.next = self.next.mul_f64(MULTIPLIER).min(self.settings.max);
        delay
    }

    /// A stream that is about to count as a failure was open for so long: after the longest delay of all, failures
    /// are counted anew.
    pub(crate) fn lived(&mut self, lived: Duration) {
        if lived > self.settings.max {
            self.next = self.settings.initial;
        }
    }

    /// Delay after a stream that worked for `lived`.
    pub(crate) fn worked(&mut self, lived: Duration) -> Duration {
        self.next = self.settings.initial;
        if lived < self.settings.initial {
            // A server that ends every stream after its first response must not make us spin.
            return self.settings.initial.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.random.f64());
        }
        self.settings.initial.mul_f64(JITTER * self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_are_jittered_from_the_first() {
        let mut first = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut backoff = Backoff::new(BackoffSettings::default(), seed);
            let mut expected = 1.0_f64;
            for attempt in 0..20 {
                let delay = backoff.failed().as_secs_f64();
                assert!(
                    delay >= expected * 0.8 - 1e-6 && delay <= expected * 1.2 + 1e-6,
                    "attempt {attempt}: {delay}"
                );
                if attempt == 0 {
                    first.insert((delay * 1e6) as u64);
                }
                expected = (expected * 1.6).min(120.0);
            }
        }
        assert!(first.len() > 40, "the first retry must be spread: {}", first.len());
    }

    #[test]
    fn a_stream_that_worked_resets_the_backoff() {
        let mut backoff = Backoff::new(BackoffSettings::default(), 1);
        for _ in 0..10 {
            backoff.failed();
        }
        assert!(backoff.worked(Duration::from_secs(60)) <= Duration::from_millis(200));
        assert!(backoff.failed() <= Duration::from_millis(1200));
    }

    #[test]
    fn a_server_that_ends_streams_at_once_is_not_called_in_a_loop() {
        let mut backoff = Backoff::new(BackoffSettings::default(), 1);
        assert!(backoff.worked(Duration::from_millis(3)) >= Duration::from_millis(800));
    }
}
