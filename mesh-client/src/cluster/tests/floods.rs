//! What bounds memory when a peer takes nothing, says nothing or answers nothing. In counts: of calls that are
//! let through, and of bytes that are allocated.

use super::net::*;
use crate::{
    body::CallBody,
    call::Started,
    cluster::{AttemptContext, AttemptErrorKind, Cluster, ClusterDeps},
    connector::{Connect, Connecting, Destination, Stream},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

const MESSAGE: usize = 64 << 10;

/// Of this kind, on no stream.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
}

/// A peer that says SETTINGS and takes no more than fits into a buffer, until it is told to.
#[derive(Clone, Default)]
struct Deaf {
    /// Reads from now on, and says this.
    wake: Arc<Notify>,
    then: Arc<Mutex<Vec<u8>>>,
    settings: Vec<u8>,
}

impl Connect for Deaf {
    fn connect<'a>(&'a self, _: Destination<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let (ours, mut theirs) = tokio::io::duplex(64 << 10);
            let deaf = self.clone();
            tokio::spawn(async move {
                theirs.write_all(&frame(4, &deaf.settings)).await.unwrap();
                deaf.wake.notified().await;
                let then = deaf.then.lock().unwrap().clone();
                theirs.write_all(&then).await.unwrap();
                let mut read = [0; 1 << 12];
                while theirs.read(&mut read).await.is_ok_and(|read| read > 0) {}
            });
            Ok(Stream::new(ours))
        })
    }
}

/// A peer that says nothing at all; how many of its connections are open.
#[derive(Clone, Default)]
struct Mute(Arc<AtomicU32>, Arc<AtomicU32>);

impl Connect for Mute {
    fn connect<'a>(&'a self, _: Destination<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let (ours, mut theirs) = tokio::io::duplex(64 << 10);
            let Self(open, dials) = self.clone();
            dials.fetch_add(1, SeqCst);
            open.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut read = [0; 1 << 12];
                while theirs.read(&mut read).await.is_ok_and(|read| read > 0) {}
                open.fetch_sub(1, SeqCst);
            });
            Ok(Stream::new(ours))
        })
    }
}

/// A dial that takes too long leaves nothing behind, however often it is repeated.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_has_one_connection_at_a_time() {
    let mute = Mute::default();
    let deps = ClusterDeps { connect: Arc::new(mute.clone()), ..deps(&Net::default()) };
    let mut config = Config::of(&[1]);
    // The same of addresses that are raced.
    let address = |last| std::net::SocketAddr::from(([127, 0, 0, last], 1));
    *config.endpoint(0) = mesh_xds::resource::endpoint::Endpoint::new(vec![address(1), address(2)]);
    let cluster = spawn(config.build(), &deps);
    pass(Duration::from_secs(600)).await;
    let Mute(open, dials) = mute;
    assert!(dials.load(SeqCst) > 10, "{dials:?}");
    assert!(open.load(SeqCst) <= 2, "{open:?} of {dials:?}");
    drop(cluster);
    rest().await;
    assert_eq!(open.load(SeqCst), 0);
}

fn cluster(peer: &Deaf, change: impl FnOnce(&mut Config)) -> Arc<Cluster> {
    let deps = ClusterDeps { connect: Arc::new(peer.clone()), ..deps(&Net::default()) };
    let mut config = Config::of(&[1]);
    change(&mut config);
    spawn(config.build(), &deps)
}

fn long() -> Request<CallBody> {
    let body = Full::new(Bytes::from(vec![7; MESSAGE]));
    request().map(|_| CallBody::Tonic(tonic::body::Body::new(body)))
}

/// Calls are given up as soon as they are made; what h2 has of them stays there until it can write.
#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_is_given_16_mib_and_no_more() {
    let deaf = Deaf::default();
    let cluster = cluster(&deaf, |_| {});
    rest().await;
    // Its message fills what is between.
    let Started::Sent(first) = cluster.begin(long(), &mut AttemptContext::default()) else { panic!() };
    rest().await;
    let mut sent = 1;
    for _ in 0..2_000 {
        match cluster.begin(long(), &mut AttemptContext::default()) {
            Started::Sent(call) => drop(call),
            Started::Later(_) => break,
            Started::Failed(error) => panic!("{error:?}"),
        }
        sent += 1;
        rest().await;
    }
    let most = (16 << 20) / MESSAGE;
    assert!((most - 10..most + 2).contains(&sent), "{sent} of {MESSAGE} bytes");
    drop(first);
    assert_eq!(cluster.guards().map(|(_, count)| count), [0; 6]);
    // The next one waits, and goes when the peer reads.
    let waiting = {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let mut context = AttemptContext::default();
            cluster.begin_later(long(), &mut context).await.map(drop).map_err(|error| error.kind)
        })
    };
    rest().await;
    let guards = cluster.guards();
    assert_eq!((guards[1], guards[5]), (("pending", 1), ("waiting for room", 1)));
    deaf.wake.notify_one();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_without_an_answer_are_as_many_as_the_breaker_says_and_cost_little_each() {
    // It reads, and says nothing more.
    let silent = Deaf::default();
    silent.wake.notify_one();
    let cluster = cluster(&silent, |_| {});
    rest().await;
    let (mut calls, mut refused) = (Vec::with_capacity(5_000), 0);
    let counted = allocation_counter::measure(|| {
        for _ in 0..5_000 {
            match cluster.begin(request(), &mut AttemptContext::default()) {
                Started::Sent(call) => calls.push(call),
                Started::Failed(error) => {
                    assert_eq!(error.kind, AttemptErrorKind::LocalOverflow);
                    refused += 1;
                }
                Started::Later(_) => panic!("its streams are unlimited"),
            }
        }
    });
    assert_eq!((calls.len(), refused), (1024, 5_000 - 1024));
    let each = counted.bytes_current / 1024;
    assert!(each < 4 << 10, "{each} bytes of a call");
    drop(calls);
    assert_eq!(cluster.guards().map(|(_, count)| count), [0; 6]);
}

/// A peer may say that it takes no streams for a while: calls that are given up meanwhile leave nothing behind.
#[tokio::test(start_paused = true)]
async fn a_peer_that_allows_no_streams_is_given_none_until_it_does() {
    let peer = Deaf { settings: vec![0, 3, 0, 0, 0, 0], ..Deaf::default() };
    *peer.then.lock().unwrap() = frame(4, &[0, 3, 0, 0, 0, 1]);
    let cluster = cluster(&peer, |_| {});
    rest().await;
    for _ in 0..2_000 {
        let Started::Later(request) = cluster.begin(long(), &mut AttemptContext::default()) else { panic!() };
        let mut context = AttemptContext::default();
        let waiting = cluster.begin_later(request, &mut context);
        assert!(futures_util::poll!(std::pin::pin!(waiting)).is_pending());
    }
    assert_eq!(cluster.guards().map(|(_, count)| count), [0; 6]);
    let mut context = AttemptContext::default();
    let waiting = cluster.begin_later(request(), &mut context);
    let (exchange, ()) = tokio::join!(waiting, async {
        rest().await;
        peer.wake.notify_one();
    });
    exchange.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_streams_of_the_peer_wait_until_it_allows_more() {
    // SETTINGS_MAX_CONCURRENT_STREAMS 2, and 4 later.
    let peer = Deaf { settings: vec![0, 3, 0, 0, 0, 2], ..Deaf::default() };
    *peer.then.lock().unwrap() = frame(4, &[0, 3, 0, 0, 0, 4]);
    let cluster = cluster(&peer, |config| {
        config.cluster.circuit_breakers.max_pending_requests = Some(3);
    });
    rest().await;
    let (sent, overflown) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for _ in 0..10 {
        let (cluster, sent, overflown) = (cluster.clone(), sent.clone(), overflown.clone());
        tokio::spawn(async move {
            let mut context = AttemptContext::default();
            let exchange = match cluster.begin(request(), &mut context) {
                Started::Sent(exchange) => Ok(exchange),
                Started::Later(request) => cluster.begin_later(request, &mut context).await,
                Started::Failed(error) => Err(error),
            };
            match exchange {
                Ok(exchange) => {
                    sent.fetch_add(1, SeqCst);
                    let _ = exchange.await;
                }
                Err(error) => {
                    assert_eq!(error.kind, AttemptErrorKind::LocalOverflow);
                    overflown.fetch_add(1, SeqCst);
                }
            }
        });
    }
    rest().await;
    assert_eq!((sent.load(SeqCst), overflown.load(SeqCst)), (2, 5), "three wait");
    // Though no stream has ended.
    peer.wake.notify_one();
    rest().await;
    assert_eq!((sent.load(SeqCst), overflown.load(SeqCst)), (4, 5), "one waits");
}
