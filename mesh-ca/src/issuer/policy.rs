//! How long certificates live. The numbers are Istio's.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority's rules for lifetimes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// For a request that names none (`DEFAULT_WORKLOAD_CERT_TTL`).
    pub default_lifetime: Duration,
    /// More than this is refused (`MAX_WORKLOAD_CERT_TTL`).
    pub longest_lifetime: Duration,
    /// Certificates begin this long ago, for peers whose clock is behind.
    pub backdate: Duration,
    /// Of the root.
    pub root_lifetime: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_lifetime: DAY,
            longest_lifetime: 90 * DAY,
            backdate: Duration::from_secs(120),
            root_lifetime: 3650 * DAY,
        }
    }
}

/// A request for a longer life than the policy allows.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("requested certificate lifetime of {requested:?} is greater than the longest allowed, {longest:?}")]
pub struct LifetimeTooLong {
    requested: Duration,
    longest: Duration,
}

impl Policy {
    /// The lifetime for a request of so many seconds; zero or less asks for the default.
    pub fn lifetime(&self, requested_seconds: i64) -> Result<Duration, LifetimeTooLong> {
        let requested = match u64::try_from(requested_seconds) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => self.default_lifetime,
        };
        if requested > self.longest_lifetime {
            return Err(LifetimeTooLong { requested, longest: self.longest_lifetime });
        }
        Ok(requested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lifetime_asks_for_the_default_and_too_long_a_one_is_refused() {
        let policy = Policy::default();
        assert_eq!(policy.lifetime(0), Ok(DAY));
        assert_eq!(policy.lifetime(i64::MIN), Ok(DAY));
        assert_eq!(policy.lifetime(3), Ok(Duration::from_secs(3)));
        assert_eq!(policy.lifetime(90 * 86_400), Ok(90 * DAY));
        assert!(policy.lifetime(90 * 86_400 + 1).is_err());
        assert!(policy.lifetime(i64::MAX).is_err());
    }
}
