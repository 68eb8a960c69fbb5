//! One endpoint of a cluster: its connections, and what calls need to know of it.
//!
//! Promises: a call finds a connection without a lock; the connection is one that was seen to speak HTTP/2
//! (gRPC's rule: SETTINGS arrived), over TLS where the configuration demands it and never in plaintext instead;
//! an endpoint that stays keeps its connections and counters whatever else changes. The task that owns the
//! connections is in [`task`], its decisions in [`machine`].

pub(crate) mod conn;
pub(crate) mod connect;
pub(crate) mod driver;
mod eyeballs;
mod http_connect;
pub(crate) mod io;
pub(crate) mod load;
pub(crate) mod machine;
mod oob;
mod own;
mod proxy_protocol;
pub(crate) mod pump;
pub(crate) mod task;
mod watch;
pub(crate) mod way;

use crate::{
    cluster::outcome::{Notice, Outcome, Tally, Thresholds},
    health::Checked,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use conn::{Conn, Stream};
use http::uri::Authority;
use load::LoadWeight;
use machine::Connectivity;
use mesh_xds::{
    config::ClusterSecrets,
    lrs::{InProgress, LocalityLoad},
    name::Name,
    orca::LoadReport,
    resource::{cluster::LbPolicy, tls::UpstreamTls},
};
use rustls::pki_types::ServerName;
use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};
use tokio::{
    sync::{Notify, futures::Notified, mpsc},
    time::Instant,
};

/// TLS of connections that are made now. Implemented over mesh-ca; asked at every dial, so that a rotated
/// identity is used by the next connection.
pub(crate) trait TlsConfigs: Send + Sync {
    /// The client side for an endpoint of this hostname (from EDS), with the secrets that its cluster has now. An
    /// error fails the dial with this reason.
    fn client_tls(
        &self,
        tls: &UpstreamTls,
        secrets: &ClusterSecrets,
        hostname: Option<&str>,
    ) -> Result<ClientTls, String>;

    /// Ends when the providers that a context names have delivered, or have failed to: a process that has
    /// just started is not refused for being early.
    fn settled<'a>(&'a self, _: &'a UpstreamTls) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }
}

/// TLS for one connection. Its ALPN must offer `h2` alone.
#[derive(Clone, Debug)]
pub(crate) struct ClientTls {
    /// Live configuration: the current identity, roots and verifier.
    pub(crate) config: Arc<rustls::ClientConfig>,
    /// Server name sent.
    pub(crate) server_name: ServerName<'static>,
    /// The connection is replaced (made before broken) by then: the identity it was made with expires.
    pub(crate) reconnect_before: Option<Instant>,
}

/// What an endpoint tells the actor of its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) address: SocketAddr,
    /// Tells an endpoint from an earlier one of the same address.
    pub(crate) generation: u64,
    pub(crate) what: What,
}

/// The news.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Connectivity(Connectivity),
    Outcome(Notice),
    /// Of a health check: what is known now, and whether this one went well.
    Checked {
        state: Checked,
        success: bool,
    },
}

/// The part of an endpoint that calls share.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) cluster: Name,
    pub(crate) address: SocketAddr,
    generation: u64,
    connections: ArcSwap<Vec<Arc<Conn>>>,
    in_flight: AtomicU32,
    tally: Tally,
    thresholds: Arc<Thresholds>,
    events: mpsc::UnboundedSender<Event>,
    authority: ArcSwapOption<Authority>,
    /// Where its calls are counted for the control plane.
    load: ArcSwapOption<LocalityLoad>,
    load_weight: LoadWeight,
    /// Wakes the task, which then reads the flags.
    signal: Notify,
    kicked: AtomicBool,
    wants_more: AtomicBool,
    /// Where it stands among the endpoints, if there are several priorities.
    priority: AtomicUsize,
    max_connections: AtomicU32,
    /// Streams on a connection at most; 0: as the peer says.
    max_streams: AtomicU32,
    /// Requests on a connection before it is replaced.
    max_requests: AtomicU32,
    room: Arc<Room>,
}

/// Where calls of a cluster wait when every connection has as many streams as it may, or takes nothing.
#[derive(Debug, Default)]
pub(crate) struct Room {
    waiting: AtomicU32,
    freed: Notify,
}

/// A call that waits for room. While there is one, what is freed is told to [`Room::freed`].
#[derive(Debug)]
pub(crate) struct WaitingForRoom(Arc<Room>);

impl Room {
    pub(crate) fn enter(self: &Arc<Self>) -> WaitingForRoom {
        self.waiting.fetch_add(1, SeqCst);
        WaitingForRoom(Arc::clone(self))
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Ends when a stream ended or there is a new connection, from when it is enabled on: enable it, look for
    /// room, and wait for it if there was none. Dropped unused, it passes the news on to another call.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    fn free_one(&self) {
        if self.waiting.load(SeqCst) > 0 {
            // Kept if nobody listens at this moment.
            self.freed.notify_one();
        }
    }
}

impl Drop for WaitingForRoom {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// What an endpoint has for a call.
#[derive(Debug)]
pub(crate) enum Reserved {
    Stream(Stream),
    /// Every connection has as many streams as it may, or takes nothing.
    Full,
    /// No connection: lost since the picker was built.
    Gone,
}

impl Endpoint {
    pub(crate) fn new(
        cluster: Name,
        address: SocketAddr,
        generation: u64,
        thresholds: Arc<Thresholds>,
        room: Arc<Room>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            cluster,
            address,
            generation,
            connections: ArcSwap::default(),
            in_flight: AtomicU32::new(0),
            tally: Tally::default(),
            thresholds,
            events,
            authority: ArcSwapOption::empty(),
            load: ArcSwapOption::empty(),
            load_weight: LoadWeight::new(),
            signal: Notify::new(),
            kicked: AtomicBool::new(false),
            wants_more: AtomicBool::new(false),
            priority: AtomicUsize::new(0),
            max_connections: AtomicU32::new(1),
            max_streams: AtomicU32::new(0),
            max_requests: AtomicU32::new(task::MOST_REQUESTS),
            room,
        }
    }

    /// Tells it from an earlier one of the same address.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Attempts in flight, streams included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn priority(&self) -> usize {
        self.priority.load(Relaxed)
    }

    pub(crate) fn set_priority(&self, priority: usize) {
        self.priority.store(priority, Relaxed);
    }

    /// Pretends that so many requests have begun on each of its connections.
    #[cfg(test)]
    pub(crate) fn wear(&self, requests: u32) {
        self.connections.load().iter().for_each(|conn| conn.wear(requests));
    }

    /// Pretends that so many attempts are in flight.
    #[cfg(test)]
    pub(crate) fn occupy(&self, attempts: u32) {
        self.in_flight.store(attempts, Relaxed);
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Calls that begin from now on are counted there.
    pub(crate) fn count_in(&self, load: Option<Arc<LocalityLoad>>) {
        let same = match (&*self.load.load(), &load) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if !same {
            self.load.store(load);
        }
    }

    /// A call begins; counted if the control plane wants to know.
    pub(crate) fn begin_counting(&self) -> Option<InProgress> {
        self.load.load().as_ref().map(LocalityLoad::begin)
    }

    /// The weight that it gives itself by reporting its load.
    pub(crate) fn load_weight(&self) -> &LoadWeight {
        &self.load_weight
    }

    /// Takes in how its cluster balances.
    pub(crate) fn balance_by(&self, lb: &LbPolicy) {
        self.load_weight.follow(lb);
    }

    /// Takes in what it says of its load.
    pub(crate) fn report(&self, report: &LoadReport) {
        if !self.load_weight.update(report) {
            tracing::warn!(
                cluster = %self.cluster, endpoint = %self.address, ?report,
                "the endpoint's load reports make no weight: rps_fractional and a utilization must be above 0; it gets the mean of the others (said once)"
            );
        }
    }

    /// Its hostname as an authority, for `auto_host_rewrite` (gRFC A81).
    pub(crate) fn authority(&self) -> Option<Authority> {
        self.authority.load().as_deref().cloned()
    }

    /// A stream on the least used connection.
    pub(crate) fn reserve(&self) -> Reserved {
        let connections = self.connections.load();
        let mut held_up = false;
        let open = connections.iter().filter(|conn| !conn.is_closed()).filter(|conn| {
            let this = conn.is_held_up();
            held_up |= this;
            !this
        });
        let Some(conn) = open.min_by_key(|conn| conn.streams()) else {
            return if held_up { Reserved::Full } else { Reserved::Gone };
        };
        let cap = self.cap(conn);
        if conn.streams() >= cap
            && connections.len() < usize::try_from(self.max_connections.load(Relaxed)).unwrap_or(1)
        {
            self.wants_more.store(true, Relaxed);
            self.signal.notify_one();
        }
        let Some(requests) = conn.enter(cap) else { return Reserved::Full };
        self.in_flight.fetch_add(1, Relaxed);
        if requests == self.max_requests.load(Relaxed) {
            self.signal.notify_one();
        }
        Reserved::Stream(Stream::new(Arc::clone(conn)))
    }

    /// Streams on a connection at most, by configuration and by the peer's word. Beyond that calls wait here and
    /// not in h2's queue, from where a dying connection would not hand them back, and a call that is given up would
    /// not go before its turn. A peer that says 0 may say something else later.
    fn cap(&self, conn: &Conn) -> u32 {
        let unlimited = |limit| if limit == 0 { u32::MAX } else { limit };
        unlimited(self.max_streams.load(Relaxed)).min(conn.peer_limit())
    }

    /// Offers these connections to calls, and no others.
    pub(crate) fn offer(&self, connections: Vec<Arc<Conn>>) {
        self.connections.store(Arc::new(connections));
        self.room.freed.notify_waiters();
        self.room.free_one();
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.room.free_one();
    }

    /// A call wants a connection of this idle endpoint.
    pub(crate) fn kick(&self) {
        self.kicked.store(true, Relaxed);
        self.signal.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked.load(Relaxed)
    }

    /// Counts how an attempt ended.
    pub(crate) fn record(&self, outcome: Outcome) {
        let notice = self.tally.record(outcome, &self.thresholds);
        if notice != Notice::default() {
            self.tell(What::Outcome(notice));
        }
    }

    /// A call was begun on one of its connections of now.
    pub(crate) fn has_been_called(&self) -> bool {
        self.connections.load().iter().any(|conn| conn.requests() > 0)
    }

    pub(crate) fn tell(&self, what: What) {
        // Without an actor the cluster is gone, and nobody needs to know.
        let _ = self.events.send(Event { address: self.address, generation: self.generation, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn two_streams_that_end_at_once_wake_two_calls_that_have_only_looked() {
        let room = Arc::new(Room::default());
        let _waiting = (room.enter(), room.enter());
        let (mut one, mut other) = (pin!(room.freed()), pin!(room.freed()));
        assert!(!one.as_mut().enable() && !other.as_mut().enable());
        // Here both look, and find no room.
        room.free_one();
        room.free_one();
        assert!(poll!(one).is_ready() && poll!(other).is_ready());
    }

    #[tokio::test]
    async fn a_call_that_no_longer_waits_passes_the_news_on() {
        let room = Arc::new(Room::default());
        let _waiting = (room.enter(), room.enter());
        let mut one = Box::pin(room.freed());
        let mut other = pin!(room.freed());
        assert!(!one.as_mut().enable() && !other.as_mut().enable());
        room.free_one();
        drop(one);
        assert!(poll!(other).is_ready());
    }
}
