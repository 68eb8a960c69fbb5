//! The server side of a mesh process (gRFC A36): accept, identify, authorise, register, drain.
//!
//! [`MeshServer`] binds the address at once and asks the control plane for its listener. Until that has come
//! nobody is served; when the control plane does not know the address, nobody is served either, and
//! [`MeshServer::status`] says why. A change of configuration applies to open connections as well: policies
//! from the next request on, TLS by asking the connection's peer to come again.
//!
//! Connectivity to the control plane is no condition for serving: the last good configuration stays.
//!
//! A program that ends on SIGTERM without failing a call:
//!
//! ```no_run
//! use mesh_client::server::MeshServer;
//! use tokio::signal::unix::{SignalKind, signal};
//! use tonic::{service::Routes, transport::Server};
//!
//! async fn serve(server: MeshServer, services: Routes) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut terminate = signal(SignalKind::terminate())?;
//!     let going = server.clone();
//!     tokio::spawn(async move {
//!         terminate.recv().await;
//!         going.drain().await;
//!     });
//!     let signal = server.drained();
//!     Server::builder()
//!         .layer(server.layer())
//!         .add_routes(services)
//!         .serve_with_incoming_shutdown(server.incoming(), signal)
//!         .await?;
//!     Ok(())
//! }
//! ```

mod authz;
mod connection;
mod filter_chain;
mod goaway;
mod http;
mod incoming;
mod io;
mod layer;
mod request;
mod served;
mod state;

pub use self::{
    connection::{ConnectInfo, PeerIdentity},
    incoming::Incoming,
    io::MeshIo,
    layer::{Inbound, InboundBody, InboundFuture, InboundLayer},
};
use crate::{
    registration::{
        self, Advertise, Registration, RegistrationError, RegistrationState, Retry, WorkloadInfo,
    },
    tls::Providers,
};
use futures_util::{StreamExt, stream, stream::BoxStream};
use mesh_xds::{
    bootstrap::Bootstrap,
    client::{ServerConfigWatch, XdsClient},
    config::{ServerXdsConfig, XdsError},
};
use state::{Serving, Shared};
use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, IntoFuture},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{OnceCell, watch},
    task::JoinSet,
};
use tonic::transport::Channel;

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
    pub(crate) control_plane: Option<ControlPlane>,
    /// What to say of this process.
    pub(crate) info: WorkloadInfo,
}

/// Finds the listener for an address.
pub(crate) type FindListener = Box<dyn FnOnce(SocketAddr) -> Option<(Arc<str>, Configs)> + Send>;

/// The configurations of a listener, one after the other. Ends with the client that delivers them.
pub(crate) type Configs = BoxStream<'static, ConfigUpdate>;

/// A listener and its routes, or why there are none.
type ConfigUpdate = Result<Arc<ServerXdsConfig>, XdsError>;

impl Surroundings {
    // Called by the mesh, which is being built.
    #[allow(dead_code)]
    pub(crate) fn new(
        bootstrap: Arc<Bootstrap>,
        xds: XdsClient,
        providers: Arc<Providers>,
        control_plane: Option<ControlPlane>,
        info: WorkloadInfo,
    ) -> Self {
        let listener = Box::new(move |address| {
            let name = bootstrap.server_listener(&address)?;
            let configs = follow(xds.server_config(&name));
            Some((name.into(), configs))
        });
        Self { listener, providers, control_plane, info }
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
    pub(crate) channel: Channel,
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

/// How a server goes.
#[derive(Clone, Copy, Debug)]
struct Drain {
    /// Longest wait for the control plane to have told the clients.
    notice: Duration,
    /// From then on, until connections are asked to leave.
    grace: Duration,
    /// From then on, until connections are cut.
    timeout: Duration,
    /// For one connection that must go because the configuration changed.
    patience: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(5),
            grace: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            patience: Duration::from_secs(600),
        }
    }
}

impl ServerBuilder {
    // Called by the mesh, which is being built.
    #[cfg_attr(not(test), allow(dead_code))]
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
        tasks.spawn(configure(shared.clone(), configs, surroundings.providers, local));

        let registration = match surroundings.control_plane.filter(|_| register) {
            None => None,
            Some(plane) => {
                let ports: BTreeMap<String, u16> = match port_names.is_empty() {
                    true => BTreeMap::from([(String::new(), local.port())]),
                    false => port_names.into_iter().map(|name| (name, local.port())).collect(),
                };
                let advertise = match advertise {
                    Some(address) => Advertise::Address(address),
                    None if local.ip().is_unspecified() => Advertise::Towards(plane.address),
                    None => Advertise::Address(local.ip()),
                };
                Some(Registration::start(
                    plane.channel,
                    surroundings.info,
                    advertise,
                    ports,
                    Retry::default(),
                ))
            }
        };
        let (drained, drain_once) = (watch::Sender::new(false), OnceCell::new());
        let listener = Mutex::new(Some(listener));
        let owner =
            Owner { shared, local, listener, registration, drain, drain_once, drained, _tasks: tasks };
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

/// Keeps what is served up to date.
async fn configure(server: Arc<Shared>, mut configs: Configs, providers: Arc<Providers>, local: SocketAddr) {
    let mut held = None;
    let mut chains = None;
    while let Some(update) = configs.next().await {
        if held.as_ref().is_some_and(|held| same(held, &update)) {
            continue;
        }
        let serving = served::serving(&update, local, &providers, chains.as_deref());
        match &serving {
            Serving::Not(reason) => tracing::error!(%local, %reason, "NOT SERVING"),
            _ => tracing::info!(%local, "serving by a new configuration"),
        }
        if let Serving::By(built) = &serving {
            chains = Some(built.clone());
        }
        server.publish(serving);
        held = Some(update);
    }
}

/// Whether an update says nothing new; a new version of the same is nothing new.
fn same(held: &ConfigUpdate, update: &ConfigUpdate) -> bool {
    match (held, update) {
        (Ok(held), Ok(update)) => held.listener == update.listener && held.routes == update.routes,
        (Err(held), Err(update)) => held == update,
        _ => false,
    }
}

/// How a server fares.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Where it listens.
    pub local_addr: SocketAddr,
    /// Name of the listener resource that configures it.
    pub listener: Arc<str>,
    /// Whether it serves.
    pub serving: ServingState,
    /// Whether the control plane knows of it.
    pub registration: RegistrationState,
    /// Connections that are open.
    pub connections: usize,
    /// Requests being served, until the end of their responses.
    pub in_flight: usize,
    /// Connections refused since the start.
    pub refused_connections: u64,
    /// Requests denied by policy since the start.
    pub denied_requests: u64,
}

/// Whether a server serves (gRFC A36).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServingState {
    /// No configuration has come yet; connections wait.
    Waiting,
    /// As configured.
    Serving,
    /// Connections are closed. Why.
    NotServing(Arc<str>),
    /// Going away.
    Draining,
}

impl ServerStatus {
    fn new(local_addr: SocketAddr, listener: Arc<str>) -> Self {
        Self {
            local_addr,
            listener,
            serving: ServingState::Waiting,
            registration: RegistrationState::Off,
            connections: 0,
            in_flight: 0,
            refused_connections: 0,
            denied_requests: 0,
        }
    }
}

/// A server of the mesh, listening. Cheap to clone; while a clone or its [`Incoming`] is there it stays
/// registered and configured.
#[derive(Clone)]
pub struct MeshServer {
    owner: Arc<Owner>,
}

/// Everything that ends with the server.
struct Owner {
    shared: Arc<Shared>,
    local: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    registration: Option<Registration>,
    drain: Drain,
    drain_once: OnceCell<()>,
    drained: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl MeshServer {
    /// Where it listens; with the port that the system chose, if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.owner.local
    }

    /// Guards the program's services: for `tonic::transport::Server::layer`.
    pub fn layer(&self) -> InboundLayer {
        InboundLayer::new(self.owner.shared.clone())
    }

    /// The connections: for `serve_with_incoming_shutdown`, together with [`MeshServer::drained`]. There is
    /// one such stream; a second one ends at once, and says so in the log.
    pub fn incoming(&self) -> Incoming {
        let listener = self.owner.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if listener.is_none() {
            tracing::error!(local = %self.owner.local, "MeshServer::incoming was called twice: nothing is served");
        }
        Incoming::new(listener, self.owner.clone(), self.drained())
    }

    /// How it fares.
    pub fn status(&self) -> ServerStatus {
        let mut status = self.owner.shared.status();
        if let Some(registration) = &self.owner.registration {
            status.registration = registration.watch().borrow().clone();
        }
        status
    }

    /// Waits until it serves by a configuration.
    pub async fn serving(&self) {
        // The sender lives in what `self` holds.
        let _ = self.owner.shared.status.subscribe().wait_for(|s| s.serving == ServingState::Serving).await;
    }

    /// Waits until the control plane has published this endpoint, or refuses to. Returns at once when it
    /// takes no registrations.
    pub async fn registered(&self) -> Result<(), RegistrationError> {
        match &self.owner.registration {
            None => Ok(()),
            Some(registration) => registration::registered(registration.watch()).await,
        }
    }

    /// Goes without a failed call: tells the control plane, serves on until clients have heard of it, then
    /// asks every connection to leave and waits for its calls. What is not done at the drain timeout is
    /// cut. Run it to its end; what comes after it may exit the process.
    pub async fn drain(&self) {
        self.owner.drain_once.get_or_init(|| self.owner.drain()).await;
    }

    /// Ends when clients have been told to go elsewhere and no connection is accepted any more: the signal
    /// for `serve_with_incoming_shutdown`.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut drained = self.owner.drained.subscribe();
        async move {
            if drained.wait_for(|drained| *drained).await.is_err() {
                // Dropped without a drain: there is nothing to announce.
                std::future::pending().await
            }
        }
    }
}

impl Owner {
    async fn drain(&self) {
        tracing::info!(local = %self.local, "draining");
        self.shared.status.send_modify(|status| status.serving = ServingState::Draining);
        if let Some(registration) = &self.registration {
            if tokio::time::timeout(self.drain.notice, registration.drain()).await.is_err() {
                tracing::warn!("the control plane has not confirmed that this server drains; going on");
            }
            // Nobody hears of a drain from a control plane that does not know of this server.
            if matches!(*registration.watch().borrow(), RegistrationState::Registered { .. }) {
                tokio::time::sleep(self.drain.grace).await;
            }
        }
        self.drained.send_replace(true);
        self.shared.ask_all_to_leave();
        let mut open = self.shared.watch_open();
        if tokio::time::timeout(self.drain.timeout, open.wait_for(|open| *open == 0)).await.is_err() {
            let connections = self.shared.close_all();
            tracing::warn!(connections, timeout = ?self.drain.timeout, "drain timeout: connections cut");
        }
        tracing::info!(local = %self.local, "drained");
    }
}

impl fmt::Debug for MeshServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshServer({})", self.owner.local)
    }
}

#[cfg(test)]
mod tests;
