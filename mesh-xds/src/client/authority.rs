//! Which control plane speaks for which resources (gRFC A47, A71, A95), without IO.
//!
//! Control planes that are configured alike are one, with one stream, whoever uses them: each is a
//! [`Machine`]. An authority has a list of them. The first speaks for it; when it cannot be reached and something
//! that is watched is neither known nor known to be absent, the next is asked for *everything* of the authority
//! and speaks from then on, while those before it are tried on. Whatever one of those before answers, it speaks
//! again, and those after it are let go.
//!
//! What is known is what the one that speaks said, never a mixture: each machine has its own cache. Watchers hear
//! that control planes cannot be reached when no replacement is left. After the last comes what was written to
//! disk ([`Stored`]), as long as nobody has answered since the process began.

use super::{
    cache::Known,
    machine::{Input, Key, Machine, Parse},
    slot::Outstanding,
    speakers::Speakers,
    store::Stored,
    wire::Request,
};
use crate::{
    bootstrap::{Bootstrap, ServerConfig, distinct},
    name::{self, ResourceType},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// A control plane of which nothing is watched is left after this.
const IDLE: Duration = Duration::from_secs(10);

/// Position of a control plane in [`Plan::servers`].
pub(super) type Id = usize;

/// Who there is.
pub(super) struct Plan {
    /// Every control plane, once.
    pub(super) servers: Vec<ServerConfig>,
    /// The first is the one of names without an authority.
    authorities: Vec<Authority>,
    unknown: Box<dyn Fn(&str) -> String + Send>,
}

impl Plan {
    pub(super) fn new(bootstrap: &Bootstrap) -> Self {
        let mut servers: Vec<ServerConfig> = Vec::new();
        let mut id = |config: &ServerConfig| {
            servers.iter().position(|known| known == config).unwrap_or_else(|| {
                servers.push(config.clone());
                servers.len() - 1
            })
        };
        let mut ids =
            |configs: &[ServerConfig]| -> Vec<Id> { distinct(configs).into_iter().map(&mut id).collect() };
        let mut authorities = vec![Authority::new(None, ids(&bootstrap.servers), false)];
        for (name, authority) in &bootstrap.authorities {
            let own = if authority.servers.is_empty() { &bootstrap.servers } else { &authority.servers };
            let always = authority.fallback_on_reachability_only;
            authorities.push(Authority::new(Some(name.clone()), ids(own), always));
        }
        let bootstrap = bootstrap.clone();
        let unknown = Box::new(move |name: &str| bootstrap.unknown_authority(name).to_string());
        Self { servers, authorities, unknown }
    }
}

struct Authority {
    name: Option<Arc<str>>,
    /// In order of preference; never empty.
    servers: Vec<Id>,
    /// Position in `servers` of the one that speaks; one more than the last: what is on disk.
    active: usize,
    /// What is known by those before is too old to come back to.
    forgotten: bool,
    /// One of them has answered since the process began.
    answered: bool,
    /// Falls back even when everything is known.
    always: bool,
    interest: BTreeMap<Key, u32>,
}

impl Authority {
    fn new(name: Option<Arc<str>>, servers: Vec<Id>, always: bool) -> Self {
        Self {
            name,
            servers,
            active: 0,
            forgotten: false,
            answered: false,
            always,
            interest: BTreeMap::new(),
        }
    }

    /// The control plane that speaks; `None`: what is on disk does.
    fn server(&self) -> Option<Id> {
        self.servers.get(self.active).copied()
    }

    /// The last one that is asked.
    fn last(&self) -> Id {
        self.server().or(self.servers.last().copied()).unwrap_or_default()
    }

    /// Those that are asked.
    fn asked(&self) -> &[Id] {
        self.servers.get(..=self.active).unwrap_or(&self.servers)
    }

    fn keys(&self) -> Vec<Key> {
        self.interest.keys().cloned().collect()
    }
}

/// Something to do with one control plane.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are requests, and they are moved once")]
pub(super) enum Action {
    Connect,
    Disconnect,
    Send(Request),
    /// A response was rejected: the text of the NACK, for the log.
    Rejected(Arc<str>),
}

/// What a control plane said of a resource.
pub(super) struct Accepted<R> {
    pub(super) key: Key,
    pub(super) server: Arc<str>,
    /// It can still change its mind: a stream is open.
    pub(super) is_open: bool,
    /// It has spoken of everything that is watched of the authority.
    pub(super) is_whole: bool,
    /// Version, bytes and value; `None`: it does not exist.
    pub(super) good: Option<(Arc<str>, Bytes, R)>,
}

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Actions {
    pub(super) io: Vec<(Id, Action)>,
    /// Resources of which something else is known now.
    pub(super) changed: BTreeSet<Key>,
    /// Another control plane speaks for some authority than before.
    pub(super) moved: bool,
    /// Control planes that have answered, and of which nothing unreadable is to be feared since this moment, though
    /// they sent nothing at it.
    recovered: Vec<Id>,
    /// What came has not been taken by everybody; its stream is read on after that.
    pub(super) outstanding: Option<Outstanding>,
}

impl Actions {
    pub(super) fn merge(&mut self, more: Self) {
        self.io.extend(more.io);
        self.recovered.extend(more.recovered);
        self.changed.extend(more.changed);
        self.moved |= more.moved;
        self.outstanding = more.outstanding.or(self.outstanding.take());
    }
}

struct Server<P: Parse> {
    config: ServerConfig,
    machine: Machine<P>,
    /// Since when nothing is watched, while there is a stream.
    idle: Option<Instant>,
}

/// Every control plane of a process.
pub(super) struct Federation<P: Parse> {
    servers: Vec<Server<P>>,
    authorities: Vec<Authority>,
    names: BTreeMap<Arc<str>, usize>,
    unknown: Box<dyn Fn(&str) -> String + Send>,
    pub(super) stored: Stored<P::Resource>,
}

impl<P: Parse> Federation<P> {
    /// `machine` makes the machine of one control plane.
    pub(super) fn new(
        plan: Plan,
        stored: Stored<P::Resource>,
        machine: impl Fn(&ServerConfig) -> Machine<P>,
    ) -> Self {
        let Plan { servers, authorities, unknown } = plan;
        let names =
            authorities.iter().enumerate().filter_map(|(i, one)| Some((one.name.clone()?, i))).collect();
        let server = |config: ServerConfig| Server { machine: machine(&config), config, idle: None };
        let servers = servers.into_iter().map(server).collect();
        Self { servers, authorities, names, unknown, stored }
    }

    /// Which authority a name is of; `Err`: one that is not configured. The wildcard is of names without one.
    fn authority<'n>(&self, kind: ResourceType, name: &'n str) -> Result<usize, &'n str> {
        match name::authority(kind, name) {
            None => Ok(0),
            Some(authority) => self.names.get(authority).copied().ok_or(authority),
        }
    }

    /// Watches begin and end; counted for each name. Names are canonical; the wildcard is among them only for those who
    /// mean it ([`Self::listing`]).
    pub(super) fn interest(&mut self, now: Instant, add: Vec<Key>, remove: Vec<Key>) -> Actions {
        let mut out = Actions::default();
        let mut started: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
        let mut ended: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
        for key in add {
            // The error is known already, and nobody is asked.
            let Ok(id) = self.authority(key.0, &key.1) else { continue };
            if name::is_collection(key.0, &key.1) {
                continue;
            }
            let Some(authority) = self.authorities.get_mut(id) else { continue };
            let count = authority.interest.entry(key.clone()).or_default();
            *count += 1;
            if *count == 1 {
                started.entry(id).or_default().push(key);
            }
        }
        for key in remove {
            let Ok(id) = self.authority(key.0, &key.1) else { continue };
            let Some(authority) = self.authorities.get_mut(id) else { continue };
            let Some(count) = authority.interest.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                authority.interest.remove(&key);
                ended.entry(id).or_default().push(key);
            }
        }
        // What a control plane is told is told at once, though it be of several authorities.
        let mut told: BTreeMap<Id, (Vec<Key>, Vec<Key>)> = BTreeMap::new();
        for (ids, ends) in [(&started, false), (&ended, true)] {
            for (id, keys) in ids {
                let Some(authority) = self.authorities.get(*id) else { continue };
                for server in authority.asked() {
                    let (add, remove) = told.entry(*server).or_default();
                    if ends { remove } else { add }.extend(keys.iter().cloned());
                }
            }
        }
        for (server, (add, remove)) in told {
            self.step(now, server, Input::Interest { add, remove }, &mut out);
        }
        self.recovered(now, &mut out);
        for id in started.into_keys() {
            self.fall_back(now, id, &mut out);
        }
        self.rest(now, &mut out);
        out
    }

    /// Something happened on the stream of a control plane.
    pub(super) fn on(&mut self, now: Instant, server: Id, input: Input) -> Actions {
        let mut out = Actions::default();
        let is_open = self.servers.get(server).is_some_and(|server| server.machine.link().0);
        let responds = is_open && matches!(input, Input::Response(_));
        self.step(now, server, input, &mut out);
        // One that last said something unreadable does not speak before it has said all that is awaited.
        let unreachable = self.servers.get(server).and_then(|server| server.machine.unreachable());
        let answers = responds && unreachable.is_none();
        for id in 0..self.authorities.len() {
            if answers {
                self.answered(now, id, server, &mut out);
            }
            self.fall_back(now, id, &mut out);
        }
        self.rest(now, &mut out);
        out
    }

    /// [`Self::deadline`] passed.
    pub(super) fn tick(&mut self, now: Instant) -> Actions {
        let mut out = Actions::default();
        for server in 0..self.servers.len() {
            self.step(now, server, Input::Tick, &mut out);
        }
        self.recovered(now, &mut out);
        for id in 0..self.authorities.len() {
            self.fall_back(now, id, &mut out);
        }
        self.rest(now, &mut out);
        out
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let of = |server: &Server<P>| {
            let idle = server.idle.map(|since| since + IDLE);
            server.machine.deadline().into_iter().chain(idle).min()
        };
        self.servers.iter().filter_map(of).min()
    }

    /// Advances one machine.
    fn step(&mut self, now: Instant, id: Id, input: Input, out: &mut Actions) {
        let Some(server) = self.servers.get_mut(id) else { return };
        let waits = matches!(input, Input::Tick | Input::Interest { .. });
        let was_away = server.machine.unreachable().is_some();
        let done = server.machine.on(now, input);
        // That a stream is there, and silence on it, is no answer.
        if waits && was_away && server.machine.unreachable().is_none() && server.machine.has_responded() {
            out.recovered.push(id);
        }
        if done.disconnect {
            out.io.push((id, Action::Disconnect));
        }
        if done.connect {
            out.io.push((id, Action::Connect));
        }
        out.io.extend(done.requests.into_iter().map(|request| (id, Action::Send(request))));
        out.io.extend(done.rejected.map(|text| (id, Action::Rejected(text))));
        out.changed.extend(done.changed);
    }

    /// One that had said something unreadable has answered since, and nobody waits for more.
    fn recovered(&mut self, now: Instant, out: &mut Actions) {
        for server in std::mem::take(&mut out.recovered) {
            for id in 0..self.authorities.len() {
                self.answered(now, id, server, out);
            }
        }
    }

    /// A control plane answered: those after it are not needed, and those before it are behind.
    fn answered(&mut self, now: Instant, id: usize, server: Id, out: &mut Actions) {
        let Some(authority) = self.authorities.get_mut(id) else { return };
        let Some(position) = authority.servers.iter().position(|one| *one == server) else { return };
        if position > authority.active {
            return;
        }
        authority.answered = true;
        if position == authority.active && authority.forgotten {
            return;
        }
        let keys = authority.keys();
        if position == authority.active {
            let behind = authority.servers.get(..position).unwrap_or_default().to_vec();
            // One whose stream is opening may yet answer; then nothing is old.
            let is_open = |id: &Id| self.servers.get(*id).is_some_and(|server| server.machine.link().0);
            authority.forgotten = !behind.iter().any(is_open);
            for one in behind {
                self.step(now, one, Input::Forget(keys.clone()), out);
            }
            return;
        }
        tracing::info!(
            server = %self.servers.get(server).map(|server| server.config.to_string()).unwrap_or_default(),
            authority = authority.name.as_deref().unwrap_or_default(),
            "the control plane answers again"
        );
        let after = authority.servers.get(position + 1..).unwrap_or_default();
        let let_go: Vec<Id> = after.iter().take(authority.active - position).copied().collect();
        authority.active = position;
        out.moved = true;
        authority.forgotten = false;
        out.changed.extend(keys.iter().cloned());
        for one in let_go {
            self.step(now, one, Input::Interest { add: Vec::new(), remove: keys.clone() }, out);
            if let Some(server) = self.servers.get(one)
                && !server.machine.watches_something()
            {
                self.step(now, one, Input::Hangup, out);
            }
        }
    }

    /// Goes on to the next control plane where the one that speaks cannot be reached, and it matters.
    fn fall_back(&mut self, now: Instant, id: usize, out: &mut Actions) {
        loop {
            let Some(authority) = self.authorities.get(id) else { return };
            let Some(server) = authority.server().and_then(|server| self.servers.get(server)) else { return };
            if authority.interest.is_empty() {
                return;
            }
            let is_last = authority.active + 1 == authority.servers.len();
            let known = |(kind, name): &Key| server.machine.outcome(*kind, name);
            // Silence, and the end of a time to live, say nothing about what there is.
            let lacks = |key: &Key| {
                !matches!(known(key), Known::Good { .. }) && !server.machine.is_gone(key.0, &key.1)
            };
            let why = server.machine.unreachable();
            let next = if is_last {
                // Silence of a control plane that never spoke is as bad as its absence.
                let silent = || authority.interest.keys().any(|key| matches!(known(key), Known::Bad(_)));
                !authority.answered
                    && authority.interest.keys().any(|key| self.stored.get(key).is_some())
                    && (why.is_some() || silent())
            } else {
                why.is_some() && (authority.always || authority.interest.keys().any(lacks))
            };
            if !next {
                return;
            }
            let keys = authority.keys();
            let (from, to) = (&server.config, authority.servers.get(authority.active + 1).copied());
            let name = authority.name.as_deref().unwrap_or_default();
            match to.and_then(|to| self.servers.get(to)) {
                Some(next) => tracing::warn!(
                    server = %from, authority = name, why = why.as_deref().unwrap_or_default(), next = %next.config,
                    "the control plane cannot be reached: the next one is asked"
                ),
                None => tracing::warn!(
                    server = %from, authority = name, why = why.as_deref().unwrap_or("it says nothing"),
                    "no control plane answers: {}", self.stored.describe()
                ),
            }
            out.changed.extend(keys.iter().cloned());
            if let Some(authority) = self.authorities.get_mut(id) {
                authority.active += 1;
                out.moved = true;
                authority.forgotten = false;
            }
            let Some(to) = to else { return };
            self.step(now, to, Input::Interest { add: keys, remove: Vec::new() }, out);
        }
    }

    /// Leaves control planes of which nothing has been watched for a while.
    fn rest(&mut self, now: Instant, out: &mut Actions) {
        for id in 0..self.servers.len() {
            let Some(server) = self.servers.get_mut(id) else { continue };
            if server.machine.watches_something() || server.machine.is_idle() {
                server.idle = None;
            } else if now >= *server.idle.get_or_insert(now) + IDLE {
                server.idle = None;
                self.step(now, id, Input::Hangup, out);
            }
        }
        // Where nothing is watched and nobody is asked, the first is asked next. What is on disk is there meanwhile.
        for authority in &mut self.authorities {
            let is_idle = |id: &Id| self.servers.get(*id).is_some_and(|server| server.machine.is_idle());
            if authority.active > 0
                && authority.interest.is_empty()
                && authority.server().is_some()
                && authority.asked().iter().all(is_idle)
            {
                (authority.active, authority.forgotten) = (0, false);
                out.moved = true;
            }
        }
    }

    /// The machine of names without an authority that speaks, or spoke last.
    pub(super) fn default_machine(&self) -> Option<(&ServerConfig, &Machine<P>)> {
        let server = self.servers.get(self.authorities.first()?.last())?;
        Some((&server.config, &server.machine))
    }

    /// Which control plane speaks for whom; where what is on disk does, the one that was asked last.
    pub(super) fn speakers(&self) -> Speakers {
        let of = |authority: &Authority| Some(Arc::new(self.servers.get(authority.last())?.config.clone()));
        let named = |one: &Authority| Some((one.name.clone()?, of(one)?));
        Speakers {
            default: self.authorities.first().and_then(of),
            authorities: self.authorities.iter().filter_map(named).collect(),
        }
    }

    /// Every control plane.
    pub(super) fn machines(&self) -> impl Iterator<Item = (&ServerConfig, &Machine<P>)> {
        self.servers.iter().map(|server| (&server.config, &server.machine))
    }

    /// Whether what is on disk speaks for any authority.
    pub(super) fn is_stored(&self) -> bool {
        self.authorities.iter().any(|authority| authority.server().is_none())
    }
}

mod known;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
