//! Client and server machines joined in memory, under arbitrary sequences of events, against a model.
//!
//! Whatever happens, when it ends and everything is delivered: the client knows exactly what the server has
//! for it; what is rejected is never acknowledged; a good resource is never lost to a bad one; no type has two
//! responses outstanding.

use super::{
    Delta, Input, Protocol, Settings, Sotw, Variant,
    testing::{Toys, node},
};
use crate::{
    client::{
        self, Known, Machine, Request, Response,
        testing::{self, Toy},
    },
    name::{Name, ResourceType},
    proto,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// One of the two server machines, speaking the client's words.
enum Server {
    Sotw(Sotw),
    Delta(Delta),
}

impl Server {
    fn new(variant: Variant, view: Arc<Toys>) -> Self {
        match variant {
            Variant::Sotw => Self::Sotw(Sotw::new(&node(true), view, Settings::default())),
            Variant::Delta => Self::Delta(Delta::new(&node(true), view, Settings::default())),
        }
    }

    fn request(&mut self, now: Instant, request: Request) -> Vec<Response> {
        match (self, request) {
            (Self::Sotw(machine), Request::Sotw(request)) => {
                let outputs = machine.on(now, Input::Request(request)).unwrap();
                outputs.responses.into_iter().map(Response::Sotw).collect()
            }
            (Self::Delta(machine), Request::Delta(request)) => {
                let outputs = machine.on(now, Input::Request(request)).unwrap();
                outputs.responses.into_iter().map(Response::Delta).collect()
            }
            _ => panic!("the variants differ"),
        }
    }

    fn other(&mut self, now: Instant, view: Option<Arc<Toys>>) -> Vec<Response> {
        fn input<R>(view: Option<Arc<Toys>>) -> Input<R> {
            view.map_or(Input::Tick, |view| Input::View(view))
        }
        match self {
            Self::Sotw(machine) => {
                machine.on(now, input(view)).unwrap().responses.into_iter().map(Response::Sotw).collect()
            }
            Self::Delta(machine) => {
                machine.on(now, input(view)).unwrap().responses.into_iter().map(Response::Delta).collect()
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Sotw(machine) => machine.stream().deadline(),
            Self::Delta(machine) => machine.stream().deadline(),
        }
    }

    fn acked(&self) -> Option<Arc<str>> {
        match self {
            Self::Sotw(machine) => machine.stream().acked_revision(),
            Self::Delta(machine) => machine.stream().acked_revision(),
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Subscribe(ResourceType, u8),
    Unsubscribe(ResourceType, u8),
    /// Odd values are bad.
    Update(ResourceType, u8, u8),
    Delete(ResourceType, u8),
    /// Messages get through.
    Deliver {
        to_server: bool,
    },
    /// The stream breaks; messages under way are lost.
    Disconnect,
    Pass(u16),
}

const NAMES: u8 = 4;

fn name(index: u8) -> Name {
    format!("n{index}").into()
}

fn value(seed: u8) -> Arc<str> {
    if seed % 3 == 1 { format!("bad{seed}").into() } else { format!("v{seed}").into() }
}

/// Everything, and what the model says about it.
struct World {
    variant: Variant,
    fail_on_data_errors: bool,
    now: Instant,
    client: Machine<Toy>,
    server: Option<Server>,
    up: VecDeque<Request>,
    down: VecDeque<Response>,
    toys: Arc<Toys>,
    watched: BTreeMap<(ResourceType, Name), u32>,
    /// Nonces that await an answer.
    outstanding: BTreeMap<String, (String, bool)>,
    /// Resources that the client was shown in a good version, and has watched ever since.
    good: BTreeSet<(ResourceType, Name)>,
}

impl World {
    fn new(variant: Variant, fail_on_data_errors: bool) -> Self {
        let mut settings = testing::settings(variant);
        settings.fail_on_data_errors = fail_on_data_errors;
        Self {
            variant,
            fail_on_data_errors,
            now: Instant::now(),
            client: Machine::new(Toy, settings),
            server: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            toys: Arc::default(),
            watched: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            good: BTreeSet::new(),
        }
    }

    fn client(&mut self, input: client::Input) {
        let mut outputs = self.client.on(self.now, input);
        self.up.extend(std::mem::take(&mut outputs.requests));
        if outputs.connect {
            self.server = Some(Server::new(self.variant, self.toys.clone()));
            let opened = self.client.on(self.now, client::Input::Opened);
            self.up.extend(opened.requests);
            self.client.on(self.now, client::Input::Established);
        }
        // A good value that is watched does not vanish.
        for (kind, name) in self.watched.keys() {
            match self.client.known(*kind, name) {
                Known::Good { .. } => {
                    self.good.insert((*kind, name.clone()));
                }
                _ if self.fail_on_data_errors => {}
                _ => assert!(!self.good.contains(&(*kind, name.clone())), "{kind} {name} was lost"),
            }
        }
    }

    fn sent(&mut self, responses: Vec<Response>) {
        for response in responses {
            let (kind, nonce, bad) = match &response {
                Response::Sotw(r) => (r.type_url.clone(), r.nonce.clone(), r.resources.iter().any(is_bad)),
                Response::Delta(r) => {
                    let any = |r: &proto::Resource| r.resource.as_ref().is_some_and(is_bad);
                    (r.type_url.clone(), r.nonce.clone(), r.resources.iter().any(any))
                }
            };
            let before = self.outstanding.insert(kind, (nonce, bad));
            assert_eq!(before, None, "two responses of a type are outstanding");
            self.down.push_back(response);
        }
    }

    fn deliver(&mut self, to_server: bool) -> bool {
        if to_server {
            let Some(request) = self.up.pop_front() else { return false };
            let (kind, nonce, rejected) = match &request {
                Request::Sotw(r) => (&r.type_url, &r.response_nonce, r.error_detail.is_some()),
                Request::Delta(r) => (&r.type_url, &r.response_nonce, r.error_detail.is_some()),
            };
            if self.outstanding.get(kind).is_some_and(|(outstanding, _)| outstanding == nonce) {
                let (_, bad) = self.outstanding.remove(kind).unwrap();
                assert_eq!(bad, rejected, "{kind} {nonce}");
            }
            let responses = self.server.as_mut().unwrap().request(self.now, request);
            self.sent(responses);
        } else {
            let Some(response) = self.down.pop_front() else { return false };
            self.client(client::Input::Response(response));
        }
        true
    }

    fn tick(&mut self) {
        self.client(client::Input::Tick);
        if let Some(server) = &mut self.server {
            let responses = server.other(self.now, None);
            self.sent(responses);
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Toys)) {
        let mut toys = (*self.toys).clone();
        toys.revision += 1;
        change(&mut toys);
        self.toys = Arc::new(toys);
        if let Some(server) = &mut self.server {
            let responses = server.other(self.now, Some(self.toys.clone()));
            self.sent(responses);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Subscribe(kind, index) => {
                let key = (kind, name(index));
                *self.watched.entry(key.clone()).or_default() += 1;
                self.client(client::Input::Interest { add: vec![key], remove: vec![] });
            }
            Event::Unsubscribe(kind, index) => {
                let key = (kind, name(index));
                let Some(count) = self.watched.get_mut(&key) else { return };
                *count -= 1;
                if *count == 0 {
                    self.watched.remove(&key);
                    self.good.remove(&key);
                }
                self.client(client::Input::Interest { add: vec![], remove: vec![key] });
            }
            Event::Update(kind, index, seed) => {
                self.change(|toys| {
                    toys.resources.insert((kind, name(index)), value(seed));
                });
            }
            Event::Delete(kind, index) => self.change(|toys| {
                toys.resources.remove(&(kind, name(index)));
            }),
            Event::Deliver { to_server } => {
                self.deliver(to_server);
            }
            Event::Disconnect => {
                if self.server.take().is_some() {
                    self.up.clear();
                    self.down.clear();
                    self.outstanding.clear();
                    self.client(client::Input::Closed("cut".into()));
                }
            }
            Event::Pass(millis) => {
                self.now += Duration::from_millis(millis.into());
                self.tick();
            }
        }
    }

    /// Lets everything be delivered and every wait end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.deliver(true) || self.deliver(false) {
                continue;
            }
            let server = self.server.as_ref().and_then(Server::deadline);
            let Some(next) = self.client.deadline().into_iter().chain(server).min() else { return };
            self.now = self.now.max(next);
            self.tick();
        }
        panic!("it does not come to rest");
    }

    fn check(&self) {
        for (kind, name) in self.watched.keys() {
            let known = self.client.known(*kind, name);
            let truth = self.toys.resources.get(&(*kind, name.clone()));
            match (truth, known) {
                (Some(truth), Known::Good { resource, note }) if !truth.starts_with("bad") => {
                    assert_eq!((&resource, note), (truth, None), "{kind} {name}");
                }
                (Some(truth), Known::Good { note: Some(note), .. }) => {
                    assert!(!self.fail_on_data_errors, "{kind} {name} should have been dropped");
                    assert!(note.contains(&format!("{truth} is bad")), "{kind} {name}: {note}");
                }
                (Some(truth), Known::Bad(error)) => {
                    assert!(error.to_string().contains(&format!("{truth} is bad")), "{error}");
                }
                (None, Known::Good { note: Some(note), .. }) => {
                    assert!(!self.fail_on_data_errors, "{kind} {name} should have been dropped");
                    assert!(note.contains("does not exist"), "{kind} {name}: {note}");
                }
                (None, Known::Bad(error)) => assert!(error.to_string().contains("does not exist"), "{error}"),
                (truth, known) => panic!("{kind} {name} is {truth:?}, and the client knows {known:?}"),
            }
        }
        assert!(self.outstanding.is_empty());
        let rejecting = self
            .watched
            .keys()
            .any(|key| self.toys.resources.get(key).is_some_and(|value| value.starts_with("bad")));
        if let Some(server) = self.server.as_ref().filter(|_| !self.watched.is_empty()) {
            let revision = format!("r{}", self.toys.revision);
            let acked = server.acked();
            assert_eq!(
                acked.as_deref() == Some(revision.as_str()),
                !rejecting,
                "the receipt is exact: {acked:?}"
            );
        }
    }
}

fn is_bad(any: &proto::Any) -> bool {
    String::from_utf8_lossy(&any.value).contains("=bad")
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(ResourceType::ALL.to_vec());
    let key = (kind, 0..NAMES);
    prop_oneof![
        4 => key.clone().prop_map(|(kind, name)| Event::Subscribe(kind, name)),
        3 => key.clone().prop_map(|(kind, name)| Event::Unsubscribe(kind, name)),
        5 => (key.clone(), 0..9_u8).prop_map(|((kind, name), seed)| Event::Update(kind, name, seed)),
        2 => key.prop_map(|(kind, name)| Event::Delete(kind, name)),
        12 => any::<bool>().prop_map(|to_server| Event::Deliver { to_server }),
        1 => Just(Event::Disconnect),
        2 => (0..3000_u16).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn client_and_server_converge_whatever_happens(
        delta in any::<bool>(),
        fail_on_data_errors in any::<bool>(),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let variant = if delta { Variant::Delta } else { Variant::Sotw };
        let mut world = World::new(variant, fail_on_data_errors);
        for event in events {
            world.happen(event);
        }
        world.settle();
        world.check();
    }
}
