//! A server in the making: what it needs of its mesh, what a program may choose, and how it starts.

use super::{Drain, MeshServer, Owner, ServerStatus, served, state::Shared};
use crate::{
    registration::{Advertise, Connect, Registration, Retry, WorkloadInfo},
    tls::Providers,
};
use futures_util::{stream, stream::BoxStream};
use mesh_xds::{
    bootstrap::Bootstrap,
    client::{ServerConfigWatch, XdsClient},
    config::{ServerXdsConfig, XdsError},
};
use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    future::{Future, IntoFuture},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{OnceCell, watch},
    task::JoinSet,
};

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {cause}; stop whoever does, or choose another address (port 0 takes a \
         free one)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The bootstrap does not say how a server's listener is called.
    #[error(
        "the bootstrap has no `server_listener_resource_name_template`: a mesh server cannot ask for its \
         configuration (for example \"xds.istio.io/grpc/lds/inbound/%s\")"
    )]
    NoTemplate,
}

/// What a mesh gives its servers.
pub(crate) struct Surroundings {
    /// Name and configuration of the listener for an address; none when the bootstrap has no template.
    pub(crate) listener: FindListener,
    /// The certificate providers.
    pub(crate) providers: Arc<Providers>,
    /// Where to register.
    pub(crate) control_planes: Vec<ControlPlane>,
    /// What to say of this process.
    pub(crate) info: WorkloadInfo,
    /// What the server keeps alive of its mesh.
    pub(crate) kept: Option<Kept>,
}

/// Something that lives as long as the server.
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

/// Finds the listener for an address.
pub(crate) type FindListener = Box<dyn FnOnce(SocketAddr) -> Option<(Arc<str>, Configs)> + Send>;

/// The configurations of a listener, one after the other. Ends with the client that delivers them.
pub(crate) type Configs = BoxStream<'static, ConfigUpdate>;

/// A listener and its routes, or why there are none.
pub(super) type ConfigUpdate = Result<Arc<ServerXdsConfig>, XdsError>;

impl Surroundings {
    pub(crate) fn new(
        bootstrap: Arc<Bootstrap>,
        xds: XdsClient,
        providers: Arc<Providers>,
        control_planes: Vec<ControlPlane>,
        info: WorkloadInfo,
    ) -> Self {
        let listener = Box::new(move |address| {
            let name = bootstrap.server_listener(&address)?;
            let configs = follow(xds.server_config(&name));
            Some((name.into(), configs))
        });
        Self { listener, providers, control_planes, info, kept: None }
    }

    /// The server keeps this alive.
    pub(crate) fn within(self, kept: Kept) -> Self {
        Self { kept: Some(kept), ..self }
    }
}

/// A watch as a stream: the latest, as soon as one is known, and each that follows.
fn follow(watch: ServerConfigWatch) -> Configs {
    Box::pin(stream::unfold((watch, true), |(mut watch, first)| async move {
        let update = if first {
            watch.known().await?
        } else {
            watch.changed().await.ok()?;
            watch.borrow_and_update().clone()?
        };
        Some((update, (watch, false)))
    }))
}

/// A control plane to register with.
pub(crate) struct ControlPlane {
    /// Connects to it.
    pub(crate) connect: Connect,
    /// `host:port`.
    pub(crate) address: String,
}

/// A server in the making; `.await` starts it.
#[must_use = "a builder does nothing until it is awaited"]
pub struct ServerBuilder {
    surroundings: Surroundings,
    address: SocketAddr,
    advertise: Option<IpAddr>,
    port_names: Vec<String>,
    register: bool,
    drain: Drain,
}

impl ServerBuilder {
    pub(crate) fn new(surroundings: Surroundings, address: SocketAddr) -> Self {
        Self {
            surroundings,
            address,
            advertise: None,
            port_names: Vec::new(),
            register: true,
            drain: Drain::default(),
        }
    }

    /// The address that clients are told to connect to. When nothing is said it is the listen address; for
    /// a server that listens on every address, the one by which the control plane is reached.
    pub fn advertise(mut self, address: IpAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// Registers the port under this name of a service's port; may be repeated. When nothing is said it
    /// stands for every port.
    pub fn port_name(mut self, name: impl Into<String>) -> Self {
        self.port_names.push(name.into());
        self
    }

    /// Registers with this label besides those of the mesh.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.surroundings.info.labels.insert(name.into(), value.into());
        self
    }

    /// Registers with this relative share of traffic.
    pub fn weight(mut self, weight: u32) -> Self {
        self.surroundings.info.weight = weight;
        self
    }

    /// Registers under this WorkloadGroup.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.surroundings.info.group = group.into();
        self
    }

    /// Does not register: the control plane learns of the endpoint in another way.
    pub fn without_registration(mut self) -> Self {
        self.register = false;
        self
    }

    /// How long a draining server goes on serving once the control plane has published that it drains, so
    /// that clients hear of it; 1 s when nothing is said.
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.drain.grace = grace;
        self
    }

    /// How long the calls of a draining server may take to finish after that; 30 s when nothing is said.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain.timeout = timeout;
        self
    }

    /// How long a connection may stay whose TLS no longer is what is configured; 10 min when nothing is
    /// said.
    pub fn connection_patience(mut self, patience: Duration) -> Self {
        self.drain.patience = patience;
        self
    }

    async fn start(self) -> Result<MeshServer, ServerError> {
        let Self { surroundings, address, advertise, port_names, register, drain } = self;
        let bind_error = |cause| ServerError::Bind { address, cause };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let local = listener.local_addr().map_err(bind_error)?;
        let (name, configs) = (surroundings.listener)(local).ok_or(ServerError::NoTemplate)?;
        tracing::info!(%local, listener = %name, "listening; waiting for the configuration");

        let shared = Shared::new(ServerStatus::new(local, name.clone()), drain.patience);
        let mut tasks = JoinSet::new();
        tasks.spawn(served::configure(shared.clone(), configs, surroundings.providers, local));

        let ports: BTreeMap<String, u16> = match port_names.is_empty() {
            true => BTreeMap::from([(String::new(), local.port())]),
            false => port_names.into_iter().map(|name| (name, local.port())).collect(),
        };
        let control_planes = surroundings.control_planes.into_iter().filter(|_| register);
        let registrations = control_planes
            .map(|ControlPlane { address, connect }| {
                let advertise = match advertise {
                    Some(address) => Advertise::Address(address),
                    None if local.ip().is_unspecified() => Advertise::Towards(address.clone()),
                    None => Advertise::Address(local.ip()),
                };
                let (info, ports) = (surroundings.info.clone(), ports.clone());
                Registration::start(address.into(), connect, info, advertise, ports, Retry::default())
            })
            .collect();
        let (drained, drain_once) = (watch::Sender::new(false), OnceCell::new());
        let listener = Mutex::new(Some(listener));
        let _kept = surroundings.kept;
        let owner = Owner {
            shared,
            local,
            listener,
            registrations,
            drain,
            drain_once,
            drained,
            _tasks: tasks,
            _kept,
        };
        Ok(MeshServer { owner: Arc::new(owner) })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerBuilder({})", self.address)
    }
}

impl IntoFuture for ServerBuilder {
    type Output = Result<MeshServer, ServerError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
