//! A workload and its control plane, over a real channel.

use super::{everywhere::Registrations, *};
use crate::testing::control_plane::{Streams, serve};
use mesh_ca::channel::{self, Target};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

struct World {
    registrations: Registrations,
    streams: Streams,
    /// How many were made.
    channels: Arc<AtomicU32>,
    _plane: JoinSet<()>,
}

impl World {
    fn state(&self) -> RegistrationState {
        self.registrations.0[0].state.borrow().clone()
    }
}

async fn world(refusal: Option<Status>) -> World {
    let (address, streams, plane) = serve(refusal).await;
    let (target, made) = (Target::plaintext(&address).unwrap(), Arc::new(AtomicU32::new(0)));
    let channels = made.clone();
    let connect: Connect = Box::new(move || {
        channels.fetch_add(1, SeqCst);
        Ok(channel::connect(&target))
    });
    let info =
        WorkloadInfo { name: "reviews".into(), namespace: "default".into(), ..WorkloadInfo::default() };
    let retry = Retry { first: Duration::from_millis(1), longest: Duration::from_millis(5) };
    let ports = BTreeMap::from([(String::new(), 9080)]);
    let towards = Advertise::Towards(address.clone());
    let registration = Registration::start(address.into(), connect, info, towards, ports, retry);
    World { registrations: [registration].into_iter().collect(), streams, channels: made, _plane: plane }
}

fn revision(revision: &str) -> Result<proto::RegisterResponse, Status> {
    Ok(crate::testing::control_plane::revision(revision))
}

async fn until(world: &World, done: impl FnMut(&RegistrationState) -> bool) -> RegistrationState {
    let mut state = world.registrations.0[0].state.clone();
    state.wait_for(done).await.unwrap().clone()
}

#[tokio::test]
async fn a_workload_says_what_it_is_and_is_registered_once_that_is_served() {
    let mut world = world(None).await;
    let (mut requests, answers) = world.streams.recv().await.unwrap();
    let first = requests.message().await.unwrap().unwrap();
    let workload = first.workload.unwrap();
    assert_eq!((workload.name.as_str(), workload.address.as_str()), ("reviews", "127.0.0.1"));
    assert_eq!(workload.ports, BTreeMap::from([(String::new(), 9080)]));
    assert_eq!(first.health, i32::from(Health::Healthy));
    assert_eq!(world.state(), RegistrationState::Pending(None));
    answers.send(revision("7")).unwrap();
    world.registrations.registered().await.unwrap();
    let state = world.state();
    assert_eq!(state.to_string(), "registered as reviews-127.0.0.1 since revision 7");
}

#[tokio::test]
async fn a_lost_stream_is_opened_again_and_says_it_all_again() {
    let mut world = world(None).await;
    let (mut requests, answers) = world.streams.recv().await.unwrap();
    requests.message().await.unwrap();
    answers.send(revision("1")).unwrap();
    until(&world, |state| matches!(state, RegistrationState::Registered { .. })).await;
    drop((requests, answers));
    let (mut requests, answers) = world.streams.recv().await.unwrap();
    assert!(requests.message().await.unwrap().unwrap().workload.is_some());
    assert!(matches!(world.state(), RegistrationState::Lost(_)));
    answers.send(revision("2")).unwrap();
    until(&world, |state| state.to_string().ends_with("revision 2")).await;
    assert_eq!(world.channels.load(SeqCst), 2, "the certificate of now, not of the first connection");
}

#[tokio::test]
async fn a_drain_is_done_when_the_served_configuration_says_so() {
    let mut world = world(None).await;
    let (mut requests, answers) = world.streams.recv().await.unwrap();
    requests.message().await.unwrap();
    answers.send(revision("1")).unwrap();
    world.registrations.registered().await.unwrap();
    let control_plane = async {
        let request = requests.message().await.unwrap().unwrap();
        assert_eq!((request.workload, request.health), (None, i32::from(Health::Draining)));
        assert!(!world.state().to_string().starts_with("draining"));
        answers.send(revision("2")).unwrap();
    };
    tokio::join!(world.registrations.drain(), control_plane);
    assert_eq!(world.state().to_string(), "draining as reviews-127.0.0.1 since revision 2");
}

#[tokio::test]
async fn a_control_plane_that_comes_back_during_a_drain_is_told_of_it_first() {
    let mut world = world(None).await;
    let (requests, answers) = world.streams.recv().await.unwrap();
    drop((requests, answers));
    let control_plane = async {
        loop {
            let (mut requests, answers) = world.streams.recv().await.unwrap();
            let first = requests.message().await.unwrap().unwrap();
            assert!(first.workload.is_some());
            if first.health == i32::from(Health::Draining) {
                answers.send(revision("2")).unwrap();
                return answers;
            }
        }
    };
    let (_, _open) = tokio::join!(world.registrations.drain(), control_plane);
}

#[tokio::test]
async fn a_control_plane_without_registration_is_left_alone() {
    let world = world(Some(Status::unimplemented("no such service"))).await;
    world.registrations.registered().await.unwrap();
    until(&world, |state| *state == RegistrationState::Unsupported).await;
    world.registrations.drain().await;
}

#[tokio::test]
async fn a_refusal_is_an_error_in_the_words_of_the_control_plane() {
    let world = world(Some(Status::permission_denied("default/reviews is not yours"))).await;
    let refused = world.registrations.registered().await.unwrap_err();
    let who = world.registrations.statuses().remove(0).control_plane;
    assert_eq!(refused, RegistrationError::Refused(format!("{who}: default/reviews is not yours").into()));
    assert!(until(&world, |_| true).await.to_string().contains("not yours"));
    world.registrations.drain().await;
}

#[tokio::test]
async fn the_endpoint_lives_as_long_as_the_handle() {
    let mut world = world(None).await;
    let (mut requests, _answers) = world.streams.recv().await.unwrap();
    requests.message().await.unwrap();
    drop(world.registrations);
    // The stream ends, in one way or the other.
    assert!(!matches!(requests.message().await, Ok(Some(_))));
}

#[tokio::test]
async fn without_an_address_to_advertise_the_status_says_what_to_do() {
    let nowhere = Advertise::Towards("without-a-port".into());
    let why = nowhere.address().await.unwrap_err();
    assert!(why.message().contains("without-a-port") && why.message().contains("`advertise`"), "{why}");
}

#[test]
fn delays_grow_to_their_bound_and_the_first_is_spread_out() {
    let retry = Retry { first: Duration::from_secs(1), longest: Duration::from_secs(10) };
    for _ in 0..100 {
        assert!(retry.delay(1) <= Duration::from_millis(1600));
        assert!(retry.delay(3) >= Duration::from_millis(3200));
        assert!(retry.delay(60) <= Duration::from_secs(12));
        assert!(retry.delay(u32::MAX) >= Duration::from_secs(8));
    }
}
