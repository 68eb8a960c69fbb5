//! [`Mesh`]: one process's membership of a mesh.
//!
//! It owns the xDS client, the identities and their tasks, together with the other meshes of the process that join by
//! the same; all of it ends with the last handle. Building one
//! does no IO: a control plane that cannot be reached shows in the first call, fast and with its address, and
//! is noticed when it comes back.

mod attempts;
mod connect;
mod membership;
mod status;
mod token;

pub use status::{BreakerStatus, ClusterStatus, IdentityStatus, LoadReportStatus, MeshStatus, TargetStatus};

use crate::{
    channel::{MeshChannel, Subscription},
    cluster::{Cluster, ClusterDeps, EmptyEndpoints, names, zones},
    connector::{Connect, Tcp},
    layer::MeshLayer,
    registration::WorkloadInfo,
    retry::hedging::HedgingPolicy,
    server::{ControlPlane, ServerBuilder, Surroundings},
    stack::{CallSettings, Core},
    table::{named::Named, registry::Registry},
    target::{InvalidTarget, Target},
    tls::ProviderError,
};
use membership::{Membership, Terms};
use mesh_ca::{channel::Keepalive, workload::WorkloadIdentity};
use mesh_xds::{
    balancing::RING_SIZE_CAP,
    bootstrap::{Bootstrap, BootstrapError, CertificateProvider, Node, UnknownAuthority, distinct},
    client::{CacheSettings, ClientSettings},
    csds::{CsdsServer, OwnStatus},
    name::Name,
    resource::{Feature, Support},
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Certificate provider that the control plane is shown the certificate of.
const DEFAULT_PROVIDER: &str = "default";

/// What this client does beyond gRPC's xDS, for control planes that tailor what they send.
const CAPABILITIES: &str = "header-rules,path-rewrite,authority-rewrite,query-match,mirror,per-try-timeout,\
                            retry-budget,previous-hosts,consecutive-errors,panic-threshold,filter-disabled";

/// What this data path can do of what the vocabulary has beyond its core. A resource that needs more is rejected,
/// as `docs/xds-support.md` says.
pub const FEATURES: &[Feature] = &[
    Feature::AggregateCluster,
    Feature::StaticCluster,
    Feature::LogicalDns,
    Feature::StrictDns,
    Feature::RingHash,
    Feature::Maglev,
    Feature::ClientSideWeightedRoundRobin,
    Feature::RandomSubsetting,
    Feature::SlowStart,
    Feature::ZoneAware,
    Feature::HealthChecks,
    Feature::Sds,
    Feature::CertificateFiles,
    Feature::HashPolicies,
    Feature::HttpConnect,
    Feature::ProxyProtocol,
    Feature::Hedging,
    Feature::HighPriority,
    Feature::LoadReporting,
    Feature::LocalOriginOutliers,
    Feature::OutlierErrorCodes,
    Feature::Redirect,
    Feature::DirectResponse,
    Feature::StatefulSession,
    Feature::ClusterHeader,
];

const SUPPORT: Support = Support::of(FEATURES);

/// Why a mesh cannot be joined. Its `Debug` is its text, so that a `main` that returns it says what to do.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// There is no bootstrap, or it is wrong.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A target is wrong.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    /// A target names an xDS authority that the bootstrap does not have.
    #[error(transparent)]
    UnknownAuthority(#[from] UnknownAuthority),
    /// A certificate provider of the bootstrap cannot be used.
    #[error(transparent)]
    CertificateProvider(#[from] ProviderError),
    /// A control plane cannot be spoken to as the bootstrap asks.
    #[error("the control plane {server} of the bootstrap: {reason}")]
    ControlPlane {
        /// `host:port`.
        server: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Retries cannot be throttled like that.
    #[error(
        "retry_throttling({max_tokens}, {token_ratio}) of the mesh: max_tokens must be in 1..=1000, and token_ratio at least 0.001 (gRPC A6)"
    )]
    RetryThrottling {
        /// As it was given.
        max_tokens: u32,
        /// The same.
        token_ratio: f64,
    },
    /// Calls cannot be hedged like that.
    #[error("hedging({methods:?}, _) of the mesh: {reason} (gRPC A6)")]
    Hedging {
        /// As they were given.
        methods: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Not called inside a tokio runtime.
    #[error("a mesh needs a tokio runtime: build it inside #[tokio::main], or in Runtime::block_on")]
    NoRuntime,
}

impl std::fmt::Debug for MeshError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The address of this process as its node says it: Istio's `INSTANCE_IPS`, or the second part of Istio's node
/// id; the id itself when it says neither, which tells processes apart as well.
fn own_address(node: &Node) -> Arc<str> {
    let ips = node.metadata.get("INSTANCE_IPS").and_then(Value::as_str).and_then(|ips| ips.split(',').next());
    let in_id = || node.id.split('~').nth(1);
    let is_ip = |text: &&str| text.parse::<std::net::IpAddr>().is_ok();
    ips.filter(is_ip).or_else(|| in_id().filter(is_ip)).unwrap_or(&node.id).into()
}

/// What becomes of a call through a [`MeshLayer`] to a host that the control plane does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundTrafficPolicy {
    /// The wrapped service gets it (Istio's `ALLOW_ANY`).
    #[default]
    AllowAny,
    /// It fails and says so (`REGISTRY_ONLY`).
    RegistryOnly,
}

/// A process's membership of a mesh. Cheap to clone.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    membership: Arc<Membership>,
    clusters: Arc<Registry>,
    /// Clusters that requests name.
    named: Arc<Named<Cluster>>,
    calls: CallSettings,
    outbound: OutboundTrafficPolicy,
    seed: u64,
    /// Targets in use, so that two channels to one share everything.
    targets: Mutex<Targets>,
    /// Follows the local cluster.
    _callers: Option<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Targets {
    open: HashMap<Target, Weak<Subscription>>,
    closed: bool,
}

impl Mesh {
    /// Joins by the bootstrap that `GRPC_XDS_BOOTSTRAP` or `GRPC_XDS_BOOTSTRAP_CONFIG` names.
    pub fn from_env() -> Result<Self, MeshError> {
        Self::builder().build()
    }

    /// Joins by anything else.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// A channel to a service: `xds:///reviews:9080`. Generated clients take it as they take tonic's. Always
    /// ready; a call waits, fails or is retried as the mesh's configuration says. Must be called inside a
    /// tokio runtime.
    pub fn channel(&self, target: &str) -> Result<MeshChannel, MeshError> {
        Ok(MeshChannel::new(self.subscription(Target::parse(target)?)?))
    }

    /// A layer that puts the mesh in front of an existing channel to a service. A service that the control
    /// plane does not know is reached through that channel, as before ([`OutboundTrafficPolicy`]).
    pub fn layer(&self, target: &str) -> Result<MeshLayer, MeshError> {
        Ok(MeshLayer::new(self.subscription(Target::parse(target)?)?, self.0.outbound))
    }

    /// A server of the mesh at `address`; `.await` it to bind. Port 0 takes a free one.
    pub fn server(&self, address: SocketAddr) -> ServerBuilder {
        let membership = &self.0.membership;
        let servers = distinct(&membership.bootstrap().servers);
        let control_planes = servers.into_iter().cloned().map(|server| {
            let (connector, address) = (membership.connector.clone(), server.address.clone());
            ControlPlane { connect: Box::new(move || connector.channel(&server)), address }
        });
        let surroundings = Surroundings::new(
            membership.bootstrap().clone(),
            membership.xds.clone(),
            membership.providers.clone(),
            control_planes.collect(),
            self.workload(),
        )
        .within(membership.clone());
        ServerBuilder::new(surroundings, address)
    }

    /// How it fares: the control plane, every resource, the identities.
    pub fn status(&self) -> MeshStatus {
        let inner = &self.0;
        let targets: Vec<_> = {
            let targets = inner.targets.lock().unwrap_or_else(PoisonError::into_inner);
            targets.open.values().filter_map(Weak::upgrade).collect()
        };
        let Membership { xds, reporter, providers, .. } = &*inner.membership;
        let load_reports = LoadReportStatus { last: reporter.last_report(), error: reporter.error() };
        MeshStatus::new(xds.status(), load_reports, providers, &targets, &inner.clusters.all())
    }

    /// The service that tells which configuration this process runs on (CSDS, gRFC A40), for `grpcdebug`: add it to
    /// a server that only operators reach. It does not keep the mesh alive.
    pub fn csds(&self) -> CsdsServer<OwnStatus> {
        self.0.membership.xds.csds()
    }

    /// From now on every call fails; calls under way finish undisturbed. Servers drain by their own handles.
    /// Dropping every handle instead ends all tasks as well.
    pub fn shutdown(&self) {
        let mut targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.closed = true;
        for subscription in targets.open.values().filter_map(Weak::upgrade) {
            subscription.close();
        }
    }

    fn subscription(&self, target: Target) -> Result<Arc<Subscription>, MeshError> {
        let inner = &self.0;
        let mut targets = inner.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subscription) = targets.open.get(&target).and_then(Weak::upgrade) {
            return Ok(subscription);
        }
        targets.open.retain(|_, subscription| subscription.strong_count() > 0);
        let authority = target.authority();
        let membership = &inner.membership;
        let listener = membership.bootstrap().client_listener(target.xds_authority(), authority.as_str())?;
        let watch = membership.xds.config(&listener, authority.as_str());
        let mut core = Core::new(authority.clone(), inner.calls.clone(), inner.seed, inner.named.clone());
        core.target = target.to_string().into();
        let subscription =
            Subscription::start(core, watch, inner.clusters.clone(), inner.control_planes(&target));
        if targets.closed {
            subscription.close();
        }
        targets.open.insert(target, Arc::downgrade(&subscription));
        Ok(subscription)
    }

    /// What a channel to a target would use.
    pub(crate) fn subscribed(&self, target: &str) -> Result<Arc<Subscription>, MeshError> {
        self.subscription(Target::parse(target)?)
    }

    /// What the channels to a target use, if there are any.
    pub(crate) fn in_use(&self, target: &str) -> Option<Arc<Subscription>> {
        let target = Target::parse(target).ok()?;
        let targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.open.get(&target).and_then(Weak::upgrade)
    }

    /// The targets that there are channels to, in order.
    pub(crate) fn targets_in_use(&self) -> Vec<String> {
        let targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let open = targets.open.iter().filter(|(_, subscription)| subscription.strong_count() > 0);
        let mut names: Vec<String> = open.map(|(target, _)| target.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// What servers of this process say of it, from the bootstrap's node.
    fn workload(&self) -> WorkloadInfo {
        let node = &self.0.membership.bootstrap().node;
        let text = |key: &str| node.metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = node.metadata.get("LABELS").and_then(Value::as_object);
        let label = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let locality = &node.locality;
        let parts = [&locality.region, &locality.zone, &locality.sub_zone];
        let parts: Vec<&str> = parts.into_iter().map(|part| &**part).take_while(|p| !p.is_empty()).collect();
        WorkloadInfo {
            name: text("WORKLOAD_NAME"),
            namespace: text("NAMESPACE"),
            service_account: text("SERVICE_ACCOUNT"),
            labels: labels.map(|labels| labels.iter().filter_map(label).collect()).unwrap_or_default(),
            locality: parts.join("/"),
            weight: 0,
            group: text("AUTO_REGISTER_GROUP"),
        }
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("node", &self.0.membership.bootstrap().node.id).finish_non_exhaustive()
    }
}

impl Inner {
    /// Who may be asked about a target, for explanations.
    fn control_planes(&self, target: &Target) -> Arc<str> {
        let bootstrap = self.membership.bootstrap();
        let own = target.xds_authority().and_then(|name| bootstrap.authorities.get(name));
        let own = own.map(|authority| authority.servers.as_slice()).filter(|servers| !servers.is_empty());
        let servers = own.unwrap_or(&bootstrap.servers);
        let names: Vec<&str> = servers.iter().map(|server| &*server.address).collect();
        match names.as_slice() {
            [only] => format!("control plane {only}").into(),
            several => format!("control planes {}", several.join(", ")).into(),
        }
    }
}

/// A mesh to be joined. Without a bootstrap it takes the environment's.
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct MeshBuilder {
    bootstrap: Option<Bootstrap>,
    identities: BTreeMap<Arc<str>, WorkloadIdentity>,
    node: Map<String, Value>,
    labels: Map<String, Value>,
    wait_for_ready: bool,
    keep_deadline: bool,
    retry_at_every_hop: bool,
    throttling: Option<(u32, f64)>,
    hedging: Vec<(String, HedgingPolicy)>,
    outbound: OutboundTrafficPolicy,
    seed: Option<u64>,
    cache: Option<CacheSettings>,
    ring_size_cap: Option<u32>,
    empty_endpoints: EmptyEndpoints,
    health_service: Option<Arc<str>>,
    local_cluster: Option<Name>,
    connect: Option<Arc<dyn Connect>>,
    keepalive: Keepalive,
    max_response_bytes: Option<usize>,
}

impl MeshBuilder {
    /// Joins by this bootstrap.
    pub fn bootstrap(mut self, bootstrap: Bootstrap) -> Self {
        self.bootstrap = Some(bootstrap);
        self
    }

    /// Joins by the bootstrap in this file.
    pub fn bootstrap_file(self, path: impl Into<PathBuf>) -> Result<Self, MeshError> {
        Ok(self.bootstrap(Bootstrap::from_file(path)?))
    }

    /// Uses this identity for the certificate provider instance (usually `default`), whatever the bootstrap
    /// says of it.
    pub fn identity(mut self, instance: &str, identity: WorkloadIdentity) -> Self {
        self.identities.insert(instance.into(), identity);
        self
    }

    /// Says that this process is in this namespace, whatever the bootstrap says.
    pub fn namespace(self, namespace: &str) -> Self {
        self.says("NAMESPACE", namespace)
    }

    /// Says that this process has this service account, whatever the bootstrap says. What it may do is
    /// decided by its certificate.
    pub fn service_account(self, account: &str) -> Self {
        self.says("SERVICE_ACCOUNT", account)
    }

    /// Says that this process is of this workload, whatever the bootstrap says.
    pub fn workload_name(self, name: &str) -> Self {
        self.says("WORKLOAD_NAME", name)
    }

    /// Says that this process has this label, besides those of the bootstrap.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.into());
        self
    }

    fn says(mut self, key: &str, value: &str) -> Self {
        self.node.insert(key.to_owned(), value.into());
        self
    }

    /// Completes what the node says of itself.
    fn complete(&mut self, node: &mut Node) {
        let metadata = &mut node.metadata;
        metadata.append(&mut self.node);
        if !self.labels.is_empty() {
            match metadata.entry("LABELS").or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(labels) => labels.append(&mut self.labels),
                other => *other = Value::Object(std::mem::take(&mut self.labels)),
            }
        }
        // Istio's control plane serves gRPC clients by this.
        metadata.entry("GENERATOR").or_insert_with(|| "grpc".into());
        metadata.entry("MESH_CAPABILITIES").or_insert_with(|| {
            let features = SUPPORT.iter().map(Feature::name);
            std::iter::once(CAPABILITIES).chain(features).collect::<Vec<_>>().join(",").into()
        });
    }

    /// Calls wait while no endpoint is ready, within their deadline, instead of failing (gRPC's
    /// wait-for-ready). Default: false.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Whether a call made while serving a request ends when that request does. Default: true.
    pub fn propagate_deadline(mut self, propagate: bool) -> Self {
        self.keep_deadline = !propagate;
        self
    }

    /// Whether calls are retried even while the request being served is itself a retry of its caller. Default:
    /// false: the first attempt of a request may be retried at every hop, a retry of it only where it began. A
    /// chain of hops that each retry N times then makes attempts in proportion to its length, instead of (N + 1)
    /// to the power of it. Only authenticated peers are believed that they retry.
    pub fn retry_at_every_hop(mut self, retry: bool) -> Self {
        self.retry_at_every_hop = retry;
        self
    }

    /// What becomes of a call through a [`MeshLayer`] to an unknown host. Default:
    /// [`OutboundTrafficPolicy::AllowAny`].
    pub fn outbound_traffic_policy(mut self, policy: OutboundTrafficPolicy) -> Self {
        self.outbound = policy;
        self
    }

    /// Seed of every random choice; default: random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Keeps the last configuration that was accepted in this directory, and starts with it, if it is not older than a
    /// day, while no control plane answers. The file holds no secret. Processes may share the directory, and those of one
    /// node the file: see [`CacheSettings::directory`], also for whose it has to be. Default: nothing is kept.
    pub fn cache_dir(self, directory: impl Into<PathBuf>) -> Self {
        self.cache(CacheSettings::new(directory))
    }

    /// As [`Self::cache_dir`], with limits of one's own.
    pub fn cache(mut self, settings: CacheSettings) -> Self {
        self.cache = Some(settings);
        self
    }

    /// Rings of consistent hashing have at most so many places, whatever the control plane asks for; default:
    /// 4096, as in gRPC. A larger ring is more even, and costs 12 bytes a place and some time whenever its
    /// endpoints change.
    pub fn ring_size_cap(mut self, places: u32) -> Self {
        self.ring_size_cap = Some(places);
        self
    }

    /// What becomes of calls to a cluster that is left without endpoints; default: they fail at once. While the last
    /// endpoints are kept, [`ClusterStatus::note`] says so.
    pub fn empty_endpoints(mut self, policy: EmptyEndpoints) -> Self {
        self.empty_endpoints = policy;
        self
    }

    /// Endpoints say by themselves whether they serve (gRPC's client-side health checking, gRFC A17): on a connection
    /// to each runs a stream of `grpc.health.v1.Health/Watch` for this service; the empty name stands for the whole
    /// server. An endpoint gets calls while it says SERVING; one without that service always. Clusters that balance by
    /// `pick_first` do not look at it, as in gRPC. Default: off. Unlike a cluster's `health_checks` it needs no
    /// configuration from the control plane and no connection of its own.
    pub fn client_health_checking(mut self, service_name: impl Into<Arc<str>>) -> Self {
        self.health_service = Some(service_name.into());
        self
    }

    /// The cluster that this process is an endpoint of (Envoy's `local_cluster_name`), as the control plane calls it.
    /// Clusters with zone-aware routing compare its endpoints with their own, locality by locality, to keep calls in
    /// this process's locality, which is the one of the bootstrap's node. Without it such clusters balance over all
    /// localities alike, and explanations say why.
    pub fn local_cluster(mut self, name: impl Into<Arc<str>>) -> Self {
        self.local_cluster = Some(name.into());
        self
    }

    /// Connections to endpoints are opened by this: a [`Connect`], or a function from an address to a future of a
    /// stream of bytes. TLS and the verification of the peer stay the mesh's, over whatever it opens. The
    /// connections to control planes are not its business. Default: [`Tcp`].
    pub fn connector(mut self, connector: impl Connect) -> Self {
        self.connect = Some(Arc::new(connector));
        self
    }

    /// A control plane that has been silent for `interval` is pinged, and one that does not answer within `limit` is
    /// given up. Default: 5 minutes and 20 s, as in gRPC; servers of gRPC that are not configured to allow more pings
    /// end the stream (`too_many_pings`). A `mesh-server` allows any, so that its loss without a word is noticed sooner.
    pub fn control_plane_keepalive(mut self, interval: Duration, limit: Duration) -> Self {
        self.keepalive = Keepalive { interval, limit };
        self
    }

    /// A larger response of a control plane is not read, which is an error of what is awaited; default: 256 MiB.
    pub fn max_response_bytes(mut self, limit: usize) -> Self {
        self.max_response_bytes = Some(limit);
        self
    }

    /// Joins. Must be called inside a tokio runtime; does no IO but reading files that the bootstrap names, and the cache if there is one.
    ///
    /// Meshes that join by the same (the bootstrap with all that the node says of itself, [`Self::identity`],
    /// [`Self::cache`], [`Self::control_plane_keepalive`], [`Self::max_response_bytes`]) inside one runtime share what
    /// they have with control planes: one ADS stream to each, in which every name is subscribed once, one of load
    /// reports, the certificates; and what gRPC counts over a process: circuit breakers and active faults. It ends with
    /// the last mesh, channel or server of them. Everything else, connections to endpoints above all, is each mesh's own.
    pub fn build(mut self) -> Result<Mesh, MeshError> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Err(MeshError::NoRuntime) };
        let (throttling, hedging) = (self.throttles()?, self.hedges()?);
        let mut bootstrap = match self.bootstrap.take() {
            Some(bootstrap) => bootstrap,
            None => Bootstrap::from_env()?,
        };
        self.complete(&mut bootstrap.node);
        for instance in self.identities.keys() {
            // Resources may name it, so the bootstrap has to.
            bootstrap.certificate_providers.insert(instance.clone(), CertificateProvider::Given);
        }
        let address = own_address(&bootstrap.node);
        let membership = Membership::of(Terms {
            runtime: runtime.id(),
            bootstrap: Arc::new(bootstrap),
            identities: self.identities,
            keepalive: self.keepalive,
            cache: self.cache,
            max_response_bytes: self
                .max_response_bytes
                .unwrap_or_else(|| ClientSettings::default().max_response_bytes),
        })?;
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let unknown = |name: &Name| Err(format!("the local cluster `{name}` is not known yet").into());
        let local = self.local_cluster.map(|name| (watch::Sender::new(unknown(&name)), name));
        let callers = local.as_ref().map(|(callers, _)| callers.subscribe());
        let deps = ClusterDeps {
            tls: membership.providers.clone(),
            connect: self.connect.unwrap_or_else(|| Arc::new(Tcp)),
            resolve: Arc::new(names::System),
            breakers: membership.breakers.clone(),
            loads: membership.loads.clone(),
            seed,
            ring_size_cap: self.ring_size_cap.unwrap_or(RING_SIZE_CAP).max(1),
            empty_endpoints: self.empty_endpoints,
            health_service: self.health_service,
            callers,
        };
        let own = membership.bootstrap().node.locality.clone();
        let callers = local.map(|(callers, name)| {
            let watch = membership.xds.subscribe_cluster(&name);
            AbortOnDropHandle::new(tokio::spawn(zones::follow(own, watch, callers)))
        });
        // Every channel holds the clusters, and so the membership, though its mesh be gone.
        let member = membership.clone();
        let clusters = Registry::new(deps, Box::new(move |name| member.xds.subscribe_cluster(name)));
        let following = clusters.clone();
        let named = Named::new(Box::new(move |name| following.follow(name)));
        Ok(Mesh(Arc::new(Inner {
            named,
            clusters,
            calls: CallSettings {
                wait_for_ready: self.wait_for_ready,
                propagate_deadlines: !self.keep_deadline,
                retry_at_every_hop: self.retry_at_every_hop,
                throttling,
                hedging,
                faults: membership.faults.clone(),
                address,
            },
            membership,
            outbound: self.outbound,
            seed,
            targets: Mutex::default(),
            _callers: callers,
        })))
    }
}

#[cfg(test)]
mod tests;
