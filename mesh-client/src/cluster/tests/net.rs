//! A network in memory, servers on it whose behaviour a test changes, and clusters that use it.

use crate::{
    body::{CallBody, TrackedBody},
    call::Upstream,
    cluster::{
        AttemptContext, AttemptError, Cluster, ClusterDeps,
        breaker::Breakers,
        names::{Resolve, Resolving},
    },
    connector::{BoxIo, Connect, Connecting, Destination, Stream},
    endpoint::{ClientTls, TlsConfigs},
    testing::held::Rest,
};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_xds::{
    config::{ClusterConfig, ClusterSecrets},
    orca::{self, LoadReport, LoadReportRequest},
    resource::{
        self, ClusterLoadAssignment, Locality,
        endpoint::{Endpoint, LocalityEndpoints, Priority},
        tls::UpstreamTls,
    },
};
use prost::Message as _;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{Notify, watch},
    time::Instant,
};
use tonic::Code;

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Headers, a message, this status in trailers.
    Status(Code),
    /// This status in the headers, nothing else.
    TrailersOnly(Code),
    /// Headers at once; the rest when the server is released.
    Hold,
    /// No headers until the server is released.
    Silent,
    /// RST_STREAM.
    Reset,
    /// An HTTP error.
    Http(u16),
}

/// What a server says of its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// This `ServingStatus`.
    Says(u8),
    /// This status, without an answer.
    Status(Code),
    /// An HTTP error.
    Http(u16),
    /// No headers.
    Silent,
    /// No message of gRPC.
    Garbage,
    /// A message that does not end.
    Endless,
}

/// What happens to a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    Refuses,
    Hangs,
    /// Accepts, and closes without a word.
    HangsUp,
    /// Accepts, says SETTINGS and GOAWAY (ENHANCE_YOUR_CALM); open from then on.
    Complains,
}

/// What a server does when it is asked for load reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reporting {
    /// UNIMPLEMENTED.
    Unknown,
    /// One at once, and one each interval.
    Steadily,
    /// One, and the end.
    Once,
    /// This status.
    Fails(Code),
}

/// What a server does to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Serve,
    Kill,
    GoAway,
}

pub(super) struct Server {
    pub(super) answer: Mutex<Answer>,
    pub(super) door: Mutex<Door>,
    pub(super) hits: AtomicUsize,
    health: watch::Sender<Health>,
    /// How often it was asked for its health.
    pub(super) checks: AtomicUsize,
    checked_for: Mutex<Vec<String>>,
    /// Streams of `Watch` that are open: this has a holder more for each.
    pub(super) watches: Arc<()>,
    pub(super) dials: AtomicUsize,
    pub(super) max_streams: AtomicU32,
    pub(super) seen_uris: Mutex<Vec<String>>,
    /// With each response, and on streams of their own.
    pub(super) load: Mutex<Option<LoadReport>>,
    pub(super) reporting: Mutex<Reporting>,
    /// When streams of reports were begun, and with which interval.
    pub(super) report_streams: Mutex<Vec<(Instant, Duration)>>,
    /// Those that are open: this has a holder more for each.
    pub(super) open_report_streams: Arc<()>,
    pub(super) tls: Mutex<Option<Arc<rustls::ServerConfig>>>,
    vanished: AtomicBool,
    release: Notify,
    fate: Mutex<watch::Sender<Fate>>,
}

impl Server {
    pub(super) fn hits(&self) -> usize {
        self.hits.swap(0, SeqCst)
    }

    pub(super) fn dials(&self) -> usize {
        self.dials.load(SeqCst)
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(super) fn health(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// Where health checks went since the last question, and for which services.
    pub(super) fn checked_for(&self) -> Vec<String> {
        std::mem::take(&mut *self.checked_for.lock().unwrap())
    }

    async fn on_check(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
        self.checks.fetch_add(1, SeqCst);
        let uri = request.uri().to_string();
        let asked = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        // Behind the frame's head, and the field's.
        let service = String::from_utf8(asked.slice(asked.len().min(7)..).to_vec()).unwrap();
        self.checked_for.lock().unwrap().push(format!("{uri} {service}"));
        let mut response = Response::new(());
        let health = *self.health.borrow();
        let message = match health {
            Health::Says(status) => vec![0, 0, 0, 0, 2, 8, status],
            Health::Garbage => vec![7; 7],
            Health::Endless => vec![0; 100_000],
            Health::Silent => std::future::pending().await,
            Health::Status(code) => {
                response.headers_mut().extend(trailers(code));
                response.headers_mut().insert("grpc-message", "on purpose".parse().unwrap());
                Vec::new()
            }
            Health::Http(status) => {
                *response.status_mut() = status.try_into().unwrap();
                Vec::new()
            }
        };
        let body = match message.is_empty() {
            true => empty(),
            false => StreamBody::new(stream::iter([
                Ok(Frame::data(message.into())),
                Ok(Frame::trailers(trailers(Code::Ok))),
            ]))
            .boxed_unsync(),
        };
        Ok(response.map(|()| body))
    }

    /// Says its health at once and whenever it changes; a status ends the stream.
    async fn on_watch(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
        self.checks.fetch_add(1, SeqCst);
        let uri = request.uri().to_string();
        let asked = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let service = String::from_utf8(asked.slice(asked.len().min(7)..).to_vec()).unwrap();
        self.checked_for.lock().unwrap().push(format!("{uri} {service}"));
        let mut news = self.health.subscribe();
        news.mark_changed();
        let state = (news, Some(Arc::clone(&self.watches)));
        let answers = stream::unfold(state, |(mut news, open)| async {
            let open = open?;
            news.changed().await.ok()?;
            let health = *news.borrow_and_update();
            Some(match health {
                Health::Says(status) => {
                    (Ok(Frame::data(vec![0, 0, 0, 0, 2, 8, status].into())), (news, Some(open)))
                }
                Health::Status(code) => (Ok(Frame::trailers(trailers(code))), (news, None)),
                Health::Garbage => (Ok(Frame::data(vec![7; 7].into())), (news, Some(open))),
                Health::Endless => (Ok(Frame::data(vec![0, 0, 1, 0, 0].into())), (news, Some(open))),
                Health::Silent | Health::Http(_) => std::future::pending().await,
            })
        });
        let mut response = Response::new(StreamBody::new(answers).boxed_unsync());
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        Ok(response)
    }

    pub(super) fn door(&self, door: Door) {
        *self.door.lock().unwrap() = door;
    }

    pub(super) fn release(&self) {
        self.release.notify_waiters();
    }

    /// Cuts all connections; later ones are served.
    pub(super) fn kill(&self) {
        self.fate(Fate::Kill);
    }

    /// From now on nothing comes from it, and what is sent to it is lost; nobody is told.
    pub(super) fn vanish(&self) {
        self.door(Door::Hangs);
        self.vanished.store(true, SeqCst);
    }

    /// Says GOAWAY on all connections; later ones are served.
    pub(super) fn go_away(&self) {
        self.fate(Fate::GoAway);
    }

    fn fate(&self, fate: Fate) {
        let old = std::mem::replace(&mut *self.fate.lock().unwrap(), watch::Sender::new(Fate::Serve));
        old.send_replace(fate);
        // The receivers keep the value.
    }

    async fn serve(self: Arc<Self>, io: BoxIo) {
        let mut fate = self.fate.lock().unwrap().subscribe();
        let tls = self.tls.lock().unwrap().clone();
        let io: BoxIo = match tls {
            None => io,
            Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(io).await {
                Ok(stream) => Box::new(stream),
                Err(_) => return,
            },
        };
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2.max_concurrent_streams(self.max_streams.load(SeqCst));
        let server = Arc::clone(&self);
        let service = hyper::service::service_fn(move |request| Arc::clone(&server).respond(request));
        let connection = http2.serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        loop {
            tokio::select! {
                biased;
                _ = fate.changed() => match *fate.borrow_and_update() {
                    Fate::Kill => return,
                    Fate::GoAway => connection.as_mut().graceful_shutdown(),
                    Fate::Serve => {}
                },
                _ = &mut connection => return,
            }
            if *fate.borrow() == Fate::GoAway {
                let _ = connection.await;
                return;
            }
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
        if request.uri().path() == orca::STREAM_CORE_METRICS {
            return Ok(self.report(request).await);
        }
        match request.uri().path() {
            "/grpc.health.v1.Health/Check" => return self.on_check(request).await,
            "/grpc.health.v1.Health/Watch" => return self.on_watch(request).await,
            _ => {}
        }
        self.hits.fetch_add(1, SeqCst);
        self.seen_uris.lock().unwrap().push(request.uri().to_string());
        let answer = *self.answer.lock().unwrap();
        let mut response = Response::new(());
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let body = match answer {
            Answer::Status(code) => full(self.trailers(code)),
            Answer::TrailersOnly(code) => {
                response.headers_mut().extend(self.trailers(code));
                empty()
            }
            Answer::Http(status) => {
                *response.status_mut() = status.try_into().unwrap();
                empty()
            }
            Answer::Reset => return Err(io::Error::other("reset on purpose")),
            Answer::Silent => {
                self.release.notified().await;
                full(trailers(Code::Ok))
            }
            Answer::Hold => {
                let server = Arc::clone(&self);
                StreamBody::new(futures_util::stream::once(async move {
                    server.release.notified().await;
                    Ok(Frame::trailers(trailers(Code::Ok)))
                }))
                .boxed_unsync()
            }
        };
        Ok(response.map(|()| body))
    }

    fn trailers(&self, code: Code) -> HeaderMap {
        let mut trailers = trailers(code);
        if let Some(load) = &*self.load.lock().unwrap() {
            let value = base64::engine::general_purpose::STANDARD_NO_PAD.encode(load.encode_to_vec());
            trailers.insert(orca::TRAILER, value.parse().unwrap());
        }
        trailers
    }

    async fn report(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
        let mut response = Response::new(());
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let reporting = *self.reporting.lock().unwrap();
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let interval = LoadReportRequest::decode(&asked[5..]).unwrap().interval();
        self.report_streams.lock().unwrap().push((Instant::now(), interval));
        let status = |code| vec![Ok(Frame::trailers(trailers(code)))];
        let body = match reporting {
            Reporting::Unknown => StreamBody::new(stream::iter(status(Code::Unimplemented))).boxed_unsync(),
            Reporting::Fails(code) => StreamBody::new(stream::iter(status(code))).boxed_unsync(),
            Reporting::Once => {
                let frames = stream::iter([Ok(self.reported())]).chain(stream::iter(status(Code::Ok)));
                StreamBody::new(frames).boxed_unsync()
            }
            Reporting::Steadily => {
                let open = Arc::clone(&self.open_report_streams);
                let ticks = tokio::time::interval(interval);
                let reports = stream::unfold((self, ticks, open), |(server, mut ticks, open)| async {
                    ticks.tick().await;
                    Some((Ok(server.reported()), (server, ticks, open)))
                });
                StreamBody::new(reports).boxed_unsync()
            }
        };
        response.map(|()| body)
    }

    fn reported(&self) -> Frame<Bytes> {
        let report = self.load.lock().unwrap().clone().unwrap_or_default().encode_to_vec();
        let length = u32::try_from(report.len()).unwrap().to_be_bytes();
        Frame::data([&[0], &length[..], &report].concat().into())
    }
}

fn full(trailers: HeaderMap) -> UnsyncBoxBody<Bytes, io::Error> {
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn empty() -> UnsyncBoxBody<Bytes, io::Error> {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn trailers(code: Code) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", i32::from(code).to_string().parse().unwrap());
    trailers
}

/// Servers by address, and the number of bytes that clients wrote. A test has it first: when it is dropped, nothing is
/// held any more.
#[derive(Clone, Default)]
pub(super) struct Net {
    /// What names stand for; a name that is not here is not known.
    pub(super) names: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    /// How often names were asked about.
    pub(super) lookups: Arc<AtomicUsize>,
    servers: Arc<Mutex<HashMap<SocketAddr, Arc<Server>>>>,
    pub(super) written: Arc<AtomicUsize>,
    _rest: Rest,
}

impl Net {
    pub(super) fn server(&self, port: u16) -> Arc<Server> {
        self.server_at(address(port))
    }

    pub(super) fn server_at(&self, address: SocketAddr) -> Arc<Server> {
        let server = Arc::new(Server {
            answer: Mutex::new(Answer::Status(Code::Ok)),
            door: Mutex::new(Door::Open),
            hits: AtomicUsize::new(0),
            health: watch::Sender::new(Health::Says(1)),
            watches: Arc::new(()),
            checks: AtomicUsize::new(0),
            checked_for: Mutex::default(),
            dials: AtomicUsize::new(0),
            max_streams: AtomicU32::new(1000),
            seen_uris: Mutex::default(),
            load: Mutex::default(),
            reporting: Mutex::new(Reporting::Unknown),
            report_streams: Mutex::default(),
            open_report_streams: Arc::default(),
            tls: Mutex::new(None),
            vanished: AtomicBool::new(false),
            release: Notify::new(),
            fate: Mutex::new(watch::Sender::new(Fate::Serve)),
        });
        self.servers.lock().unwrap().insert(address, Arc::clone(&server));
        server
    }

    pub(super) fn servers<const N: usize>(&self) -> [Arc<Server>; N] {
        std::array::from_fn(|index| self.server(u16::try_from(index).unwrap() + 1))
    }
}

impl Resolve for Net {
    fn resolve(&self, host: &str) -> Resolving {
        self.lookups.fetch_add(1, SeqCst);
        let found = self.names.lock().unwrap().get(host).cloned();
        Box::pin(std::future::ready(found.ok_or_else(|| io::Error::other("no such host"))))
    }
}

impl Connect for Net {
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let server = self.servers.lock().unwrap().get(&to.address).cloned();
            let server = server.ok_or_else(|| io::Error::from_raw_os_error(111))?;
            server.dials.fetch_add(1, SeqCst);
            let door = *server.door.lock().unwrap();
            match door {
                Door::Refuses => return Err(io::Error::from_raw_os_error(111)),
                Door::Hangs => std::future::pending().await,
                Door::Open | Door::HangsUp | Door::Complains => {}
            }
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            if door == Door::Complains {
                server.door(Door::Open);
                tokio::spawn(async move {
                    theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
                    rest().await;
                    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
                    theirs.write_all(&goaway).await
                });
            } else if door == Door::Open {
                tokio::spawn(Arc::clone(&server).serve(Box::new(theirs)));
            }
            Ok(Stream::new(Counted { io: ours, written: Arc::clone(&self.written), server }))
        })
    }
}

struct Counted {
    io: tokio::io::DuplexStream,
    written: Arc<AtomicUsize>,
    server: Arc<Server>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.server.vanished.load(SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.fetch_add(buf.len(), SeqCst);
        if self.server.vanished.load(SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// No TLS material at all.
pub(super) struct NoTls;

impl TlsConfigs for NoTls {
    fn client_tls(&self, _: &UpstreamTls, _: &ClusterSecrets, _: Option<&str>) -> Result<ClientTls, String> {
        Err("no identity yet".to_owned())
    }
}

pub(super) fn deps(net: &Net) -> ClusterDeps {
    ClusterDeps {
        tls: Arc::new(NoTls),
        connect: Arc::new(net.clone()),
        resolve: Arc::new(net.clone()),
        breakers: Arc::new(Breakers::default()),
        loads: Arc::default(),
        seed: 42,
        ring_size_cap: mesh_xds::balancing::RING_SIZE_CAP,
        empty_endpoints: crate::EmptyEndpoints::Fail,
        health_service: None,
        callers: None,
    }
}

/// A cluster that is not made of others.
pub(super) fn spawn(config: Arc<ClusterConfig>, deps: &ClusterDeps) -> Arc<Cluster> {
    Cluster::spawn(config, deps, Arc::new(|_| None))
}

pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(vec![address(port)])
}

pub(super) fn locality(zone: &str, weight: u32, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    let locality = Locality { zone: zone.into(), ..Locality::default() };
    let endpoints = endpoints.into_iter().map(Arc::new).collect();
    LocalityEndpoints { locality, weight: NonZeroU32::new(weight).unwrap(), endpoints }
}

/// A configuration to be changed by hand.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) cluster: resource::Cluster,
    pub(super) endpoints: ClusterLoadAssignment,
    pub(super) note: Option<Arc<str>>,
}

impl Config {
    /// One priority, one locality, these endpoints.
    pub(super) fn of(ports: &[u16]) -> Self {
        Self::with_priorities(&[ports])
    }

    pub(super) fn with_priorities(priorities: &[&[u16]]) -> Self {
        let cluster = resource::Cluster::eds("reviews");
        let priority = |ports: &&[u16]| Priority {
            localities: vec![locality("a", 1, ports.iter().copied().map(endpoint).collect())],
        };
        let priorities = priorities.iter().map(priority).collect();
        let endpoints = ClusterLoadAssignment { priorities, ..ClusterLoadAssignment::new("reviews") };
        Self { cluster, endpoints, note: None }
    }

    pub(super) fn endpoint(&mut self, index: usize) -> &mut Endpoint {
        self.endpoints
            .priorities
            .iter_mut()
            .flat_map(|priority| &mut priority.localities)
            .flat_map(|locality| &mut locality.endpoints)
            .nth(index)
            .map(Arc::make_mut)
            .unwrap()
    }

    pub(super) fn build(&self) -> Arc<ClusterConfig> {
        Arc::new(ClusterConfig {
            cluster: Arc::new(self.cluster.clone()),
            endpoints: Arc::new(self.endpoints.clone()),
            leaves: Vec::new(),
            secrets: Default::default(),
            note: self.note.clone(),
        })
    }

    pub(super) fn spawn(&self, net: &Net) -> Arc<Cluster> {
        spawn(self.build(), &deps(net))
    }
}

pub(super) fn request() -> Request<CallBody> {
    let body = http_body_util::Full::new(Bytes::from_static(&[0; 5]));
    Request::post("http://reviews:9080/reviews.Reviews/Get")
        .body(CallBody::Tonic(tonic::body::Body::new(body)))
        .unwrap()
}

/// Sends one request with `context`.
pub(super) async fn attempt(
    cluster: &Cluster,
    context: &mut AttemptContext,
) -> Result<Response<TrackedBody>, AttemptError> {
    cluster.attempt(request(), context).await
}

/// Sends one request and reads the response to its end: the status.
pub(super) async fn call(cluster: &Cluster) -> Result<Code, AttemptError> {
    let response = attempt(cluster, &mut AttemptContext::default()).await?;
    Ok(status(response).await)
}

/// How many of 100 calls each of these servers got; all were answered.
pub(super) async fn shares<const N: usize>(cluster: &Cluster, servers: [&Server; N]) -> [usize; N] {
    for server in servers {
        server.hits();
    }
    for _ in 0..100 {
        assert_eq!(call(cluster).await.unwrap(), Code::Ok);
    }
    servers.map(Server::hits)
}

/// Reads a response to its end: the status.
pub(super) async fn status(response: Response<TrackedBody>) -> Code {
    let in_headers = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    let mut status = in_headers;
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) => {
                status = frame.into_trailers().ok().and_then(|t| t.get("grpc-status").cloned())
            }
            Some(Err(error)) => return error.code(),
            None => break,
        }
    }
    status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes()))
}

/// Waits until all that is under way has come to rest; time passes only a little.
pub(super) async fn rest() {
    pass(Duration::from_millis(1)).await;
}

/// Lets time pass. In paused time, the runtime first does all there is to do.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep_until(Instant::now() + time).await;
}
