//! The time of day, passed in.
//!
//! Certificates are judged by wall-clock time, so everything that judges or schedules asks a
//! [`Clock`] instead of the system. A test moves a manual clock, or runs on tokio's paused time.

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use std::{
    fmt,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::Instant};
use x509_parser::time::ASN1Time;

/// Longest sleep between two looks at the system's clock, which may be set, or stop in a suspended
/// machine, while tokio's timers know nothing of it.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A source of wall-clock time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Kind);

#[derive(Clone, Debug, Default)]
enum Kind {
    #[default]
    System,
    Tokio {
        start: SystemTime,
        at: Instant,
    },
    Manual(watch::Receiver<SystemTime>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that shows `start` now and then follows tokio's time, paused or not.
    pub fn tokio(start: SystemTime) -> Self {
        Self(Kind::Tokio { start, at: Instant::now() })
    }

    /// A clock that stands at `start` until its [`ManualClock`] is moved.
    pub fn manual(start: SystemTime) -> (Self, ManualClock) {
        let (sender, receiver) = watch::channel(start);
        (Self(Kind::Manual(receiver)), ManualClock(sender))
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Kind::System => SystemTime::now(),
            Kind::Tokio { start, at } => *start + at.elapsed(),
            Kind::Manual(time) => *time.borrow(),
        }
    }

    /// Sleeps until about `deadline`. May wake early: look at [`Clock::now`] again.
    pub async fn sleep_toward(&self, deadline: SystemTime) {
        let left = deadline.duration_since(self.now()).unwrap_or_default();
        if left.is_zero() {
            return tokio::task::yield_now().await;
        }
        match &self.0 {
            Kind::System | Kind::Tokio { .. } => tokio::time::sleep(left.min(LONGEST_SLEEP)).await,
            Kind::Manual(time) => {
                let mut time = time.clone();
                if time.wait_for(|now| *now >= deadline).await.is_err() {
                    // Nobody can move this clock any more: its time has stopped.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Moves a manual [`Clock`].
#[derive(Debug)]
pub struct ManualClock(watch::Sender<SystemTime>);

impl ManualClock {
    /// Moves the clock forward and wakes whoever waited for that time.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }

    /// Sets the clock, back or forth.
    pub fn set(&self, to: SystemTime) {
        self.0.send_replace(to);
    }
}

/// A time for a person to read: UTC, to the second.
pub fn utc(time: SystemTime) -> impl fmt::Display {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    };
    Utc(seconds)
}

struct Utc(i64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ASN1Time::from_timestamp(self.0) {
            Ok(time) => {
                let time = time.to_datetime();
                let (date, clock) = (time.date(), time.time());
                write!(f, "{date}T{:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second())
            }
            Err(_) => write!(f, "{}s since 1970", self.0),
        }
    }
}

/// Wall-clock time of an X.509 field.
pub(crate) fn from_asn1(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let found = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    found.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_244_110);
        assert_eq!(utc(time).to_string(), "2026-11-21T06:55:10Z");
        assert_eq!(utc(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1969-12-31T23:59:59Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_wakes_when_a_manual_clock_passes_its_time() {
        let start = SystemTime::UNIX_EPOCH;
        let (clock, hand) = Clock::manual(start);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_toward(start + Duration::from_secs(10)).await }
        });
        hand.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        hand.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now(), start + Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tokio_clock_follows_paused_time() {
        let start = SystemTime::UNIX_EPOCH;
        let clock = Clock::tokio(start);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), start + Duration::from_secs(5));
    }
}
