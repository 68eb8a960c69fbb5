//! Several control planes with different configurations, under random outages, against a model; and a client that
//! starts anew, with the file that it wrote at some moment or without it.
//!
//! Whatever happens: at no moment do watchers hold resources of two control planes, those on disk included; one that
//! was replaced speaks again when it has answered, and not before; nobody is left waiting while one of them can be
//! reached; a client that finds nobody uses what is on disk, and nothing that was not written; and when all are back,
//! and everything is delivered, watchers hold what the first has.

use super::*;
use crate::{
    bootstrap::{ChannelCredentials, Node},
    client::{
        Listed, ResourceState,
        machine::Settings,
        store::{CacheSettings, Kept, Owner, Record, Writer, rewritten},
        testing,
    },
    config::{XdsError, XdsErrorCause},
    model::{
        event::{self, Peer, name, value},
        scripts::{Script, explore, fail},
        server::{Claim, Server as Serving, Shelf},
        transport::{Down, Transport},
        world::{Seen, Trouble, is_earlier, seen},
    },
    name::{Name, ResourceType, WILDCARD},
    server::Variant,
};
use fastrand::Rng;

const SERVERS: usize = 3;
/// Values that a control plane may give to a resource; those of the next are others.
const VALUES: u8 = 6;

#[derive(Clone, Debug)]
struct Setup {
    seed: u64,
    variants: [Variant; SERVERS],
    always: bool,
    /// What is on disk.
    stored: Vec<event::Key>,
}

#[derive(Clone, Debug)]
enum Event {
    Interest {
        add: Vec<event::Key>,
        remove: Vec<event::Key>,
    },
    Change {
        server: Id,
        changes: Vec<(event::Key, Option<u8>)>,
    },
    Deliver {
        server: Id,
        to_server: bool,
    },
    Cut(Id),
    /// The next response cannot be read.
    Garble(Id),
    Stop(Id),
    Start(Id),
    Pass(u16),
    /// Everything is delivered, and some minutes pass.
    Rest,
    /// What is known is written to disk.
    Write,
    /// The client starts anew, and watches what it did; the file is there, or is not.
    Restart {
        kept: bool,
    },
}

fn key(random: &mut Rng) -> event::Key {
    (random.choice([ResourceType::Listener, ResourceType::Cluster]).unwrap(), random.u8(..3))
}

fn keys(random: &mut Rng, most: usize) -> Vec<event::Key> {
    (0..random.usize(..=most)).map(|_| key(random)).collect()
}

/// What is watched: names, and now and then everything.
fn wishes(random: &mut Rng, most: usize) -> Vec<event::Key> {
    let mut keys = keys(random, most);
    for (_, name) in &mut keys {
        if random.u8(..4) == 0 {
            *name = event::NAMES;
        }
    }
    keys
}

fn script(random: &mut Rng) -> Script<Setup, Event> {
    let mut variant = || if random.bool() { Variant::Sotw } else { Variant::Delta };
    let variants = [variant(), variant(), variant()];
    let stored = if random.u8(..3) == 0 { keys(random, 4) } else { Vec::new() };
    let setup = Setup { seed: random.u64(..), variants, always: random.u8(..4) == 0, stored };
    let length = random.usize(..60);
    let events = (0..length).map(|_| {
        let server = random.usize(..SERVERS);
        match random.u8(..32) {
            0..5 => Event::Interest { add: wishes(random, 2), remove: wishes(random, 2) },
            5..10 => {
                let changes = (0..random.u8(1..4)).map(|_| {
                    let value = (random.u8(..4) > 0).then(|| random.u8(..VALUES) + VALUES * server as u8);
                    (key(random), value)
                });
                Event::Change { server, changes: changes.collect() }
            }
            10..20 => Event::Deliver { server, to_server: random.bool() },
            20 if random.bool() => Event::Garble(server),
            20 => Event::Cut(server),
            21..24 => Event::Stop(if random.bool() { 0 } else { server }),
            24..27 => Event::Start(server),
            27 => Event::Rest,
            28 => Event::Pass(random.u16(3_000..40_000)),
            29 => {
                if random.bool() {
                    Event::Write
                } else {
                    Event::Restart { kept: random.u8(..4) > 0 }
                }
            }
            _ => Event::Pass(random.u16(..3_000)),
        }
    });
    Script { setup, events: events.collect() }
}

/// A listing as it was seen.
type All = Known<Vec<(Name, Listed<Arc<str>>)>>;

/// The stream to one control plane.
enum Link {
    None,
    Connecting,
    Open(Box<Serving>, Transport),
}

struct Remote {
    variant: Variant,
    is_up: bool,
    shelf: Arc<Shelf>,
    revision: usize,
    link: Link,
    /// A response came on this stream.
    responded: bool,
}

struct World {
    federation: Federation<testing::Toy>,
    now: Instant,
    remotes: [Remote; SERVERS],
    watched: BTreeMap<Key, u32>,
    seen: BTreeMap<Key, Known<Arc<str>>>,
    /// What watchers of everything saw last.
    all: BTreeMap<ResourceType, All>,
    setup: Setup,
    started: Instant,
    writer: Writer,
    /// What was written last, and what was there when the client started.
    disk: BTreeMap<Key, Record>,
    found: BTreeMap<Key, Record>,
    /// Some control plane has answered since the client started.
    answered: bool,
    /// The position of the one that spoke last; one more than the last: the disk did.
    spoke: usize,
}

/// When the clock of the world begins, in seconds since the epoch.
const NOW: f64 = 1e6;

fn writer(records: BTreeMap<Key, Record>) -> Writer {
    let owner = Owner { node: "me".into(), servers: vec!["any".into()] };
    Writer::new(CacheSettings::new("nowhere"), owner, records)
}

/// A client that has just started.
fn federation(setup: &Setup, stored: Stored<Arc<str>>) -> Federation<testing::Toy> {
    let server = |id: usize| ServerConfig::new(&format!("cp{id}:1"), ChannelCredentials::Insecure).unwrap();
    let mut bootstrap = Bootstrap::new(server(0), Node::default());
    bootstrap.servers = (0..SERVERS).map(server).collect();
    let mut plan = Plan::new(&bootstrap);
    plan.authorities[0].always = setup.always;
    Federation::new(plan, stored, |config: &ServerConfig| {
        let id = (0..SERVERS).find(|id| server(*id) == *config).unwrap();
        let variant = setup.variants[id];
        let seed = setup.seed.wrapping_add(id as u64);
        let settings = testing::settings(variant);
        Machine::new(testing::Toy, Settings { server: config.address.as_str().into(), seed, ..settings })
    })
}

impl World {
    fn new(setup: &Setup) -> Self {
        let kept = |(kind, index): &event::Key| {
            let resource = value(VALUES * SERVERS as u8);
            let kept = Kept {
                body: format!("{}={resource}", name(*index)).into_bytes().into(),
                resource,
                version: "old".into(),
                server: "cp3:1".into(),
                confirmed: NOW,
            };
            ((*kind, name(*index)), kept)
        };
        let stored = Stored::of(setup.stored.iter().map(kept).collect(), "disk", 60);
        let records = stored.records();
        let writer = writer(records.clone());
        let started = Instant::now();
        let remote = |variant| Remote {
            variant,
            is_up: true,
            shelf: Arc::new(Shelf::empty(Claim::Exact)),
            revision: 0,
            link: Link::None,
            responded: false,
        };
        Self {
            federation: federation(setup, stored),
            now: started,
            remotes: setup.variants.map(remote),
            watched: BTreeMap::new(),
            seen: BTreeMap::new(),
            all: BTreeMap::new(),
            setup: setup.clone(),
            started,
            disk: records.clone(),
            found: records,
            writer,
            answered: false,
            spoke: 0,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Interest { add, remove } => {
                let add: Vec<Key> = add.iter().map(|(kind, index)| (*kind, name(*index))).collect();
                for key in &add {
                    *self.watched.entry(key.clone()).or_default() += 1;
                }
                let mut ended = Vec::new();
                for (kind, index) in remove {
                    let key = (*kind, name(*index));
                    let Some(count) = self.watched.get_mut(&key) else { continue };
                    *count -= 1;
                    if *count == 0 {
                        self.watched.remove(&key);
                        self.seen.remove(&key);
                        if *key.1 == *WILDCARD {
                            self.all.remove(kind);
                        }
                    }
                    ended.push(key);
                }
                let actions = self.federation.interest(self.now, add, ended);
                self.act(actions);
            }
            Event::Change { server, changes } => {
                let remote = &mut self.remotes[*server];
                remote.revision += 1;
                let mut shelf = remote.shelf.next(remote.revision);
                for (key, value) in changes {
                    match value {
                        Some(value) => shelf.resources.insert(*key, *value),
                        None => shelf.resources.remove(key),
                    };
                }
                remote.shelf = Arc::new(shelf);
                if let Link::Open(serving, transport) = &mut remote.link {
                    let given = serving.other(self.now, Some(remote.shelf.clone()));
                    transport.down.extend(given.responses.into_iter().map(Down::Response));
                }
            }
            Event::Deliver { server, to_server } => {
                self.deliver(*server, *to_server);
            }
            Event::Cut(server) => self.cut(*server, "cut"),
            Event::Garble(server) => {
                let link = &mut self.remotes[*server].link;
                let responds = |down: &Down| !matches!(down, Down::Established);
                if matches!(link, Link::Open(_, transport) if transport.down.iter().any(responds)) {
                    *link = Link::None;
                    self.on(*server, Input::Unreadable("garbled".into()));
                }
            }
            Event::Stop(server) => {
                self.remotes[*server].is_up = false;
                self.cut(*server, "stopped");
            }
            Event::Start(server) => self.remotes[*server].is_up = true,
            Event::Pass(millis) => {
                self.now += Duration::from_millis((*millis).into());
                self.tick();
            }
            Event::Rest => self.rest(),
            Event::Write => {
                let (there, now) = (std::mem::take(&mut self.disk), self.epoch());
                self.disk = self.writer.write_over(there, now);
            }
            Event::Restart { kept } => self.restart(*kept),
        }
    }

    fn tick(&mut self) {
        let actions = self.federation.tick(self.now);
        self.act(actions);
        for remote in &mut self.remotes {
            if let Link::Open(serving, transport) = &mut remote.link {
                let given = serving.other(self.now, None);
                transport.down.extend(given.responses.into_iter().map(Down::Response));
            }
        }
    }

    fn cut(&mut self, server: Id, why: &str) {
        if !matches!(std::mem::replace(&mut self.remotes[server].link, Link::None), Link::None) {
            self.on(server, Input::Closed(why.into()));
        }
    }

    fn on(&mut self, server: Id, input: Input) {
        let actions = self.federation.on(self.now, server, input);
        self.act(actions);
    }

    /// Lets one thing happen on the way to a control plane. False: there is nothing.
    fn deliver(&mut self, server: Id, to_server: bool) -> bool {
        let remote = &mut self.remotes[server];
        match &mut remote.link {
            Link::None => false,
            Link::Connecting if remote.is_up => {
                let serving = Serving::new(remote.variant, Peer::Ours, remote.shelf.clone());
                let mut transport = Transport::default();
                transport.down.push_back(Down::Established);
                remote.link = Link::Open(Box::new(serving), transport);
                remote.responded = false;
                self.on(server, Input::Opened);
                true
            }
            Link::Connecting => {
                self.cut(server, "refused");
                true
            }
            Link::Open(serving, transport) if to_server => {
                let Some(request) = transport.take_up(None) else { return false };
                let given = serving.request(self.now, request);
                transport.down.extend(given.responses.into_iter().map(Down::Response));
                true
            }
            Link::Open(_, transport) => {
                match transport.take_down(None) {
                    None => return false,
                    Some(Down::Established) => self.on(server, Input::Established),
                    Some(Down::Response(response)) => {
                        self.answered = true;
                        remote.responded = true;
                        self.on(server, Input::Response(response));
                    }
                    Some(Down::Beat(_)) => fail("no heart beats here".to_owned()),
                }
                true
            }
        }
    }

    /// Carries out what the client wants, and looks at what its watchers see.
    fn act(&mut self, actions: Actions) {
        for (id, action) in actions.io {
            let link = &mut self.remotes[id].link;
            match (action, &mut *link) {
                (Action::Connect, Link::None) => *link = Link::Connecting,
                (Action::Disconnect, _) => *link = Link::None,
                (Action::Send(request), Link::Open(_, transport)) => transport.up.push_back(request),
                (Action::Rejected(_), _) => {}
                (action, _) => fail(format!("{action:?} of {id} at the wrong moment")),
            }
        }
        for key in actions.changed.into_iter().filter(|key| self.watched.contains_key(key)) {
            if *key.1 == *WILDCARD {
                self.all.insert(key.0, self.federation.listing(key.0));
                continue;
            }
            let known = self.federation.known(key.0, &key.1);
            self.seen.insert(key, known);
        }
        let spoke = std::mem::replace(&mut self.spoke, self.federation.authorities[0].active);
        if let Some(again) = self.remotes[..spoke].get(self.spoke)
            && !self.watched.is_empty()
            && !(again.responded && matches!(again.link, Link::Open(..)))
        {
            fail(format!("{} speaks instead of {spoke}, and has said nothing", self.spoke));
        }
        let now = self.epoch();
        self.writer.learn(self.federation.accepted(), &testing::Toy, now);
        let mut from = self.judge_all();
        for (kind, name) in self.named() {
            let known = self.federation.known(*kind, name);
            if self.federation.is_stored()
                && let Known::Good { resource, .. } = &known
            {
                let found = self.found.get(&(*kind, name.clone()));
                if found.is_none_or(|record| record.body != format!("{name}={resource}")) {
                    fail(format!("{kind} {name}={resource} is not what was on disk: {found:?}"));
                }
            }
            if self.seen.get(&(*kind, name.clone())) != Some(&known) {
                fail(format!("{kind} {name}: nobody heard of {known:?}"));
            }
            if let Known::Good { resource, .. } = known {
                let origin = origin(&resource);
                if *from.get_or_insert(origin) != origin {
                    fail(format!("{kind} {name} is {resource}, and others are not of {origin}"));
                }
            }
        }
    }

    fn epoch(&self) -> f64 {
        NOW + self.now.saturating_duration_since(self.started).as_secs_f64()
    }

    /// The client ends, and another one starts with what is on disk.
    fn restart(&mut self, kept: bool) {
        for remote in &mut self.remotes {
            remote.link = Link::None;
        }
        if !kept {
            self.disk.clear();
        }
        let servers: BTreeSet<_> = self.disk.values().map(|record| &record.server).collect();
        if servers.len() > 1 {
            fail(format!("what is on disk is of {servers:?}"));
        }
        self.writer = writer(std::mem::take(&mut self.disk));
        let stored = rewritten(&self.writer, self.epoch(), |kind, body| testing::Toy.parse(kind, body));
        self.disk = stored.records();
        self.found.clone_from(&self.disk);
        self.writer = writer(self.disk.clone());
        self.federation = federation(&self.setup, stored);
        self.seen.clear();
        self.all.clear();
        self.answered = false;
        self.spoke = 0;
        let watched = self.watched.iter();
        let add = watched.flat_map(|(key, count)| (0..*count).map(|_| key.clone())).collect();
        let actions = self.federation.interest(self.now, add, vec![]);
        self.act(actions);
    }

    /// Lets everything be delivered, for some minutes: as long as it takes to give up on silence, and for every
    /// back-off to end.
    fn rest(&mut self) {
        let end = self.now + Duration::from_secs(200);
        for _ in 0..10_000 {
            if (0..SERVERS).any(|id| self.deliver(id, true) || self.deliver(id, false)) {
                continue;
            }
            let serving = self.remotes.iter().filter_map(|remote| match &remote.link {
                Link::Open(serving, _) => serving.stream().deadline(),
                _ => None,
            });
            let next = self.federation.deadline().into_iter().chain(serving).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                self.check_answers();
                return;
            };
            if next <= self.now {
                fail("time stands still".to_owned());
            }
            self.now = next;
            self.tick();
        }
        fail("it does not come to rest".to_owned());
    }

    fn speaks(&self) -> Id {
        let address = &self.federation.default_machine().unwrap().0.address;
        (0..SERVERS).find(|id| format!("cp{id}:1") == *address).unwrap()
    }

    /// Nobody waits while there is somebody to ask.
    fn check_answers(&self) {
        let is_there = self.named().any(|key| self.found.contains_key(key));
        // What a control plane was silent about counts as absent, as in gRPC.
        let lacks = |(kind, name): &Key| match self.federation.known(*kind, name) {
            Known::Bad(error) => !matches!(error.cause, XdsErrorCause::DoesNotExist(_)),
            known => known == Known::Pending,
        };
        let lists_nothing =
            self.kinds().any(|kind| !matches!(self.federation.listing(kind), Known::Good { .. }));
        let is_there = is_there && (lists_nothing || self.named().any(lacks));
        let is_alone = !self.answered && self.remotes.iter().all(|remote| !remote.is_up);
        if is_there && is_alone && !self.federation.is_stored() {
            fail("what is on disk is not used, and nobody is there".to_owned());
        }
        if self.federation.is_stored() || self.watched.is_empty() {
            return;
        }
        let speaks = self.speaks();
        let first = self.remotes.iter().position(|remote| remote.is_up);
        for kind in self.kinds() {
            match self.federation.listing(kind) {
                Known::Good { resource, .. } if self.remotes[speaks].is_up => {
                    self.lists(speaks, kind, &resource)
                }
                Known::Bad(error) if first.is_none() => drop(error),
                Known::Good { .. } => {}
                known => fail(format!("{kind}: the list is {known:?}, and {first:?} is there")),
            }
        }
        for (kind, name) in self.named() {
            let known = self.federation.known(*kind, name);
            match (&known, first) {
                (Known::Pending, _) => fail(format!("{kind} {name} is not known")),
                (Known::Bad(XdsError { cause: XdsErrorCause::Unreachable(_), .. }), Some(up)) => {
                    fail(format!("{kind} {name} is not known, and {up} is there"));
                }
                _ if self.remotes[speaks].is_up => self.agrees(speaks, *kind, name, known),
                _ => {}
            }
        }
        if first == Some(0) && speaks != 0 {
            fail(format!("{speaks} speaks, and the first is back"));
        }
    }

    /// Whether it is watched, by name or with everything.
    fn wants(&self, kind: ResourceType, name: &Name) -> bool {
        [name.clone(), WILDCARD.into()].into_iter().any(|name| self.watched.contains_key(&(kind, name)))
    }

    /// What is known is what a control plane has.
    fn agrees(&self, server: Id, kind: ResourceType, name: &str, known: Known<Arc<str>>) {
        let truth = self.remotes[server].shelf.get(kind, name);
        let known = seen(known);
        let right = match &truth {
            Some(bad) if bad.starts_with("bad") => {
                let trouble = Trouble::Rejected(bad.clone());
                match &known {
                    Seen::Good(_, note) => *note == Some(trouble),
                    Seen::Nothing(why) => *why == trouble,
                    Seen::Pending => false,
                }
            }
            Some(good) => known == Seen::Good(good.clone(), None),
            None => {
                let refusal = self.remotes[server].shelf.refusal(kind, name);
                let trouble = refusal.map_or(Trouble::Absent, Trouble::Refused);
                let wanted = |kind, name: &Name| self.wants(kind, name);
                match &known {
                    known if self.remotes[server].shelf.keeps(kind, wanted) && is_earlier(known) => true,
                    Seen::Good(_, note) => *note == Some(trouble),
                    other => *other == Seen::Nothing(trouble),
                }
            }
        };
        if !right {
            fail(format!("{kind} {name} is {truth:?} at {server}, and the client knows {known:?}"));
        }
    }

    /// The types of which everything is watched.
    fn kinds(&self) -> impl Iterator<Item = ResourceType> {
        self.watched.keys().filter(|(_, name)| **name == *WILDCARD).map(|key| key.0)
    }

    fn named(&self) -> impl Iterator<Item = &Key> {
        self.watched.keys().filter(|(_, name)| **name != *WILDCARD)
    }

    /// Watchers of everything have heard of everything; whose words it is made of, and of no other.
    fn judge_all(&self) -> Option<u8> {
        let mut from = None;
        for kind in self.kinds() {
            let now = self.federation.listing(kind);
            if self.all.get(&kind) != Some(&now) {
                fail(format!("{kind}: nobody heard of {now:?}"));
            }
            let Known::Good { resource, .. } = now else { continue };
            if self.federation.is_stored() {
                fail(format!("{kind}: {resource:?} is from the disk"));
            }
            for resource in resource.iter().filter_map(|(_, one)| one.resource.as_ref()) {
                let origin = origin(resource);
                if *from.get_or_insert(origin) != origin {
                    fail(format!("{kind}: {resource} is listed, and others are not of {origin}"));
                }
            }
        }
        from
    }

    /// What is listed is what a control plane has.
    fn lists(&self, server: Id, kind: ResourceType, all: &[(Name, Listed<Arc<str>>)]) {
        let shelf = &self.remotes[server].shelf;
        for name in (0..event::NAMES).map(name) {
            let listed = all.iter().find(|(other, _)| *other == name).map(|(_, listed)| listed);
            let is_right = match (shelf.get(kind, &name), listed) {
                (Some(bad), Some(listed)) if bad.starts_with("bad") => listed.state == ResourceState::Nacked,
                (Some(good), Some(listed)) => {
                    listed.resource.as_ref() == Some(&good) && listed.error.is_none()
                }
                (Some(_), None) => false,
                (None, Some(listed))
                    if matches!(listed.state, ResourceState::Acked | ResourceState::Nacked) =>
                {
                    shelf.keeps(kind, |kind, name| self.wants(kind, name))
                }
                (None, Some(listed)) => {
                    let is_refused =
                        shelf.refusal(kind, &name).is_some() && listed.state == ResourceState::ReceivedError;
                    is_refused && self.watched.contains_key(&(kind, name.clone()))
                }
                (None, None) => true,
            };
            if !is_right {
                fail(format!("{kind} {name} of {server} is listed as {listed:?}"));
            }
        }
    }

    fn come_back(&mut self) {
        for id in 0..SERVERS {
            self.happen(&Event::Start(id));
        }
        self.rest();
        if self.federation.is_stored() && !self.watched.is_empty() {
            fail("what is on disk speaks, and control planes are there".to_owned());
        }
    }
}

/// Who gives this value: the position of a control plane, or one more than the last for what is on disk.
fn origin(resource: &str) -> u8 {
    (0..VALUES * (SERVERS as u8 + 1)).find(|v| *value(*v) == *resource).unwrap() / VALUES
}

#[test]
fn no_view_is_of_two_control_planes_and_the_first_speaks_when_it_is_back() {
    explore(20_000, script, |script| {
        let mut world = World::new(&script.setup);
        for event in &script.events {
            world.happen(event);
        }
        world.come_back();
    });
}
