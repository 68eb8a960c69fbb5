//! Pick first (gRFC A62, A61): which endpoints are dialled, and which one is used. Sans-IO.
//!
//! Promises: endpoints are dialled in order, the next one when the last failed or 250 ms passed (happy
//! eyeballs); the first that is ready is used and all others are let go; it stays in use for as long as it is
//! connected and configured. With shuffling, the order is random by weight (gRFC A113) and does not change for
//! endpoints that stay. Ejection does not touch it.

use crate::endpoint::machine::Connectivity;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};
use tokio::time::Instant;

const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The state of a cluster whose policy is pick first.
#[derive(Debug, Default)]
pub(crate) struct PickFirst {
    order: Vec<SocketAddr>,
    keys: HashMap<SocketAddr, f64>,
    selected: Option<SocketAddr>,
    /// The first of `order` that are dialled.
    started: usize,
    next_at: Option<Instant>,
}

impl PickFirst {
    /// The endpoints of the priority in use, with their weights (of locality and endpoint together), in the order
    /// of configuration.
    pub(crate) fn populate(
        &mut self,
        endpoints: &[(SocketAddr, f64)],
        shuffle: bool,
        rng: &mut fastrand::Rng,
    ) {
        if !self.keys.is_empty() {
            let present: HashSet<SocketAddr> = endpoints.iter().map(|(address, _)| *address).collect();
            self.keys.retain(|address, _| present.contains(address));
        }
        let mut order: Vec<SocketAddr> = endpoints.iter().map(|(address, _)| *address).collect();
        if shuffle {
            for (address, weight) in endpoints {
                self.keys
                    .entry(*address)
                    .or_insert_with(|| rng.f64().powf(1.0 / weight.max(f64::MIN_POSITIVE)));
            }
            let key = |address: &SocketAddr| self.keys.get(address).copied().unwrap_or(0.0);
            order.sort_by(|a, b| key(b).total_cmp(&key(a)));
        }
        if order != self.order {
            self.order = order;
            if self.selected.is_none_or(|selected| !self.order.contains(&selected)) {
                self.restart();
            }
        }
    }

    fn restart(&mut self) {
        self.selected = None;
        self.started = 0;
        self.next_at = None;
    }

    /// Takes in the states of the endpoints. True: [`Self::wanted`] or [`Self::selected`] changed.
    pub(crate) fn choose(
        &mut self,
        now: Instant,
        state: impl Fn(SocketAddr) -> Option<Connectivity>,
    ) -> bool {
        let before = (self.selected, self.started);
        if self.selected.is_some_and(|selected| state(selected) != Some(Connectivity::Ready)) {
            self.restart();
        }
        if self.selected.is_none() {
            let dialled = self.order.iter().take(self.started);
            self.selected = dialled.copied().find(|address| state(*address) == Some(Connectivity::Ready));
        }
        if self.selected.is_some() {
            self.next_at = None;
            return before != (self.selected, self.started);
        }
        let mut dialled = self.order.iter().take(self.started).map(|address| state(*address));
        let all_failed =
            dialled.clone().all(|state| matches!(state, Some(Connectivity::TransientFailure(_))));
        if dialled.any(|state| state == Some(Connectivity::Idle)) {
            // It waits for a call; that is no reason to dial another.
            self.next_at = None;
        } else if self.next_at.is_none() && self.started > 0 && self.started < self.order.len() {
            self.next_at = Some(now + ATTEMPT_DELAY);
        }
        if self.started < self.order.len() && (all_failed || self.next_at.is_some_and(|at| at <= now)) {
            self.started += 1;
            self.next_at = (self.started < self.order.len()).then(|| now + ATTEMPT_DELAY);
        }
        before != (self.selected, self.started)
    }

    /// The endpoints that are to be connected.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = SocketAddr> {
        let started = if self.selected.is_some() { 0 } else { self.started };
        self.selected.into_iter().chain(self.order.iter().take(started).copied())
    }

    /// Whether there are endpoints that were not tried yet.
    pub(crate) fn has_more(&self) -> bool {
        self.selected.is_none() && self.started < self.order.len()
    }

    /// The one in use.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// When to choose again though nothing changed.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    struct Bench {
        policy: PickFirst,
        now: Instant,
        states: HashMap<SocketAddr, Connectivity>,
    }

    impl Bench {
        fn new(ports: &[u16], shuffle: bool, seed: u64) -> Self {
            let mut bench =
                Self { policy: PickFirst::default(), now: Instant::now(), states: HashMap::new() };
            bench.populate(ports, shuffle, seed);
            bench
        }

        fn populate(&mut self, ports: &[u16], shuffle: bool, seed: u64) {
            let endpoints: Vec<_> = ports.iter().map(|port| (address(*port), 1.0)).collect();
            self.policy.populate(&endpoints, shuffle, &mut fastrand::Rng::with_seed(seed));
        }

        /// The ports that are wanted.
        fn choose(&mut self) -> Vec<u16> {
            while self.policy.choose(self.now, |address| self.states.get(&address).cloned()) {}
            let mut ports: Vec<u16> = self.policy.wanted().map(|address| address.port()).collect();
            ports.sort_unstable();
            ports
        }

        fn set(&mut self, port: u16, state: Connectivity) -> Vec<u16> {
            self.states.insert(address(port), state);
            self.choose()
        }

        fn fail(&mut self, port: u16) -> Vec<u16> {
            self.set(port, Connectivity::TransientFailure("connection refused".into()))
        }
    }

    #[test]
    fn only_the_first_is_dialled_and_the_next_when_it_fails() {
        let mut bench = Bench::new(&[1, 2, 3], false, 0);
        assert_eq!(bench.choose(), [1]);
        assert_eq!(bench.fail(1), [1, 2]);
        assert_eq!(bench.set(2, Connectivity::Ready), [2]);
        assert_eq!(bench.policy.selected(), Some(address(2)));
        assert_eq!(bench.policy.wake_at(), None);
    }

    #[test]
    fn a_slow_dial_is_joined_by_the_next_after_250_ms() {
        let mut bench = Bench::new(&[1, 2, 3], false, 0);
        bench.choose();
        assert_eq!(bench.policy.wake_at(), Some(bench.now + ATTEMPT_DELAY));
        bench.now += ATTEMPT_DELAY;
        assert_eq!(bench.choose(), [1, 2]);
        assert_eq!(bench.set(1, Connectivity::Ready), [1]);
    }

    #[test]
    fn a_lost_selection_starts_from_the_top() {
        let mut bench = Bench::new(&[1, 2], false, 0);
        bench.choose();
        bench.fail(1);
        bench.set(2, Connectivity::Ready);
        bench.states.remove(&address(1));
        assert_eq!(bench.set(2, Connectivity::Connecting), [1]);
    }

    #[test]
    fn a_selection_that_stays_configured_stays_selected() {
        let mut bench = Bench::new(&[1, 2], false, 0);
        bench.choose();
        bench.set(1, Connectivity::Ready);
        bench.populate(&[3, 1], false, 0);
        assert_eq!(bench.choose(), [1]);
        bench.populate(&[3], false, 0);
        assert_eq!(bench.choose(), [3]);
    }

    #[test]
    fn shuffling_puts_an_endpoint_first_as_often_as_its_weight_says() {
        let mut firsts = [0_u32; 3];
        for seed in 0..3000 {
            let mut policy = PickFirst::default();
            let endpoints = [(address(1), 0.5), (address(2), 0.3), (address(3), 0.2)];
            policy.populate(&endpoints, true, &mut fastrand::Rng::with_seed(seed));
            firsts[usize::from(policy.order[0].port()) - 1] += 1;
        }
        let expected = [1500.0, 900.0, 600.0];
        let chi: f64 = firsts
            .iter()
            .zip(expected)
            .map(|(n, expected)| (f64::from(*n) - expected).powi(2) / expected)
            .sum();
        assert!(chi < 13.82, "{firsts:?}");
    }

    #[test]
    fn shuffling_gives_every_endpoint_its_turn_and_a_stable_order() {
        let mut firsts = [0; 3];
        for seed in 0..300 {
            let mut bench = Bench::new(&[1, 2, 3], true, seed);
            let first = bench.choose()[0];
            bench.populate(&[3, 2, 1], true, seed + 1);
            assert_eq!(bench.choose(), [first]);
            firsts[usize::from(first) - 1] += 1;
        }
        assert!(firsts.iter().all(|count| (70..130).contains(count)), "{firsts:?}");
    }
}
