//! The task of a cluster: takes in configuration, connectivity and ejections, and publishes a snapshot.
//!
//! Promises: it runs only when something changes, and is never in the way of a call; several changes at once
//! make one snapshot; an endpoint that stays keeps its task. Ends when its [`Cluster`](super::Cluster) is gone,
//! and the endpoints' tasks with it.

pub(super) mod describe;
mod elsewhere;
mod hash;
mod health;
mod session;
mod settle;
mod spread;
mod weigh;

use super::{
    ClusterDeps, Shared,
    asks::Asks,
    breaker::Counters,
    empty::Empty,
    names::{self, Answer, Names, Resolve},
    outcome::{Tally, Thresholds},
    outlier::{Ejector, Sample, Samples},
    priority::{Aggregate, Priorities},
    slots::{Id, Slot, Slots},
    snapshot::{Hope, Snapshot},
    subset, zones,
};
use crate::{
    endpoint::{
        Endpoint, Event, What,
        machine::Connectivity,
        task::{Spec, Surroundings, Task, Want},
    },
    lb::{Dice, Picker, pick_first::PickFirst},
    retry::replay::Budget,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use describe::Question;
use hash::Tables;
use health::Health;
use mesh_xds::{
    config::ClusterConfig,
    lrs::LoadStore,
    resource::cluster::{Discovery, HostPort, LocalityLb},
};
use settle::Populated;
use spread::Balancers;
use std::{collections::HashSet, net::IpAddr, sync::Arc};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// With more endpoints than this, events are gathered for one turn of the scheduler before a snapshot is made.
const CROWD: usize = 100;

/// The state behind a cluster.
pub(crate) struct Actor {
    shared: Arc<Shared>,
    /// As the control plane has it.
    given: Arc<ClusterConfig>,
    /// With the endpoints that are used: found by name, and of those a subset.
    config: Arc<ClusterConfig>,
    updates: watch::Receiver<Arc<ClusterConfig>>,
    questions: mpsc::UnboundedReceiver<Question>,
    around: Arc<Surroundings>,
    rng: fastrand::Rng,
    slots: Slots,
    generations: u64,
    thresholds: Arc<Thresholds>,
    ejector: Ejector,
    priorities: Priorities,
    /// One for each priority, when that is the policy.
    pick_first: Vec<PickFirst>,
    /// What `pick_first` was told of, see [`Actor::populate_pick_first`].
    populated: Populated,
    /// The parts of pickers, kept while what they are made of stays.
    balancers: Balancers,
    /// The tables of consistent hashing, likewise.
    tables: Tables,
    ring_size_cap: u32,
    names: Names,
    /// Of the endpoints that all went.
    empty: Empty,
    resolve: Arc<dyn Resolve>,
    lookups: JoinSet<Answer>,
    /// Of this client's choice of a subset.
    subset_seed: u64,
    /// Of calls that go to priorities they have not tried.
    asks: watch::Receiver<super::elsewhere::Set>,
    asked: elsewhere::Asked,
    /// Of calls that have a session.
    session_asks: watch::Receiver<bool>,
    sessions: session::Sessions,
    /// When weights change though nothing happens.
    reweigh_at: Option<Instant>,
    weighing: weigh::Weighing,
    reporter: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    loads: Arc<LoadStore>,
    health: Health,
    callers: zones::Watched,
    /// See [`spread`]; for explanations.
    zone_routing: Option<Arc<str>>,
}

impl Actor {
    /// The actor, with its first snapshot published.
    pub(crate) fn new(
        config: Arc<ClusterConfig>,
        deps: &ClusterDeps,
        counters: Arc<Counters>,
        updates: watch::Receiver<Arc<ClusterConfig>>,
        questions: mpsc::UnboundedReceiver<Question>,
    ) -> (Arc<Shared>, Self) {
        let name = Arc::clone(&config.cluster.name);
        let shared = Arc::new(Shared {
            name,
            snapshot: ArcSwap::from_pointee(Snapshot {
                config: Arc::clone(&config),
                picker: Picker::default(),
                levels: None,
                hosts: None,
                idle: Vec::new(),
                hope: Hope::Wait("starting".into()),
                state: Aggregate::Connecting,
            }),
            changed: watch::Sender::new(()),
            dice: Dice::new(deps.seed),
            counters: Arc::clone(&counters),
            room: Arc::default(),
            spares: Budget::new(super::SPARES),
            asks: Asks::default(),
            session_asks: Asks::default(),
            load: ArcSwapOption::empty(),
            #[cfg(test)]
            published: std::sync::atomic::AtomicUsize::new(0),
            weighed: super::weighed::Weighed::default(),
        });
        #[cfg(test)]
        crate::testing::held::watch(&shared, Shared::guards);
        let (reporter, events) = mpsc::unbounded_channel();
        let around = Arc::new(Surroundings {
            connect: Arc::clone(&deps.connect),
            tls: Arc::clone(&deps.tls),
            secrets: Arc::default(),
            counters,
            health_service: deps.health_service.clone(),
        });
        let mut actor = Self {
            shared: Arc::clone(&shared),
            given: Arc::clone(&config),
            config: Arc::clone(&config),
            updates,
            questions,
            around,
            rng: fastrand::Rng::with_seed(deps.seed),
            slots: Slots::default(),
            generations: 0,
            thresholds: Arc::default(),
            ejector: Ejector::default(),
            priorities: Priorities::default(),
            pick_first: Vec::new(),
            populated: Populated::default(),
            balancers: Balancers::default(),
            tables: Tables::default(),
            ring_size_cap: deps.ring_size_cap,
            names: Names::default(),
            empty: Empty::new(deps.empty_endpoints),
            resolve: Arc::clone(&deps.resolve),
            lookups: JoinSet::new(),
            subset_seed: deps.seed,
            asks: shared.asks.subscribe(),
            asked: elsewhere::Asked::default(),
            session_asks: shared.session_asks.subscribe(),
            sessions: session::Sessions::default(),
            reweigh_at: None,
            weighing: weigh::Weighing::default(),
            reporter,
            events,
            loads: Arc::clone(&deps.loads),
            health: Health::default(),
            callers: deps.callers.clone(),
            zone_routing: None,
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
                    if self.slots.positions().len() > CROWD {
                        // Whoever else is about to report comes first: a thousand endpoints that connect at once
                        // are not to make a thousand snapshots of ten thousand.
                        tokio::task::yield_now().await;
                    }
                    while let Ok(event) = self.events.try_recv() {
                        changed |= self.on_event(event);
                    }
                    if !changed {
                        continue;
                    }
                }
                Some(question) = self.questions.recv() => {
                    // Whoever asked may be gone.
                    let _ = question.send(self.describe());
                    continue;
                }
                // Its sender is this actor's, too.
                Ok(()) = self.asks.changed() => {
                    let wanted = *self.asks.borrow_and_update();
                    self.on_asked(wanted);
                }
                () = callers_changed(&mut self.callers) => {
                    if !matches!(self.config.cluster.lb_options.localities, LocalityLb::ZoneAware(_)) {
                        continue;
                    }
                }
                Ok(()) = self.session_asks.changed() => self.on_session(),
                Some(answer) = self.lookups.join_next() => {
                    if !answer.is_ok_and(|(host, answer)| self.on_answer(&host, answer)) {
                        continue;
                    }
                }
                () = weigh::Weighing::due(self.weighing.at()) => {
                    self.weigh();
                    continue;
                }
                () = async {
                    match wake {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.sweep_if_due();
                    self.forget_asked_if_due();
                    self.forget_sessions_if_due();
                    self.let_go_if_due();
                    self.ask_names();
                }
            }
            self.settle();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let pick_first = self.pick_first.iter().map(PickFirst::wake_at);
        pick_first
            .chain([
                self.priorities.wake_at(),
                self.ejector.wake_at(),
                self.names.wake_at(),
                self.empty.wake_at(),
                self.reweigh_at,
                self.asked.wake_at(),
                self.sessions.wake_at(),
            ])
            .flatten()
            .min()
    }

    pub(super) fn configure(&mut self, config: Arc<ClusterConfig>) {
        self.given = config;
        let now = Instant::now();
        match &self.given.cluster.discovery {
            Discovery::StrictDns(names) => self.names.configure(now, names.dns, names.hosts()),
            Discovery::LogicalDns(name) => self.names.configure(now, name.dns, [&name.endpoint.addresses]),
            Discovery::Eds(_) | Discovery::Static(_) | Discovery::Aggregate(_) => {
                self.names = Names::default();
            }
        }
        self.ask_names();
        self.adopt();
    }

    /// Asks about the names that are due. Literal addresses are their own answers.
    fn ask_names(&mut self) {
        for host in self.names.due(Instant::now()) {
            let resolving = self.resolve.resolve(&host.host);
            self.lookups.spawn(names::ask(host, resolving));
        }
    }

    /// True: the endpoints, or why there are none, changed.
    fn on_answer(&mut self, host: &HostPort, answer: Result<Vec<IpAddr>, String>) -> bool {
        let news = self.names.on_answer(Instant::now(), host, answer, &mut self.rng);
        if news {
            self.adopt();
        }
        news
    }

    /// Makes the endpoints what the configuration, and the names in it, say now.
    fn adopt(&mut self) {
        let now = Instant::now();
        let resolved = self.resolved();
        let config = self.empty.apply(now, resolved);
        self.config = self.used(config);
        // Before the endpoints hear of a context that names them.
        if **self.around.secrets.load() != self.config.secrets {
            self.around.secrets.store(Arc::new(self.config.secrets.clone()));
        }
        let cluster = &self.config.cluster;
        self.thresholds.set(cluster.outlier_detection.as_ref());
        let switched_on = self.ejector.configure(now, cluster.outlier_detection.as_ref());
        let (generations, rng) = (&mut self.generations, &mut self.rng);
        let (shared, thresholds, reporter, around) =
            (&self.shared, &self.thresholds, &self.reporter, &self.around);
        let moved = self.slots.adopt(now, &self.config, |endpoint| {
            *generations += 1;
            let live = Arc::new(Endpoint::new(
                Arc::clone(&shared.name),
                endpoint.address(),
                *generations,
                Arc::clone(thresholds),
                Arc::clone(&shared.room),
                reporter.clone(),
            ));
            #[cfg(test)]
            crate::testing::held::watch(&live, |live| [("attempts of an endpoint", live.in_flight().into())]);
            let spec = Spec { cluster: Arc::clone(cluster), endpoint: Arc::clone(endpoint), want: Want::No };
            let (spec, receiver) = watch::channel(spec);
            let task = Task::new(Arc::clone(&live), Arc::clone(around), receiver, rng.u64(..));
            // Ends when the slot, and with it `spec`, is dropped.
            tokio::spawn(task.run());
            Slot::new(live, spec, now)
        });
        if moved {
            let slots = &self.slots;
            self.ejector.populate(slots.positions().len(), |address| slots.find(address).is_some());
        }
        self.mark_ejected();
        if switched_on {
            for slot in self.slots.iter() {
                let _ = (slot.endpoint().tally().take(), slot.endpoint().tally().take_local());
            }
        }
        self.check_health();
        self.report_load();
        self.plan_weighing();
        self.priorities.resize(self.config.endpoints.priorities.len());
    }

    /// The endpoints that were kept though there are none have had their time.
    fn let_go_if_due(&mut self) {
        if self.empty.wake_at().is_some_and(|at| at <= Instant::now()) {
            self.adopt();
        }
    }

    /// The configuration, with names replaced by what they stand for.
    fn resolved(&self) -> Arc<ClusterConfig> {
        let name = Arc::clone(&self.given.cluster.name);
        let endpoints = match &self.given.cluster.discovery {
            Discovery::StrictDns(names) => names.assignment(name, |host| self.names.addresses(host)),
            Discovery::LogicalDns(one) => {
                let addresses = self.names.addresses(&one.endpoint.addresses);
                one.assignment(name, addresses)
            }
            _ => return Arc::clone(&self.given),
        };
        let note = match (self.names.note(), &self.given.note) {
            (Some(names), Some(given)) => Some(format!("{names}; {given}").into()),
            (names, given) => names.or_else(|| given.clone()),
        };
        Arc::new(ClusterConfig { endpoints: Arc::new(endpoints), note, ..(*self.given).clone() })
    }

    /// The part of a configuration that this client uses.
    fn used(&self, config: Arc<ClusterConfig>) -> Arc<ClusterConfig> {
        match config.cluster.lb_options.subsetting {
            None => config,
            Some(subsetting) => {
                let endpoints = subset::of(&config.endpoints, subsetting, self.subset_seed);
                Arc::new(ClusterConfig { endpoints: Arc::new(endpoints), ..(*config).clone() })
            }
        }
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
        let mut localities = priorities.flat_map(|priority| &priority.localities);
        self.slots.count_in(|| Some(load.as_ref()?.locality(&localities.next()?.locality)));
        self.shared.load.store(load);
    }

    /// True: something that calls see may have changed.
    fn on_event(&mut self, event: Event) -> bool {
        let Some(id) = self.slots.find(event.address) else { return false };
        if self.slots.get(id).is_none_or(|slot| slot.endpoint().generation() != event.generation) {
            return false;
        }
        match event.what {
            What::Connectivity(connectivity) => {
                if matches!(connectivity, Connectivity::TransientFailure(_)) {
                    self.names.on_broken();
                }
                self.slots.update(id, |slot| {
                    slot.reported = connectivity;
                    slot.fresh = false;
                });
                true
            }
            What::Checked { state, success } => self.on_checked(id, state, success),
            What::Outcome(notice) => {
                let now = Instant::now();
                if notice.awake {
                    self.ejector.wake(now);
                }
                let Self { ejector, rng, .. } = self;
                let mut reached = notice.streaks.into_iter().flatten();
                let by = reached.find(|streak| ejector.on_streak(now, event.address, *streak, rng));
                if let Some(streak) = by {
                    self.slots.update(id, |slot| slot.ejected = true);
                    let cluster = &self.shared.name;
                    tracing::info!(%cluster, endpoint = %event.address, ?streak, "endpoint ejected");
                }
                by.is_some()
            }
        }
    }

    fn sweep_if_due(&mut self) {
        let now = Instant::now();
        if self.ejector.wake_at().is_none_or(|at| at > now) {
            return;
        }
        let sample = |count: fn(&Tally) -> (u64, u64)| {
            let sample = |slot: &Slot| {
                let (successes, failures) = count(slot.endpoint().tally());
                Sample { endpoint: slot.endpoint().address, successes, failures }
            };
            self.slots.iter().map(sample).collect()
        };
        let samples = Samples { external: sample(Tally::take), local: sample(Tally::take_local) };
        let mut returned = Vec::new();
        self.ejector.sweep(now, &samples, &mut self.rng, &mut returned);
        for address in returned {
            let Some(id) = self.slots.find(address) else { continue };
            self.slots.update(id, |slot| {
                slot.endpoint().tally().clear_streaks();
                slot.since = now;
            });
        }
        self.mark_ejected();
        if self.ejector.is_quiet() {
            self.thresholds.sleep();
        }
    }

    /// What the ejector says now, where endpoints are judged.
    fn mark_ejected(&mut self) {
        let ejected: HashSet<Id> =
            self.ejector.ejected().filter_map(|address| self.slots.find(address)).collect();
        let all = self.slots.positions();
        let marked = self.slots.standings(all.clone()).iter().zip(self.slots.ids(all));
        let marked = marked.filter(|(standing, _)| standing.is_ejected()).map(|(_, id)| *id);
        let wrong: Vec<Id> = marked.collect::<HashSet<_>>().symmetric_difference(&ejected).copied().collect();
        for id in wrong {
            self.slots.update(id, |slot| slot.ejected = !slot.ejected);
        }
    }
}

#[cfg(test)]
impl Actor {
    /// As if the endpoint's task had said so. True: that is news.
    pub(super) fn hear(&mut self, address: std::net::SocketAddr, connectivity: Connectivity) -> bool {
        let Some(slot) = self.slots.at(address) else { return false };
        let generation = slot.endpoint().generation();
        self.on_event(Event { address, generation, what: What::Connectivity(connectivity) })
    }

    pub(super) fn slots(&mut self) -> &mut Slots {
        &mut self.slots
    }
}

/// Ends when other callers are known.
async fn callers_changed(callers: &mut zones::Watched) {
    if let Some(callers) = callers
        && callers.changed().await.is_ok()
    {
        return;
    }
    // There are none, or the mesh is gone, and this with it soon.
    std::future::pending().await
}
