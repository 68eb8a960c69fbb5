//! The endpoints of a cluster, laid out in the order of the configuration.
//!
//! Promises: a change of configuration is walked in step with what was there, so that an endpoint that stays as
//! it was is compared and nothing else; one that stays keeps its task, connections, counters and ejection,
//! wherever it stands now. What decides over endpoints lies in arrays by position: [`Standing`]s, weights, and
//! for each locality the endpoints themselves, which pickers share. A number goes up for every locality in which
//! anything changed: who keeps what was made of one looks at nothing else.
//!
//! An address stands once in a configuration; the parser sees to that.

use super::{
    session::Host,
    standing::{Census, Link, Standing},
};
use crate::{
    endpoint::{
        Endpoint,
        machine::Connectivity,
        task::{Spec, Want},
    },
    health::{Checked, task::is_checked},
};
use mesh_xds::{
    config::ClusterConfig,
    lrs::LocalityLoad,
    resource::{
        Cluster,
        cluster::OverrideHostStatus,
        endpoint::{self, ClusterLoadAssignment, HealthStatus},
    },
};
use std::{collections::HashMap, net::SocketAddr, ops::Range, sync::Arc};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

/// An endpoint of the configuration, and its task, which ends when this is dropped.
pub(crate) struct Slot {
    endpoint: Arc<Endpoint>,
    spec: watch::Sender<Spec>,
    pub(crate) reported: Connectivity,
    /// Told to connect, and nothing was reported since: it is about to.
    pub(crate) fresh: bool,
    pub(crate) ejected: bool,
    /// When it came, or came back: slow start counts from then.
    pub(crate) since: Instant,
    /// What its health checks say.
    pub(crate) checked: Checked,
    checker: Option<AbortOnDropHandle<()>>,
    health: HealthStatus,
    want: Want,
}

impl Slot {
    /// Of an endpoint that has just come; its task listens to `spec`.
    pub(crate) fn new(endpoint: Arc<Endpoint>, spec: watch::Sender<Spec>, now: Instant) -> Self {
        let health = spec.borrow().endpoint.health;
        let checked = if is_checked(&spec.borrow()) { Checked::Pending } else { Checked::Not };
        Self {
            endpoint,
            spec,
            reported: Connectivity::Idle,
            fresh: false,
            ejected: false,
            since: now,
            checked,
            checker: None,
            health,
            want: Want::No,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn state(&self) -> Connectivity {
        match self.link() {
            Link::Idle => Connectivity::Idle,
            Link::Connecting => Connectivity::Connecting,
            Link::Ready | Link::Failed => self.reported.clone(),
        }
    }

    fn link(&self) -> Link {
        match Link::from(&self.reported) {
            // Balancing does not see connections that it does not want.
            _ if !self.want.is_of_policy() => Link::Idle,
            Link::Idle if self.fresh => Link::Connecting,
            reported => reported,
        }
    }

    /// Of this everything about it is decided.
    fn standing(&self) -> Standing {
        let health = match (&self.checked, self.health) {
            (Checked::Unhealthy(_), health) if health != HealthStatus::Draining => HealthStatus::Unhealthy,
            (_, health) => health,
        };
        let standing = Standing::new(self.link(), health, self.ejected, self.want);
        if self.checked == Checked::Pending { standing.unchecked() } else { standing }
    }

    /// What a session can have of it; `ejection`: those that are ejected get no calls.
    pub(super) fn host(&self, statuses: OverrideHostStatus, ejection: bool) -> Host {
        let fails =
            matches!(self.checked, Checked::Unhealthy(_) | Checked::Pending) || self.ejected && ejection;
        let status = match self.health {
            HealthStatus::Draining => HealthStatus::Draining,
            _ if fails => HealthStatus::Unhealthy,
            health => health,
        };
        match Link::from(&self.reported) {
            _ if !statuses.contains(status) => Host::Refused,
            Link::Ready => Host::Ready,
            Link::Connecting => Host::Connecting,
            Link::Idle if self.fresh => Host::Connecting,
            Link::Idle => Host::Idle,
            Link::Failed => Host::Failed,
        }
    }

    /// Who it is, and why it is unhealthy, if its health check says so.
    pub(crate) fn failed_check(&self) -> Option<Arc<str>> {
        let Checked::Unhealthy(why) = &self.checked else { return None };
        Some(format!("{}: health check: {why}", self.endpoint.address).into())
    }

    /// It has a task that checks its health.
    pub(crate) fn has_checker(&self) -> bool {
        self.checker.is_some()
    }

    /// What it is told, as its task is.
    pub(crate) fn spec(&self) -> watch::Receiver<Spec> {
        self.spec.subscribe()
    }

    /// Its health is checked from now on. It stays as healthy as it is until the first answer.
    pub(crate) fn begin_checking(&mut self, checker: AbortOnDropHandle<()>) {
        self.checker = Some(checker);
    }

    pub(crate) fn end_checking(&mut self) {
        self.checker = None;
        self.checked = Checked::Not;
    }

    /// Connections to it are wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.want.is_of_policy()
    }

    fn want(&mut self, want: Want) {
        if self.want != want {
            self.fresh = want == Want::Now && self.reported != Connectivity::Ready;
            self.want = want;
            self.spec.send_modify(|spec| spec.want = want);
        }
    }

    /// Connects though no call asked for it.
    pub(crate) fn wake(&mut self) {
        self.fresh = true;
        self.endpoint.kick();
    }

    fn take_in(&mut self, now: Instant, cluster: &Arc<Cluster>, endpoint: &Arc<endpoint::Endpoint>) {
        if endpoint.health.is_usable() && !self.health.is_usable() {
            self.since = now;
        }
        self.health = endpoint.health;
        self.spec.send_if_modified(|spec| {
            let changed = spec.cluster != *cluster || spec.endpoint != *endpoint;
            if changed {
                spec.cluster = Arc::clone(cluster);
                spec.endpoint = Arc::clone(endpoint);
            }
            changed
        });
    }
}

/// Names a slot for as long as its endpoint is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(usize);

/// The endpoints of a priority.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    pub(crate) census: Census,
    /// Its part of [`Slots::zones`].
    pub(crate) zones: Range<usize>,
    pub(crate) positions: Range<usize>,
}

/// The endpoints of a locality.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) positions: Range<usize>,
    /// All of them, by position.
    pub(crate) members: Arc<[Arc<Endpoint>]>,
    /// Higher after every change of the members or of their order.
    pub(crate) reordered: u64,
    /// Higher after every change of anything.
    pub(crate) changed: u64,
    tier: usize,
    /// Where calls of its members are counted.
    load: Option<Arc<LocalityLoad>>,
}

/// The layout of one configuration.
#[derive(Default)]
struct Layout {
    config: Option<(Arc<Cluster>, Arc<ClusterLoadAssignment>)>,
    order: Vec<Id>,
    standings: Vec<Standing>,
    weights: Vec<u32>,
    tiers: Vec<Tier>,
    zones: Vec<Zone>,
}

/// All endpoints.
#[derive(Default)]
pub(crate) struct Slots {
    slab: Vec<Option<Slot>>,
    free: Vec<Id>,
    by_address: HashMap<SocketAddr, Id>,
    /// Of each slot; [`NOWHERE`] for a free one.
    positions: Vec<usize>,
    layout: Layout,
    version: u64,
    reviewed: u64,
    /// How many slots were looked at by hash or written to, ever: what tests count.
    #[cfg(test)]
    pub(crate) touched: usize,
}

const NOWHERE: usize = usize::MAX;

/// When so many endpoints are gone at one place, the walk goes on behind them. An endpoint that comes from
/// further away has been moved: the others are expected where they were.
const REACH: usize = 16;

impl Slots {
    pub(crate) fn positions(&self) -> Range<usize> {
        0..self.layout.order.len()
    }

    pub(crate) fn find(&self, address: SocketAddr) -> Option<Id> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Slot> {
        self.slab.get(id.0)?.as_ref()
    }

    pub(crate) fn at(&self, address: SocketAddr) -> Option<&Slot> {
        self.get(self.find(address)?)
    }

    /// How it stands, with its position.
    pub(crate) fn standing(&self, id: Id) -> Option<(usize, Standing)> {
        let position = *self.positions.get(id.0)?;
        Some((position, *self.layout.standings.get(position)?))
    }

    /// All, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.layout.order.iter().filter_map(|id| self.get(*id))
    }

    pub(crate) fn ids(&self, positions: Range<usize>) -> &[Id] {
        self.layout.order.get(positions).unwrap_or_default()
    }

    pub(crate) fn standings(&self, positions: Range<usize>) -> &[Standing] {
        self.layout.standings.get(positions).unwrap_or_default()
    }

    /// The configured shares within their localities.
    pub(crate) fn weights(&self, positions: Range<usize>) -> &[u32] {
        self.layout.weights.get(positions).unwrap_or_default()
    }

    /// Higher after every change of the configuration, and of anybody's health.
    pub(crate) fn reviewed(&self) -> u64 {
        self.reviewed
    }

    /// By priority.
    pub(crate) fn tiers(&self) -> &[Tier] {
        &self.layout.tiers
    }

    pub(crate) fn zones(&self, zones: Range<usize>) -> &[Zone] {
        self.layout.zones.get(zones).unwrap_or_default()
    }

    /// Changes what is known of one endpoint. The only way: it keeps all else in step.
    pub(crate) fn update<R>(&mut self, id: Id, change: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let slot = self.slab.get_mut(id.0)?.as_mut()?;
        #[cfg(test)]
        {
            self.touched += 1;
        }
        let result = change(slot);
        let now = slot.standing();
        let position = *self.positions.get(id.0)?;
        let before = std::mem::replace(self.layout.standings.get_mut(position)?, now);
        if before != now {
            self.version += 1;
            if !before.is_as_healthy_as(now) {
                self.reviewed = self.version;
            }
            let index = self.layout.zones.partition_point(|zone| zone.positions.end <= position);
            let zone = self.layout.zones.get_mut(index)?;
            zone.changed = self.version;
            let census = &mut self.layout.tiers.get_mut(zone.tier)?.census;
            census.remove(before);
            census.add(now);
        }
        Some(result)
    }

    /// Says of the endpoints of a priority whether connections are wanted, by their standing. Looks at them only
    /// if somebody hears news. True: somebody did.
    pub(crate) fn want(&mut self, tier: usize, wanted: impl Fn(Standing) -> Want) -> bool {
        let Some(tier) = self.layout.tiers.get(tier) else { return false };
        if !tier.census.any(|standing| wanted(standing) != standing.want()) {
            return false;
        }
        self.want_each(tier.positions.clone(), |standing, _| wanted(standing))
    }

    /// As [`Self::want`], one by one.
    pub(crate) fn want_each(
        &mut self,
        positions: Range<usize>,
        wanted: impl Fn(Standing, Id) -> Want,
    ) -> bool {
        let all = self.standings(positions.clone()).iter().zip(self.ids(positions));
        let wants = all.map(|(standing, id)| (*standing, *id, wanted(*standing, *id)));
        let news: Vec<(Id, Want)> = wants
            .filter(|(standing, _, want)| standing.want() != *want)
            .map(|(_, id, want)| (id, want))
            .collect();
        for (id, want) in &news {
            self.update(*id, |slot| slot.want(*want));
        }
        !news.is_empty()
    }

    /// Calls are counted where `load` says; it is asked for each locality in turn.
    pub(crate) fn count_in(&mut self, mut load: impl FnMut() -> Option<Arc<LocalityLoad>>) {
        for zone in &mut self.layout.zones {
            let load = load();
            let same = match (&zone.load, &load) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            };
            if !same {
                zone.members.iter().for_each(|endpoint| endpoint.count_in(load.clone()));
                zone.load = load;
            }
        }
    }

    /// Lays out another configuration. `start` makes the slot of an endpoint that was not there. True: somebody
    /// came or went.
    pub(crate) fn adopt(
        &mut self,
        now: Instant,
        config: &ClusterConfig,
        mut start: impl FnMut(&Arc<endpoint::Endpoint>) -> Slot,
    ) -> bool {
        self.version += 1;
        self.reviewed = self.version;
        let mut old = std::mem::take(&mut self.layout);
        let before = old.config.take();
        let same_cluster = before.as_ref().is_some_and(|(cluster, _)| *cluster == config.cluster);
        let mut step = Step::new(before.as_ref().map(|(_, assignment)| &**assignment));
        let mut places = vec![NOWHERE; self.slab.len()];
        let (mut stayed, mut came) = (0, false);
        let mut new = Layout {
            config: Some((Arc::clone(&config.cluster), Arc::clone(&config.endpoints))),
            order: Vec::with_capacity(old.order.len() + 1),
            standings: Vec::with_capacity(old.order.len() + 1),
            weights: Vec::with_capacity(old.order.len() + 1),
            ..Layout::default()
        };
        for (tier, priority) in config.endpoints.priorities.iter().enumerate() {
            let (first_zone, first) = (new.zones.len(), new.order.len());
            let mut census = Census::default();
            for locality in &priority.localities {
                let begin = new.order.len();
                let zone = old.zones.get(new.zones.len());
                let zone =
                    zone.filter(|zone| zone.tier == tier && zone.positions.len() == locality.endpoints.len());
                let expected = zone.map(|zone| zone.positions.start);
                let (mut in_place, mut same) = (zone.is_some(), zone.is_some());
                for endpoint in &locality.endpoints {
                    let position = new.order.len();
                    let address = endpoint.address();
                    let (was, equal) = match step.see(endpoint) {
                        Seen::Same(was) => (Some(was), same_cluster),
                        Seen::Changed(was) => (Some(was), false),
                        Seen::Another => {
                            let known = self.find(address).and_then(|id| self.positions.get(id.0));
                            let was = known.copied().filter(|was| *was != NOWHERE);
                            was.into_iter().for_each(|was| step.reach(was));
                            (was, false)
                        }
                    };
                    let kept = was.and_then(|was| Some((*old.order.get(was)?, *old.standings.get(was)?)));
                    let (id, standing) = match kept {
                        Some((id, standing)) if equal => (id, standing),
                        Some((id, standing)) => {
                            #[cfg(test)]
                            {
                                self.touched += 1;
                            }
                            match self.slab.get_mut(id.0).and_then(Option::as_mut) {
                                Some(slot) => {
                                    slot.take_in(now, &config.cluster, endpoint);
                                    (id, slot.standing())
                                }
                                None => (id, standing),
                            }
                        }
                        None => {
                            #[cfg(test)]
                            {
                                self.touched += 1;
                            }
                            came = true;
                            let slot = start(endpoint);
                            let standing = slot.standing();
                            let id = self.keep(slot);
                            self.by_address.insert(address, id);
                            if places.len() < self.slab.len() {
                                places.push(NOWHERE);
                            }
                            (id, standing)
                        }
                    };
                    let weight = endpoint.weight.get();
                    in_place &= was == expected.map(|expected| expected + (position - begin));
                    same &= in_place && equal;
                    stayed += usize::from(was.is_some());
                    if let Some(place) = places.get_mut(id.0) {
                        *place = position;
                    }
                    census.add(standing);
                    new.order.push(id);
                    new.standings.push(standing);
                    new.weights.push(weight);
                }
                let positions = begin..new.order.len();
                let kept = zone.filter(|_| in_place);
                let members = match kept {
                    Some(zone) => Arc::clone(&zone.members),
                    None => {
                        let ids = new.order.get(positions.clone()).unwrap_or_default();
                        let slots = ids.iter().filter_map(|id| self.slab.get(id.0)?.as_ref());
                        let tell = |endpoint: &Arc<Endpoint>| endpoint.set_priority(tier);
                        slots.map(|slot| &slot.endpoint).inspect(|one| tell(one)).cloned().collect()
                    }
                };
                new.zones.push(Zone {
                    members,
                    reordered: kept.map_or(self.version, |zone| zone.reordered),
                    changed: kept.filter(|_| same).map_or(self.version, |zone| zone.changed),
                    tier,
                    load: kept.and_then(|zone| zone.load.clone()),
                    positions,
                });
            }
            new.tiers.push(Tier {
                census,
                zones: first_zone..new.zones.len(),
                positions: first..new.order.len(),
            });
        }
        let went = stayed < old.order.len();
        if went {
            for id in old.order {
                if places.get(id.0) == Some(&NOWHERE) {
                    self.let_go(id);
                }
            }
        }
        self.positions = places;
        self.layout = new;
        came || went
    }

    fn keep(&mut self, slot: Slot) -> Id {
        match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.slab.get_mut(id.0) {
                    *place = Some(slot);
                }
                id
            }
            None => {
                self.slab.push(Some(slot));
                Id(self.slab.len() - 1)
            }
        }
    }

    fn let_go(&mut self, id: Id) {
        if let Some(slot) = self.slab.get_mut(id.0).and_then(Option::take) {
            self.by_address.remove(&slot.endpoint.address);
            self.free.push(id);
        }
    }
}

/// What stands where the walk through the earlier configuration is.
enum Seen {
    /// The same endpoint, as it was; at this position.
    Same(usize),
    /// The same endpoint, with something changed.
    Changed(usize),
    Another,
}

/// The walk through the earlier configuration.
struct Step<I: Iterator> {
    ahead: std::iter::Peekable<I>,
    position: usize,
}

impl<'a> Step<Box<dyn Iterator<Item = &'a Arc<endpoint::Endpoint>> + 'a>> {
    fn new(assignment: Option<&'a ClusterLoadAssignment>) -> Self {
        let priorities = assignment.into_iter().flat_map(|assignment| &assignment.priorities);
        let localities = priorities.flat_map(|priority| &priority.localities);
        let endpoints: Box<dyn Iterator<Item = &'a Arc<endpoint::Endpoint>> + 'a> =
            Box::new(localities.flat_map(|locality| &locality.endpoints));
        Self { ahead: endpoints.peekable(), position: 0 }
    }

    /// Steps on if this endpoint is the next.
    fn see(&mut self, endpoint: &Arc<endpoint::Endpoint>) -> Seen {
        let was = self.position;
        let seen = match self.ahead.peek() {
            Some(next) if **next == *endpoint => Seen::Same(was),
            Some(next) if next.address() == endpoint.address() => Seen::Changed(was),
            _ => return Seen::Another,
        };
        self.skip(1);
        seen
    }

    /// The endpoint that was at this position has come: goes on behind it, if that is not far.
    fn reach(&mut self, position: usize) {
        if let Some(distance) = position.checked_sub(self.position).filter(|distance| *distance <= REACH) {
            self.skip(distance + 1);
        }
    }

    fn skip(&mut self, endpoints: usize) {
        self.position += endpoints;
        self.ahead.nth(endpoints - 1);
    }
}

#[cfg(test)]
mod tests;
