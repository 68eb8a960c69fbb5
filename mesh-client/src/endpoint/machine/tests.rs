//! The connectivity machine, as scripts.

use super::*;

struct Bench {
    machine: Machine,
    now: Instant,
    rng: fastrand::Rng,
}

impl Bench {
    fn new() -> Self {
        Self { machine: Machine::new(), now: Instant::now(), rng: fastrand::Rng::with_seed(7) }
    }

    fn on(&mut self, input: Input) -> bool {
        self.machine.on(self.now, input, &mut self.rng)
    }

    fn fail(&mut self) -> bool {
        self.on(Input::DialFailed("connection refused".into()))
    }

    /// Waits until the machine wants to be woken; how long that was.
    fn sleep(&mut self) -> Duration {
        let at = self.machine.wake_at().expect("it waits");
        let slept = at - self.now;
        self.now = at;
        slept
    }

    fn lose(&mut self, lived: Duration) -> bool {
        self.now += lived;
        self.on(Input::Lost { lived, reason: "connection lost".into() })
    }
}

#[test]
fn it_dials_only_when_it_is_wanted_and_only_once() {
    let mut bench = Bench::new();
    assert!(!bench.on(Input::Kicked));
    assert_eq!(bench.machine.connectivity(), Connectivity::Idle);
    assert!(bench.on(Input::Wanted));
    assert!(!bench.on(Input::Kicked));
    assert!(!bench.on(Input::More));
    assert_eq!(bench.machine.connectivity(), Connectivity::Connecting);
    assert!(!bench.on(Input::Dialled));
    assert_eq!(bench.machine.connectivity(), Connectivity::Ready);
}

#[test]
fn failures_back_off_from_one_second_by_1_6_to_two_minutes() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    let mut expected = 1.0_f64;
    for _ in 0..20 {
        assert!(!bench.fail());
        let slept = bench.sleep().as_secs_f64();
        assert!((expected * 0.8..=expected * 1.2).contains(&slept), "{slept} is not {expected} ±20 %");
        assert!(bench.on(Input::Woke));
        expected = (expected * 1.6).min(120.0);
    }
    assert!((expected - 120.0).abs() < f64::EPSILON);
}

#[test]
fn transient_failure_stays_until_a_connection_is_up() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.fail();
    let failed = Connectivity::TransientFailure("connection refused".into());
    assert_eq!(bench.machine.connectivity(), failed);
    bench.sleep();
    assert!(bench.on(Input::Woke));
    assert_eq!(bench.machine.connectivity(), failed);
    bench.on(Input::Dialled);
    assert_eq!(bench.machine.connectivity(), Connectivity::Ready);
}

#[test]
fn the_time_a_dial_took_is_part_of_its_backoff() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.now += Duration::from_secs(5);
    assert!(bench.fail());
}

#[test]
fn a_lost_connection_that_worked_is_replaced_at_once() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.on(Input::Dialled);
    for _ in 0..3 {
        assert!(bench.lose(STABLE));
        assert_eq!(bench.machine.connectivity(), Connectivity::Connecting);
        bench.on(Input::Dialled);
    }
}

#[test]
fn a_peer_that_accepts_and_hangs_up_is_dialled_at_most_once_per_backoff() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.on(Input::Dialled);
    assert!(bench.lose(Duration::ZERO), "the first reconnection is immediate");
    for _ in 0..5 {
        bench.on(Input::Dialled);
        assert!(!bench.lose(Duration::ZERO));
        assert!(bench.sleep() >= Duration::from_millis(800));
        assert!(bench.on(Input::Woke));
    }
}

#[test]
fn an_idle_endpoint_dials_when_kicked() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.on(Input::Dialled);
    assert!(!bench.on(Input::IdledOut));
    assert_eq!(bench.machine.connectivity(), Connectivity::Idle);
    assert!(bench.on(Input::Kicked));
}

#[test]
fn a_replacement_is_dialled_while_the_old_connection_serves() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.on(Input::Dialled);
    assert!(bench.on(Input::More));
    bench.fail();
    assert_eq!(bench.machine.connectivity(), Connectivity::Ready);
    bench.sleep();
    assert!(bench.on(Input::Woke));
    bench.on(Input::Dialled);
    assert!(!bench.on(Input::Replaced));
    assert_eq!(bench.machine.connectivity(), Connectivity::Ready);
}

#[test]
fn an_unwanted_endpoint_rests() {
    let mut bench = Bench::new();
    bench.on(Input::Wanted);
    bench.fail();
    assert!(!bench.on(Input::Unwanted));
    assert_eq!(bench.machine.wake_at(), None);
    assert_eq!(bench.machine.connectivity(), Connectivity::Idle);
    assert!(bench.on(Input::Wanted));
}

#[test]
fn an_endpoint_wanted_lazily_waits_for_a_call_before_its_first_dial_and_after_a_loss() {
    let mut bench = Bench::new();
    assert!(!bench.on(Input::WantedLazily));
    assert_eq!(bench.machine.connectivity(), Connectivity::Idle);
    assert!(bench.on(Input::Kicked));
    assert_eq!(bench.machine.connectivity(), Connectivity::Connecting);
    bench.on(Input::Dialled);
    assert!(!bench.lose(Duration::from_secs(5)));
    assert_eq!(bench.machine.connectivity(), Connectivity::Idle);
    assert!(bench.on(Input::Kicked));
    assert!(!bench.on(Input::Dialled));
    assert!(!bench.on(Input::Reset), "TLS changed: the next call dials");
    assert_eq!(bench.machine.connectivity(), Connectivity::Idle);
    assert!(bench.on(Input::Wanted), "and now it is wanted at once");
}

#[test]
fn a_lazy_endpoint_that_fails_keeps_trying_so_that_calls_find_it_when_it_is_back() {
    let mut bench = Bench::new();
    bench.on(Input::WantedLazily);
    bench.on(Input::Kicked);
    assert!(!bench.fail());
    assert!(matches!(bench.machine.connectivity(), Connectivity::TransientFailure(_)));
    bench.sleep();
    assert!(bench.on(Input::Woke));
}
