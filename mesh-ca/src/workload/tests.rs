//! The handle and its task, with a scripted source under paused time.

use super::*;
use crate::{
    rotation::Schedule,
    spiffe_id::TrustDomain,
    testing::{Ca, Leaf},
};
use std::collections::VecDeque;
use tokio::sync::mpsc;

const ID: &str = "spiffe://td/ns/a/sa/b";

/// Gives what it is told to, then what it gave last; tells when it is dropped.
struct Script {
    ca: Ca,
    clock: Clock,
    answers: VecDeque<Answer>,
    dropped: Option<mpsc::Sender<()>>,
}

enum Answer {
    /// A certificate of this lifetime.
    Lives(Duration),
    /// A certificate that has expired.
    Over,
    Fails(&'static str),
    Hangs,
}

impl Source for Script {
    fn origin(&self) -> String {
        "a script".to_owned()
    }

    fn schedule(&self) -> Schedule {
        Schedule::HALF_LIFE
    }

    async fn fetch(&mut self, _held: Option<&Arc<Identity>>) -> Result<Arc<Identity>, SourceError> {
        let answer = self.answers.pop_front().unwrap_or(Answer::Fails("the script is over"));
        let now = self.clock.now();
        let until = |end| {
            let leaf = Leaf::new(ID).valid(now - Duration::from_secs(120), end).issue_by(&self.ca);
            let bundles = TrustBundles::of(self.ca.bundle("td"));
            Ok(Arc::new(Identity::new(leaf.svid(), bundles).unwrap()))
        };
        match answer {
            Answer::Lives(life) => until(now + life),
            Answer::Over => until(now - Duration::from_secs(2)),
            Answer::Fails(reason) => Err(SourceError::unavailable(reason)),
            Answer::Hangs => std::future::pending().await,
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Told by closing the channel.
        self.dropped.take();
    }
}

fn start(answers: impl IntoIterator<Item = Answer>) -> (WorkloadIdentity, mpsc::Receiver<()>) {
    let clock = Clock::tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let (dropped, watch) = mpsc::channel(1);
    let answers = answers.into_iter().collect();
    let script = Script { ca: Ca::new("root"), clock: clock.clone(), answers, dropped: Some(dropped) };
    (WorkloadIdentity::start_with(script, clock, Backoff::default(), 1), watch)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_renewed_at_half_its_life_again_and_again() {
    let (identity, _) = start((0..10).map(|_| Answer::Lives(seconds(4))));
    let started = tokio::time::Instant::now();
    let mut watch = identity.watch();
    let mut last = identity.ready().await.unwrap();
    watch.mark_unchanged();
    for n in 1..10_u32 {
        watch.changed().await.unwrap();
        let next = watch.borrow_and_update().clone().unwrap();
        assert!(!Arc::ptr_eq(&last, &next));
        last = next;
        let expected = 2.0 * f64::from(n);
        let elapsed = started.elapsed().as_secs_f64();
        assert!((elapsed - expected).abs() < 0.7 * f64::from(n), "rotation {n} after {elapsed} s");
        assert_eq!(identity.status().rotations, u64::from(n) + 1);
        assert_eq!(identity.status().stage, Stage::Fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_learns_why_there_is_no_identity() {
    let (identity, _) = start([Answer::Fails("connection refused"), Answer::Lives(seconds(60))]);
    let error = identity.ready().await.unwrap_err().to_string();
    assert_eq!(error, "no workload identity from a script: connection refused");
    assert_eq!(identity.status().stage, Stage::Absent);
    // Tried again in the background, without anybody asking.
    let mut watch = identity.watch();
    watch.wait_for(Option::is_some).await.unwrap();
    assert_eq!(identity.ready().await.unwrap().id().as_str(), ID);
    assert!(identity.status().last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn patience_outlasts_failures_but_not_for_ever() {
    let fails = || Answer::Fails("connection refused");
    let (identity, _) = start([fails(), fails(), fails(), Answer::Lives(seconds(60))]);
    identity.ready_within(seconds(30)).await.unwrap();

    let (identity, _) = start([]);
    let error = identity.ready_within(seconds(30)).await.unwrap_err();
    assert!(matches!(error, IdentityError::Source { .. }), "{error}");

    let (identity, _) = start([Answer::Hangs]);
    let error = identity.ready_within(seconds(3)).await.unwrap_err();
    assert!(matches!(error, IdentityError::Slow { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_given_up_and_asked_again() {
    let (identity, _) = start([Answer::Hangs, Answer::Lives(seconds(60))]);
    let error = identity.ready().await.unwrap_err().to_string();
    assert!(error.contains("no answer within 10s"), "{error}");
    identity.ready_within(seconds(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_identity_in_hand_serves_until_it_expires_while_renewal_fails() {
    let (identity, _) = start([Answer::Lives(seconds(100))]);
    let first = identity.ready().await.unwrap();
    let mut status = identity.watch_status();
    for stage in [Stage::Overdue, Stage::Ending, Stage::Expired] {
        status.wait_for(|status| status.stage == stage).await.unwrap();
        let now = identity.clock().now();
        assert_eq!(now > first.svid().not_after(), stage == Stage::Expired, "{stage:?}");
        assert!(Arc::ptr_eq(&identity.current().unwrap(), &first));
        let status = identity.status();
        assert_eq!(status.stage, stage);
        assert_eq!(status.last_error.unwrap().to_string(), "the script is over");
        assert_eq!(identity.ready().await.is_ok(), stage != Stage::Expired);
    }
    // Not wedged in a healthy look: whoever asks is told both what ended and why nothing followed.
    let error = identity.ready().await.unwrap_err().to_string();
    assert!(error.contains(ID) && error.contains("expired at"), "{error}");
    assert!(error.contains("a script has given no newer one: the script is over"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_workload_recovers_when_its_source_does() {
    let fails = (0..40).map(|_| Answer::Fails("down"));
    let (identity, _) =
        start([Answer::Lives(seconds(10))].into_iter().chain(fails).chain([Answer::Lives(seconds(60))]));
    let mut status = identity.watch_status();
    status.wait_for(|status| status.stage == Stage::Expired).await.unwrap();
    status.wait_for(|status| status.stage == Stage::Fresh).await.unwrap();
    assert_eq!(identity.status().rotations, 2);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_already_over_is_not_taken() {
    let (identity, _) = start([Answer::Lives(seconds(100)), Answer::Over]);
    let first = identity.ready().await.unwrap();
    let mut status = identity.watch_status();
    status.wait_for(|status| status.last_error.is_some()).await.unwrap();
    let error = identity.status().last_error.unwrap().to_string();
    assert!(error.contains("expired at") && error.contains("the clock here says"), "{error}");
    assert!(Arc::ptr_eq(&identity.current().unwrap(), &first));
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle() {
    let (identity, mut dropped) = start([Answer::Lives(seconds(60))]);
    let other = identity.clone();
    identity.ready().await.unwrap();
    drop(identity);
    tokio::task::yield_now().await;
    assert!(matches!(dropped.try_recv(), Err(mpsc::error::TryRecvError::Empty)), "a handle is left");
    drop(other);
    assert_eq!(dropped.recv().await, None);
}

#[test]
fn an_identity_needs_the_roots_of_its_own_domain() {
    let ca = Ca::new("root");
    let svid = Leaf::new(ID).issue_by(&ca).svid();
    let error = Identity::new(svid, TrustBundles::of(ca.bundle("other"))).unwrap_err();
    assert!(error.to_string().contains(TrustDomain::parse("td").unwrap().as_str()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_identity_that_has_expired_is_not_ready() {
    let identity = Ca::new("root").identity(ID);
    let (clock, hand) = Clock::manual(SystemTime::now());
    let fixed = WorkloadIdentity::fixed_at(identity, clock);
    fixed.ready().await.unwrap();
    hand.advance(seconds(7200));
    assert!(matches!(fixed.ready().await.unwrap_err(), IdentityError::Expired { .. }));
    assert_eq!(fixed.status().stage, Stage::Expired);
}

#[tokio::test]
async fn a_fixed_identity_is_there_at_once_and_shows_no_key() {
    let fixed = WorkloadIdentity::fixed(Ca::new("root").identity(ID));
    assert_eq!(fixed.ready().await.unwrap().id().as_str(), ID);
    assert_eq!(fixed.status().stage, Stage::Fresh);
    let current = fixed.current().unwrap();
    let shown = format!("{fixed:?} {current:?} {:?}", fixed.status());
    for line in current.svid().key().to_pem().lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.contains(line), "{shown}");
    }
}
