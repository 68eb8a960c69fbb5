//! A token bucket: a burst at once, then so many a second.

use std::time::{Duration, Instant};

/// Limits how often something happens.
#[derive(Clone, Debug)]
pub struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    /// When `tokens` was right; none: it is full.
    at: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), tokens: burst.into(), at: None }
    }

    /// A full one that gets another token each `interval`.
    pub fn every(burst: u32, interval: Duration) -> Self {
        // Not even an interval of nothing makes it endless.
        let per_second = interval.max(Duration::from_micros(1)).as_secs_f64().recip();
        Self { per_second, ..Self::new(burst, 0) }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.take_many(now, 1)
    }

    /// Takes so many tokens, if there are; of more than a burst, a burst.
    pub(crate) fn take_many(&mut self, now: Instant, count: usize) -> bool {
        let count = u32::try_from(count).map_or(self.burst, f64::from).min(self.burst);
        if let Some(at) = self.at {
            let gained = now.saturating_duration_since(at).as_secs_f64() * self.per_second;
            self.tokens = (self.tokens + gained).min(self.burst);
        }
        self.at = Some(now);
        let there = self.tokens >= count;
        if there {
            self.tokens -= count;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_and_never_more_than_its_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2);
        let mut taken = |millis| {
            let now = start + Duration::from_millis(millis);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(0), 3);
        assert_eq!(taken(499), 0);
        assert_eq!(taken(500), 1);
        assert_eq!(taken(1_500), 2);
        assert_eq!(taken(3_600_000), 3);
    }

    #[test]
    fn many_tokens_are_taken_at_once_or_none() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2);
        assert!(bucket.take_many(start, 2) && !bucket.take_many(start, 2) && bucket.take(start));
        let later = start + Duration::from_secs(2);
        assert!(bucket.take_many(later, usize::MAX), "nobody waits for more than a burst");
        assert!(!bucket.take(later) && bucket.take_many(later, 0));
    }

    #[test]
    fn a_bucket_gives_one_each_interval() {
        let start = Instant::now();
        let mut bucket = Bucket::every(2, Duration::from_secs(5));
        let mut taken = |secs| (0..10).filter(|_| bucket.take(start + Duration::from_secs(secs))).count();
        assert_eq!([taken(0), taken(4), taken(5), taken(100)], [2, 0, 1, 2]);
        let mut endless = Bucket::every(2, Duration::ZERO);
        assert_eq!((0..10).filter(|_| endless.take(start)).count(), 2);
    }
}
