//! A whole client over loopback: a control plane that speaks ADS, real servers, generated clients.

mod acceptance;
mod affinity;
mod client_health;
mod cluster_header;
mod connector;
mod control_planes;
mod explain;
mod hedging;
mod load;
mod resilience;
mod revocation;
mod secrets;
mod sharing;
mod way;
mod weighted;
mod world;
mod zones;

use super::*;
use crate::{WaitForReady, registration::proto::workload_registration_client::WorkloadRegistrationClient};
use mesh_xds::{
    matcher::PathMatcher,
    resource::{
        retry::RetryOn,
        route::{Destination, WeightedCluster},
    },
};
use std::{num::NonZeroU32, time::Duration};
use tonic::{Code, Request, Status, transport::Channel};
use tower_layer::Layer;
use world::{Echo, Plane, ask, bootstrap, reviews};

/// Nothing here waits for this long unless it is broken.
const LONG: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap()
}

#[tokio::test]
async fn a_call_reaches_the_endpoint_under_the_targets_name() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let answer = within(ask(mesh.channel("xds:///reviews:9080").unwrap(), None)).await.unwrap();
    assert_eq!((answer.server.as_str(), answer.authority.as_str()), ("v1", "reviews:9080"));
    assert!(answer.headers["user-agent"].to_str().unwrap().starts_with("mesh-client/"));
    assert!(!answer.headers.contains_key("grpc-timeout"), "none was asked for");
}

#[tokio::test]
async fn routes_follow_the_control_plane_and_outlive_it() {
    let (v1, v2) = (Echo::start("v1").await, Echo::start("v2").await);
    let mut plane = Plane::start().await;
    let both = || [("v1", vec![v1.address]), ("v2", vec![v2.address])];
    plane.publish(&reviews(both()));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "v1");

    let mut changed = reviews(both());
    let split = Destination::Weighted(vec![WeightedCluster {
        cluster: "v2".into(),
        weight: NonZeroU32::MIN,
        headers: Default::default(),
        overrides: Default::default(),
        authority: None,
    }]);
    changed.forward(|forward| forward.destination = split);
    plane.publish(&changed);
    within(async {
        // Each answer says where the routes lead; none may fail on the way.
        while ask(channel.clone(), None).await.unwrap().server != "v2" {}
    })
    .await;

    plane.stop().await;
    for _ in 0..20 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "v2");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_replaced_costs_no_call() {
    let (plane, old, new) = (Plane::start().await, Echo::start("old").await, Echo::start("new").await);
    plane.publish(&reviews([("v1", vec![old.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "old");
    plane.publish(&reviews([("v1", vec![old.address, new.address])]));
    within(async { while ask(channel.clone(), None).await.unwrap().server != "new" {} }).await;
    plane.publish(&reviews([("v1", vec![new.address])]));
    within(async {
        let mut in_a_row = 0;
        while in_a_row < 10 {
            let new = ask(channel.clone(), None).await.unwrap().server == "new";
            in_a_row = if new { in_a_row + 1 } else { 0 };
        }
    })
    .await;
    let status = mesh.status();
    assert_eq!(status.clusters["v1"].endpoints, 1);
    assert_eq!(status.targets["reviews:9080"].version.as_deref(), Some("r3"));
}

#[tokio::test]
async fn a_cluster_that_only_a_call_holds_is_still_told_of_its_endpoints() {
    let (plane, one, two) = (Plane::start().await, Echo::start("v1").await, Echo::start("v2").await);
    let before = || ("v1", vec![world::free_address()]);
    plane.publish(&reviews([before()]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let status = within(ask(channel.clone(), None)).await.unwrap_err();
    assert!(status.message().contains("cluster v1"), "{status}");
    let mut request = Request::new(Default::default());
    request.extensions_mut().insert(WaitForReady(true));
    let waiting = tokio::spawn(ask(channel.clone(), Some(request)));
    tokio::task::yield_now().await;

    plane.publish(&reviews([("v2", vec![two.address]), before()]));
    within(async {
        while !ask(channel.clone(), None).await.is_ok_and(|answer| answer.server == "v2") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!waiting.is_finished());
    assert!(mesh.status().clusters.contains_key("v1"), "the waiting call holds it");

    plane.publish(&reviews([("v2", vec![two.address]), ("v1", vec![one.address])]));
    assert_eq!(within(waiting).await.unwrap().unwrap().server, "v1");
    // Nothing holds it any more, so nothing watches it.
    within(async {
        let watched =
            |mesh: &Mesh| mesh.status().control_plane.resources.iter().any(|one| one.name.as_ref() == "v1");
        while watched(&mesh) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_control_plane_fails_the_first_call_fast_and_is_noticed_when_it_comes() {
    let address = world::free_address();
    let mesh = Mesh::builder().bootstrap(bootstrap(address)).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    let status = within(ask(channel.clone(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    for part in ["target reviews:9080", &address.to_string(), "refused"] {
        assert!(status.message().contains(part), "{part} in {status}");
    }

    let echo = Echo::start("v1").await;
    let plane = Plane::start_at(address).await;
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mut waiting = Request::new(Default::default());
    waiting.extensions_mut().insert(WaitForReady(true));
    let answer = within(ask(channel, Some(waiting))).await.unwrap();
    assert_eq!(answer.server, "v1");
}

#[tokio::test]
async fn retries_hide_a_replica_that_fails_and_a_dead_one() {
    let (good, bad, dead) =
        (Echo::start("good").await, Echo::failing(Code::Unavailable).await, world::free_address());
    let plane = Plane::start().await;
    let mut config = reviews([("v1", vec![good.address, bad.address, dead])]);
    config.forward(|forward| {
        let mut policy =
            crate::table::testing::retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
        policy.avoid_previous_hosts = true;
        policy.host_selection_attempts = 5;
        forward.retry = Some(Arc::new(policy));
    });
    plane.publish(&config);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    for _ in 0..50 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "good");
    }
    let calls = &mesh.status().targets["reviews:9080"].calls;
    assert!(calls.retries >= 10, "the failing replica was asked too: {calls:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline_that_it_was_told() {
    let (plane, echo) = (Plane::start().await, Echo::silent().await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let mut request = Request::new(Default::default());
    request.set_timeout(Duration::from_millis(300));
    let status = within(ask(mesh.channel("reviews:9080").unwrap(), Some(request))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    for part in ["target reviews:9080", "cluster v1", &echo.address.to_string(), "grpc-timeout"] {
        assert!(status.message().contains(part), "{part} in {status}");
    }
    let told = crate::timeout::parse(echo.last_headers()["grpc-timeout"].as_bytes()).unwrap();
    assert!(told <= Duration::from_millis(300) && told > Duration::ZERO);
}

#[tokio::test]
async fn a_layer_gives_unknown_hosts_to_the_channel_that_it_wraps() {
    let (plane, outside) = (Plane::start().await, Echo::start("outside").await);
    plane.publish(&reviews([]));
    let mesh = plane.join();
    let wrapped = Channel::from_shared(format!("http://{}", outside.address)).unwrap().connect_lazy();
    let layer = mesh.layer("elsewhere:80").unwrap();
    let answer = within(ask(layer.layer(wrapped.clone()), None)).await.unwrap();
    assert_eq!(
        (answer.server.as_str(), answer.authority.as_str()),
        ("outside", outside.address.to_string().as_str())
    );
    assert_eq!(mesh.status().targets["elsewhere:80"].calls.passed_through, 1);

    let strict = Mesh::builder()
        .bootstrap(bootstrap(plane.address))
        .outbound_traffic_policy(OutboundTrafficPolicy::RegistryOnly)
        .build()
        .unwrap();
    let service = strict.layer("elsewhere:80").unwrap().layer(wrapped);
    let status = within(ask(service, None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("REGISTRY_ONLY"), "{status}");

    let status = within(ask(mesh.channel("elsewhere:80").unwrap(), None)).await.unwrap_err();
    assert!(status.message().contains("Listener elsewhere:80 does not exist"), "{status}");
}

#[tokio::test]
async fn a_layer_over_a_known_host_is_the_mesh() {
    let (plane, inside, outside) =
        (Plane::start().await, Echo::start("inside").await, Echo::start("outside").await);
    plane.publish(&reviews([("v1", vec![inside.address])]));
    let wrapped = Channel::from_shared(format!("http://{}", outside.address)).unwrap().connect_lazy();
    let service = plane.join().layer("reviews:9080").unwrap().layer(wrapped);
    assert_eq!(within(ask(service, None)).await.unwrap().server, "inside");
}

/// A channel that is never ready.
#[derive(Clone)]
struct Full;

impl tower_service::Service<http::Request<tonic::body::Body>> for Full {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Pending
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        panic!("called though it was not ready");
    }
}

#[tokio::test]
async fn a_full_wrapped_channel_holds_up_no_mesh_call_and_others_until_their_deadline() {
    let (plane, inside) = (Plane::start().await, Echo::start("inside").await);
    plane.publish(&reviews([("v1", vec![inside.address])]));
    let mesh = plane.join();
    let service = mesh.layer("reviews:9080").unwrap().layer(Full);
    assert_eq!(within(ask(service, None)).await.unwrap().server, "inside");

    let mut request = Request::new(Default::default());
    request.set_timeout(Duration::from_millis(300));
    let service = mesh.layer("elsewhere:80").unwrap().layer(Full);
    let status = within(ask(service, Some(request))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("the wrapped channel had not become ready"), "{status}");
}

#[tokio::test]
async fn the_node_says_who_it_is_and_the_last_handle_ends_the_stream() {
    let plane = Plane::start().await;
    plane.publish(&reviews([]));
    let mesh = Mesh::builder()
        .bootstrap(bootstrap(plane.address))
        .namespace("prod")
        .service_account("bookinfo-reviews")
        .workload_name("reviews-v1")
        .label("app", "reviews")
        .build()
        .unwrap();
    let channel = mesh.channel("elsewhere:80").unwrap();
    within(ask(channel.clone(), None)).await.unwrap_err();
    let node = plane.node();
    for (key, value) in [
        ("NAMESPACE", "prod"),
        ("SERVICE_ACCOUNT", "bookinfo-reviews"),
        ("WORKLOAD_NAME", "reviews-v1"),
        ("LABELS.app", "reviews"),
        ("GENERATOR", "grpc"),
    ] {
        assert_eq!(node.metadata.get(key).map(|value| &**value), Some(value), "{key}");
    }
    assert!(node.metadata["MESH_CAPABILITIES"].contains("mirror"));
    let mut events = plane.events();
    drop((mesh, channel));
    within(async {
        while !matches!(events.recv().await.unwrap(), mesh_xds::server::StreamEvent::Gone { .. }) {}
    })
    .await;
}

#[tokio::test]
async fn after_a_shutdown_calls_fail_and_say_so() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    within(ask(channel.clone(), None)).await.unwrap();
    mesh.shutdown();
    for channel in [channel, mesh.channel("reviews:9080").unwrap(), mesh.channel("other:1").unwrap()] {
        let status = within(ask(channel, None)).await.unwrap_err();
        assert!(status.message().contains("has been shut down"), "{status}");
    }
}

#[tokio::test]
async fn the_status_tells_targets_clusters_and_the_control_plane() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    within(ask(channel, None)).await.unwrap();
    let target_is_dropped = mesh.status();
    assert!(target_is_dropped.targets.is_empty(), "nobody uses it any more");
    let channel = mesh.channel("reviews:9080").unwrap();
    within(ask(channel.clone(), None)).await.unwrap();
    let status = mesh.status();
    let target = &status.targets["reviews:9080"];
    assert_eq!((target.routes, target.calls.calls, target.error.as_ref()), (1, 1, None));
    assert_eq!((status.clusters["v1"].endpoints, status.clusters["v1"].ready), (1, 1));
    assert!(status.control_plane.connected);
    serde_json::to_value(&status).unwrap();
}

#[test]
fn a_mesh_needs_a_runtime_and_a_bootstrap_with_a_server() {
    let address = "127.0.0.1:1".parse().unwrap();
    let error = Mesh::builder().bootstrap(bootstrap(address)).build().unwrap_err();
    assert!(matches!(error, MeshError::NoRuntime), "{error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let mut empty = bootstrap(address);
    empty.servers.clear();
    let error = Mesh::builder().bootstrap(empty).build().unwrap_err();
    assert!(error.to_string().contains("xds_servers is empty"), "{error}");
}

/// What tonic generates, used where programs use it. That it compiles is the test; that the calls fail is
/// because nobody serves them.
#[tokio::test]
async fn generated_clients_work_in_spawned_tasks_and_in_handlers() {
    #[tonic::async_trait]
    trait Handler: Send + Sync {
        async fn handle(&self, request: Request<()>) -> Result<(), Status>;
    }

    struct Front<T>(WorkloadRegistrationClient<T>);

    #[tonic::async_trait]
    impl Handler for Front<crate::MeshChannel> {
        async fn handle(&self, _: Request<()>) -> Result<(), Status> {
            self.0.clone().register(futures_util::stream::empty()).await.map(drop)
        }
    }

    #[tonic::async_trait]
    impl Handler for Front<crate::MeshService<Channel>> {
        async fn handle(&self, _: Request<()>) -> Result<(), Status> {
            self.0.clone().register(futures_util::stream::empty()).await.map(drop)
        }
    }

    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let wrapped = Channel::from_static("http://127.0.0.1:1").connect_lazy();
    let layered = mesh.layer("reviews:9080").unwrap().layer(wrapped);

    let mut client = WorkloadRegistrationClient::new(channel.clone());
    let spawned = tokio::spawn(async move { client.register(futures_util::stream::empty()).await.map(drop) });
    assert_eq!(within(spawned).await.unwrap().unwrap_err().code(), Code::Unimplemented);
    let mut client = WorkloadRegistrationClient::with_interceptor(layered.clone(), Ok);
    let spawned = tokio::spawn(async move { client.register(futures_util::stream::empty()).await.map(drop) });
    assert_eq!(within(spawned).await.unwrap().unwrap_err().code(), Code::Unimplemented);

    let handlers: [Box<dyn Handler>; 2] = [
        Box::new(Front(WorkloadRegistrationClient::new(channel))),
        Box::new(Front(WorkloadRegistrationClient::new(layered))),
    ];
    for handler in handlers {
        let handled = tokio::spawn(async move { handler.handle(Request::new(())).await });
        assert_eq!(within(handled).await.unwrap().unwrap_err().code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn a_route_that_is_not_for_the_path_names_it() {
    let plane = Plane::start().await;
    let mut config = reviews([("v1", vec![])]);
    config.route(|route| route.matches.path = PathMatcher::exact("/other.S/M", false));
    plane.publish(&config);
    let status = within(ask(plane.join().channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert!(status.message().contains("matches /mesh.test.Echo/Ask"), "{status}");
}

#[tokio::test]
async fn throttling_that_a6_does_not_allow_is_an_error_that_says_so() {
    let built = Mesh::builder().retry_throttling(1001, 0.1).build();
    let error = built.map(drop).unwrap_err().to_string();
    assert!(
        error.starts_with("retry_throttling(1001, 0.1) of the mesh: max_tokens must be in 1..=1000"),
        "{error}"
    );
}
