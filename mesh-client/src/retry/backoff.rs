//! How long a retry waits: exponential with full jitter, unless the response says when to come back
//! (gRPC A6 pushback; Envoy's `rate_limited_retry_back_off`).

use http::HeaderMap;
use mesh_xds::resource::retry::{BackOff, RateLimitedBackOff, ResetFormat};
use std::time::{Duration, SystemTime};

/// What the server says about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Nothing.
    None,
    /// After this long.
    After(Duration),
    /// Not at all.
    Stop,
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Pushback {
    /// From the headers of a response without messages. A value that is negative or no number says: stop.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(PUSHBACK).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(value), None) => match value.to_str().ok().and_then(|text| text.parse::<u32>().ok()) {
                Some(millis) => Self::After(Duration::from_millis(millis.into())),
                None => Self::Stop,
            },
            // Two of them contradict each other.
            (Some(_), Some(_)) => Self::Stop,
        }
    }
}

/// Waits that grow with every one of them, until a server has said when to come back (A6).
#[derive(Debug, Default)]
pub(crate) struct Growth(u32);

impl Growth {
    /// The next wait.
    pub(crate) fn wait(&mut self, back_off: BackOff, rng: &mut fastrand::Rng) -> Duration {
        let wait = wait(back_off, self.0, rng);
        self.0 = self.0.saturating_add(1);
        wait
    }

    /// A server has said when to come back.
    pub(crate) fn begin_anew(&mut self) {
        self.0 = 0;
    }
}

/// The wait after `earlier` others.
fn wait(back_off: BackOff, earlier: u32, rng: &mut fastrand::Rng) -> Duration {
    let bound = back_off.base.saturating_mul(1u32.checked_shl(earlier).unwrap_or(u32::MAX)).min(back_off.max);
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.u64(0..=nanos))
}

/// The wait that a reset header of the response asks for, if one does and it is not too long.
pub(crate) fn reset(
    headers: &HeaderMap,
    rate_limited: &RateLimitedBackOff,
    now: SystemTime,
) -> Option<Duration> {
    let waits = rate_limited.headers.iter().filter_map(|(name, format)| {
        let seconds: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        Some(match format {
            ResetFormat::Seconds => Duration::from_secs(seconds),
            ResetFormat::UnixTimestamp => {
                let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
                at.duration_since(now).unwrap_or_default()
            }
        })
    });
    waits.into_iter().find(|wait| *wait <= rate_limited.max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_bound_doubles_up_to_the_maximum_and_the_whole_of_it_is_used() {
        let back_off = BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
        let mut rng = fastrand::Rng::with_seed(7);
        for (retry, bound) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250), (u32::MAX, 250)] {
            let waits: Vec<_> = (0..1000).map(|_| wait(back_off, retry, &mut rng)).collect();
            let bound = Duration::from_millis(bound);
            assert!(waits.iter().all(|wait| *wait <= bound));
            assert!(waits.iter().any(|wait| *wait < bound / 10), "full jitter begins at zero");
            assert!(waits.iter().any(|wait| *wait > bound * 9 / 10));
        }
    }

    #[test]
    fn pushback_is_a_number_of_milliseconds_or_a_stop() {
        for (values, expected) in [
            (&[][..], Pushback::None),
            (&["0"], Pushback::After(Duration::ZERO)),
            (&["120"], Pushback::After(Duration::from_millis(120))),
            (&["-1"], Pushback::Stop),
            (&["later"], Pushback::Stop),
            (&["10", "20"], Pushback::Stop),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PUSHBACK, HeaderValue::from_static(value));
            }
            assert_eq!(Pushback::read(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn the_first_readable_reset_header_within_the_maximum_counts() {
        let rate_limited = RateLimitedBackOff {
            headers: vec![
                ("retry-after".parse().unwrap(), ResetFormat::Seconds),
                ("x-reset".parse().unwrap(), ResetFormat::UnixTimestamp),
            ],
            max: Duration::from_secs(300),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (after, at, expected) in [
            ("3", "1010", Some(3)),
            ("soon", "1010", Some(10)),
            ("301", "1010", Some(10)),
            ("soon", "990", Some(0)),
            ("301", "2000", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(after));
            headers.insert("x-reset", HeaderValue::from_static(at));
            assert_eq!(reset(&headers, &rate_limited, now), expected.map(Duration::from_secs));
        }
    }
}
