//! What a cluster configures of HTTP/2: PINGs to a silent peer, and flow control.

use super::net::*;
use crate::cluster::{AttemptErrorKind, ClusterDeps};
use mesh_xds::resource::cluster::{Http2Keepalive, LbPolicy};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::Instant,
};
use tonic::Code;

const INTERVAL: Duration = Duration::from_secs(7);
const TIMEOUT: Duration = Duration::from_secs(3);

/// Both in turn.
fn both(keepalive: bool) -> Config {
    let mut config = Config::of(&[1, 2]);
    config.cluster.lb = LbPolicy::RoundRobin;
    config.cluster.connection.http2_keepalive =
        keepalive.then_some(Http2Keepalive { interval: INTERVAL, timeout: TIMEOUT });
    config
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_peer_that_vanished_ends_with_the_ping_and_names_it() {
    for (keepalive, least) in [(true, INTERVAL + TIMEOUT), (false, Duration::from_secs(40))] {
        let net = Net::default();
        let [gone, good] = net.servers();
        gone.answer(Answer::Silent);
        good.answer(Answer::Silent);
        let began = Instant::now();
        let cluster = both(keepalive).spawn(&net);
        rest().await;
        let lost = async {
            let ended = tokio::join!(async { (call(&cluster).await, began.elapsed()) }, async {
                (call(&cluster).await, began.elapsed())
            },);
            [ended.0, ended.1].into_iter().find(|(result, _)| result.is_err()).unwrap()
        };
        let vanishing = async {
            rest().await;
            gone.vanish();
            pass(Duration::from_secs(100)).await;
            // Its connection outlives the silence: it answers PINGs.
            good.release();
        };
        let ((result, after), ()) = tokio::join!(lost, vanishing);
        let error = result.unwrap_err();
        assert_eq!((error.kind, error.status.code()), (AttemptErrorKind::Reset, Code::Unavailable));
        let message = error.status.message();
        assert_eq!(
            message,
            "cluster reviews: endpoint 127.0.0.1:1: keep-alive timed out: a PING was not answered"
        );
        assert!(after >= least && after < least + Duration::from_millis(100), "{keepalive}: {after:?}");
        good.answer(Answer::Status(Code::Ok));
        for _ in 0..10 {
            assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        }
        assert_eq!((good.hits(), good.dials()), (11, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_configured_ping_finds_a_peer_that_vanished_before_a_call_does() {
    let net = Net::default();
    let [gone, good] = net.servers();
    let cluster = both(true).spawn(&net);
    rest().await;
    assert_eq!(shares(&cluster, [&gone, &good]).await, [50, 50]);
    gone.vanish();
    pass(INTERVAL + TIMEOUT + Duration::from_secs(1)).await;
    for _ in 0..10 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!((gone.dials(), good.hits(), good.dials()), (2, 10, 1));
}

#[tokio::test(start_paused = true)]
async fn pings_of_an_idle_connection_are_as_far_apart_as_configured() {
    let net = Net::default();
    let [server] = net.servers();
    let mut config = Config::of(&[1]);
    config.cluster.connection.idle_timeout = Some(Duration::ZERO);
    config.cluster.connection.http2_keepalive = Some(Http2Keepalive { interval: INTERVAL, timeout: TIMEOUT });
    let cluster = config.spawn(&net);
    call(&cluster).await.unwrap();
    rest().await;
    let before = net.written.load(std::sync::atomic::Ordering::SeqCst);
    pass(INTERVAL * 100 + TIMEOUT).await;
    let pings = (net.written.load(std::sync::atomic::Ordering::SeqCst) - before) / 17;
    assert!((99..=101).contains(&pings), "{pings}");
    assert_eq!((call(&cluster).await.unwrap(), server.dials()), (Code::Ok, 1));
}

/// What a client says of its windows: of a stream, and of the connection.
async fn windows(mut peer: DuplexStream) -> (u32, u32) {
    let mut preface = [0; 24];
    peer.read_exact(&mut preface).await.unwrap();
    peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let (mut stream, mut connection) = (None, None);
    loop {
        let mut head = [0; 9];
        peer.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        peer.read_exact(&mut payload).await.unwrap();
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        match head[3] {
            4 => {
                let setting = payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                stream = stream.or(setting.map(|setting| number(&setting[2..])));
            }
            8 => connection = Some(65_535 + number(&payload)),
            _ => {}
        }
        if let (Some(stream), Some(connection)) = (stream, connection) {
            return (stream, connection);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_told_the_configured_windows() {
    for (stream, connection, told) in
        [(None, None, (2 << 20, 5 << 20)), (Some(70_000), Some(1 << 27), (70_000, 1 << 27))]
    {
        let (peers, mut accepted) = mpsc::unbounded_channel();
        let connect = move |_: SocketAddr| {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            peers.send(theirs).unwrap();
            std::future::ready(Ok(ours))
        };
        let deps = ClusterDeps { connect: Arc::new(connect), ..deps(&Net::default()) };
        let mut config = Config::of(&[1]);
        config.cluster.connection.initial_stream_window = stream;
        config.cluster.connection.initial_connection_window = connection;
        let _cluster = spawn(config.build(), &deps);
        assert_eq!(windows(accepted.recv().await.unwrap()).await, told);
    }
}
