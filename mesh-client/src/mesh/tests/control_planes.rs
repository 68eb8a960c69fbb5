//! More than one control plane, none at all, and one that says nothing.

use super::{
    world::{Plane, free_address},
    *,
};
use mesh_xds::bootstrap::{Authority, ChannelCredentials, ServerConfig};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::{TcpListener, TcpStream};

fn server(address: SocketAddr) -> ServerConfig {
    ServerConfig::new(&address.to_string(), ChannelCredentials::Insecure).unwrap()
}

fn join(bootstrap: Bootstrap) -> Mesh {
    Mesh::builder().bootstrap(bootstrap).build().unwrap()
}

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mesh-client-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn only_file(&self) -> Option<PathBuf> {
        let is = |file: &PathBuf, wanted| file.extension().is_some_and(|extension| extension == wanted);
        let files = std::fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
        // The lock stays.
        let mut files = files.filter(|file| !is(file, "lock"));
        let file = files.next().filter(|file| is(file, "cache"));
        file.filter(|_| files.next().is_none())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn a_second_control_plane_replaces_the_first_until_that_one_answers() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let first = free_address();
    let second = Plane::start().await;
    second.publish(&reviews([("v1", vec![two.address])]));
    let mut bootstrap = bootstrap(first);
    bootstrap.servers.push(server(second.address));
    let mesh = join(bootstrap);
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "two");
    let status = mesh.status().control_plane;
    assert_eq!((&*status.server, status.connected), (&*second.address.to_string(), true));
    assert!(status.servers[0].unreachable.is_some() && status.servers[0].used);

    let plane = Plane::start_at(first).await;
    plane.publish(&reviews([("v1", vec![one.address])]));
    let mut gone = second.events();
    within(async {
        // No call fails while the one takes over from the other.
        while ask(channel.clone(), None).await.unwrap().server != "one" {}
    })
    .await;
    within(async {
        while !matches!(gone.recv().await.unwrap(), mesh_xds::server::StreamEvent::Gone { .. }) {}
    })
    .await;
    let status = mesh.status().control_plane;
    assert_eq!(&*status.server, &*first.to_string());
    assert!(!status.servers[1].used && !status.servers[1].connected);
}

#[tokio::test]
async fn a_target_of_an_authority_is_asked_of_that_authoritys_control_plane() {
    let echo = Echo::start("v1").await;
    let (own, federated) = (Plane::start().await, Plane::start().await);
    own.publish(&reviews([("v1", vec![echo.address])]));
    federated.publish(&reviews([("v1", vec![])]).of_authority("x"));
    let authority = Authority { servers: vec![server(federated.address)], ..Authority::new("x") };
    let mesh = join(bootstrap(own.address).with_authority("x", authority));
    // Its routes name a cluster of no authority, which the bootstrap's own control plane has.
    let channel = mesh.channel("xds://x/reviews:9080").unwrap();
    let answer = within(ask(channel.clone(), None)).await.unwrap();
    assert_eq!((answer.server.as_str(), answer.authority.as_str()), ("v1", "reviews:9080"));
    let status = mesh.status();
    assert!(status.targets.contains_key("xds://x/reviews:9080"));
    let asked = |kind: &str| {
        let of = |resource: &&mesh_xds::client::ResourceStatus| resource.kind == kind;
        status.control_plane.resources.iter().find(of).unwrap().server.to_string()
    };
    assert_eq!((asked("LDS"), asked("CDS")), (federated.address.to_string(), own.address.to_string()));
    let error = mesh.channel("xds://y/reviews:9080").unwrap_err().to_string();
    assert!(error.contains("`y` is not configured (known: x)"), "{error}");
}

#[tokio::test]
async fn a_process_starts_with_the_last_known_good_configuration_and_changes_to_the_live_one() {
    let dir = Dir::new();
    let (old, new) = (Echo::start("old").await, Echo::start("new").await);
    let mut plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![old.address])]));
    let address = plane.address;
    let join = || Mesh::builder().bootstrap(bootstrap(address)).cache_dir(&dir.0).build().unwrap();
    let first = join();
    assert!(first.status().control_plane.cache.is_none());
    within(ask(first.channel("reviews:9080").unwrap(), None)).await.unwrap();
    drop(first);
    within(async {
        while dir.only_file().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    plane.stop().await;

    let second = join();
    let channel = second.channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "old");
    let status = second.status();
    let cache = status.control_plane.cache.clone().unwrap();
    assert!(cache.contains(&dir.only_file().unwrap().display().to_string()), "{cache}");
    assert!(status.control_plane.resources.iter().all(|resource| resource.from_cache.is_some()));
    assert_eq!(status.control_plane.resources.len(), 4);
    let note = status.clusters["v1"].note.clone().unwrap();
    assert!(note.contains("last known good") && note.contains("unreachable"), "{note}");
    // A service that was never called before is not in it.
    let error = within(ask(second.channel("ratings:9080").unwrap(), None)).await.unwrap_err();
    assert!(error.message().contains("unreachable"), "{error}");

    let live = Plane::start_at(address).await;
    live.publish(&reviews([("v1", vec![new.address])]));
    within(async { while ask(channel.clone(), None).await.unwrap().server != "new" {} }).await;
    let status = second.status().control_plane;
    assert!(status.cache.is_none() && status.resources.iter().all(|resource| resource.from_cache.is_none()));
}

#[tokio::test]
async fn a_control_plane_may_be_reached_by_a_socket_of_this_machine() {
    let dir = Dir::new();
    let path = dir.0.join("XDS");
    let echo = Echo::start("v1").await;
    let plane = Plane::start_on(&path);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mut bootstrap = bootstrap(plane.address);
    bootstrap.servers =
        vec![ServerConfig::new(&format!("unix://{}", path.display()), ChannelCredentials::Insecure).unwrap()];
    let channel = join(bootstrap).channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel, None)).await.unwrap().server, "v1");

    let mut missing = super::bootstrap(plane.address);
    missing.servers = vec![ServerConfig::new("unix:/nowhere/XDS", ChannelCredentials::Insecure).unwrap()];
    let channel = join(missing).channel("reviews:9080").unwrap();
    let error = within(ask(channel, None)).await.unwrap_err();
    assert!(error.message().contains("unix:/nowhere/XDS"), "{error}");
}

/// Longer than a silent connection may live: a ping each 5 minutes, and 20 s for its answer.
const NOTICED: Duration = Duration::from_secs(330);

#[tokio::test]
async fn a_control_plane_that_takes_the_connection_and_says_nothing_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = join(bootstrap(listener.local_addr().unwrap()));
    let _channel = mesh.channel("reviews:9080").unwrap();
    let (_first, _) = within(listener.accept()).await.unwrap();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    // It gives the connection up, and makes another.
    let (_second, _) = tokio::time::timeout(NOTICED, listener.accept()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(320), "servers of gRPC allow a ping in 5 minutes");
    let why = mesh.status().control_plane.unreachable.unwrap();
    assert!(why.contains("keep-alive timed out"), "{why}");
}

#[tokio::test]
async fn how_soon_a_silent_control_plane_is_noticed_can_be_set() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (interval, limit) = (Duration::from_secs(30), Duration::from_secs(10));
    let mesh = Mesh::builder()
        .bootstrap(bootstrap(listener.local_addr().unwrap()))
        .control_plane_keepalive(interval, limit)
        .build()
        .unwrap();
    let _channel = mesh.channel("reviews:9080").unwrap();
    let (_first, _) = within(listener.accept()).await.unwrap();
    tokio::time::pause();
    let (_second, _) = tokio::time::timeout(2 * interval, listener.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn how_much_a_control_plane_may_say_at_once_can_be_set() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).max_response_bytes(50).build().unwrap();
    let error = within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert!(error.message().contains("the limit is: 50 bytes; raise max_response_bytes"), "{error}");
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_noticed() {
    let echo = Echo::start("v1").await;
    let plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![echo.address])]));
    // Between them, until it lets nothing more through; it never closes anything.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = join(bootstrap(listener.local_addr().unwrap()));
    let channel = mesh.channel("reviews:9080").unwrap();
    let (mut near, _) = within(listener.accept()).await.unwrap();
    let mut far = TcpStream::connect(plane.address).await.unwrap();
    within(async {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("it ended"),
            answer = ask(channel.clone(), None) => assert_eq!(answer.unwrap().server, "v1"),
        }
    })
    .await;
    tokio::time::pause();
    let (_second, _) = tokio::time::timeout(NOTICED, listener.accept()).await.unwrap().unwrap();
    tokio::time::resume();
    assert!(!mesh.status().control_plane.resources.is_empty());
    assert_eq!(within(ask(channel, None)).await.unwrap().server, "v1", "what is known stays in force");
}

#[tokio::test]
async fn what_a_process_runs_on_can_be_asked_for() {
    use mesh_xds::csds::{ClientStatusDiscoveryServiceClient, ClientStatusRequest};
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    within(ask(channel, None)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving = tonic::transport::Server::builder().add_service(mesh.csds()).serve_with_incoming(incoming);
    let _server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serving));
    let _channel = mesh.channel("reviews:9080").unwrap();
    let asking = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let mut asking = ClientStatusDiscoveryServiceClient::new(asking);
    let told = within(asking.fetch_client_status(ClientStatusRequest::default())).await.unwrap().into_inner();
    let node = told.config[0].node.as_ref().unwrap();
    assert_eq!(node.id, "sidecar~127.0.0.1~me.default~x");
    assert!(!told.config[0].generic_xds_configs.is_empty());
}
