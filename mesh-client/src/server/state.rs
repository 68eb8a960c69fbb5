//! What a server serves at this moment, and the connections it has (gRFC A36).
//!
//! One lock orders the two things that must not cross: a change of configuration, and the admission of a
//! connection. So no connection ever misses a change. Requests do not take it.

use super::{
    ServerStatus, ServingState,
    connection::{Connection, Fit, Rules, Security},
    filter_chain::{Arrival, Chain, Chains},
};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// What is served.
#[derive(Clone, Debug)]
pub(super) enum Serving {
    /// No configuration has come yet; connections wait for it.
    Waiting,
    /// Nothing; connections are closed. Why.
    Not(Arc<str>),
    /// These chains.
    By(Arc<Chains>),
}

impl Serving {
    /// The chain for a connection, or why it has none.
    pub(super) fn chain(&self, arrival: Arrival) -> Result<&Arc<Chain>, Arc<str>> {
        match self {
            Self::Waiting => Err("no configuration has come from the control plane yet".into()),
            Self::Not(reason) => Err(reason.clone()),
            Self::By(chains) => chains.find(arrival).ok_or_else(|| "no filter chain matches it".into()),
        }
    }
}

/// State of one server.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// For connections that wait for a configuration.
    serving: watch::Sender<Serving>,
    open: watch::Sender<usize>,
    pub(super) status: watch::Sender<ServerStatus>,
    /// How long a connection that was asked to leave may stay.
    patience: Duration,
    in_flight: AtomicUsize,
    refused: AtomicU64,
    denied: AtomicU64,
}

struct Inner {
    serving: Serving,
    connections: HashMap<u64, Arc<Connection>>,
    next: u64,
}

impl Shared {
    pub(super) fn new(status: ServerStatus, patience: Duration) -> Arc<Self> {
        let inner = Inner { serving: Serving::Waiting, connections: HashMap::new(), next: 0 };
        let shared = Arc::new(Self {
            inner: Mutex::new(inner),
            serving: watch::Sender::new(Serving::Waiting),
            open: watch::Sender::new(0),
            status: watch::Sender::new(status),
            patience,
            in_flight: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        });
        #[cfg(test)]
        crate::testing::held::watch(&shared, |shared| {
            [("requests of a server", shared.in_flight.load(Ordering::Relaxed) as u64)]
        });
        shared
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every update below is complete before anything could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served, followed.
    pub(super) fn watch_serving(&self) -> watch::Receiver<Serving> {
        self.serving.subscribe()
    }

    /// How many connections there are, followed.
    pub(super) fn watch_open(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }

    /// Serves this from now on, on the connections that are there as well.
    pub(super) fn publish(&self, serving: Serving) {
        let mut inner = self.lock();
        inner.serving = serving.clone();
        for connection in inner.connections.values() {
            rebind(connection, &serving);
        }
        drop(inner);
        self.status.send_modify(|status| {
            // A server that drains keeps saying so.
            if !matches!(status.serving, ServingState::Draining) {
                status.serving = match &serving {
                    Serving::Waiting => ServingState::Waiting,
                    Serving::Not(reason) => ServingState::NotServing(reason.clone()),
                    Serving::By(_) => ServingState::Serving,
                };
            }
        });
        self.serving.send_replace(serving);
    }

    /// Takes in a connection whose handshake is done, of a peer who it proved to be until `expires`; fails when it does not fit what is configured now.
    pub(super) fn admit(
        self: &Arc<Self>,
        remote: SocketAddr,
        local: SocketAddr,
        security: Security,
        expires: Option<Instant>,
    ) -> Result<(Arc<Connection>, Registered), Arc<str>> {
        let mut inner = self.lock();
        let chain = inner.serving.chain(Arrival::new(local, remote, security.is_tls()))?.clone();
        match security.fit(chain.context()) {
            Fit::Same => {}
            Fit::Outdated => return Err("the configuration changed during its handshake".into()),
            Fit::Weaker(reason) => return Err(reason.into()),
        }
        let connection =
            Arc::new(Connection::new(Arc::downgrade(self), remote, local, security, expires, chain));
        let id = inner.next;
        inner.next += 1;
        inner.connections.insert(id, connection.clone());
        self.open.send_modify(|open| *open += 1);
        Ok((connection, Registered { server: self.clone(), id }))
    }

    /// Asks every peer to move to another server.
    pub(super) fn ask_all_to_leave(&self) {
        self.lock().connections.values().for_each(|connection| connection.leave());
    }

    /// Ends every connection.
    pub(super) fn close_all(&self) -> usize {
        let inner = self.lock();
        inner.connections.values().for_each(|connection| connection.close());
        inner.connections.len()
    }

    /// A connection was refused.
    pub(super) fn refused(&self, remote: SocketAddr, reason: &dyn fmt::Display) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%remote, reason = %reason, "connection refused");
    }

    /// A request was denied by policy.
    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is being served, until the guard is dropped.
    pub(super) fn in_flight(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// The status, with the counters of this moment.
    pub(super) fn status(&self) -> ServerStatus {
        let mut status = self.status.borrow().clone();
        status.connections = *self.open.borrow();
        status.in_flight = self.in_flight.load(Ordering::Relaxed);
        status.refused_connections = self.refused.load(Ordering::Relaxed);
        status.denied_requests = self.denied.load(Ordering::Relaxed);
        status
    }
}

/// Gives a connection the rules that fit it now.
fn rebind(connection: &Connection, serving: &Serving) {
    let arrival = Arrival::new(connection.local, connection.remote, connection.security.is_tls());
    let chain = match serving.chain(arrival) {
        Ok(chain) => chain.clone(),
        Err(reason) => {
            tracing::info!(?connection, reason = %reason, "connection asked to leave");
            connection.judge_by(Rules::Refused(reason));
            connection.leave();
            return;
        }
    };
    match connection.security.fit(chain.context()) {
        Fit::Same => connection.judge_by(Rules::Chain(chain)),
        Fit::Outdated => {
            tracing::info!(?connection, "connection asked to leave: its TLS settings have changed");
            connection.judge_by(Rules::Chain(chain));
            connection.leave();
        }
        Fit::Weaker(reason) => {
            tracing::info!(?connection, reason, "connection asked to leave");
            connection.judge_by(Rules::Refused(reason.into()));
            connection.leave();
        }
    }
}

/// A connection's place among those of its server.
pub(super) struct Registered {
    server: Arc<Shared>,
    id: u64,
}

impl Registered {
    /// How long the connection may stay once it was asked to leave.
    pub(super) fn patience(&self) -> Duration {
        self.server.patience
    }

    /// Counts the connection as refused after all.
    pub(super) fn refused(&self, remote: SocketAddr, reason: &dyn fmt::Display) {
        self.server.refused(remote, reason);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.server.lock().connections.remove(&self.id);
        self.server.open.send_modify(|open| *open -= 1);
    }
}

/// Counts a request until its response has ended.
pub(super) struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether two handles mean the same server.
pub(super) fn same(of_connection: &Weak<Shared>, server: &Shared) -> bool {
    std::ptr::eq(of_connection.as_ptr(), server)
}
