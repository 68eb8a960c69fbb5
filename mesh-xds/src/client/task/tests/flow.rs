//! A stream is read on when what came on it has been taken, or will not be; time is simulated, and decides nothing
//! before [`PATIENCE`].

use super::{
    load::Net,
    peer::{Peer, Peers, join, response},
    *,
};
use crate::{
    client::{ConfigWatch, ServerConfigWatch},
    config::XdsConfig,
};
use ResourceType::{
    Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS,
};

type Requests = Peer<proto::DiscoveryRequest>;

/// Answers what the target `t` needs.
async fn complete(peer: &mut Requests) {
    let answers = [
        (LDS, listener("t", "r")),
        (RDS, routes("r", &[("t", &["a"])])),
        (CDS, cluster("a")),
        (EDS, endpoints("a", 1)),
    ];
    for (kind, answer) in answers {
        while peer.request().await.type_url != kind.url() {}
        peer.send(&response("1", &[answer]));
    }
    received(peer, "1").await;
}

/// Endpoints of this version, which is also their port.
fn endpoints_of(port: u16) -> Vec<u8> {
    response(&port.to_string(), &[endpoints("a", port)])
}

/// The receipt of endpoints of this version.
async fn received(peer: &mut Requests, version: &str) {
    loop {
        let request = peer.request().await;
        if request.type_url == EDS.url() && request.response_nonce == version {
            return;
        }
    }
}

/// Nothing of it comes before time passes, and a second more.
async fn not_received(peer: &mut Requests, version: &str) {
    let soon = tokio::time::timeout(Duration::from_secs(1), received(peer, version)).await;
    assert!(soon.is_err(), "{version} was read");
}

/// It comes before time passes.
async fn at_once<T>(what: impl Future<Output = T>) -> T {
    let begun = tokio::time::Instant::now();
    let done = tokio::time::timeout(PATIENCE, what).await.expect("at once");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    done
}

fn port(config: &XdsConfig) -> u16 {
    config.clusters["a"].as_ref().unwrap().endpoints.priorities[0].localities[0].endpoints[0].address().port()
}

fn taken(watch: &mut ConfigWatch) -> u16 {
    port(watch.borrow_and_update().as_ref().unwrap().as_ref().unwrap())
}

/// Until the answer about the listener `s`, which is of no use, has been read.
async fn answered(watch: &mut ServerConfigWatch) {
    let error = watch.known().await.unwrap().unwrap_err();
    assert!(matches!(error.cause, XdsErrorCause::Rejected(_)), "{error}");
}

async fn start() -> (Peers<proto::DiscoveryRequest>, Requests, XdsClient, ConfigWatch) {
    let net = Net::default();
    let mut peers = Peers::listen(&net, "cp:1");
    let client = join(&net, ClientSettings::default());
    let mut watch = client.config("t", "t");
    let mut peer = peers.next().await;
    complete(&mut peer).await;
    watch.known().await.unwrap().unwrap();
    (peers, peer, client, watch)
}

#[tokio::test(start_paused = true)]
async fn the_next_response_is_read_when_every_watch_has_looked_at_this_one() {
    let (_peers, mut peer, client, mut one) = start().await;
    let mut two = one.clone();
    let mut cluster = client.subscribe_cluster("a");
    at_once(cluster.known()).await.unwrap().unwrap();
    for port in [2, 3] {
        peer.send(&endpoints_of(port));
    }
    // The receipt is not held back, nor is a request.
    at_once(received(&mut peer, "2")).await;
    let _more = client.server_config("s");
    assert_eq!(at_once(peer.request()).await.resource_names, ["s", "t"]);
    not_received(&mut peer, "3").await;
    assert_eq!((taken(&mut one), taken(&mut two)), (2, 2));
    not_received(&mut peer, "3").await;
    // One that ends is not waited for.
    drop(cluster);
    while at_once(peer.request()).await.response_nonce != "3" {}
    assert_eq!((taken(&mut one), taken(&mut two)), (3, 3));
    // Nothing to take, nothing to wait for.
    for version in ["4", "5"] {
        peer.send(&response(version, &[endpoints("a", 3)]));
        at_once(received(&mut peer, version)).await;
    }
    assert!(!one.has_changed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_never_looked_at_holds_up_one_response_and_no_more() {
    let (_peers, mut peer, client, mut watch) = start().await;
    peer.send(&endpoints_of(2));
    at_once(received(&mut peer, "2")).await;
    // It waits for another one before it looks.
    let mut other = client.server_config("s");
    at_once(peer.request()).await;
    let begun = tokio::time::Instant::now();
    peer.send(&response("2", &[listener("t", "r"), server_listener("s", &[])]));
    answered(&mut other).await;
    assert_eq!(begun.elapsed(), PATIENCE);
    for port in 3..100 {
        peer.send(&endpoints_of(port));
        at_once(received(&mut peer, &port.to_string())).await;
    }
    // It finds the latest, and is waited for again.
    assert_eq!(taken(&mut watch), 99);
    assert!(!watch.has_changed(), "there is one, not a hundred");
    peer.send(&endpoints_of(100));
    peer.send(&endpoints_of(101));
    at_once(received(&mut peer, "100")).await;
    not_received(&mut peer, "101").await;
    assert_eq!(taken(&mut watch), 100);
    at_once(received(&mut peer, "101")).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_is_noticed_in_time_though_it_is_held() {
    let (mut peers, mut peer, _client, mut watch) = start().await;
    peer.send(&endpoints_of(2));
    at_once(received(&mut peer, "2")).await;
    peer.send(&endpoints_of(3));
    not_received(&mut peer, "3").await;
    drop(peer);
    let begun = tokio::time::Instant::now();
    let mut peer = peers.next().await;
    assert!(begun.elapsed() <= PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(taken(&mut watch), 3, "what was said before it counts");
    // The next stream is not held for the one before.
    while peer.request().await.type_url != EDS.url() {}
    for port in [4, 5] {
        peer.send(&endpoints_of(port));
        at_once(received(&mut peer, &port.to_string())).await;
        assert_eq!(taken(&mut watch), port);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_to_be_read_is_not_taken_for_silence() {
    let (_peers, mut peer, client, watch) = start().await;
    let mut other = client.server_config("s");
    at_once(peer.request()).await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    peer.send(&endpoints_of(2));
    at_once(received(&mut peer, "2")).await;
    peer.send(&response("2", &[listener("t", "r"), server_listener("s", &[])]));
    answered(&mut other).await;
    drop(watch);
}
