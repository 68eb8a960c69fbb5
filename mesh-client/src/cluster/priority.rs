//! Which priorities are connected, and which one is waited for (gRFC A56, A115). Sans-IO.
//!
//! Promises: the first priority that is ready or idle is the one to wait for; a priority that is neither within
//! 10 s of starting to connect is passed over; lower priorities are started only when needed, and kept for 15
//! minutes after they were needed last.
//!
//! A56 gives all calls to that one priority for as long as a single endpoint of it is left; Envoy, and with it
//! every user of Istio's failover, lets calls spill to the next as soon as a priority has lost so many endpoints
//! that the others would be overloaded. Here Envoy's shares hold ([`super::spill`]) between priorities that are
//! up, and A56's timers decide which are. While all endpoints of a priority are available the two agree.

use std::time::Duration;
use tokio::time::Instant;

const FAILOVER: Duration = Duration::from_secs(10);
const RETENTION: Duration = Duration::from_secs(15 * 60);

/// The endpoints of a priority, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    /// At least one is ready.
    Ready,
    /// None is ready, at least one connects for the first time.
    Connecting,
    /// None is ready or connecting, at least one is idle.
    Idle,
    /// All failed, or there is none.
    TransientFailure,
}

#[derive(Clone, Copy, Debug, Default)]
struct Child {
    started: bool,
    /// Until then a connecting child is waited for.
    failover_at: Option<Instant>,
    /// It was ready or idle more recently than failed.
    was_up: bool,
    /// It is ready or idle.
    is_up: bool,
    /// It is not needed any more; stopped then.
    stop_at: Option<Instant>,
}

/// The state of all priorities of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Priorities {
    children: Vec<Child>,
    current: Option<usize>,
}

impl Priorities {
    /// After a change of configuration: there are this many.
    pub(crate) fn resize(&mut self, count: usize) {
        self.children.resize(count, Child::default());
        self.current = self.current.filter(|&current| current < count);
    }

    /// The one that gets the calls; none if there is none.
    pub(crate) fn current(&self) -> Option<usize> {
        self.current
    }

    /// Whether the endpoints of this one are to be connected.
    pub(crate) fn is_started(&self, priority: usize) -> bool {
        self.children.get(priority).is_some_and(|child| child.started)
    }

    /// It is connected, or was to be, and is neither up nor waited for any more.
    pub(crate) fn is_passed_over(&self, priority: usize) -> bool {
        self.children
            .get(priority)
            .is_some_and(|child| child.started && !child.is_up && child.failover_at.is_none())
    }

    /// Takes in the states (those of children that are not started do not matter) and chooses; a child that is
    /// `needed` gets a share of the calls. True: a child was started or stopped, so the caller must look again
    /// with new states.
    pub(crate) fn choose(&mut self, now: Instant, states: &[Aggregate], needed: &[bool]) -> bool {
        let changed = self.observe(now, states);
        let changed = self.start_needed(now, needed) || changed;
        for (priority, child) in self.children.iter_mut().enumerate() {
            if !child.started {
                *child = Child { started: true, failover_at: Some(now + FAILOVER), ..Child::default() };
                self.current = Some(priority);
                return true;
            }
            let state = states.get(priority).copied().unwrap_or(Aggregate::TransientFailure);
            let up = matches!(state, Aggregate::Ready | Aggregate::Idle);
            if up || child.failover_at.is_some() {
                self.current = Some(priority);
                child.stop_at = None;
                if up {
                    self.retain_below(now, priority, needed);
                }
                return changed;
            }
        }
        let connecting = states.iter().position(|state| *state == Aggregate::Connecting);
        self.current = connecting.or(self.children.len().checked_sub(1));
        changed
    }

    /// Starts what is to get calls though a higher one is up. Not before that: a higher one that connects for
    /// the first time is waited for.
    fn start_needed(&mut self, now: Instant, needed: &[bool]) -> bool {
        if !self.children.first().is_some_and(|child| child.started) {
            return false;
        }
        let mut started = false;
        for (child, needed) in self.children.iter_mut().zip(needed) {
            if *needed && !child.started {
                *child = Child { started: true, failover_at: Some(now + FAILOVER), ..Child::default() };
                started = true;
            }
        }
        started
    }

    fn observe(&mut self, now: Instant, states: &[Aggregate]) -> bool {
        let mut stopped = false;
        for (child, state) in self.children.iter_mut().zip(states) {
            if !child.started {
                continue;
            }
            if child.stop_at.is_some_and(|at| at <= now) {
                *child = Child::default();
                stopped = true;
                continue;
            }
            child.is_up = matches!(state, Aggregate::Ready | Aggregate::Idle);
            match state {
                Aggregate::Ready | Aggregate::Idle => {
                    child.failover_at = None;
                    child.was_up = true;
                }
                Aggregate::TransientFailure => {
                    child.failover_at = None;
                    child.was_up = false;
                }
                Aggregate::Connecting => {
                    if child.was_up && child.failover_at.is_none() {
                        child.failover_at = Some(now + FAILOVER);
                        child.was_up = false;
                    }
                }
            }
            if child.failover_at.is_some_and(|at| at <= now) {
                child.failover_at = None;
            }
        }
        stopped
    }

    fn retain_below(&mut self, now: Instant, priority: usize, needed: &[bool]) {
        for (index, child) in self.children.iter_mut().enumerate().skip(priority + 1) {
            if needed.get(index) == Some(&true) {
                child.stop_at = None;
            } else if child.started {
                child.stop_at.get_or_insert(now + RETENTION);
            }
        }
    }

    /// When to choose again though nothing changed.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.children.iter().flat_map(|child| [child.failover_at, child.stop_at]).flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Aggregate::{Connecting, Ready, TransientFailure};

    struct Bench {
        priorities: Priorities,
        now: Instant,
        states: Vec<Aggregate>,
        needed: Vec<bool>,
    }

    impl Bench {
        fn new(count: usize) -> Self {
            let mut priorities = Priorities::default();
            priorities.resize(count);
            Self {
                priorities,
                now: Instant::now(),
                states: vec![Connecting; count],
                needed: vec![false; count],
            }
        }

        fn choose(&mut self) -> Option<usize> {
            while self.priorities.choose(self.now, &self.states, &self.needed) {}
            self.priorities.current()
        }

        fn set(&mut self, priority: usize, state: Aggregate) -> Option<usize> {
            self.states[priority] = state;
            self.choose()
        }

        fn pass(&mut self, time: Duration) -> Option<usize> {
            self.now += time;
            self.choose()
        }
    }

    #[test]
    fn a_lower_priority_is_not_started_while_the_first_connects() {
        let mut bench = Bench::new(2);
        assert_eq!(bench.choose(), Some(0));
        assert!(!bench.priorities.is_started(1));
        assert_eq!(bench.set(0, Ready), Some(0));
        assert!(!bench.priorities.is_started(1));
        assert_eq!(bench.priorities.wake_at(), None);
    }

    #[test]
    fn a_priority_that_does_not_connect_within_ten_seconds_is_passed_over() {
        let mut bench = Bench::new(2);
        bench.choose();
        assert_eq!(bench.pass(Duration::from_millis(9_999)), Some(0));
        assert_eq!(bench.pass(Duration::from_millis(1)), Some(1));
        assert_eq!(bench.set(1, Ready), Some(1));
        assert_eq!(bench.set(0, Ready), Some(0), "and is taken back as soon as it is ready");
    }

    #[test]
    fn failure_moves_on_at_once() {
        let mut bench = Bench::new(3);
        bench.choose();
        assert_eq!(bench.set(0, TransientFailure), Some(1));
        assert_eq!(bench.set(1, TransientFailure), Some(2));
        assert_eq!(bench.set(2, TransientFailure), Some(2), "the last one, when all failed");
        assert_eq!(bench.set(1, Ready), Some(1));
    }

    #[test]
    fn a_ready_priority_that_reconnects_gets_its_ten_seconds_again() {
        let mut bench = Bench::new(2);
        bench.choose();
        bench.set(0, Ready);
        assert_eq!(bench.set(0, Connecting), Some(0));
        assert_eq!(bench.pass(FAILOVER), Some(1));
    }

    #[test]
    fn a_lower_priority_is_kept_for_fifteen_minutes_and_then_stopped() {
        let mut bench = Bench::new(2);
        bench.choose();
        bench.set(0, TransientFailure);
        bench.set(1, Ready);
        bench.set(0, Ready);
        assert_eq!(bench.pass(RETENTION - Duration::from_secs(1)), Some(0));
        assert!(bench.priorities.is_started(1));
        assert_eq!(bench.pass(Duration::from_secs(1)), Some(0));
        assert!(!bench.priorities.is_started(1));
        assert_eq!(bench.priorities.wake_at(), None);
    }

    #[test]
    fn a_priority_that_gets_a_share_is_started_beside_one_that_is_up_and_kept_while_it_does() {
        let mut bench = Bench::new(3);
        bench.set(0, Ready);
        bench.needed[1] = true;
        assert_eq!(bench.choose(), Some(0));
        assert!(bench.priorities.is_started(1) && !bench.priorities.is_started(2));
        bench.set(1, Ready);
        bench.pass(RETENTION * 2);
        assert!(bench.priorities.is_started(1));
        bench.needed[1] = false;
        bench.choose();
        bench.pass(RETENTION);
        assert!(!bench.priorities.is_started(1));
    }

    #[test]
    fn a_priority_is_passed_over_when_it_failed_or_its_time_is_up() {
        let mut bench = Bench::new(2);
        bench.choose();
        assert!(!bench.priorities.is_passed_over(0), "it is waited for");
        bench.pass(FAILOVER);
        assert!(bench.priorities.is_passed_over(0));
        bench.set(0, Ready);
        assert!(!bench.priorities.is_passed_over(0));
        bench.set(0, TransientFailure);
        assert!(bench.priorities.is_passed_over(0));
    }

    #[test]
    fn when_all_timers_ran_out_the_first_that_connects_is_waited_for() {
        let mut bench = Bench::new(2);
        bench.choose();
        bench.pass(FAILOVER);
        assert_eq!(bench.pass(FAILOVER), Some(0));
    }

    #[test]
    fn without_priorities_there_is_none() {
        assert_eq!(Bench::new(0).choose(), None);
    }
}
