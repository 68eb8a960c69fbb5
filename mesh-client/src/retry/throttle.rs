//! gRPC A6's throttling of retries and hedges: a bucket of tokens for each target.
//!
//! Promises: a failure that the retry or hedging policy names, or with which a server says not to come back, takes a
//! token; a success gives a part of one; what throttles is being at half of the bucket or below. Nothing here takes a
//! lock.

use super::{backoff::Pushback, codes::Codes, policy};
use crate::cluster::answer::GRPC_STATUS;
use http::{HeaderMap, Response};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};
use tonic::Code;

/// A token; parts of it are counted, as exactly as A6 has them.
const TOKEN: u32 = 1000;
/// A6's bound.
const MOST: u32 = 1000;

/// Why an attempt was not repeated.
pub(crate) const THROTTLED: &str = "too many calls to this target fail (retry throttling)";

/// What `retryThrottling` says in a service config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Throttling {
    max: u32,
    ratio: u32,
}

impl Throttling {
    /// None: A6 does not allow it.
    pub(crate) fn new(max_tokens: u32, token_ratio: f64) -> Option<Self> {
        // Further digits do not count.
        let ratio = (token_ratio * f64::from(TOKEN)).clamp(0.0, f64::from(MOST * TOKEN)) as u32;
        ((1..=MOST).contains(&max_tokens) && ratio > 0).then_some(Self { max: max_tokens * TOKEN, ratio })
    }
}

/// The tokens of a target.
#[derive(Debug)]
pub(crate) struct Throttle {
    limits: Throttling,
    tokens: AtomicU32,
}

impl Throttle {
    pub(crate) fn new(limits: Throttling) -> Arc<Self> {
        Arc::new(Self { limits, tokens: AtomicU32::new(limits.max) })
    }

    /// Whether there may be another attempt.
    pub(crate) fn allows(&self) -> bool {
        self.tokens.load(Relaxed) > self.limits.max / 2
    }

    /// In thousandths.
    #[cfg(test)]
    pub(crate) fn left(&self) -> u32 {
        self.tokens.load(Relaxed)
    }

    /// Counts an attempt that ended, or whose response began; `named`: it failed as its policy says. Whether there may
    /// be another one.
    pub(crate) fn count<B>(&self, named: bool, response: Option<&Response<B>>) -> bool {
        let says = |wanted| response.is_some_and(|response| Pushback::read(response.headers()) == wanted);
        if named || says(Pushback::Stop) {
            self.take();
        } else if response.and_then(|r| policy::code(r.status(), r.headers())) == Some(Code::Ok) {
            self.give();
        }
        self.allows()
    }

    fn take(&self) {
        let less = |tokens: u32| Some(tokens.saturating_sub(TOKEN));
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, less);
    }

    fn give(&self) {
        let Throttling { max, ratio } = self.limits;
        let more = |tokens: u32| (tokens < max).then(|| tokens.saturating_add(ratio).min(max));
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, more);
    }
}

/// A response that has begun, and whose status is to be counted.
#[derive(Debug)]
pub(crate) struct Counted {
    throttle: Arc<Throttle>,
    named: Codes,
}

impl Counted {
    /// `named`: failures, as the call's policy says. None: it says its status at once.
    pub(crate) fn new<B>(
        throttle: &Arc<Throttle>,
        named: Codes,
        response: &Response<B>,
    ) -> Option<Box<Self>> {
        policy::code(response.status(), response.headers())
            .is_none()
            .then(|| Box::new(Self { throttle: throttle.clone(), named }))
    }

    /// It ended with these.
    pub(crate) fn trailers(self, trailers: Option<&HeaderMap>) {
        let status = trailers.and_then(|trailers| trailers.get(GRPC_STATUS));
        self.code(status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes())));
    }

    /// It ended so.
    pub(crate) fn code(self, code: Code) {
        if code == Code::Ok {
            self.throttle.give();
        } else if self.named.has(code) {
            self.throttle.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_allowed_above_half_of_the_bucket() {
        let throttle = Throttle::new(Throttling::new(10, 0.5).unwrap());
        for _ in 0..4 {
            throttle.take();
            assert!(throttle.allows());
        }
        throttle.take();
        assert!(!throttle.allows(), "5 of 10");
        throttle.give();
        assert!(throttle.allows(), "5.5 of 10");
        (0..100).for_each(|_| throttle.take());
        (0..10).for_each(|_| throttle.give());
        assert!(!throttle.allows(), "it was empty, not below: 5 of 10");
        throttle.give();
        assert!(throttle.allows());
        (0..100).for_each(|_| throttle.give());
        (0..4).for_each(|_| throttle.take());
        assert!(throttle.allows(), "it was full, not above: 6 of 10");
    }

    #[test]
    fn numbers_that_a6_does_not_allow_are_refused() {
        for (max, ratio, allowed) in [
            (1, 0.001, true),
            (1000, 1.0, true),
            (1000, 1e9, true),
            (0, 1.0, false),
            (1001, 1.0, false),
            (10, 0.0, false),
            (10, 0.0009, false),
            (10, -1.0, false),
            (10, f64::NAN, false),
        ] {
            assert_eq!(Throttling::new(max, ratio).is_some(), allowed, "{max} {ratio}");
        }
    }
}
