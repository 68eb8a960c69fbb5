//! How a replica misbehaves on request, and what it counts.

use fastrand::Rng;
use serde_json::{Value, json};
use std::{
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tonic::Status;

/// One line of standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `fail 30`: this percentage of the calls fails UNAVAILABLE.
    Fail(u32),
    /// `delay 200`: every call takes this many milliseconds longer.
    Delay(u64),
    /// `stats`: print the counters.
    Stats,
    /// `reset`: zero the counters.
    Reset,
    /// `drain`: leave the mesh, finish what is in flight, end.
    Drain,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (word, argument) = (words.next().unwrap_or(""), words.next());
        let number = || argument.and_then(|a| a.parse::<u32>().ok()).ok_or(format!("{word} needs a number"));
        match word {
            "fail" => number().map(Self::Fail),
            "delay" => number().map(|ms| Self::Delay(ms.into())),
            "stats" => Ok(Self::Stats),
            "reset" => Ok(Self::Reset),
            "drain" => Ok(Self::Drain),
            _ => Err(format!("unknown order `{line}`: fail PERCENT, delay MS, stats, reset or drain")),
        }
    }
}

/// A replica's state.
#[derive(Default)]
pub(crate) struct Behaviour {
    fail_percent: AtomicU32,
    delay_ms: AtomicU64,
    calls: AtomicU64,
    in_flight: AtomicU32,
    most_in_flight: AtomicU32,
    rng: Mutex<Rng>,
}

/// Counts one call as in flight while it lives.
pub(crate) struct InFlight<'a>(&'a Behaviour);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Behaviour {
    /// The beginning of every call: counts it, delays it, and fails it if so ordered.
    pub(crate) async fn enter(&self) -> Result<InFlight<'_>, Status> {
        self.calls.fetch_add(1, Relaxed);
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.most_in_flight.fetch_max(now, Relaxed);
        let guard = InFlight(self);
        let delay = self.delay_ms.load(Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let draw = self.rng.lock().unwrap_or_else(PoisonError::into_inner).u32(0..100);
        if draw < self.fail_percent.load(Relaxed) {
            return Err(Status::unavailable("this replica was told to fail"));
        }
        Ok(guard)
    }

    /// Carries out an order that changes or zeroes something.
    pub(crate) fn obey(&self, order: Order) -> Value {
        match order {
            Order::Fail(percent) => self.fail_percent.store(percent, Relaxed),
            Order::Delay(ms) => self.delay_ms.store(ms, Relaxed),
            Order::Reset => {
                self.calls.store(0, Relaxed);
                self.most_in_flight.store(0, Relaxed);
            }
            Order::Stats | Order::Drain => {}
        }
        self.stats()
    }

    /// The counters since the last reset.
    pub(crate) fn stats(&self) -> Value {
        json!({
            "calls": self.calls.load(Relaxed),
            "in_flight": self.in_flight.load(Relaxed),
            "most_in_flight": self.most_in_flight.load(Relaxed),
        })
    }
}
