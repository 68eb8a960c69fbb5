//! Thousands of calls that are dropped somewhere on their way: nothing is left of them.

use super::{
    script::{Script, Scripted, begin, message},
    *,
};
use crate::CallFuture;
use futures_util::poll;
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_xds::{
    matcher::Fraction,
    resource::{
        fault::{DelayKind, Fault, FaultDelay},
        filter::FilterConfig,
        route::Mirror,
    },
};

const SEED: u64 = 0x5eed;
const CALLS: usize = 2_000;

/// A body of one message, or of one that is followed by no end.
fn body(endless: bool) -> Body {
    let one = futures_util::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5])))]);
    if !endless {
        return Body::new(StreamBody::new(one));
    }
    Body::new(StreamBody::new(futures_util::StreamExt::chain(one, futures_util::stream::pending())))
}

/// A call under way.
enum Call {
    Asked(std::pin::Pin<Box<CallFuture>>),
    Answering(Box<http::Response<MeshBody>>),
}

/// Goes on with a call; false when it has ended.
async fn step(call: &mut Call) -> bool {
    match call {
        Call::Asked(future) => match poll!(future.as_mut()) {
            std::task::Poll::Ready(Ok(response)) => {
                *call = Call::Answering(Box::new(response));
                true
            }
            std::task::Poll::Ready(Err(_)) => false,
            std::task::Poll::Pending => true,
        },
        Call::Answering(response) => match poll!(response.body_mut().frame()) {
            std::task::Poll::Ready(Some(Ok(_))) | std::task::Poll::Pending => true,
            std::task::Poll::Ready(_) => false,
        },
    }
}

/// Makes and drops calls, up to 64 at a time, each after a random number of looks.
async fn storm(channel: &MeshChannel, clusters: &[&str]) {
    let mut dice = fastrand::Rng::with_seed(SEED);
    let mut calls: Vec<(Call, usize)> = Vec::new();
    for _ in 0..CALLS {
        let mut request = request(clusters[dice.usize(..clusters.len())], LONG);
        *request.body_mut() = body(dice.bool());
        calls.push((Call::Asked(Box::pin(channel.clone().call(request))), dice.usize(..30)));
        let mut left = Vec::new();
        for (mut call, looks) in calls.drain(..) {
            if looks > 0 && step(&mut call).await {
                left.push((call, looks - 1));
            }
        }
        calls = left;
        while calls.len() > 64 {
            drop(calls.swap_remove(dice.usize(..calls.len())));
        }
        tokio::task::yield_now().await;
    }
}

/// What is given back with the call itself, and not by a task that has to end.
fn at_once(mesh: &Mesh) -> Vec<(String, u64)> {
    let by_tasks = ["copies", "bytes for retries"];
    let mut held = held(mesh);
    held.retain(|(what, _)| !by_tasks.iter().any(|task| what.ends_with(task)));
    held.retain(|(what, _)| !what.starts_with(&format!("cluster {COPIES}: ")));
    held
}

/// A mesh of peers of every kind.
struct World {
    mesh: Mesh,
    channel: MeshChannel,
    _plane: Plane,
    _servers: (Vec<Echo>, Vec<Scripted>),
}

/// Where copies go, and nothing else.
const COPIES: &str = "copies";
const CLUSTERS: [&str; 6] = ["good", "bad", "silent", "half", "refuses", "none"];

async fn world(change: impl FnOnce(world::Published) -> world::Published) -> World {
    let plane = Plane::start().await;
    let echoes =
        vec![Echo::start("good").await, Echo::failing(Code::Unavailable).await, Echo::silent().await];
    let half = Scripted::start(Script::answering(|id| [begin(id), message(0, id)].concat())).await;
    let addresses =
        [echoes[0].address, echoes[1].address, echoes[2].address, half.address, world::free_address()];
    let mut clusters: Vec<_> =
        CLUSTERS.into_iter().zip(addresses).map(|(name, address)| (name, vec![address])).collect();
    clusters.extend([("none", vec![]), (COPIES, vec![echoes[0].address])]);
    plane.publish(&change(reviews([]).and(clusters).by_header().reported()));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).seed(SEED).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(status(channel.clone(), request("good", LONG))).await.code(), Code::Ok);
    World { mesh, channel, _plane: plane, _servers: (echoes, vec![half]) }
}

async fn nothing_is_left(world: &World) {
    within(storm(&world.channel, &CLUSTERS)).await;
    assert_eq!(at_once(&world.mesh), [], "the moment they are dropped (seed {SEED:#x})");
    nothing_stays(world).await;
}

async fn nothing_stays(World { mesh, channel, .. }: &World) {
    at_rest(mesh).await;
    assert_eq!(within(status(channel.clone(), request("good", LONG))).await.code(), Code::Ok);
    at_rest(mesh).await;
}

#[tokio::test]
async fn a_storm_of_cancellations_leaves_nothing() {
    nothing_is_left(&world(|config| config).await).await;
}

fn retried(mut config: world::Published) -> world::Published {
    config.forward(|forward| {
        let on = RetryOn { unavailable: true, reset: true, connect_failure: true, ..RetryOn::default() };
        forward.retry = Some(Arc::new(crate::table::testing::retry_policy(on)));
    });
    config
}

#[tokio::test]
async fn a_storm_over_retries_leaves_nothing() {
    nothing_is_left(&world(retried).await).await;
}

#[tokio::test]
async fn a_storm_over_retries_and_mirrors_leaves_nothing_when_the_mirrors_have_ended() {
    let world = world(|config| {
        let mut config = retried(config);
        config.forward(|forward| {
            let mirror = Mirror {
                cluster: COPIES.into(),
                fraction: Fraction::per_million(300_000),
                shadow_host: false,
            };
            forward.mirrors = vec![mirror];
        });
        config
    })
    .await;
    within(storm(&world.channel, &CLUSTERS)).await;
    nothing_stays(&world).await;
}

#[tokio::test]
async fn a_storm_over_injected_delays_leaves_nothing() {
    let delay = FaultDelay { kind: DelayKind::Fixed(LONG), fraction: Fraction::per_million(500_000) };
    let fault = Fault { delay: Some(delay), abort: None, headers: Vec::new(), max_active: Some(4) };
    let plane_of = |config: world::Published| config.filtered("fault", FilterConfig::Fault(Arc::new(fault)));
    let plane = Plane::start().await;
    let echo = Echo::start("good").await;
    plane.publish(&plane_of(reviews([("good", vec![echo.address])]).by_header()));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).seed(SEED).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    // Until its routes are there, calls are not delayed but wait.
    within(async {
        while mesh.status().targets["reviews:9080"].routes == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    within(storm(&channel, &["good"])).await;
    assert_eq!(at_once(&mesh), [], "the moment they are dropped (seed {SEED:#x})");
    let counts = mesh.status().targets["reviews:9080"].calls.clone();
    assert!(counts.faults_delayed > 100 && counts.faults_over_limit > 0, "{counts:?}");
    at_rest(&mesh).await;
}
