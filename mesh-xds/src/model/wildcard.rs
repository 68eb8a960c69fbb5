//! A client that asks for everything, as Envoys do, against both server machines. (Our own asks in [`super::world`].)
//!
//! It subscribes by name and by wildcard (`*`, or an empty first request), and gives both up again, several in one
//! request, over streams that break and servers that come back with something else. When everything is delivered:
//!
//! - it holds exactly what it asked for of what the server has, and knows that the rest of its names is not there;
//! - of a name that it gave up under a wildcard it heard one thing or the other (delta);
//! - what it holds already, also from an earlier stream, was not sent again (delta);
//! - nothing was added before what it may depend on, and nothing removed within its grace.

use super::{
    event::{self, NAMES, Peer, name, value},
    order::Order,
    scripts::{Script, explore, fail},
    server::{Claim, Server, Shelf, version},
    transport::Said,
};
use crate::{
    client::{Request, Response},
    name::{Name, ResourceType},
    proto,
    server::Variant,
};
use fastrand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Those that have wildcards.
const KINDS: [ResourceType; 2] = [ResourceType::Cluster, ResourceType::Listener];

#[derive(Clone, Debug)]
struct Setup {
    claim: Claim,
    peer: Peer,
    /// A wildcard is an empty request where that can be said so.
    legacy: bool,
    hides: bool,
}

#[derive(Clone, Debug)]
enum Event {
    /// Names that begin and end in one request; the last index and one more is the wildcard.
    Ask {
        kind: ResourceType,
        begin: Vec<u8>,
        end: Vec<u8>,
    },
    Change(Vec<(event::Key, Option<u8>)>),
    Deliver {
        to_server: bool,
    },
    /// The stream breaks, and another one begins; the server may have gone back so many changes.
    Cut {
        back: u8,
    },
    Pass(u16),
}

fn script(random: &mut Rng) -> Script<Setup, Event> {
    let setup = Setup {
        claim: random.choice([Claim::Anything, Claim::Exact, Claim::Prefix, Claim::TooMuch]).unwrap(),
        peer: random.choice([Peer::Ours, Peer::Envoy]).unwrap(),
        legacy: random.bool(),
        hides: random.bool(),
    };
    // Of one type alone more happens to it.
    let kinds: &[_] = if random.bool() { &KINDS[..1] } else { &KINDS };
    let events = (0..random.usize(..40)).map(|_| {
        let kind = *random.choice(kinds).unwrap();
        match random.u8(..16) {
            0..4 => {
                let mut some = || (0..random.usize(..3)).map(|_| random.u8(..=NAMES)).collect();
                Event::Ask { kind, begin: some(), end: some() }
            }
            4..8 => {
                let count = random.u8(1..4);
                let change = |_| {
                    let key = (*random.choice(kinds).unwrap(), random.u8(..NAMES));
                    (key, (random.u8(..4) > 0).then(|| random.u8(..6)))
                };
                Event::Change((0..count).map(change).collect())
            }
            8..13 => Event::Deliver { to_server: random.bool() },
            13 => Event::Cut { back: if random.bool() { 0 } else { random.u8(..4) } },
            _ => Event::Pass(random.u16(..3_000)),
        }
    });
    Script { setup, events: events.collect() }
}

/// What the client asks for of a type, and has.
#[derive(Default)]
struct Asked {
    /// Asked for on this stream.
    started: bool,
    /// Named something on this stream: from then on an empty list is no wildcard.
    named: bool,
    wild: bool,
    names: BTreeSet<Name>,
    held: BTreeMap<Name, Arc<str>>,
    absent: BTreeSet<Name>,
    /// Given up under a wildcard, and not heard of since.
    waiting: BTreeSet<Name>,
    nonce: String,
}

impl Asked {
    fn wants(&self, name: &Name) -> bool {
        self.wild || self.names.contains(name)
    }

    /// Lets go of what is not asked for.
    fn trim(&mut self) {
        let Self { wild, names, .. } = self;
        if !*wild {
            self.held.retain(|name, _| names.contains(name));
            self.waiting.clear();
        }
        self.absent.retain(|name| names.contains(name));
    }
}

struct World {
    variant: Variant,
    setup: Setup,
    now: Instant,
    history: Vec<Arc<Shelf>>,
    server: Server,
    up: VecDeque<Request>,
    down: VecDeque<Response>,
    asked: BTreeMap<ResourceType, Asked>,
    /// What the server knows that the client holds, by what it sent and was told on this stream (delta).
    known: BTreeMap<(ResourceType, Name), Arc<str>>,
    order: Order,
}

fn spelled(index: u8) -> String {
    if index == NAMES { "*".to_owned() } else { name(index).to_string() }
}

impl World {
    fn new(variant: Variant, setup: &Setup) -> Self {
        let mut shelf = Shelf::empty(setup.claim);
        shelf.hides = setup.hides;
        let shelf = Arc::new(shelf);
        Self {
            variant,
            setup: setup.clone(),
            now: Instant::now(),
            server: Server::new(variant, setup.peer, shelf.clone()),
            history: vec![shelf],
            up: VecDeque::new(),
            down: VecDeque::new(),
            asked: KINDS.map(|kind| (kind, Asked::default())).into(),
            known: BTreeMap::new(),
            order: Order::default(),
        }
    }

    fn truth(&self) -> &Arc<Shelf> {
        self.history.last().unwrap()
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Ask { kind, begin, end } => self.ask(*kind, begin, end),
            Event::Change(changes) => {
                let mut shelf = self.truth().next(self.history.len());
                for (key, value) in changes {
                    match value {
                        Some(value) => shelf.resources.insert(*key, *value),
                        None => shelf.resources.remove(key),
                    };
                }
                self.history.push(Arc::new(shelf));
                let given = self.server.other(self.now, Some(self.truth().clone()));
                self.given(given.responses);
            }
            Event::Deliver { to_server } => {
                let _ = self.deliver(*to_server);
            }
            Event::Cut { back } => self.cut(*back),
            Event::Pass(millis) => {
                self.now += Duration::from_millis((*millis).into());
                let given = self.server.other(self.now, None);
                self.given(given.responses);
            }
        }
    }

    fn ask(&mut self, kind: ResourceType, begin: &[u8], end: &[u8]) {
        let is_delta = self.variant == Variant::Delta;
        let asked = self.asked.get_mut(&kind).unwrap();
        if !asked.started && begin.is_empty() {
            // An empty first request.
            asked.wild = true;
        }
        for index in begin {
            if *index == NAMES {
                asked.wild = true;
            } else {
                // To ask again by a full list says nothing new.
                if asked.names.insert(name(*index)) || is_delta {
                    asked.absent.remove(&name(*index));
                }
                asked.waiting.remove(&name(*index));
            }
        }
        for index in end {
            if *index == NAMES {
                asked.wild = false;
            } else {
                asked.names.remove(&name(*index));
                // Whether the wildcard covers it, the server has to say.
                if asked.wild && is_delta {
                    asked.waiting.insert(name(*index));
                }
            }
        }
        let nothing = asked.names.is_empty() && !asked.wild;
        if !is_delta && nothing && !asked.named {
            // There is no way to say so: an empty list is a wildcard yet.
            asked.wild = asked.started;
            return;
        }
        asked.trim();
        if is_delta {
            let all = |indices: &[u8]| indices.iter().map(|index| spelled(*index)).collect();
            asked.started = true;
            self.up.push_back(Request::Delta(proto::DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                resource_names_subscribe: all(begin),
                resource_names_unsubscribe: all(end),
                ..Default::default()
            }));
        } else {
            self.say(kind, None);
        }
    }

    /// A state-of-the-world request: all names.
    fn say(&mut self, kind: ResourceType, error_detail: Option<proto::Status>) {
        let asked = self.asked.get_mut(&kind).unwrap();
        let mut resource_names: Vec<String> = asked.names.iter().map(ToString::to_string).collect();
        let is_legacy = self.setup.legacy && !asked.named && resource_names.is_empty();
        if asked.wild && !is_legacy {
            resource_names.push("*".to_owned());
        }
        asked.started = true;
        asked.named |= !resource_names.is_empty();
        self.up.push_back(Request::Sotw(proto::DiscoveryRequest {
            type_url: kind.url().into(),
            resource_names,
            response_nonce: asked.nonce.clone(),
            error_detail,
            ..Default::default()
        }));
    }

    fn cut(&mut self, back: u8) {
        let at = self.history.len().saturating_sub(1 + back as usize);
        let shelf = self.history[at].clone();
        self.history.push(shelf.clone());
        self.server = Server::new(self.variant, self.setup.peer, shelf);
        self.up.clear();
        self.down.clear();
        self.known.clear();
        self.order = Order::default();
        for kind in KINDS {
            let asked = self.asked.get_mut(&kind).unwrap();
            (asked.started, asked.named) = (false, false);
            asked.nonce.clear();
            asked.absent.clear();
            asked.waiting.clear();
            if !asked.wild && asked.names.is_empty() {
                continue;
            }
            if self.variant == Variant::Sotw {
                self.say(kind, None);
                continue;
            }
            let mut subscribe: Vec<String> = asked.names.iter().map(ToString::to_string).collect();
            if asked.wild && !(self.setup.legacy && subscribe.is_empty()) {
                subscribe.push("*".to_owned());
            }
            asked.started = true;
            let held = asked.held.iter().map(|(name, value)| (name.to_string(), version(value).to_string()));
            self.up.push_back(Request::Delta(proto::DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                resource_names_subscribe: subscribe,
                initial_resource_versions: held.collect(),
                ..Default::default()
            }));
        }
    }

    fn deliver(&mut self, to_server: bool) -> bool {
        if !to_server {
            let Some(response) = self.down.pop_front() else { return false };
            self.take(&response);
            return true;
        }
        let Some(request) = self.up.pop_front() else { return false };
        if let Request::Delta(request) = &request {
            let kind = ResourceType::from_url(&request.type_url).unwrap();
            for name in request.resource_names_subscribe.iter().chain(&request.resource_names_unsubscribe) {
                self.known.remove(&(kind, name.as_str().into()));
                if name == "*" {
                    // What it held by the wildcard alone may be sent again.
                    self.known.retain(|(other, _), _| *other != kind);
                }
            }
            for (name, version) in &request.initial_resource_versions {
                let value = version.strip_prefix("h:").unwrap().into();
                self.known.insert((kind, name.as_str().into()), value);
            }
        }
        let (Request::Sotw(proto::DiscoveryRequest { response_nonce: nonce, type_url, .. })
        | Request::Delta(proto::DeltaDiscoveryRequest { response_nonce: nonce, type_url, .. })) = &request;
        self.order.answered(ResourceType::from_url(type_url).unwrap(), nonce);
        self.order.before(&request);
        let given = self.server.request(self.now, request);
        self.given(given.responses);
        true
    }

    fn given(&mut self, responses: Vec<Response>) {
        let shelf = self.truth().clone();
        self.order.judge(self.variant, true, &self.server, &shelf, &responses, self.now);
        for response in responses {
            let said = Said::of(&response);
            if matches!(response, Response::Delta(_)) {
                for (name, value) in &said.resources {
                    let key = (said.kind(), Name::from(*name));
                    if self.known.insert(key, (*value).into()).is_some_and(|before| *before == **value) {
                        fail(format!("{} {name}={value} is sent again", said.kind()));
                    }
                }
                for name in &said.removed {
                    self.known.remove(&(said.kind(), Name::from(*name)));
                }
            }
            self.down.push_back(response);
        }
    }

    /// The client takes a response, and answers.
    fn take(&mut self, response: &Response) {
        let said = Said::of(response);
        let kind = said.kind();
        let asked = self.asked.get_mut(&kind).unwrap();
        asked.nonce = said.nonce.to_owned();
        let mut bad = Vec::new();
        for (name, value) in &said.resources {
            let name = Name::from(*name);
            asked.absent.remove(&name);
            asked.waiting.remove(&name);
            if value.starts_with("bad") {
                bad.push(format!("{kind} {name}: {value} is bad"));
            } else if asked.wants(&name) {
                asked.held.insert(name, (*value).into());
            }
        }
        for name in &said.removed {
            let name = Name::from(*name);
            asked.held.remove(&name);
            asked.waiting.remove(&name);
            if asked.names.contains(&name) {
                asked.absent.insert(name);
            }
        }
        if self.variant == Variant::Sotw {
            let is_listed = |name: &Name| said.resources.iter().any(|(other, _)| *other == &**name);
            asked.held.retain(|name, _| is_listed(name));
            asked.absent.extend(asked.names.iter().filter(|name| !is_listed(name)).cloned());
        }
        let error = (!bad.is_empty()).then(|| proto::Status { code: 3, message: bad.join("\n") });
        match self.variant {
            Variant::Sotw => self.say(kind, error),
            Variant::Delta => self.up.push_back(Request::Delta(proto::DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                response_nonce: said.nonce.to_owned(),
                error_detail: error,
                ..Default::default()
            })),
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..1_000 {
            if self.deliver(true) || self.deliver(false) {
                continue;
            }
            let Some(next) = self.server.stream().deadline() else { return };
            self.now = next;
            let given = self.server.other(self.now, None);
            self.given(given.responses);
        }
        fail("it does not come to rest".to_owned());
    }

    fn check(&self) {
        if !self.order.outstanding.is_empty() {
            fail(format!("never answered: {:?}", self.order.outstanding));
        }
        let truth = self.truth();
        let (mut started, mut rejecting) = (false, false);
        let wanted = |asked: &Asked, name: &Name| {
            let is_hidden = self.setup.hides && *name == event::name(NAMES - 1);
            asked.names.contains(name) || (asked.wild && !is_hidden)
        };
        for (kind, asked) in &self.asked {
            started |= asked.started;
            for name in (0..NAMES).map(name) {
                let there = truth.get(*kind, &name).filter(|_| wanted(asked, &name));
                let held = asked.held.get(&name);
                let is_wanted =
                    |kind, name: &Name| self.asked.get(&kind).is_some_and(|asked| wanted(asked, name));
                let is_kept = truth.keeps(*kind, is_wanted);
                let is_right = match &there {
                    Some(bad) if bad.starts_with("bad") => {
                        rejecting = true;
                        true
                    }
                    Some(good) => held == Some(good),
                    None if is_kept => true,
                    None => held.is_none() && (!asked.names.contains(&name) || asked.absent.contains(&name)),
                };
                if !is_right {
                    fail(format!("{kind} {name} is {there:?}, and the client holds {held:?}"));
                }
            }
            if !asked.waiting.is_empty() {
                fail(format!("{kind}: it never heard of {:?}", asked.waiting));
            }
        }
        let acked = self.server.stream().acked_revision();
        if started && (acked == Some(truth.revision())) == rejecting {
            let types = self.server.stream().types(self.now);
            fail(format!("the receipt is wrong: {acked:?} {:?}: {types:?}", self.variant));
        }
    }
}

#[test]
fn wildcards_converge_whatever_is_named_beside_them() {
    assert!((0..6).any(|v| value(v).starts_with("bad")));
    explore(20_000, script, |script| {
        for variant in [Variant::Sotw, Variant::Delta] {
            let mut world = World::new(variant, &script.setup);
            for event in &script.events {
                world.happen(event);
            }
            world.come_to_rest();
            world.check();
        }
    });
}
