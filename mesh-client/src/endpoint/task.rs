//! The task of one endpoint: the only code that awaits IO for its [`Machine`].
//!
//! Promises: connections are offered to calls before the actor hears of them, and withdrawn before it hears of
//! their end; a connection is replaced (age, number of requests, expiring identity) by one that is up already;
//! a withdrawn connection finishes its streams; changed TLS settings, or another way to the endpoint, withdraw all
//! connections at once, because keeping them would keep what the new configuration forbids. Other options hold for the next connection,
//! except limits and lifetimes, which hold at once.

use super::{
    Endpoint, TlsConfigs, What,
    conn::Conn,
    connect::{Dialled, Dialler, LiveSecrets},
    driver::{self, Driver},
    machine::{Connectivity, Input, Machine},
    oob::OutOfBand,
    watch::HealthWatch,
    way::Way,
};
use crate::{
    cluster::{
        breaker::{Counters, Permit},
        outcome::Outcome,
    },
    connector::Connect,
};
use mesh_xds::resource::{self, cluster::LbPolicy, tls::UpstreamTls};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// No connection is replaced for its age before this.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// No connection is kept for more requests: HTTP/2 numbers 2^30 of them, and the rest is for those that come while another
/// connection is made.
pub(super) const MOST_REQUESTS: u32 = (1 << 30) - (1 << 20);

/// What an endpoint is told; a change of it is all that reaches the task from above.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) cluster: Arc<resource::Cluster>,
    pub(crate) endpoint: Arc<resource::endpoint::Endpoint>,
    /// Whether connections are wanted.
    pub(crate) want: Want,
}

/// Whether an endpoint is to have connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// None.
    No,
    /// As soon as a call asks for one.
    Lazily,
    /// Always.
    Now,
    /// As soon as a call asks for it by name: sessions do, balancing does not.
    Aside,
}

impl Want {
    /// Calls that have no endpoint of their own may come.
    pub(crate) fn is_of_policy(self) -> bool {
        matches!(self, Self::Lazily | Self::Now)
    }
}

impl Spec {
    /// TLS of this endpoint: auto-mTLS leaves out endpoints that do not speak it.
    pub(crate) fn tls(&self) -> Option<&Arc<UpstreamTls>> {
        self.cluster.tls.as_ref().filter(|tls| !tls.only_mesh_endpoints || self.endpoint.mesh_tls)
    }

    /// How it is reached.
    pub(crate) fn way(&self) -> Way {
        Way::of(&self.cluster, &self.endpoint)
    }
}

/// What the tasks of endpoints need of their surroundings; one for a cluster.
pub(crate) struct Surroundings {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) tls: Arc<dyn TlsConfigs>,
    /// Of the cluster.
    pub(crate) secrets: LiveSecrets,
    pub(crate) counters: Arc<Counters>,
    /// The service that endpoints are to say the health of, by themselves.
    pub(crate) health_service: Option<Arc<str>>,
}

/// A connection that is offered to calls.
struct Live {
    id: u64,
    conn: Arc<Conn>,
    since: Instant,
    reconnect_before: Option<Instant>,
    /// Checked for idleness then; `seen_requests` is what had been begun when that was set.
    idle_check: Option<Instant>,
    seen_requests: u32,
    /// To go when a newer one is up.
    worn: bool,
}

/// The end of a connection.
struct Ended {
    id: u64,
    how: driver::Ended,
}

enum Woken {
    Spec(bool),
    Signal,
    Ended(Option<Ended>),
    Dialled(Result<Box<Dialled>, String>),
    Time,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Box<Dialled>, String>> + Send>>;

/// Runs an endpoint until the sender of its spec, or the future, is dropped.
pub(crate) struct Task {
    endpoint: Arc<Endpoint>,
    around: Arc<Surroundings>,
    rng: fastrand::Rng,
    spec: watch::Receiver<Spec>,
    current: Spec,
    machine: Machine,
    live: Vec<Live>,
    next_id: u64,
    drivers: JoinSet<Ended>,
    dialling: Option<Dialling>,
    /// Room for one connection more than the first.
    extra: Option<Permit>,
    patience: u32,
    reported: Connectivity,
    out_of_band: OutOfBand,
    health: Option<Box<HealthWatch>>,
}

impl Task {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        around: Arc<Surroundings>,
        mut spec: watch::Receiver<Spec>,
        seed: u64,
    ) -> Self {
        let current = spec.borrow_and_update().clone();
        let health = around.health_service.clone().map(|service| Box::new(HealthWatch::new(service)));
        Self {
            endpoint,
            around,
            rng: fastrand::Rng::with_seed(seed),
            spec,
            current,
            machine: Machine::new(),
            live: Vec::new(),
            next_id: 0,
            drivers: JoinSet::new(),
            dialling: None,
            extra: None,
            patience: 1,
            reported: Connectivity::Idle,
            out_of_band: OutOfBand::default(),
            health,
        }
    }

    // An `async fn` would hold the task twice, as its argument and as its variable: there is one for each endpoint.
    #[allow(clippy::manual_async_fn)]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            self.apply_limits();
            self.feed_want(Want::No, self.current.want);
            loop {
                self.report();
                match self.next().await {
                    Woken::Spec(false) => return,
                    Woken::Spec(true) => self.on_spec(),
                    Woken::Signal => self.on_signal(),
                    Woken::Ended(ended) => self.on_ended(ended),
                    Woken::Dialled(result) => self.on_dialled(result),
                    Woken::Time => self.on_time(),
                }
            }
        }
    }

    async fn next(&mut self) -> Woken {
        let wake = self.wake_at();
        let dialling = &mut self.dialling;
        let dialled = poll_fn(|cx| match dialling {
            Some(dialling) => dialling.as_mut().poll(cx),
            None => std::task::Poll::Pending,
        });
        tokio::select! {
            changed = self.spec.changed() => Woken::Spec(changed.is_ok()),
            Some(ended) = self.drivers.join_next() => Woken::Ended(ended.ok()),
            () = self.endpoint.signal.notified() => Woken::Signal,
            result = dialled => Woken::Dialled(result),
            () = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => Woken::Time,
        }
    }

    fn feed(&mut self, input: Input) {
        if self.machine.on(Instant::now(), input, &mut self.rng) {
            let dialler = Dialler {
                addresses: self.current.endpoint.addresses.clone(),
                hostname: self.current.endpoint.hostname.clone(),
                way: self.current.way(),
                tls: self.current.tls().cloned(),
                options: self.current.cluster.connection.clone(),
                patience: self.patience,
                connect: Arc::clone(&self.around.connect),
                tls_configs: Arc::clone(&self.around.tls),
                secrets: Arc::clone(&self.around.secrets),
            };
            self.dialling = Some(Box::pin(async { dialler.dial().await.map(Box::new) }));
        }
    }

    fn on_spec(&mut self) {
        let next = self.spec.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.current, next);
        self.apply_limits();
        if before.tls() != self.current.tls() || before.way() != self.current.way() {
            self.withdraw_all();
            self.feed(Input::Reset);
        }
        self.feed_want(before.want, self.current.want);
        self.follow();
        let idle_timeout = self.idle_timeout();
        for live in &mut self.live {
            live.idle_check = idle_timeout.map(|timeout| Instant::now() + timeout);
        }
    }

    fn feed_want(&mut self, before: Want, now: Want) {
        match now {
            _ if before == now => {}
            Want::Now => self.feed(Input::Wanted),
            Want::Lazily | Want::Aside => self.feed(Input::WantedLazily),
            Want::No => {
                self.withdraw_all();
                self.feed(Input::Unwanted);
            }
        }
    }

    fn apply_limits(&self) {
        let (endpoint, cluster) = (&self.endpoint, &self.current.cluster);
        let connections = cluster.circuit_breakers.max_connections_per_endpoint;
        endpoint.max_connections.store(connections.clamp(1, 10), Relaxed);
        endpoint.max_streams.store(cluster.connection.max_concurrent_streams.unwrap_or(0), Relaxed);
        let requests = match cluster.connection.max_requests_per_connection {
            0 => MOST_REQUESTS,
            requests => requests.min(MOST_REQUESTS),
        };
        endpoint.max_requests.store(requests, Relaxed);
        endpoint.balance_by(&cluster.lb);
        let authority = self.current.endpoint.hostname.as_ref().and_then(|name| name.parse().ok());
        endpoint.authority.store(authority.map(Arc::new));
    }

    fn on_signal(&mut self) {
        if self.endpoint.kicked.swap(false, Relaxed) {
            self.feed(Input::Kicked);
        }
        let limit = self.endpoint.max_requests.load(Relaxed);
        if self.live.iter().any(|live| !live.worn && live.conn.requests() >= limit) {
            for live in self.live.iter_mut().filter(|live| live.conn.requests() >= limit) {
                live.worn = true;
            }
            self.feed(Input::More);
        }
        if self.endpoint.wants_more.swap(false, Relaxed) && self.dialling.is_none() {
            self.extra =
                self.around.counters.connection(self.current.cluster.circuit_breakers.max_connections, false);
            if self.extra.is_some() {
                self.feed(Input::More);
            }
        }
    }

    fn on_ended(&mut self, ended: Option<Ended>) {
        let Some(ended) = ended else { return };
        if ended.how.too_many_pings {
            self.patience = self.patience.saturating_mul(2);
        }
        // Unknown: it was withdrawn before.
        let Some(index) = self.live.iter().position(|live| live.id == ended.id) else { return };
        let live = self.live.remove(index);
        self.offer();
        let reason = format!("{}: {}", self.endpoint.address, ended.how.reason).into();
        self.feed(Input::Lost { lived: live.since.elapsed(), reason });
    }

    fn on_dialled(&mut self, result: Result<Box<Dialled>, String>) {
        self.dialling = None;
        let dialled = match result {
            Ok(dialled) => dialled,
            Err(reason) => {
                self.extra = None;
                self.endpoint.record(Outcome::ConnectFailed);
                return self.feed(Input::DialFailed(reason.into()));
            }
        };
        // A dial that was repeated asks anew: the permit of the failed one may have gone to another endpoint.
        let limit = self.current.cluster.circuit_breakers.max_connections;
        let first = self.live.iter().all(|live| live.worn);
        let Some(permit) = self.extra.take().or_else(|| self.around.counters.connection(limit, first)) else {
            // Nobody has begun to use it.
            self.machine.on(Instant::now(), Input::Dialled, &mut self.rng);
            return self.feed(Input::IdledOut);
        };
        let endpoint = Arc::clone(&self.endpoint);
        let conn = Arc::new(Conn::new(dialled.line, endpoint, dialled.scheme, Some(permit)));
        let (id, now) = (self.next_id, Instant::now());
        self.next_id += 1;
        self.drivers.spawn(drive(id, dialled.driver));
        if self.live.is_empty() {
            self.endpoint.load_weight().on_connected();
        }
        if let Some(worn) = self.live.iter().position(|live| live.worn) {
            self.live.remove(worn);
            self.machine.on(now, Input::Replaced, &mut self.rng);
        }
        self.live.push(Live {
            id,
            conn,
            since: now,
            reconnect_before: dialled.reconnect_before,
            idle_check: self.idle_timeout().map(|timeout| now + timeout),
            seen_requests: 0,
            worn: false,
        });
        self.offer();
        self.feed(Input::Dialled);
        if self.live.iter().any(|live| live.worn) {
            self.feed(Input::More);
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let longest = self.current.cluster.connection.max_connection_duration;
        let mut wear = false;
        for live in &mut self.live {
            let due = live.replace_at(longest).is_some_and(|at| at <= now);
            wear |= due && !live.worn;
            live.worn |= due;
        }
        let idle_timeout = self.idle_timeout();
        let before = self.live.len();
        self.live.retain_mut(|live| !live.is_idle(now, idle_timeout));
        let idled = before - self.live.len();
        if idled > 0 {
            self.offer();
        }
        for _ in 0..idled {
            self.feed(Input::IdledOut);
        }
        self.feed(if wear && !self.live.is_empty() { Input::More } else { Input::Woke });
    }

    fn wake_at(&self) -> Option<Instant> {
        let longest = self.current.cluster.connection.max_connection_duration;
        let times = |live: &Live| [live.idle_check, live.replace_at(longest).filter(|_| !live.worn)];
        self.live.iter().flat_map(times).chain([self.machine.wake_at()]).flatten().min()
    }

    fn idle_timeout(&self) -> Option<Duration> {
        let timeout = self.current.cluster.connection.idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT);
        (!timeout.is_zero()).then_some(timeout)
    }

    fn withdraw_all(&mut self) {
        self.live.clear();
        self.dialling = None;
        self.extra = None;
        self.offer();
    }

    /// Publishes the connections to calls.
    fn offer(&mut self) {
        self.endpoint.offer(self.live.iter().map(|live| Arc::clone(&live.conn)).collect());
        self.follow();
    }

    /// What the endpoint says by itself comes over a connection that calls use.
    fn follow(&mut self) {
        let lb = &self.current.cluster.lb;
        let period = match lb {
            LbPolicy::ClientSideWeightedRoundRobin(policy) => policy.out_of_band,
            _ => None,
        };
        let offered = self.live.iter().map(|live| &live.conn);
        let seed = if period.is_some() { self.rng.u64(..) } else { 0 };
        self.out_of_band.follow(period, offered.clone(), seed);
        if let Some(health) = &mut self.health {
            health.follow(matches!(lb, LbPolicy::PickFirst { .. }), offered, self.rng.u64(..));
        }
    }

    fn report(&mut self) {
        let connectivity = self.machine.connectivity();
        let connectivity = match &self.health {
            Some(health) => health.judge(connectivity),
            None => connectivity,
        };
        if connectivity != self.reported {
            self.reported = connectivity.clone();
            self.endpoint.tell(What::Connectivity(connectivity));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.withdraw_all();
    }
}

impl Live {
    fn replace_at(&self, longest: Option<Duration>) -> Option<Instant> {
        let age = longest.map(|longest| self.since + longest);
        let at = [age, self.reconnect_before].into_iter().flatten().min();
        // Whatever is asked for: a time that is always over must not make a loop of dials.
        at.map(|at| at.max(self.since + SHORTEST_LIFE))
    }

    /// No call since the last look, which was an idle timeout ago. A busy connection is looked at again an idle
    /// timeout later, so that calls need not read a clock; it closes after one to two of them.
    fn is_idle(&mut self, now: Instant, timeout: Option<Duration>) -> bool {
        if self.idle_check.is_none_or(|at| at > now) {
            return false;
        }
        let requests = self.conn.requests();
        if self.conn.streams() == 0 && requests == self.seen_requests {
            return true;
        }
        self.seen_requests = requests;
        self.idle_check = timeout.map(|timeout| now + timeout);
        false
    }
}

/// Runs a connection until it ends or the peer takes no more streams.
async fn drive(id: u64, driver: Driver) -> Ended {
    Ended { id, how: driver.await }
}
