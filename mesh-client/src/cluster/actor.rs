//! The task of a cluster: takes in configuration, connectivity and ejections, and publishes a snapshot.
//!
//! Promises: it runs only when something changes, and is never in the way of a call; several changes at once
//! make one snapshot; an endpoint that stays keeps its task. Ends when its [`Cluster`](super::Cluster) is gone,
//! and the endpoints' tasks with it.

use super::{
    ClusterDeps, Shared,
    breaker::Counters,
    locality::View,
    outcome::Thresholds,
    outlier::{Ejector, Sample},
    priority::{Aggregate, Priorities},
    snapshot::{Hope, Snapshot, Summary},
};
use crate::{
    endpoint::{
        Endpoint, Event, What,
        machine::Connectivity,
        task::{Spec, Surroundings, Task},
    },
    lb::{self, Dice, Group, Picker, pick_first::PickFirst},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_xds::{
    config::ClusterConfig,
    lrs::LoadStore,
    resource::{
        self,
        cluster::{Discovery, LbPolicy, LocalityLb, TcpKeepalive},
    },
};
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// An endpoint of the configuration, and its task, which ends when this is dropped.
pub(crate) struct Slot {
    endpoint: Arc<Endpoint>,
    generation: u64,
    spec: watch::Sender<Spec>,
    reported: Connectivity,
    wanted: bool,
    /// Wanted, and nothing was reported since: it is about to connect.
    fresh: bool,
}

impl Slot {
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn state(&self) -> Connectivity {
        match &self.reported {
            _ if !self.wanted => Connectivity::Idle,
            Connectivity::Idle if self.fresh => Connectivity::Connecting,
            reported => reported.clone(),
        }
    }

    /// Connections to it are wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    fn handle(&self) -> Arc<Endpoint> {
        Arc::clone(&self.endpoint)
    }

    /// True: that is news.
    fn want(&mut self, wanted: bool) -> bool {
        let news = self.wanted != wanted;
        if news {
            self.wanted = wanted;
            self.fresh = wanted;
            self.spec.send_modify(|spec| spec.wanted = wanted);
        }
        news
    }
}

/// The state behind a cluster.
pub(crate) struct Actor {
    shared: Arc<Shared>,
    config: Arc<ClusterConfig>,
    updates: watch::Receiver<Arc<ClusterConfig>>,
    around: Surroundings,
    rng: fastrand::Rng,
    slots: HashMap<SocketAddr, Slot>,
    generations: u64,
    thresholds: Arc<Thresholds>,
    ejector: Ejector,
    priorities: Priorities,
    /// One for each priority, when that is the policy.
    pick_first: Vec<PickFirst>,
    reporter: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    /// The warning about TCP keepalive was given.
    warned: bool,
    loads: Arc<LoadStore>,
}

impl Actor {
    /// The actor, with its first snapshot published.
    pub(crate) fn new(
        config: Arc<ClusterConfig>,
        deps: &ClusterDeps,
        counters: Arc<Counters>,
        updates: watch::Receiver<Arc<ClusterConfig>>,
    ) -> (Arc<Shared>, Self) {
        let name = Arc::clone(&config.cluster.name);
        let shared = Arc::new(Shared {
            name,
            snapshot: ArcSwap::from_pointee(Snapshot {
                config: Arc::clone(&config),
                picker: Picker::default(),
                idle: Vec::new(),
                hope: Hope::Wait("starting".into()),
            }),
            changed: watch::Sender::new(()),
            dice: Dice::new(deps.seed),
            counters: Arc::clone(&counters),
            room: Arc::default(),
            load: ArcSwapOption::empty(),
        });
        let (reporter, events) = mpsc::unbounded_channel();
        let around =
            Surroundings { connect: Arc::clone(&deps.connect), tls: Arc::clone(&deps.tls), counters };
        let mut actor = Self {
            shared: Arc::clone(&shared),
            config: Arc::clone(&config),
            updates,
            around,
            rng: fastrand::Rng::with_seed(deps.seed),
            slots: HashMap::new(),
            generations: 0,
            thresholds: Arc::default(),
            ejector: Ejector::default(),
            priorities: Priorities::default(),
            pick_first: Vec::new(),
            reporter,
            events,
            warned: false,
            loads: Arc::clone(&deps.loads),
        };
        actor.configure(config);
        actor.settle();
        (shared, actor)
    }

    pub(crate) async fn run(mut self) {
        loop {
            let wake = self.wake_at();
            tokio::select! {
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let config = Arc::clone(&self.updates.borrow_and_update());
                    self.configure(config);
                }
                Some(event) = self.events.recv() => {
                    let mut changed = self.on_event(event);
                    while let Ok(event) = self.events.try_recv() {
                        changed |= self.on_event(event);
                    }
                    if !changed {
                        continue;
                    }
                }
                () = async {
                    match wake {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => self.sweep_if_due(),
            }
            self.settle();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let pick_first = self.pick_first.iter().map(PickFirst::wake_at);
        pick_first.chain([self.priorities.wake_at(), self.ejector.wake_at()]).flatten().min()
    }

    fn configure(&mut self, config: Arc<ClusterConfig>) {
        let now = Instant::now();
        self.config = config;
        self.warn_of_keepalive_times();
        let cluster = &self.config.cluster;
        self.thresholds.set(cluster.outlier_detection.as_ref());
        let endpoints = || {
            let priorities = self.config.endpoints.priorities.iter();
            priorities.flat_map(|priority| &priority.localities).flat_map(|locality| &locality.endpoints)
        };
        let present: HashSet<SocketAddr> = endpoints().map(resource::endpoint::Endpoint::address).collect();
        self.slots.retain(|address, _| present.contains(address));
        self.ejector.populate(present.iter().copied());
        if self.ejector.configure(now, cluster.outlier_detection.as_ref()) {
            for slot in self.slots.values() {
                let _ = slot.endpoint.tally().take();
            }
        }
        for endpoint in endpoints() {
            let address = endpoint.address();
            match self.slots.get_mut(&address) {
                Some(slot) => {
                    let spec = Spec {
                        cluster: Arc::clone(cluster),
                        endpoint: endpoint.clone(),
                        wanted: slot.wanted,
                    };
                    slot.spec.send_if_modified(|current| {
                        let changed = *current != spec;
                        *current = spec;
                        changed
                    });
                }
                None => {
                    self.generations += 1;
                    let live = Arc::new(Endpoint::new(
                        Arc::clone(&self.shared.name),
                        address,
                        self.generations,
                        Arc::clone(&self.thresholds),
                        Arc::clone(&self.shared.room),
                        self.reporter.clone(),
                    ));
                    let spec =
                        Spec { cluster: Arc::clone(cluster), endpoint: endpoint.clone(), wanted: false };
                    let (spec, receiver) = watch::channel(spec);
                    let task = Task::new(Arc::clone(&live), self.around.clone(), receiver, self.rng.u64(..));
                    // Ends when the slot, and with it `spec`, is dropped.
                    tokio::spawn(task.run());
                    let slot = Slot {
                        endpoint: live,
                        generation: self.generations,
                        spec,
                        reported: Connectivity::Idle,
                        wanted: false,
                        fresh: false,
                    };
                    self.slots.insert(address, slot);
                }
            }
        }
        self.report_load();
        self.priorities.resize(self.config.endpoints.priorities.len());
    }

    /// Where calls are counted, if the control plane wants to know.
    fn report_load(&mut self) {
        let cluster = &self.config.cluster;
        let load = cluster.load_reporting.as_ref().map(|metrics| {
            // As they are called in reports: the assignment's name if that differs from the cluster's.
            let service = match &cluster.discovery {
                Discovery::Eds(service) => Arc::clone(service),
                _ => "".into(),
            };
            let load = self.loads.cluster(&cluster.name, &service, Instant::now().into_std());
            load.want(metrics);
            load
        });
        if load.is_none() && self.shared.load.load().is_none() {
            return;
        }
        let priorities = self.config.endpoints.priorities.iter();
        for locality in priorities.flat_map(|priority| &priority.localities) {
            let load = load.as_ref().map(|load| load.locality(&locality.locality));
            for slot in locality.endpoints.iter().filter_map(|one| self.slots.get(&one.address())) {
                slot.endpoint.count_in(load.clone());
            }
        }
        self.shared.load.store(load);
    }

    /// Said once: what cannot be done must not be passed over in silence.
    fn warn_of_keepalive_times(&mut self) {
        let keepalive = self.config.cluster.connection.tcp_keepalive.unwrap_or_default();
        if !self.warned && keepalive != TcpKeepalive::default() {
            self.warned = true;
            let (cluster, origin) = (&self.shared.name, self.config.cluster.origin.as_deref().unwrap_or("-"));
            tracing::warn!(
                %cluster, %origin,
                "tcpKeepalive is switched on with the operating system's times: time, interval and probes cannot be set; use http2 keepalive"
            );
        }
    }

    /// True: something that calls see may have changed.
    fn on_event(&mut self, event: Event) -> bool {
        let Some(slot) = self.slots.get_mut(&event.address) else { return false };
        if slot.generation != event.generation {
            return false;
        }
        match event.what {
            What::Connectivity(connectivity) => {
                slot.reported = connectivity;
                slot.fresh = false;
                true
            }
            What::Outcome(notice) => {
                let now = Instant::now();
                if notice.awake {
                    self.ejector.wake(now);
                }
                let rng = &mut self.rng;
                let ejected = notice
                    .streak
                    .is_some_and(|streak| self.ejector.on_streak(now, event.address, streak, rng));
                if ejected {
                    let cluster = &self.shared.name;
                    tracing::info!(%cluster, endpoint = %event.address, streak = ?notice.streak, "endpoint ejected");
                }
                ejected
            }
        }
    }

    fn sweep_if_due(&mut self) {
        let now = Instant::now();
        if self.ejector.wake_at().is_none_or(|at| at > now) {
            return;
        }
        let sample = |(address, slot): (&SocketAddr, &Slot)| {
            let (successes, failures) = slot.endpoint.tally().take();
            Sample { endpoint: *address, successes, failures }
        };
        let mut samples: Vec<Sample> = self.slots.iter().map(sample).collect();
        // The order decides who is ejected when not all may be: let it not be the hash map's.
        samples.sort_by_key(|sample| sample.endpoint);
        let mut returned = Vec::new();
        self.ejector.sweep(now, &samples, &mut self.rng, &mut returned);
        for address in returned {
            if let Some(slot) = self.slots.get(&address) {
                slot.endpoint.tally().clear_streaks();
            }
        }
        if self.ejector.is_quiet() {
            self.thresholds.sleep();
        }
    }

    fn is_pick_first(&self) -> bool {
        matches!(self.config.cluster.lb, LbPolicy::PickFirst { .. })
    }

    fn view<'a>(&'a self, priority: &'a resource::endpoint::Priority) -> View<'a> {
        // Gated as in gRPC: ejection must not hit a top-level pick first.
        let ejector = (!self.is_pick_first()).then_some(&self.ejector);
        View::new(priority, &self.slots, ejector, self.config.cluster.panic_threshold)
    }

    /// Lets policy and priorities decide until nothing moves, then publishes.
    fn settle(&mut self) {
        let now = Instant::now();
        let config = Arc::clone(&self.config);
        let priorities = &config.endpoints.priorities;
        self.populate_pick_first(priorities);
        loop {
            for policy in &mut self.pick_first {
                let slots = &self.slots;
                while policy.choose(now, |address| slots.get(&address).map(Slot::state)) {}
            }
            let aggregate = |(index, priority)| self.aggregate(index, priority);
            let states: Vec<Aggregate> = priorities.iter().enumerate().map(aggregate).collect();
            let moved = self.priorities.choose(now, &states);
            if !self.apply_wanted(priorities) && !moved {
                break;
            }
        }
        self.publish(&config);
    }

    fn populate_pick_first(&mut self, priorities: &[resource::endpoint::Priority]) {
        let LbPolicy::PickFirst { shuffle } = self.config.cluster.lb else {
            self.pick_first.clear();
            return;
        };
        self.pick_first.resize_with(priorities.len(), PickFirst::default);
        let mut policies = std::mem::take(&mut self.pick_first);
        for (policy, priority) in policies.iter_mut().zip(priorities) {
            let view = self.view(priority);
            let usable = view.endpoints().filter(|endpoint| view.is_usable(endpoint));
            let endpoints: Vec<_> =
                usable.map(|endpoint| (endpoint.address(), endpoint.weight.get())).collect();
            policy.populate(&endpoints, shuffle, &mut self.rng);
        }
        self.pick_first = policies;
    }

    fn aggregate(&self, index: usize, priority: &resource::endpoint::Priority) -> Aggregate {
        let view = self.view(priority);
        let (mut connecting, mut idle) = (false, false);
        for endpoint in view.endpoints().filter(|endpoint| view.is_offered(endpoint)) {
            match view.state(endpoint) {
                Some(Connectivity::Ready) => return Aggregate::Ready,
                Some(Connectivity::Connecting) => connecting = true,
                // Only what is wanted can be idle: pick first leaves out the others.
                Some(Connectivity::Idle) => idle |= view.is_wanted(endpoint),
                Some(Connectivity::TransientFailure(_)) | None => {}
            }
        }
        if connecting || self.pick_first.get(index).is_some_and(PickFirst::has_more) {
            Aggregate::Connecting
        } else if idle {
            Aggregate::Idle
        } else {
            Aggregate::TransientFailure
        }
    }

    /// Tells endpoints whether they are wanted. True: some were told something new.
    fn apply_wanted(&mut self, priorities: &[resource::endpoint::Priority]) -> bool {
        let mut wanted = HashSet::new();
        for (index, priority) in priorities.iter().enumerate() {
            if !self.priorities.is_started(index) {
                continue;
            }
            let view = self.view(priority);
            let usable = view.endpoints().filter(|endpoint| view.is_usable(endpoint));
            let policy = self.pick_first.get(index);
            let chosen = usable.map(resource::endpoint::Endpoint::address);
            wanted.extend(chosen.filter(|address| policy.is_none_or(|policy| policy.is_wanted(*address))));
        }
        let mut changed = false;
        for (address, slot) in &mut self.slots {
            changed |= slot.want(wanted.contains(address));
        }
        changed
    }

    fn publish(&mut self, config: &Arc<ClusterConfig>) {
        let current = self.priorities.current();
        let priorities = &config.endpoints.priorities;
        let groups = current.and_then(|index| Some((index, priorities.get(index)?))).map(
            |(index, priority)| match self.pick_first.get(index).map(PickFirst::selected) {
                None => self.view(priority).groups(None),
                Some(Some(selected)) => self.view(priority).groups(Some(selected)),
                Some(None) => Vec::new(),
            },
        );
        let lacking = lb::lacking(&config.cluster);
        let groups = groups.filter(|_| lacking.is_none()).unwrap_or_default();
        let groups = match config.cluster.lb_options.localities {
            LocalityLb::Flat => vec![Group::flat(groups)],
            _ => groups,
        };
        let picker = Picker::new(&config.cluster.lb, groups, &mut self.rng);
        let mut idle = Vec::new();
        for priority in priorities.iter().take(current.map_or(0, |current| current + 1)) {
            let view = self.view(priority);
            let asleep = view.endpoints().filter(|endpoint| {
                view.is_wanted(endpoint) && view.state(endpoint) == Some(Connectivity::Idle)
            });
            idle.extend(asleep.filter_map(|endpoint| self.slots.get(&endpoint.address())).map(Slot::handle));
        }
        let hope = if let Some(lacking) = lacking {
            Hope::Fail(format!("this client does not have {lacking}, which the cluster asks for").into())
        } else if picker.is_empty() {
            self.hope(priorities)
        } else {
            Hope::Wait("connections were lost a moment ago".into())
        };
        self.shared.snapshot.store(Arc::new(Snapshot { config: Arc::clone(config), picker, idle, hope }));
        self.shared.changed.send_replace(());
    }

    fn hope(&self, priorities: &[resource::endpoint::Priority]) -> Hope {
        let mut summary = Summary { note: self.config.note.clone(), ..Summary::default() };
        let mut more = false;
        for (index, priority) in priorities.iter().enumerate() {
            let started = self.priorities.is_started(index);
            more |= started && self.pick_first.get(index).is_some_and(PickFirst::has_more);
            let view = self.view(priority);
            for endpoint in view.endpoints() {
                if !view.is_usable(endpoint) {
                    summary.unhealthy += 1;
                } else if view.is_ejected(endpoint) {
                    summary.ejected += 1;
                } else {
                    match view.state(endpoint) {
                        Some(Connectivity::Ready) => summary.ready += 1,
                        Some(Connectivity::Connecting) => summary.connecting += 1,
                        Some(Connectivity::Idle) | None => summary.idle += 1,
                        Some(Connectivity::TransientFailure(reason)) => {
                            summary.backing_off += 1;
                            summary.failure = Some(reason);
                        }
                    }
                }
            }
        }
        let reason = summary.to_string().into();
        if more || summary.connecting > 0 || summary.idle > 0 {
            Hope::Wait(reason)
        } else {
            Hope::Fail(reason)
        }
    }
}
