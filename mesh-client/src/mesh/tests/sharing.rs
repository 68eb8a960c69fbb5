//! Meshes that join by the same are one client to their control planes, and no others are.

use super::{
    world::{Echo, Plane, ask, bootstrap, reviews},
    *,
};
use mesh_ca::{source::file::FileSource, workload::WorkloadIdentity};
use mesh_xds::server::StreamEvent;

/// Until the control plane has no stream.
async fn left(plane: &Plane, events: &mut tokio::sync::broadcast::Receiver<StreamEvent>) {
    within(async {
        while !plane.streams().is_empty() {
            events.recv().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn two_meshes_have_one_connection_with_one_stream_in_which_each_name_is_asked_for_once() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]).reported());
    let (one, two) = (plane.join(), plane.join());
    let channels = [&one, &two].map(|mesh| mesh.channel("reviews:9080").unwrap());
    for channel in &channels {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "v1");
    }
    let mut reports = plane.load().reports();
    within(async {
        while plane.load().sums().clusters.get("v1").is_none_or(|v1| v1.sums.issued < 2) {
            reports.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(plane.connections(), 1, "ADS and load reports of both");
    let mut streams = plane.streams();
    assert_eq!(streams.len(), 1);
    for kind in streams.remove(0).types {
        assert_eq!(kind.names.len(), 1, "{kind:?}");
    }
    // Either tells of the whole, and it is one client for those who ask for its status.
    let resources = |mesh: &Mesh| mesh.status().control_plane.resources.len();
    assert_eq!(resources(&one), resources(&two));
    assert!(Arc::ptr_eq(&one.0.membership, &two.0.membership));
}

#[tokio::test]
async fn meshes_that_join_otherwise_have_streams_of_their_own() {
    let plane = Plane::start().await;
    let join = || Mesh::builder().bootstrap(bootstrap(plane.address));
    let identity = || WorkloadIdentity::start(FileSource::new("/nowhere/c", "/nowhere/k", "/nowhere/r"));
    let (own, other) = (identity(), identity());
    let meshes = [
        join(),
        join().label("version", "v1"),
        join().namespace("elsewhere"),
        join().control_plane_keepalive(Duration::from_secs(1), Duration::from_secs(1)),
        join().max_response_bytes(1 << 20),
        join().identity("default", own.clone()),
        join().identity("default", other),
        join().identity("spare", own.clone()),
        join().cache_dir(std::env::temp_dir().join(format!("mesh-sharing-{}", std::process::id()))),
    ]
    .map(|builder| builder.build().unwrap());
    for (index, one) in meshes.iter().enumerate() {
        for other in &meshes[..index] {
            assert!(!Arc::ptr_eq(&one.0.membership, &other.0.membership), "{index}");
        }
    }
    let again = [
        (0, join().seed(1).wait_for_ready(true).ring_size_cap(7)),
        (0, join().max_response_bytes(256 << 20)),
        (5, join().identity("default", own)),
    ];
    for (index, builder) in again {
        let mesh = builder.build().unwrap();
        assert!(Arc::ptr_eq(&mesh.0.membership, &meshes[index].0.membership), "{index}");
    }
    // Two of them, at the control plane.
    let mut events = plane.events();
    let _channels = [meshes[0].channel("a:1").unwrap(), meshes[1].channel("a:1").unwrap()];
    within(async {
        while plane.streams().len() < 2 {
            events.recv().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_end_of_one_mesh_is_not_that_of_the_other_and_the_stream_ends_with_the_last() {
    let (plane, old, new) = (Plane::start().await, Echo::start("old").await, Echo::start("new").await);
    plane.publish(&reviews([("v1", vec![old.address])]));
    let mut events = plane.events();
    let (one, two, three) = (plane.join(), plane.join(), plane.join());
    let channels = [&one, &two, &three].map(|mesh| mesh.channel("reviews:9080").unwrap());
    for channel in &channels {
        within(ask(channel.clone(), None)).await.unwrap();
    }
    one.shutdown();
    let status = within(ask(channels[0].clone(), None)).await.unwrap_err();
    assert!(status.message().contains("shut down"), "{status}");
    drop(two);
    drop(channels);
    let channel = three.channel("reviews:9080").unwrap();
    plane.publish(&reviews([("v1", vec![new.address])]));
    within(async { while ask(channel.clone(), None).await.unwrap().server != "new" {} }).await;
    assert_eq!((plane.streams().len(), plane.connections()), (1, 1));
    drop(channel);
    drop(three);
    assert_eq!(plane.streams().len(), 1, "the one that was shut down still holds it");
    drop(one);
    left(&plane, &mut events).await;
}

#[tokio::test]
async fn a_channel_and_a_server_are_shared_with_though_their_mesh_is_gone() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mut events = plane.events();
    let channel = plane.join().channel("reviews:9080").unwrap();
    within(ask(channel.clone(), None)).await.unwrap();
    let mesh = plane.join();
    let server = mesh.server("127.0.0.1:0".parse().unwrap()).without_registration().await.unwrap();
    let listener = server.status().listener;
    drop((channel, mesh));
    let channel = plane.join().channel("reviews:9080").unwrap();
    within(ask(channel.clone(), None)).await.unwrap();
    let names = || {
        let kinds = plane.streams().into_iter().flat_map(|stream| stream.types);
        kinds.flat_map(|kind| kind.names).collect::<Vec<_>>()
    };
    assert!(names().contains(&listener), "{:?}", names());
    assert_eq!((plane.streams().len(), plane.connections()), (1, 1));
    drop((channel, server));
    left(&plane, &mut events).await;
}

#[tokio::test]
async fn what_grpc_counts_over_the_process_is_counted_over_its_meshes() {
    let (plane, echo) = (Plane::start().await, Echo::silent().await);
    let one_request = |cluster: &mut mesh_xds::resource::cluster::Cluster| {
        cluster.circuit_breakers.max_requests = 1;
    };
    plane.publish(&reviews([("v1", vec![echo.address])]).with_clusters(one_request));
    let (one, two) = (plane.join(), plane.join());
    let waits = tokio::spawn(ask(one.channel("reviews:9080").unwrap(), None));
    within(async {
        while echo.hits() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = within(ask(two.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert!(refused.message().contains("max_requests (1)"), "{refused}");
    waits.abort();
    within(async {
        while !crate::testing::held::held().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let _fault = one.0.calls.faults.begin(Some(1)).unwrap();
    assert!(two.0.calls.faults.begin(Some(1)).is_none());
}

#[test]
fn what_a_runtime_ran_is_not_found_after_its_end() {
    let terms = |runtime| Terms {
        runtime,
        bootstrap: Arc::new(bootstrap("127.0.0.1:1".parse().unwrap())),
        identities: BTreeMap::new(),
        keepalive: Keepalive::default(),
        cache: None,
        max_response_bytes: 1 << 20,
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let id = first.handle().id();
    let join = |runtime: &tokio::runtime::Runtime, id| {
        runtime.block_on(async { Membership::of(terms(id)).unwrap() })
    };
    let old = join(&first, id);
    assert!(Arc::ptr_eq(&old, &join(&first, id)));
    assert!(!Arc::ptr_eq(&old, &join(&second, second.handle().id())), "each runtime has its own");
    drop(first);
    // Though a new runtime have the identifier of the old one.
    let new = join(&second, id);
    assert!(!Arc::ptr_eq(&old, &new));
    assert!(new.xds.is_running() && !old.xds.is_running());
}
