//! Servers and the control plane are restarted under load: no call fails.

use super::*;
use crate::registration::proto::RegisterResponse;
use futures_util::future::join_all;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_xds::resource::retry::RetryPolicy;
use prost::Message;
use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A server that can be ended, kindly or not, and started again at its address.
struct Restarted {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    running: Mutex<Option<Running>>,
}

struct Running {
    drain: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Restarted {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, hits) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let running = Mutex::new(Some(run(listener, hits.clone())));
        Self { address, hits, running }
    }

    async fn again(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        *self.running.lock().unwrap() = Some(run(listener, self.hits.clone()));
    }

    fn take(&self) -> Running {
        self.running.lock().unwrap().take().unwrap()
    }

    /// GOAWAY on every connection; ends when all calls have been answered.
    async fn drain(&self) {
        let mut running = self.take();
        running.drain.send_replace(true);
        while running.tasks.join_next().await.is_some() {}
    }

    /// Every connection is cut, whatever is under way.
    async fn kill(&self) {
        self.take().tasks.shutdown().await;
    }

    /// Waits for so many more calls.
    async fn serves(&self, calls: usize) {
        let before = self.hits.load(SeqCst);
        within(async {
            while self.hits.load(SeqCst) < before + calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn run(listener: TcpListener, hits: Arc<AtomicUsize>) -> Running {
    let (drain, mut draining) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                _ = draining.changed() => break,
            };
            connections.spawn(serve(accepted, draining.clone(), hits.clone()));
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    });
    Running { drain, tasks }
}

async fn serve(stream: TcpStream, mut drain: watch::Receiver<bool>, hits: Arc<AtomicUsize>) {
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let hits = hits.clone();
        async move {
            // Unread, it would be reset, and h2 takes many resets for an attack.
            let _ = request.into_body().collect().await;
            // Some calls are under way whenever a connection is cut.
            tokio::task::yield_now().await;
            hits.fetch_add(1, SeqCst);
            let message = RegisterResponse { workload_entry: "here".to_owned(), revision: String::new() };
            let message = message.encode_to_vec();
            let mut data = vec![0];
            data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            data.extend(message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from(data))), Ok(Frame::trailers(trailers))];
            Ok::<_, Infallible>(http::Response::new(StreamBody::new(futures_util::stream::iter(frames))))
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

/// Calls without end from several callers, until told.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<(usize, Vec<Status>)>>,
}

impl Load {
    fn start(channel: &MeshChannel) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let (channel, stop) = (channel.clone(), stop.clone());
                tokio::spawn(async move {
                    let (mut made, mut failed) = (0, Vec::new());
                    while !stop.load(SeqCst) {
                        made += 1;
                        failed.extend(ask(channel.clone(), None).await.err());
                    }
                    (made, failed)
                })
            })
            .collect();
        Self { stop, callers }
    }

    /// No call has failed.
    async fn end(self) {
        self.stop.store(true, SeqCst);
        for caller in within(join_all(self.callers)).await {
            let (made, failed) = caller.unwrap();
            assert!(made > 0);
            assert!(failed.is_empty(), "{} of {made} calls failed: {}", failed.len(), failed[0]);
        }
    }
}

/// What Istio retries unless told otherwise: `connect-failure,refused-stream,unavailable,cancelled,
/// retriable-status-codes` (503), two retries, elsewhere.
fn as_istio() -> RetryPolicy {
    let mut policy = crate::table::testing::retry_policy(RetryOn {
        connect_failure: true,
        refused_stream: true,
        unavailable: true,
        cancelled: true,
        retriable_status_codes: true,
        ..RetryOn::default()
    });
    policy.num_retries = 2;
    policy.retriable_status_codes = vec![503];
    policy.avoid_previous_hosts = true;
    policy.host_selection_attempts = 5;
    policy
}

struct World {
    servers: [Restarted; 3],
    plane: Plane,
    mesh: Mesh,
    channel: MeshChannel,
}

async fn world(retry: Option<RetryPolicy>) -> World {
    let servers = [Restarted::start().await, Restarted::start().await, Restarted::start().await];
    let plane = Plane::start().await;
    plane.publish(&config(&servers, retry));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    World { servers, plane, mesh, channel }
}

fn config(servers: &[Restarted], retry: Option<RetryPolicy>) -> world::Published {
    let mut config = reviews([("v1", servers.iter().map(|server| server.address).collect())]);
    config.forward(|forward| forward.retry = retry.map(Arc::new));
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_no_call_without_any_retry_policy() {
    let World { servers, plane: _plane, mesh, channel } = world(None).await;
    let load = Load::start(&channel);
    for server in &servers {
        server.serves(50).await;
    }
    for server in &servers {
        within(server.drain()).await;
        server.again().await;
        server.serves(50).await;
    }
    load.end().await;
    at_rest(&mesh).await;
    let counts = &mesh.status().targets["reviews:9080"].calls;
    assert_eq!((counts.failed_here, counts.retries), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_killed_one_after_the_other_cost_no_call_with_istios_retries() {
    let World { servers, plane: _plane, mesh, channel } = world(Some(as_istio())).await;
    let load = Load::start(&channel);
    for server in &servers {
        server.serves(50).await;
    }
    for server in &servers {
        server.kill().await;
        server.again().await;
        server.serves(50).await;
    }
    load.end().await;
    at_rest(&mesh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_restarts_costs_no_call_and_is_heard_again() {
    let World { servers, mut plane, mesh, channel } = world(None).await;
    let load = Load::start(&channel);
    for server in &servers {
        server.serves(50).await;
    }
    let address = plane.address;
    plane.stop().await;
    for server in &servers {
        server.serves(50).await;
    }
    drop(plane);
    let plane = Plane::start_at(address).await;
    plane.publish(&config(&servers, None));
    // A fourth server that only the new one tells of.
    let fourth = Restarted::start().await;
    let [a, b, c] = servers;
    let servers = [a, b, c, fourth];
    plane.publish(&config(&servers, None));
    servers[3].serves(50).await;
    load.end().await;
    at_rest(&mesh).await;
}
