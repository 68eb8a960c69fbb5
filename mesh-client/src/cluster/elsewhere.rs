//! What a call has tried, and attempts in priorities that it has not (Envoy's `retry_priority:
//! previous_priorities`, Istio's `retryRemoteLocalities`).
//!
//! Promises, as Envoy's documentation has it: with an `update_frequency` of n, attempts 1 to n go where calls go
//! anyway, n+1 to 2n to priorities that the first n did not go to, and so on; the shares of those left are scaled
//! up as if the avoided ones had no endpoint; when none is left the call starts over. What Envoy need not do: a
//! priority that nobody used has no connections, so the first attempt that goes there asks for them and waits.
//! Of a cluster of clusters, the priorities are those of the leaf in use. Calls without such a policy pay nothing,
//! and clusters keep nothing until one asks.

use super::{Shared, snapshot::Snapshot};
use crate::{endpoint::Endpoint, lb::Picker};
use mesh_xds::balancing::{self, Counts, Load};
use std::{net::SocketAddr, num::NonZeroU32, sync::Arc};

/// The endpoints that a call has tried: the latest nine. For the one attempt of most calls there is no list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tried {
    latest: Option<SocketAddr>,
    before: Vec<SocketAddr>,
}

impl Tried {
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.latest == Some(address) || self.before.contains(&address)
    }

    /// The one tried last.
    pub(crate) fn last(&self) -> Option<SocketAddr> {
        self.latest
    }

    pub(crate) fn push(&mut self, address: SocketAddr) {
        if let Some(earlier) = self.latest.replace(address) {
            if self.before.len() == 8 {
                self.before.remove(0);
            }
            self.before.push(earlier);
        }
    }
}

/// Some priorities. Beyond the 128 that Envoy has, none is ever one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u128);

impl Set {
    pub(super) fn has(self, priority: usize) -> bool {
        priority < 128 && self.0 & (1 << priority) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn add(&mut self, priority: usize) {
        if priority < 128 {
            self.0 |= 1 << priority;
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Which priorities a call has tried.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    every: u32,
    attempts: u32,
    tried: Set,
    avoided: Set,
}

impl Elsewhere {
    /// What is avoided is decided after every so many attempts.
    pub(crate) fn new(every: NonZeroU32) -> Self {
        Self { every: every.get(), attempts: 0, tried: Set::default(), avoided: Set::default() }
    }

    /// An attempt goes to an endpoint of this priority.
    pub(super) fn attempted(&mut self, priority: usize) {
        self.attempts = self.attempts.saturating_add(1);
        self.tried.add(priority);
    }

    /// What the next attempt avoids.
    fn avoided(&mut self) -> Set {
        if self.attempts < self.every {
            return Set::default();
        }
        if self.attempts.is_multiple_of(self.every) {
            self.avoided = self.tried;
        }
        self.avoided
    }

    fn start_over(&mut self) {
        (self.attempts, self.tried, self.avoided) = (0, Set::default(), Set::default());
    }
}

/// A priority, by itself.
#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) counts: Counts,
    /// Its endpoints are connected, or are to be.
    pub(super) started: bool,
    pub(super) better: Picker,
    pub(super) degraded: Picker,
    /// To be woken when a call comes.
    pub(super) idle: Vec<Arc<Endpoint>>,
}

/// All priorities, one by one; published once a call has asked for one.
#[derive(Debug)]
pub(super) struct Levels {
    pub(super) levels: Vec<Level>,
    /// Overprovisioning, in percent.
    pub(super) factor: u32,
}

/// Where an attempt goes.
pub(super) enum Where<'a> {
    /// Where calls go.
    Anywhere,
    /// To one of these.
    To(&'a Picker),
    /// Nobody there is connected yet.
    Later,
}

impl Shared {
    /// Where an attempt of a call goes that avoids what it has tried.
    pub(super) fn elsewhere<'a>(
        &self,
        snapshot: &'a Snapshot,
        call: &mut Elsewhere,
        hash: Option<u64>,
    ) -> Where<'a> {
        let avoided = call.avoided();
        let priorities = snapshot.config.endpoints.priorities.len();
        if avoided.is_empty() || priorities < 2 {
            return Where::Anywhere;
        }
        self.asks.mark_used();
        let Some(Levels { levels, factor }) = snapshot.levels.as_deref() else {
            return match (0..priorities).find(|priority| !avoided.has(*priority)) {
                Some(priority) => {
                    self.asks.want(|wanted| wanted.add(priority));
                    Where::Later
                }
                None => {
                    call.start_over();
                    Where::Anywhere
                }
            };
        };
        let left = |(index, level): (usize, &Level)| match avoided.has(index) {
            true => Counts::default(),
            false => level.counts,
        };
        let counts: Vec<Counts> = levels.iter().enumerate().map(left).collect();
        if counts.iter().all(|counts| counts.healthy + counts.degraded == 0) {
            call.start_over();
            return Where::Anywhere;
        }
        let shares = balancing::split(&counts, *factor).loads;
        let point = hash.unwrap_or_else(|| self.dice.roll().u64(..)) % 100;
        let Some((index, degraded)) = drawn(&shares, point) else { return Where::Anywhere };
        let Some(level) = levels.get(index) else { return Where::Anywhere };
        if !level.started {
            self.asks.want(|wanted| wanted.add(index));
            return Where::Later;
        }
        for endpoint in &level.idle {
            endpoint.kick();
        }
        let (first, second) =
            if degraded { (&level.degraded, &level.better) } else { (&level.better, &level.degraded) };
        match (first.is_empty(), second.is_empty()) {
            (false, _) => Where::To(first),
            (true, false) => Where::To(second),
            (true, true) => Where::Later,
        }
    }
}

/// The priority of a number below 100, and whether it is one for its degraded endpoints: first the shares of all
/// that are not, as in Envoy.
fn drawn(shares: &[Load], point: u64) -> Option<(usize, bool)> {
    let healthy = shares.iter().enumerate().map(|(index, load)| (index, false, load.healthy));
    let degraded = shares.iter().enumerate().map(|(index, load)| (index, true, load.degraded));
    let mut up_to = 0;
    healthy.chain(degraded).find_map(|(index, degraded, share)| {
        up_to += u64::from(share);
        (point < up_to).then_some((index, degraded))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_avoid_what_the_documentation_of_envoy_says() {
        let mut call = Elsewhere::new(NonZeroU32::new(2).unwrap());
        // Attempts 1 and 2 go to priority 0, 3 and 4 to 1, 5 and 6 to 2.
        for (priority, avoided) in [(0, 0b000), (0, 0b000), (1, 0b001), (1, 0b001), (2, 0b011), (2, 0b011)] {
            assert_eq!(call.avoided(), Set(avoided));
            assert_eq!(call.avoided(), Set(avoided), "looking again changes nothing");
            call.attempted(priority);
        }
        assert_eq!(call.avoided(), Set(0b111));
        call.start_over();
        assert_eq!(call.avoided(), Set(0));
    }

    #[test]
    fn shares_are_drawn_of_the_healthy_first() {
        let shares = [Load { healthy: 60, degraded: 10 }, Load { healthy: 30, degraded: 0 }];
        for (point, expected) in
            [(0, (0, false)), (59, (0, false)), (60, (1, false)), (89, (1, false)), (90, (0, true))]
        {
            assert_eq!(drawn(&shares, point), Some(expected), "{point}");
        }
        assert_eq!(drawn(&shares, 100), None);
    }
}
