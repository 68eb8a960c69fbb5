//! The same over real sockets and several threads: endpoints come and go under load.

use super::net::{Config, NoTls, attempt, endpoint, locality, spawn};
use crate::{
    cluster::{AttemptContext, ClusterDeps, breaker::Breakers},
    connector::Tcp,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_xds::resource::{cluster::LbPolicy, endpoint::Priority};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

struct Server {
    address: SocketAddr,
    hits: AtomicUsize,
    drain: watch::Sender<bool>,
}

async fn server() -> Arc<Server> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Arc::new(Server {
        address: listener.local_addr().unwrap(),
        hits: AtomicUsize::new(0),
        drain: watch::Sender::new(false),
    });
    let accepting = Arc::clone(&server);
    tokio::spawn(async move {
        let mut drain = accepting.drain.subscribe();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                _ = drain.changed() => return,
            };
            tokio::spawn(serve(Arc::clone(&accepting), stream));
        }
    });
    server
}

async fn serve(server: Arc<Server>, stream: tokio::net::TcpStream) {
    let mut drain = server.drain.subscribe();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        server.hits.fetch_add(1, SeqCst);
        async {
            // Unread, it would be reset, and h2 takes many resets for an attack.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(answer())
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = drain.wait_for(|drain| *drain) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn answer() -> Response<impl Body<Data = Bytes, Error = Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 64]))), Ok(Frame::trailers(trailers))];
    Response::new(StreamBody::new(futures_util::stream::iter(frames)))
}

fn config(addresses: &[SocketAddr]) -> Config {
    let mut config = Config::of(&[]);
    let endpoints = addresses.iter().map(|address| {
        let mut endpoint = endpoint(0);
        endpoint.addresses = vec![*address];
        endpoint
    });
    config.endpoints.priorities = vec![Priority { localities: vec![locality("a", 1, endpoints.collect())] }];
    config.cluster.lb = LbPolicy::least_request(2);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_refuse_join_and_drain_under_load_cost_no_call() {
    let (first, second, third) = (server().await, server().await, server().await);
    // Bound and dropped: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let deps = ClusterDeps {
        tls: Arc::new(NoTls),
        connect: Arc::new(Tcp),
        resolve: Arc::new(crate::cluster::names::System),
        breakers: Arc::new(Breakers::default()),
        loads: Arc::default(),
        seed: 7,
        ring_size_cap: mesh_xds::balancing::RING_SIZE_CAP,
        empty_endpoints: crate::EmptyEndpoints::Fail,
        health_service: None,
        callers: None,
    };
    let cluster = spawn(config(&[first.address, second.address, closed]).build(), &deps);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let (cluster, stop, calls) = (Arc::clone(&cluster), Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(SeqCst) {
                    let response = attempt(&cluster, &mut AttemptContext::default()).await;
                    let body = response.unwrap().into_body().collect().await.unwrap();
                    assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
                    calls.add_permits(1);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let more_calls = async || calls.acquire_many(2000).await.unwrap().forget();
    more_calls().await;
    cluster.update(config(&[first.address, second.address, third.address, closed]).build());
    while third.hits.load(SeqCst) == 0 {
        more_calls().await;
    }
    // The orderly way: out of the configuration, then down.
    cluster.update(config(&[second.address, third.address, closed]).build());
    more_calls().await;
    first.drain.send_replace(true);
    more_calls().await;
    let frozen = first.hits.load(SeqCst);
    // And the other: GOAWAY while it is still configured.
    second.drain.send_replace(true);
    more_calls().await;
    stop.store(true, SeqCst);
    let mut made = 0;
    for caller in callers {
        made += caller.await.unwrap();
    }
    let served: usize = [&first, &second, &third].iter().map(|server| server.hits.load(SeqCst)).sum();
    assert_eq!((first.hits.load(SeqCst), served), (frozen, made));
    assert_eq!(cluster.shared.counters.active(), 0);
}
