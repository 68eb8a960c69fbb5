//! Handles of the client: they own the task, and every watch owns what it watches.

use super::{
    Resources,
    authority::{Federation, Plan},
    cache::ResourceStatus,
    core::{Command, Core},
    listing::ResourceSet,
    machine::{Machine, Parse},
    slot::{Current, Published, Reader, Slot},
    speakers::Speakers,
    store::{self, Owner, Stored, Writer},
    task::{self, ClientSettings, Connector},
};
use crate::{
    bootstrap::{Bootstrap, ChannelCredentials, ServerConfig},
    config::{ClusterConfig, ServerXdsConfig, XdsConfig, XdsError},
    name::Name,
    proto,
    resource::{AnyResource, Cluster, Listener, ParseContext},
    server::Variant,
};
use serde::Serialize;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// The ADS client of a process: one stream for each control plane that is needed, whoever needs it. Cheap to
/// clone; the connections end with the last handle or watch.
#[derive(Clone)]
pub struct XdsClient {
    shared: Arc<Shared>,
}

struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    next_id: AtomicU64,
    clients: Watches<(Name, Arc<str>), XdsConfig>,
    servers: Watches<Name, ServerXdsConfig>,
    clusters: Watches<Name, ClusterConfig>,
    all_listeners: Watches<(), ResourceSet<Listener>>,
    all_clusters: Watches<(), ResourceSet<Cluster>>,
    status: Box<dyn Fn() -> ClientStatus + Send + Sync>,
    node: proto::Node,
    speakers: watch::Receiver<Arc<Speakers>>,
}

/// How far what a control plane says may go.
struct Words {
    /// It may rewrite `:authority` (gRFC A81).
    trusted: bool,
    /// Nobody on the way can read it.
    private: bool,
}

type Watches<K, T> = Mutex<HashMap<K, Weak<Watch<T>>>>;

/// One watched target, shared by all who watch it.
struct Watch<T> {
    shared: Arc<Shared>,
    id: u64,
    published: Published<T>,
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.shared.tell(Command::Unwatch { id: self.id });
    }
}

impl Shared {
    fn tell(&self, command: Command) {
        // The task only ends before its handles when its runtime does; then there is nobody to tell.
        drop(self.commands.send(command));
    }

    /// The watch under `key`, begun if it is not there.
    fn watch<K: std::hash::Hash + Eq, T>(
        self: &Arc<Self>,
        watches: &Watches<K, T>,
        key: K,
        begin: impl FnOnce(u64, Slot<T>) -> Command,
    ) -> Arc<Watch<T>> {
        let mut watches = lock(watches);
        if let Some(watch) = watches.get(&key).and_then(Weak::upgrade) {
            return watch;
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (slot, published) = Slot::new();
        self.tell(begin(id, slot));
        let watch = Arc::new(Watch { shared: self.clone(), id, published });
        watches.insert(key, Arc::downgrade(&watch));
        watch
    }
}

/// Nothing here is left half done by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl XdsClient {
    /// Starts a client of the bootstrap's control planes. It connects when something is watched. Must be called
    /// inside a tokio runtime.
    pub fn spawn(bootstrap: Arc<Bootstrap>, connector: Arc<dyn Connector>) -> Self {
        Self::spawn_with(&bootstrap, connector, ClientSettings::default())
    }

    /// [`Self::spawn`] with other settings than the default ones. With a cache it reads the file of the cache.
    pub fn spawn_with(
        bootstrap: &Bootstrap,
        connector: Arc<dyn Connector>,
        settings: ClientSettings,
    ) -> Self {
        let context = ParseContext {
            certificate_providers: bootstrap.certificate_providers.keys().cloned().collect(),
            trusted: false,
            private: false,
            support: settings.support,
            secrets: settings.secrets,
            max_size: settings.max_resource_bytes,
        };
        Self::start(bootstrap, connector, settings, |Words { trusted, private }| Resources {
            context: ParseContext { trusted, private, ..context.clone() },
        })
    }

    /// `parser` makes the parser of what a control plane says.
    fn start<P: Parse<Resource = AnyResource>>(
        bootstrap: &Bootstrap,
        connector: Arc<dyn Connector>,
        settings: ClientSettings,
        parser: impl Fn(Words) -> P,
    ) -> Self {
        let mut bootstrap = bootstrap.clone();
        if bootstrap.servers.is_empty() {
            // A bootstrap that was parsed has a server; without one nothing is reachable, and errors say why.
            let address = "(no xds_servers in the bootstrap)".to_owned();
            bootstrap.servers.push(ServerConfig::at(address, ChannelCredentials::Insecure));
        }
        let plan = Plan::new(&bootstrap);
        let servers = plan.servers.clone();
        let (stored, writer) = match settings.cache.clone() {
            None => (Stored::none(), None),
            Some(cache) => {
                let servers = servers.iter().map(ToString::to_string).collect();
                let owner = Owner { node: bootstrap.node.id.clone(), servers };
                // As when it was received: a file can say no more than those whose words it keeps.
                let trusted: Vec<_> =
                    plan.servers.iter().filter(|one| one.features.trusted_xds_server).collect();
                let is_trusted = |server: &str| trusted.iter().any(|one| one.address == server);
                let from = |trusted| parser(Words { trusted, private: false });
                let (with, without) = (from(true), from(false));
                let now = crate::server::epoch_seconds(Duration::ZERO);
                let stored = store::load(&cache, &owner, now, |kind, body, server| {
                    if is_trusted(server) { with.parse(kind, body) } else { without.parse(kind, body) }
                });
                let records = stored.records();
                (stored, Some(Writer::new(cache, owner, records)))
            }
        };
        let machine = |server: &ServerConfig| {
            let words = Words { trusted: server.features.trusted_xds_server, private: server.is_private() };
            Machine::new(parser(words), settings.machine(&bootstrap, server))
        };
        let node = settings.node(&bootstrap);
        let federation = Federation::new(plan, stored, machine);
        let (speaks, speakers) = watch::channel(Arc::new(federation.speakers()));
        let core = Arc::new(Mutex::new(Core::new(federation)));
        let (commands, inbox) = mpsc::unbounded_channel();
        let watched = core.clone();
        let id = Arc::<str>::from(node.id.as_str());
        let status = Box::new(move || status(&lock(&watched), id.clone()));
        let news = writer.map(|writer| {
            let (news, heard) = mpsc::channel(1);
            let core = Arc::downgrade(&core);
            let accepted = move || Some(lock(&*core.upgrade()?).federation.accepted());
            let now = || crate::server::epoch_seconds(Duration::ZERO);
            let parser = parser(Words { trusted: false, private: false });
            tokio::spawn(store::keep(writer, heard, accepted, parser, now));
            news
        });
        tokio::spawn(task::run(core, inbox, connector, servers, settings, speaks, news));
        let shared = Shared {
            commands,
            next_id: AtomicU64::new(1),
            clients: Mutex::default(),
            servers: Mutex::default(),
            clusters: Mutex::default(),
            all_listeners: Mutex::default(),
            all_clusters: Mutex::default(),
            status,
            node,
            speakers,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The node that it says it is, as it is sent.
    pub fn node(&self) -> &proto::Node {
        &self.shared.node
    }

    /// Which control plane speaks for which names, over time. It stays as it is when the client ends.
    pub fn speakers(&self) -> watch::Receiver<Arc<Speakers>> {
        self.shared.speakers.clone()
    }

    /// The configuration of a client's target: its listener, and the authority that selects the virtual
    /// host. Who asks for the same shares the watch.
    pub fn config(&self, listener_name: &str, authority: &str) -> ConfigWatch {
        let (listener, authority): (Name, Arc<str>) = (listener_name.into(), authority.into());
        let watch =
            self.shared.watch(&self.shared.clients, (listener.clone(), authority.clone()), |id, slot| {
                Command::WatchClient { id, listener, authority, slot }
            });
        Watching::new(watch)
    }

    /// The configuration of a server, by the name of its listener.
    pub fn server_config(&self, listener_name: &str) -> ServerConfigWatch {
        let listener: Name = listener_name.into();
        let watch = self.shared.watch(&self.shared.servers, listener.clone(), |id, slot| {
            Command::WatchServer { id, listener, slot }
        });
        Watching::new(watch)
    }

    /// One cluster with its endpoints, whether or not a route of a target names it (gRFC A74): for those that are
    /// chosen at run time, and for those that only calls hold any more. Who asks for the same shares the watch.
    pub fn subscribe_cluster(&self, name: &str) -> ClusterWatch {
        let cluster: Name = name.into();
        let watch = self.shared.watch(&self.shared.clusters, cluster.clone(), |id, slot| {
            Command::WatchCluster { id, cluster, slot }
        });
        Watching::new(watch)
    }

    /// Every listener that the control plane has for this node, and what became of each: a subscription to `*` (Envoy's
    /// xDS protocol). For tools and for programs that route by themselves; no gRPC data path asks for that.
    ///
    /// It begins with the first answer, which may be that there is none, and may come in parts, as may that of another
    /// control plane when it takes over. A bad listener is in it with its error, and with its last good version; an
    /// error of the whole is that of a single watch: the control plane cannot be reached, and nothing was listed, or it
    /// does not answer for 15 s. Names with an authority (`xdstp:`, gRFC A47) are not in it, and collections of these
    /// cannot be asked for. It is not kept on disk ([`CacheSettings`](super::CacheSettings)). Each change costs a look
    /// at all of it. Who asks for the same shares the watch.
    pub fn all_listeners(&self) -> Watching<ResourceSet<Listener>> {
        let begin = |id, slot| Command::WatchListeners { id, slot };
        Watching::new(self.shared.watch(&self.shared.all_listeners, (), begin))
    }

    /// Every cluster that the control plane has for this node: as [`Self::all_listeners`].
    pub fn all_clusters(&self) -> Watching<ResourceSet<Cluster>> {
        let begin = |id, slot| Command::WatchClusters { id, slot };
        Watching::new(self.shared.watch(&self.shared.all_clusters, (), begin))
    }

    /// Whether its task still runs: it ends with the runtime that it was started in.
    pub fn is_running(&self) -> bool {
        !self.shared.commands.is_closed()
    }

    /// A handle that does not keep the client alive.
    pub fn downgrade(&self) -> WeakClient {
        WeakClient(Arc::downgrade(&self.shared))
    }

    /// State of the connection and of every watched resource.
    pub fn status(&self) -> ClientStatus {
        (self.shared.status)()
    }
}

/// A handle that does not keep the client alive.
#[derive(Clone)]
pub struct WeakClient(Weak<Shared>);

impl WeakClient {
    /// The client, if it lives.
    pub fn upgrade(&self) -> Option<XdsClient> {
        Some(XdsClient { shared: self.0.upgrade()? })
    }
}

impl fmt::Debug for WeakClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakClient").finish_non_exhaustive()
    }
}

/// The configuration of a client's target over time.
pub type ConfigWatch = Watching<XdsConfig>;

/// The configuration of a server over time.
pub type ServerConfigWatch = Watching<ServerXdsConfig>;

/// One cluster over time.
pub type ClusterWatch = Watching<ClusterConfig>;

/// Something that is watched, over time. Its resources stay subscribed as long as a clone lives.
///
/// The control plane is not listened to further before every clone has looked at what it said last, by any method but
/// [`Self::changed`] and [`Self::has_changed`]: what a program cannot keep up with waits where it comes from. One that
/// has not looked for 5 s is waited for no longer, until it looks again; it finds the latest.
pub struct Watching<T> {
    reader: Reader<T>,
    // Ends the watch when dropped.
    watch: Arc<Watch<T>>,
}

impl<T> Watching<T> {
    fn new(watch: Arc<Watch<T>>) -> Self {
        Self { reader: watch.published.reader(), watch }
    }

    /// The latest; `None` while nothing is known. Do not hold it across an `.await`.
    pub fn borrow(&self) -> Current<'_, T> {
        self.reader.borrow()
    }

    /// The latest, marked as seen for [`Self::changed`].
    pub fn borrow_and_update(&mut self) -> Current<'_, T> {
        self.reader.borrow_and_update()
    }

    /// Waits for one that this watch has not seen. Ends with an error only when the runtime of the client
    /// ends. Cancel safe.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.reader.changed().await
    }

    /// Whether there is one that this watch has not seen.
    pub fn has_changed(&self) -> bool {
        self.reader.has_changed()
    }

    /// Waits until something is known. `None` only when the runtime of the client ends. Cancel safe.
    pub async fn known(&mut self) -> Option<Result<Arc<T>, XdsError>> {
        self.reader.known().await
    }
}

impl<T> Clone for Watching<T> {
    fn clone(&self) -> Self {
        Self { reader: self.reader.clone(), watch: self.watch.clone() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Watching<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watching").field(&*self.borrow()).finish()
    }
}

impl fmt::Debug for XdsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdsClient").finish_non_exhaustive()
    }
}

/// State of a client, for status pages and CSDS.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientStatus {
    /// Address of the control plane that speaks for names without an authority: the first of the bootstrap, or
    /// the replacement that is in use.
    pub server: Arc<str>,
    /// Node id sent to it.
    pub node: Arc<str>,
    /// Which way of ADS.
    pub variant: Variant,
    /// A stream to it is open.
    pub connected: bool,
    /// Since when `connected` is what it is, in seconds since the epoch; absent before the first connection.
    pub since: Option<f64>,
    /// Why it cannot be reached, if so.
    pub unreachable: Option<Arc<str>>,
    /// Version of its last response that was accepted; empty before the first.
    pub version: Arc<str>,
    /// No control plane has answered since the process began, and the last known good configuration from disk is
    /// in use: which one.
    pub cache: Option<Arc<str>>,
    /// Every control plane of the bootstrap.
    pub servers: Vec<ServerStatus>,
    /// Every watched resource, and of a type of which everything is watched also each that there is; `*` is the name of
    /// that.
    pub resources: Vec<ResourceStatus>,
}

/// State of one control plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerStatus {
    /// Its address.
    pub address: Arc<str>,
    /// Which way of ADS.
    pub variant: Variant,
    /// Something is asked of it; one that is not needed is not connected.
    pub used: bool,
    /// A stream is open.
    pub connected: bool,
    /// Since when `connected` is what it is, in seconds since the epoch; absent before the first connection.
    pub since: Option<f64>,
    /// Why it cannot be reached, if so.
    pub unreachable: Option<Arc<str>>,
    /// Version of its last response that was accepted; empty before the first.
    pub version: Arc<str>,
}

fn status<P: Parse<Resource = AnyResource>>(core: &Core<P>, node: Arc<str>) -> ClientStatus {
    let of = |(server, machine): (&ServerConfig, &Machine<P>)| {
        let (connected, since) = machine.link();
        ServerStatus {
            address: server.address.as_str().into(),
            variant: server.variant(),
            used: machine.watches_something(),
            connected,
            since: since.map(task::epoch),
            unreachable: machine.unreachable(),
            version: machine.version(),
        }
    };
    let federation = &core.federation;
    let speaks = federation.default_machine().map(of);
    ClientStatus {
        server: speaks.as_ref().map(|server| server.address.clone()).unwrap_or_default(),
        node,
        variant: speaks.as_ref().map_or(Variant::Sotw, |server| server.variant),
        connected: speaks.as_ref().is_some_and(|server| server.connected),
        since: speaks.as_ref().and_then(|server| server.since),
        unreachable: speaks.as_ref().and_then(|server| server.unreachable.clone()),
        version: speaks.map(|server| server.version).unwrap_or_default(),
        cache: federation.is_stored().then(|| federation.stored.describe().into()),
        servers: federation.machines().map(of).collect(),
        resources: federation.status(task::epoch),
    }
}
