//! A control plane with the resources that a test publishes, and servers that say who they are.

mod echo;
mod secured;

pub(super) use echo::{Echo, ask};
pub(super) use secured::{Secured, lead};

use crate::{Mesh, table::testing, testing::held::Rest};
use futures_util::StreamExt;
use mesh_xds::{
    bootstrap::{Bootstrap, ChannelCredentials, Node as BootstrapNode, ServerConfig},
    lrs::{LoadReportService, LoadReportSettings},
    matcher::{DomainPattern, Fraction, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher},
    name::{Name, ResourceType},
    resource::{
        Locality, Resource, Secret,
        cluster::{Cluster, HttpConnect, ReportedMetrics},
        endpoint::{ClusterLoadAssignment, DropOverload, Endpoint, LocalityEndpoints, Priority},
        filter::{FilterConfig, FilterOverrides, HttpFilter},
        listener::{HttpConnectionManager, Listener, ListenerKind, RouteSource},
        route::{Destination, Forward, HeaderMutations, Route, RouteAction, RouteConfiguration, VirtualHost},
        tls::UpstreamTls,
    },
    server::{AdsService, AdsSettings, Encoded, Node, StreamEvent, StreamStatus, View, Views},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, metadata::MetadataMap, transport::Server};

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
#[derive(Clone)]
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
    secrets: Vec<Secret>,
    change: fn(&mut Cluster),
    /// A route for each cluster.
    by_header: bool,
    /// Kinds of which there is none.
    without: Vec<ResourceType>,
    /// The endpoints of a cluster are localities of these weights.
    localities: Vec<u32>,
    filters: Vec<HttpFilter>,
    /// In front of an endpoint.
    proxy: Arc<dyn Fn(SocketAddr) -> Option<SocketAddr> + Send + Sync>,
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
        secrets: Vec::new(),
        change: |_| {},
        by_header: false,
        without: Vec::new(),
        localities: Vec::new(),
        filters: Vec::new(),
        proxy: Arc::new(|_| None),
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

    /// There are these secrets, and no others.
    pub(super) fn with_secrets(mut self, secrets: Vec<Secret>) -> Self {
        self.secrets = secrets;
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

    /// A call goes to the cluster that its header `to` names.
    pub(super) fn by_header(mut self) -> Self {
        self.by_header = true;
        self
    }

    /// More clusters.
    pub(super) fn and(mut self, clusters: impl IntoIterator<Item = (&'static str, Vec<SocketAddr>)>) -> Self {
        self.clusters.extend(clusters);
        self
    }

    /// There is no such resource, though others name it.
    pub(super) fn without(mut self, kind: ResourceType) -> Self {
        self.without.push(kind);
        self
    }

    /// Each endpoint of a cluster is a locality; their weights.
    pub(super) fn localities(mut self, weights: &[u32]) -> Self {
        self.localities = weights.to_vec();
        self
    }

    /// Endpoints are behind these HTTP CONNECT proxies.
    pub(super) fn behind(
        mut self,
        proxy: impl Fn(SocketAddr) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.proxy = Arc::new(proxy);
        self
    }

    /// A filter before the router.
    pub(super) fn filtered(mut self, name: &str, config: FilterConfig) -> Self {
        self.filters.push(HttpFilter { name: name.into(), config, disabled: false });
        self
    }

    fn routes(&self) -> Vec<Arc<Route>> {
        if !self.by_header {
            return vec![Arc::new(self.route.clone())];
        }
        let route = |(name, _): &(&'static str, _)| {
            let mut route = self.route.clone();
            let header = HeaderOrPseudo::Header(http::HeaderName::from_static("to"));
            route.matches.headers = vec![HeaderMatcher::string(header, StringMatcher::exact(name, false))];
            if let RouteAction::Forward(forward) = &mut route.action {
                forward.destination = Destination::Cluster((*name).into());
            }
            Arc::new(route)
        };
        self.clusters.iter().map(route).collect()
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
            routes: self.routes(),
            retry: None,
            hedge: None,
            overrides: FilterOverrides::new(),
            headers: HeaderMutations::default(),
        };
        let name = self.name(ResourceType::RouteConfiguration, "routes");
        let mut http = HttpConnectionManager { routes: RouteSource::Rds(name.clone()), ..testing::http() };
        http.filters.splice(..0, self.filters.iter().cloned());
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
            let is_behind = addresses.iter().any(|address| (self.proxy)(*address).is_some());
            cluster.http_connect = is_behind.then(HttpConnect::default);
            (self.change)(&mut cluster);
            all.push(encoded(&cluster));
            let mut endpoints = endpoints(name, addresses, self.priorities);
            if !self.localities.is_empty() {
                endpoints.priorities = vec![localities(addresses, &self.localities)];
            }
            endpoints.drops = self.drops.clone();
            let localities = endpoints.priorities.iter_mut().flat_map(|priority| &mut priority.localities);
            for endpoint in localities.flat_map(|locality| &mut locality.endpoints) {
                Arc::make_mut(endpoint).proxy = (self.proxy)(endpoint.address());
            }
            all.push(encoded(&endpoints));
        }
        all.extend(self.secrets.iter().map(encoded));
        all.retain(|((kind, _), _)| !self.without.contains(kind));
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

/// A locality for each.
fn localities(addresses: &[SocketAddr], weights: &[u32]) -> Priority {
    let locality = |(index, (address, weight)): (usize, (&SocketAddr, &u32))| LocalityEndpoints {
        locality: Locality { zone: format!("z{index}").into(), ..Locality::default() },
        weight: NonZeroU32::new(*weight).unwrap(),
        endpoints: vec![Arc::new(Endpoint::new(vec![*address]))],
    };
    Priority { localities: addresses.iter().zip(weights).enumerate().map(locality).collect() }
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

/// A control plane; ends when dropped. By then calls have given back what they held.
pub(super) struct Plane {
    pub(super) address: SocketAddr,
    source: Arc<Source>,
    ads: AdsService<Source>,
    load: LoadReportService,
    connections: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    _rest: Rest,
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
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        let incoming = incoming.inspect(move |_| {
            count.fetch_add(1, Relaxed);
        });
        tasks.spawn(async move {
            serving.serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, source, ads, load, connections, tasks, _rest: Rest::default() }
    }

    /// Says the name of the revision.
    pub(super) fn publish(&self, config: &Published) -> Arc<str> {
        let mut current = self.source.current.lock().unwrap();
        let number = current.number + 1;
        let revision = Arc::new(Revision { number, resources: config.resources() });
        let name = revision.revision();
        *current = revision;
        drop(current);
        self.source.changes.send_replace(number);
        name
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

    /// Connections there ever were.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// The streams of ADS that there are.
    pub(super) fn streams(&self) -> Vec<StreamStatus> {
        self.ads.streams()
    }

    pub(super) fn events(&self) -> broadcast::Receiver<StreamEvent> {
        self.ads.events()
    }

    pub(super) async fn stop(&mut self) {
        self.ads.close();
        self.tasks.shutdown().await;
    }
}
