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
mod builder;
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
    builder::{ServerBuilder, ServerError},
    connection::{ConnectInfo, PeerIdentity},
    incoming::Incoming,
    io::MeshIo,
    layer::{Inbound, InboundBody, InboundFuture, InboundLayer},
};
use builder::Kept;
pub(crate) use builder::{ControlPlane, Surroundings};

use crate::registration::{
    RegistrationError,
    everywhere::{RegistrationStatus, Registrations},
};
use state::Shared;
use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{OnceCell, watch},
    task::JoinSet,
};

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
    /// Whether the control planes of the bootstrap know of it; none when it does not register.
    pub registrations: Vec<RegistrationStatus>,
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
            registrations: Vec::new(),
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
    registrations: Registrations,
    drain: Drain,
    drain_once: OnceCell<()>,
    drained: watch::Sender<bool>,
    _tasks: JoinSet<()>,
    _kept: Option<Kept>,
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
        status.registrations = self.owner.registrations.statuses();
        status
    }

    /// Waits until it serves by a configuration.
    pub async fn serving(&self) {
        // The sender lives in what `self` holds.
        let _ = self.owner.shared.status.subscribe().wait_for(|s| s.serving == ServingState::Serving).await;
    }

    /// Waits until a control plane has published this endpoint, or all of them refuse to that can be reached. Returns at
    /// once when it does not register, or when one takes no registrations.
    pub async fn registered(&self) -> Result<(), RegistrationError> {
        self.owner.registrations.registered().await
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
        if tokio::time::timeout(self.drain.notice, self.registrations.drain()).await.is_err() {
            let unaware: Vec<_> = self.registrations.unaware().iter().map(ToString::to_string).collect();
            tracing::warn!(control_planes = ?unaware, "not confirmed that this server drains; going on");
        }
        // Nobody hears of a drain from a control plane that does not know of this server.
        if self.registrations.is_registered() {
            tokio::time::sleep(self.drain.grace).await;
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
