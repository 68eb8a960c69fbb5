//! A control plane with the resources that a test publishes, and servers that say who they are.

use crate::{
    Mesh, MeshChannel,
    context::Incoming,
    orca::{CallMetricsLayer, OpenRcaService, ServerMetricsRecorder},
    registration::proto::{RegisterRequest, RegisterResponse},
    table::testing,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use mesh_xds::{
    bootstrap::{Bootstrap, ChannelCredentials, Node as BootstrapNode, ServerConfig},
    lrs::{LoadReportService, LoadReportSettings},
    matcher::{DomainPattern, Fraction, PathMatcher},
    name::{Name, ResourceType},
    resource::{
        Locality, Resource,
        cluster::{Cluster, ReportedMetrics},
        endpoint::{ClusterLoadAssignment, DropOverload, Endpoint, LocalityEndpoints, Priority},
        filter::FilterOverrides,
        listener::{HttpConnectionManager, Listener, ListenerKind, RouteSource},
        route::{Forward, HeaderMutations, Route, RouteAction, RouteConfiguration, VirtualHost},
        tls::UpstreamTls,
    },
    server::{AdsService, AdsSettings, Encoded, Node, StreamEvent, View, Views},
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::GrpcService,
    metadata::{MetadataMap, MetadataValue},
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;

/// Where nobody listens.
pub(super) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(super) fn bootstrap(address: SocketAddr) -> Bootstrap {
    let server = ServerConfig::new(&address.to_string(), ChannelCredentials::Insecure).unwrap();
    Bootstrap::new(
        server,
        BootstrapNode { id: "sidecar~127.0.0.1~me.default~x".into(), ..Default::default() },
    )
}

/// The configuration of `reviews:9080`: one route, to the first of these clusters.
pub(super) struct Published {
    route: Route,
    clusters: Vec<(&'static str, Vec<SocketAddr>)>,
    /// Of the names of listener and routes.
    authority: Option<&'static str>,
    /// What clusters have beyond their endpoints.
    reports: bool,
    drops: Vec<DropOverload>,
    /// Each endpoint is a priority.
    priorities: bool,
    tls: Option<Arc<UpstreamTls>>,
    change: fn(&mut Cluster),
}

pub(super) fn reviews<const N: usize>(clusters: [(&'static str, Vec<SocketAddr>); N]) -> Published {
    let first = clusters.first().map_or("none", |(name, _)| *name);
    Published {
        route: testing::route(PathMatcher::any(), testing::forward(first)),
        clusters: clusters.into(),
        authority: None,
        reports: false,
        drops: Vec::new(),
        priorities: false,
        tls: None,
        change: |_| {},
    }
}

impl Published {
    pub(super) fn route(&mut self, change: impl FnOnce(&mut Route)) {
        change(&mut self.route);
    }

    pub(super) fn forward(&mut self, change: impl FnOnce(&mut Forward)) {
        let RouteAction::Forward(forward) = &mut self.route.action else { unreachable!() };
        change(forward);
    }

    /// The listener and the routes are this authority's.
    pub(super) fn of_authority(mut self, authority: &'static str) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Clients report what calls did, and the processors of servers.
    pub(super) fn reported(mut self) -> Self {
        self.reports = true;
        self
    }

    /// Endpoints are spoken to with this TLS.
    pub(super) fn over(mut self, tls: UpstreamTls) -> Self {
        self.tls = Some(Arc::new(tls));
        self
    }

    /// Every call is dropped, for this reason.
    pub(super) fn dropped(mut self, category: &str) -> Self {
        self.drops = vec![DropOverload { category: category.into(), fraction: Fraction::ONE }];
        self
    }

    /// Clusters are changed so.
    pub(super) fn with_clusters(mut self, change: fn(&mut Cluster)) -> Self {
        self.change = change;
        self
    }

    /// The first endpoint takes the calls; the others are there for when it does not.
    pub(super) fn prioritized(mut self) -> Self {
        self.priorities = true;
        self
    }

    fn name(&self, kind: ResourceType, name: &str) -> Name {
        match self.authority {
            None => name.into(),
            Some(authority) => format!("xdstp://{authority}/{}/{name}", kind.message()).into(),
        }
    }

    fn resources(&self) -> BTreeMap<(ResourceType, Name), Arc<Encoded>> {
        let host = VirtualHost {
            name: "reviews".into(),
            domains: vec![DomainPattern::Any],
            routes: vec![Arc::new(self.route.clone())],
            retry: None,
            hedge: None,
            overrides: FilterOverrides::new(),
            headers: HeaderMutations::default(),
        };
        let name = self.name(ResourceType::RouteConfiguration, "routes");
        let http = HttpConnectionManager { routes: RouteSource::Rds(name.clone()), ..testing::http() };
        let listener = Listener {
            name: self.name(ResourceType::Listener, "reviews:9080"),
            kind: ListenerKind::Api(http),
        };
        let routes = RouteConfiguration::new(name, vec![Arc::new(host)]);
        let mut all = vec![encoded(&listener), encoded(&routes)];
        for (name, addresses) in &self.clusters {
            let mut cluster = (*testing::cluster(name).cluster).clone();
            let cpu = ReportedMetrics { cpu: true, ..ReportedMetrics::default() };
            cluster.load_reporting = self.reports.then_some(cpu);
            cluster.tls = self.tls.clone();
            (self.change)(&mut cluster);
            all.push(encoded(&cluster));
            let mut endpoints = endpoints(name, addresses, self.priorities);
            endpoints.drops = self.drops.clone();
            all.push(encoded(&endpoints));
        }
        all.into_iter().collect()
    }
}

fn endpoints(cluster: &str, addresses: &[SocketAddr], prioritized: bool) -> ClusterLoadAssignment {
    let endpoint = |address: &SocketAddr| Endpoint::new(vec![*address]);
    let priority = |addresses: &[SocketAddr]| Priority {
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            weight: NonZeroU32::MIN,
            endpoints: addresses.iter().map(endpoint).map(Arc::new).collect(),
        }],
    };
    let size = if prioritized { 1 } else { addresses.len().max(1) };
    let priorities = addresses.chunks(size).map(priority).collect();
    ClusterLoadAssignment { priorities, ..ClusterLoadAssignment::new(cluster) }
}

fn encoded<R: Resource>(resource: &R) -> ((ResourceType, Name), Arc<Encoded>) {
    let body = resource.to_proto();
    let version = format!("{:x}", twox_hash::XxHash64::oneshot(0, &body)).into();
    let encoded = Encoded { name: resource.name().clone(), version, body };
    ((R::TYPE, resource.name().clone()), Arc::new(encoded))
}

/// One revision.
struct Revision {
    number: u64,
    resources: BTreeMap<(ResourceType, Name), Arc<Encoded>>,
}

impl View for Revision {
    fn revision(&self) -> Arc<str> {
        format!("r{}", self.number).into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.resources.get(&(kind, Name::from(name))).cloned()
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.resources.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.clone()).collect()
    }
}

struct Source {
    current: Mutex<Arc<Revision>>,
    changes: watch::Sender<u64>,
    node: Mutex<Option<Node>>,
}

impl Views for Source {
    type Peer = ();

    fn authenticate(&self, _: &http::Extensions, _: &MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn view(&self, (): &(), node: &Node) -> Result<Arc<dyn View>, Status> {
        *self.node.lock().unwrap() = Some(node.clone());
        Ok(self.current.lock().unwrap().clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A control plane; ends when dropped.
pub(super) struct Plane {
    pub(super) address: SocketAddr,
    source: Arc<Source>,
    ads: AdsService<Source>,
    load: LoadReportService,
    tasks: JoinSet<()>,
}

impl Plane {
    pub(super) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::over(address, TcpListenerStream::new(listener))
    }

    /// On a socket of this machine.
    pub(super) fn start_on(path: &std::path::Path) -> Self {
        let incoming =
            tokio_stream::wrappers::UnixListenerStream::new(tokio::net::UnixListener::bind(path).unwrap());
        Self::over(free_address(), incoming)
    }

    fn over<IO, I>(address: SocketAddr, incoming: I) -> Self
    where
        I: futures_util::Stream<Item = std::io::Result<IO>> + Send + 'static,
        IO: tokio::io::AsyncRead
            + tokio::io::AsyncWrite
            + tonic::transport::server::Connected
            + Unpin
            + Send
            + 'static,
    {
        let source = Arc::new(Source {
            current: Mutex::new(Arc::new(Revision { number: 0, resources: BTreeMap::new() })),
            changes: watch::Sender::new(0),
            node: Mutex::default(),
        });
        let ads = AdsService::new(source.clone(), AdsSettings::default());
        let interval = Duration::from_millis(100);
        let load = LoadReportService::new(LoadReportSettings { interval, ..LoadReportSettings::default() });
        let mut tasks = JoinSet::new();
        let serving = Server::builder().add_service(ads.service()).add_service(load.service());
        tasks.spawn(async move {
            serving.serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, source, ads, load, tasks }
    }

    pub(super) fn publish(&self, config: &Published) {
        let mut current = self.source.current.lock().unwrap();
        let number = current.number + 1;
        *current = Arc::new(Revision { number, resources: config.resources() });
        drop(current);
        self.source.changes.send_replace(number);
    }

    pub(super) fn join(&self) -> Mesh {
        Mesh::builder().bootstrap(bootstrap(self.address)).build().unwrap()
    }

    /// The node that asked last.
    pub(super) fn node(&self) -> Node {
        self.source.node.lock().unwrap().clone().unwrap()
    }

    /// What was reported to it.
    pub(super) fn load(&self) -> &LoadReportService {
        &self.load
    }

    pub(super) fn events(&self) -> broadcast::Receiver<StreamEvent> {
        self.ads.events()
    }

    pub(super) async fn stop(&mut self) {
        self.ads.close();
        self.tasks.shutdown().await;
    }
}

/// A server that says its name, or does not.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<HeaderMap>>,
    hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Debug)]
enum Manner {
    Name(&'static str),
    Fail(Code),
    Silent,
    /// Asks the next hop, as a handler does.
    Hop(MeshChannel),
}

impl Echo {
    pub(super) async fn start(name: &'static str) -> Self {
        Self::serve(Manner::Name(name), ServerMetricsRecorder::new()).await
    }

    /// One that says this of its load, with responses and by itself every 10 ms.
    pub(super) async fn reporting(name: &'static str, load: ServerMetricsRecorder) -> Self {
        Self::serve(Manner::Name(name), load).await
    }

    pub(super) async fn failing(code: Code) -> Self {
        Self::serve(Manner::Fail(code), ServerMetricsRecorder::new()).await
    }

    /// A server whose handler makes a call itself. It believes its callers, as an authenticated peer is believed.
    pub(super) async fn hop(next: MeshChannel) -> Self {
        Self::serve(Manner::Hop(next), ServerMetricsRecorder::new()).await
    }

    pub(super) async fn silent() -> Self {
        Self::serve(Manner::Silent, ServerMetricsRecorder::new()).await
    }

    async fn serve(manner: Manner, load: ServerMetricsRecorder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(HeaderMap::new()));
        let hits = Arc::new(AtomicUsize::new(0));
        let service = EchoService { manner, seen: seen.clone(), hits: hits.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let reports = OpenRcaService::new(load.clone()).min_reporting_interval(Duration::from_millis(10));
            let layer = CallMetricsLayer::with_server_metrics(load);
            let serving = Server::builder().layer(layer).add_service(service).add_service(reports);
            serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, seen, hits, _tasks: tasks }
    }

    /// How many requests there were.
    pub(super) fn hits(&self) -> usize {
        self.hits.load(SeqCst)
    }

    /// Headers of the last request.
    pub(super) fn last_headers(&self) -> HeaderMap {
        self.seen.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct EchoService {
    manner: Manner,
    seen: Arc<Mutex<HeaderMap>>,
    hits: Arc<AtomicUsize>,
}

impl NamedService for EchoService {
    const NAME: &'static str = "mesh.test.Echo";
}

impl tower_service::Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut headers = request.headers().clone();
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            *this.seen.lock().unwrap() = headers.clone();
            this.hits.fetch_add(1, SeqCst);
            let name = match this.manner {
                Manner::Name(name) => name,
                Manner::Fail(code) => {
                    let mut metadata = MetadataMap::new();
                    // `cpu_utilization` is 0.5.
                    let report = MetadataValue::from_bytes(&[0x09, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
                    metadata.insert_bin(mesh_xds::orca::TRAILER, report);
                    return Ok(Status::with_metadata(code, "as told", metadata).into_http());
                }
                Manner::Silent => return std::future::pending().await,
                Manner::Hop(next) => {
                    let incoming = Incoming::from_headers(&headers, true, tokio::time::Instant::now());
                    match incoming.scope(ask(next, None)).await {
                        Ok(_) => "hop",
                        Err(status) => return Ok(Status::new(status.code(), "of the next hop").into_http()),
                    }
                }
            };
            headers.insert("seen-authority", authority.parse().unwrap());
            let message = RegisterResponse { workload_entry: name.to_owned(), revision: String::new() };
            let answer = move |_: Request<RegisterRequest>| {
                let mut response = Response::new(message.clone());
                for (key, seen) in SEEN {
                    if let Some(value) = headers.get(seen) {
                        response.metadata_mut().insert(key, value.to_str().unwrap().parse().unwrap());
                    }
                }
                async { Ok::<_, Status>(response) }
            };
            let codec = ProstCodec::<RegisterResponse, RegisterRequest>::default();
            Ok(Grpc::new(codec).unary(tower::service_fn(answer), request).await)
        })
    }
}

/// Headers of a request that the response tells of.
const SEEN: [(&str, &str); 3] =
    [("seen-authority", "seen-authority"), ("seen-agent", "user-agent"), ("seen-timeout", "grpc-timeout")];

/// What an [`Echo`] answered, and what it had seen.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) server: String,
    pub(super) authority: String,
    pub(super) headers: HeaderMap,
}

/// A unary call, as generated code makes it.
pub(super) async fn ask<T>(channel: T, request: Option<Request<RegisterRequest>>) -> Result<Answer, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = http::uri::PathAndQuery::from_static("/mesh.test.Echo/Ask");
    let codec = ProstCodec::<RegisterRequest, RegisterResponse>::default();
    let response = client
        .unary(request.unwrap_or_else(|| Request::new(RegisterRequest::default())), path, codec)
        .await?;
    let (metadata, message, _) = response.into_parts();
    let seen = |key: &str| metadata.get(key).map(|value| value.to_str().unwrap().to_owned());
    let mut headers = HeaderMap::new();
    for (key, name) in SEEN {
        if let Some(value) = seen(key) {
            headers.insert(name, value.parse().unwrap());
        }
    }
    Ok(Answer {
        server: message.workload_entry,
        authority: seen("seen-authority").unwrap_or_default(),
        headers,
    })
}
