//! A client, a server, a stream between them, and what the model says about all three.

use super::{
    event::{Event, Key, NAMES, Peer, Setup, name},
    lives::{Beat, Lives},
    order::Order,
    scripts::fail,
    server::{Given, Server, Shelf, version},
    transport::{Down, Said, Transport, answer, has_node, type_url},
};
use crate::{
    client::{
        self, Known, Machine, Outbox, Request, Response,
        testing::{self, Toy},
    },
    fuzzing::tape::Tape,
    name::{Name, ResourceType, WILDCARD},
    server::Variant,
};
use all::All;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

mod all;
mod check;
mod seen;

use seen::trouble;
pub(crate) use seen::{Seen, Trouble, is_earlier, seen};

/// Where the stream is.
enum Link {
    None,
    Connecting,
    Open {
        server: Box<Server>,
        shown: Arc<Shelf>,
        unsent: Box<Outbox>,
        transport: Transport,
        order: Box<Order>,
        types: BTreeSet<String>,
        /// Nonce and version of the last response of each type.
        last: BTreeMap<ResourceType, (String, String)>,
    },
}

pub(crate) struct World {
    variant: Variant,
    setup: Setup,
    now: Instant,
    client: Machine<Toy>,
    link: Link,
    /// What the server was configured with, newest last.
    history: Vec<Arc<Shelf>>,
    server_is_up: bool,
    /// The stream has not heard of the newest configuration.
    behind: bool,
    watched: BTreeMap<(ResourceType, Name), u32>,
    /// What watchers saw last.
    seen: BTreeMap<(ResourceType, Name), Known<Arc<str>>>,
    /// What watchers of everything saw last.
    all: BTreeMap<ResourceType, All>,
    /// What was ever watched by name.
    named: BTreeSet<(ResourceType, Name)>,
    /// Something came, of those of which everything is watched, that nobody has named.
    strange: BTreeSet<ResourceType>,
    /// A response came twice on this stream: it may have been older than the wildcard that it is taken for.
    doubled: bool,
    /// Resources that were bad, or not there, at some moment of which the client may yet hear.
    spoiled: BTreeSet<(ResourceType, Name)>,
    /// Last accepted version of each type.
    accepted: BTreeMap<String, String>,
    /// Types of which parts of a later version, which was rejected, are held.
    mixed: BTreeSet<String>,
    lives: Lives,
    /// What happens is written down.
    pub(crate) tape: Option<Box<Tape>>,
}

/// The response that the client takes, and whether it has to reject it.
struct Taken {
    type_url: String,
    nonce: String,
    version: String,
    is_bad: bool,
}

impl World {
    pub(crate) fn new(variant: Variant, setup: &Setup) -> Self {
        let mut shelf = Shelf::empty(setup.claim);
        shelf.hides = setup.hides;
        let mut world = Self {
            variant,
            setup: setup.clone(),
            now: Instant::now(),
            client: machine(variant, setup),
            link: Link::None,
            history: vec![Arc::new(shelf)],
            server_is_up: true,
            behind: false,
            watched: BTreeMap::new(),
            seen: BTreeMap::new(),
            all: BTreeMap::new(),
            named: BTreeSet::new(),
            strange: BTreeSet::new(),
            doubled: false,
            spoiled: BTreeSet::new(),
            accepted: BTreeMap::new(),
            mixed: BTreeSet::new(),
            lives: Lives::new(setup.ttl),
            tape: None,
        };
        world.note_spoiled();
        world
    }

    /// From now on what happens is written down.
    pub(crate) fn begin_tape(&mut self) {
        let Setup { fail_on_data_errors, timer_is_transient, .. } = self.setup;
        let tape = Tape::new(self.variant, fail_on_data_errors, timer_is_transient, self.now);
        self.tape = Some(Box::new(tape));
    }

    fn truth(&self) -> &Arc<Shelf> {
        self.history.last().unwrap()
    }

    pub(crate) fn happen(&mut self, event: &Event) {
        match event {
            Event::Interest { add, remove } => self.interest(add, remove),
            Event::Change { changes, shown } => {
                let mut shelf = self.truth().next(self.history.len());
                for (key, value) in changes {
                    match value {
                        Some(value) => shelf.resources.insert(*key, *value),
                        None => shelf.resources.remove(key),
                    };
                }
                self.configure(Arc::new(shelf));
                if *shown {
                    self.show();
                }
            }
            Event::Show => self.show(),
            Event::Deliver { to_server, kind } => {
                let _ = self.deliver(*to_server, *kind);
            }
            Event::Duplicate { to_server } => {
                if let Link::Open { transport, .. } = &mut self.link {
                    transport.duplicate(*to_server);
                    self.doubled |= !to_server;
                }
            }
            Event::Cut => self.cut("cut"),
            Event::Garble => {
                let responds = |down: &Down| !matches!(down, Down::Established);
                if matches!(&self.link, Link::Open { transport, .. } if transport.down.iter().any(responds)) {
                    self.link = Link::None;
                    self.client(client::Input::Unreadable("garbled".into()));
                }
            }
            Event::Stop => {
                self.server_is_up = false;
                self.cut("stopped");
            }
            Event::Start { back } => {
                self.cut("restarted");
                self.server_is_up = true;
                let at = self.history.len().saturating_sub(1 + *back as usize);
                let shelf = self.history[at].clone();
                self.configure(shelf);
            }
            Event::Forget => {
                self.link = Link::None;
                self.client = machine(self.variant, &self.setup);
                if let Some(tape) = &mut self.tape {
                    tape.begin_client();
                }
                self.accepted.clear();
                self.mixed.clear();
                self.lives.forget();
                self.seen.clear();
                self.all.clear();
                self.strange.clear();
                let watched = self.watched.iter();
                let add = watched.flat_map(|(key, count)| (0..*count).map(|_| key.clone())).collect();
                self.client(client::Input::Interest { add, remove: vec![] });
            }
            Event::Beat(kind) => self.beat(*kind),
            Event::Pass(millis) => {
                self.now += Duration::from_millis((*millis).into());
                self.tick();
            }
        }
    }

    fn interest(&mut self, add: &[Key], remove: &[Key]) {
        let add: Vec<_> = add.iter().map(|(kind, index)| (*kind, name(*index))).collect();
        self.named.extend(add.iter().cloned());
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
                    self.strange.remove(kind);
                }
            }
            ended.push(key);
        }
        self.client(client::Input::Interest { add, remove: ended });
    }

    fn configure(&mut self, shelf: Arc<Shelf>) {
        self.history.push(shelf);
        self.behind = true;
        self.note_spoiled();
    }

    fn note_spoiled(&mut self) {
        let truth = self.history.last().unwrap();
        let good = |(kind, name): &(ResourceType, Name)| {
            truth.get(*kind, name).is_some_and(|value| !value.starts_with("bad"))
        };
        let all =
            ResourceType::ALL.into_iter().flat_map(|kind| (0..NAMES).map(move |index| (kind, name(index))));
        self.spoiled.extend(all.filter(|key| !good(key)));
    }

    fn show(&mut self) {
        let shelf = self.truth().clone();
        if let Link::Open { server, shown, .. } = &mut self.link
            && std::mem::take(&mut self.behind)
        {
            shown.clone_from(&shelf);
            if let Some(tape) = &mut self.tape {
                tape.view(self.now, shelf.served());
            }
            let given = server.other(self.now, Some(shelf));
            self.given(given);
        }
    }

    fn tick(&mut self) {
        self.client(client::Input::Tick);
        if let Link::Open { server, .. } = &mut self.link {
            let given = server.other(self.now, None);
            self.given(given);
        }
    }

    fn cut(&mut self, why: &str) {
        if !matches!(std::mem::replace(&mut self.link, Link::None), Link::None) {
            self.client(client::Input::Closed(why.into()));
        }
    }

    /// Lets a message arrive, or the attempt to connect end. False: there is nothing under way.
    fn deliver(&mut self, to_server: bool, kind: Option<ResourceType>) -> bool {
        match &mut self.link {
            Link::None => false,
            Link::Connecting if self.server_is_up => {
                let shown = self.truth().clone();
                let server = Box::new(Server::new(self.variant, self.setup.peer, shown.clone()));
                if let Some(tape) = &mut self.tape {
                    tape.begin_server(self.setup.peer == Peer::Envoy, shown.served());
                }
                (self.behind, self.doubled) = (false, false);
                let mut transport = Transport::default();
                transport.down.push_back(Down::Established);
                let order = Box::<Order>::default();
                let (types, last) = (BTreeSet::new(), BTreeMap::new());
                let unsent = Box::default();
                self.link = Link::Open { server, shown, unsent, transport, order, types, last };
                // The version of a type outlives the stream as long as something of the type is held.
                let watched = &self.watched;
                self.accepted.retain(|url, _| watched.keys().any(|(kind, _)| kind.url() == url));
                // And as long as all that is named of it is held, and nothing is wrong with it.
                let named = self.watched.keys().filter(|(_, name)| **name != *WILDCARD);
                let is_sound = |(kind, name): &(ResourceType, Name)| {
                    let known = seen(self.client.known(*kind, name));
                    matches!(known, Seen::Good(_, None | Some(Trouble::Unreachable)))
                };
                for (kind, _) in named.filter(|key| !is_sound(key)) {
                    self.accepted.remove(kind.url());
                }
                // And that is of one version.
                for url in std::mem::take(&mut self.mixed) {
                    self.accepted.remove(&url);
                }
                // Of a list it could be that of a response to a smaller subscription.
                for kind in self.listed_kinds() {
                    self.accepted.remove(kind.url());
                }
                self.client(client::Input::Opened);
                true
            }
            Link::Connecting => {
                self.cut("refused");
                true
            }
            Link::Open { server, unsent, transport, order, .. } if to_server => {
                if transport.up.is_empty() {
                    transport.up.extend(unsent.pop());
                }
                let Some(request) = transport.take_up(kind) else { return false };
                let (nonce, rejects) = answer(&request);
                let kind = ResourceType::from_url(type_url(&request)).unwrap();
                let answers = order.answered(kind, nonce);
                order.before(&request);
                if let Some(tape) = &mut self.tape {
                    tape.request(self.now, &request);
                }
                let given = server.request(self.now, request);
                if given.rejected != (answers && rejects) {
                    fail(format!("{kind}: a rejection was taken wrongly"));
                }
                self.given(given);
                true
            }
            Link::Open { transport, .. } => {
                match transport.take_down(kind) {
                    None => return false,
                    Some(Down::Established) => self.client(client::Input::Established),
                    Some(Down::Response(response)) => {
                        self.hears(&response);
                        self.client(client::Input::Response(response));
                    }
                    Some(Down::Beat(beat)) => self.beats(&beat),
                }
                true
            }
        }
    }

    /// Judges what the server gave out, and sends it.
    fn given(&mut self, mut given: Given) {
        if self.setup.peer != Peer::Ours {
            given.responses.iter_mut().for_each(without_errors);
        }
        let Link::Open { server, shown, transport, order, last, .. } = &mut self.link else { return };
        let says_removals = self.variant == Variant::Delta || self.setup.peer == Peer::Ours;
        order.judge(self.variant, says_removals, server, shown, &given.responses, self.now);
        if given.responses.is_empty() {
            return;
        }
        for response in &given.responses {
            let said = Said::of(response);
            last.insert(said.kind(), (said.nonce.to_owned(), said.version.to_owned()));
        }
        transport.down.extend(given.responses.into_iter().map(Down::Response));
        for status in server.stream().types(self.now) {
            if status.held > status.names.len() && !status.wildcard {
                fail(format!("{} held of {} names", status.held, status.names.len()));
            }
        }
    }

    /// Advances the client, and judges what it does.
    fn client(&mut self, input: client::Input) {
        let client::Input::Response(response) = input else { return self.on(input, None) };
        let said = Said::of(&response);
        if self.is_asked(said.type_url) {
            self.lives.took(&said, self.now);
        }
        let taken = Taken {
            type_url: said.type_url.to_owned(),
            nonce: said.nonce.to_owned(),
            version: said.version.to_owned(),
            is_bad: said.is_bad(),
        };
        let (url, kind) = (taken.type_url.clone(), ResourceType::from_url(&taken.type_url));
        let accepted = self.accepted.get(&url).map_or("", String::as_str);
        let is_other = taken.is_bad && taken.version != accepted;
        let before = self.values(kind);
        self.on(client::Input::Response(self.lives.dress(response)), Some(taken));
        if is_other && self.values(kind).iter().zip(&before).any(|(now, then)| now.is_some() && now != then) {
            self.mixed.insert(url);
        }
    }

    /// What the client holds of each name.
    fn values(&self, kind: Option<ResourceType>) -> Vec<Option<Arc<str>>> {
        let value = |index| match self.client.known(kind?, &name(index)) {
            Known::Good { resource, .. } => Some(resource),
            _ => None,
        };
        (0..NAMES).map(value).collect()
    }

    /// Whether the client asked for a type on this stream.
    fn is_asked(&self, type_url: &str) -> bool {
        matches!(&self.link, Link::Open { types, .. } if types.contains(type_url))
    }

    /// The control plane lets the hearts beat of what it sent.
    fn beat(&mut self, kind: ResourceType) {
        let Link::Open { transport, order, last, .. } = &mut self.link else { return };
        let Some((nonce, version)) = last.get(&kind).filter(|_| self.lives.ttl.is_some()) else { return };
        let all = order.sent.iter().filter(|((other, _), _)| *other == kind);
        let all = all.map(|((_, name), value)| (name.clone(), value.clone())).collect();
        let all = Beat::of(self.variant, kind, all);
        if !all.is_empty() {
            let (nonce, version) = (nonce.clone(), version.clone());
            transport.down.push_back(Down::Beat(Beat { kind, nonce, version, all }));
        }
    }

    /// The client hears of that.
    fn beats(&mut self, beat: &Beat) {
        let mut is_bad = false;
        if self.is_asked(beat.kind.url()) {
            let known = |name: &Name| {
                let is_wanted = self.client.wants(beat.kind, name);
                is_wanted.then(|| self.client.known(beat.kind, name))
            };
            let lapsed = |name: &Name| self.client.lapsed(beat.kind, name);
            is_bad = self.lives.beats(self.variant, beat, self.now, known, lapsed);
        }
        let taken = Taken {
            type_url: beat.kind.url().to_owned(),
            nonce: beat.nonce.clone(),
            version: beat.version.clone(),
            is_bad,
        };
        let response = beat.response(self.variant, self.lives.ttl.unwrap());
        self.on(client::Input::Response(response), Some(taken));
    }

    fn on(&mut self, input: client::Input, taken: Option<Taken>) {
        if let Some(tape) = &mut self.tape {
            tape.client(self.now, &input);
        }
        let outputs = self.client.on(self.now, input);
        if let Some(taken) = &taken {
            self.answered(taken, &outputs.requests);
        }
        for request in &outputs.requests {
            self.asked(request);
        }
        for key in outputs.changed {
            self.saw(key);
        }
        if let Link::Open { unsent, transport, .. } = &mut self.link {
            if self.setup.slow {
                outputs.requests.into_iter().for_each(|request| unsent.push(request));
            } else {
                transport.up.extend(outputs.requests);
            }
        } else if !outputs.requests.is_empty() {
            fail("it sends without a stream".to_owned());
        }
        if outputs.connect {
            if !matches!(self.link, Link::None) {
                fail("it connects twice".to_owned());
            }
            self.link = Link::Connecting;
        }
        self.judge_all();
        if self.lives.ttl.is_some() {
            for key in self.watched.keys() {
                let known = self.client.known(key.0, &key.1);
                self.lives.judge(key, &known, self.now);
            }
        }
    }

    /// A response is answered once, for what it is.
    fn answered(&mut self, taken: &Taken, requests: &[Request]) {
        let Link::Open { types, .. } = &self.link else { return };
        let Taken { type_url: url, nonce, version, is_bad } = taken;
        let those = requests.iter().filter(|request| type_url(request) == url);
        let answers: Vec<_> = those.map(answer).filter(|(answered, _)| answered == nonce).collect();
        let expected = if types.contains(url) { vec![(nonce.as_str(), *is_bad)] } else { vec![] };
        if answers != expected {
            fail(format!("{url} {nonce}: it answers {answers:?}"));
        }
        if !is_bad {
            self.accepted.insert(url.clone(), version.clone());
            self.mixed.remove(url);
        }
    }

    /// What holds for every request.
    fn asked(&mut self, request: &Request) {
        let Link::Open { types, .. } = &mut self.link else { return };
        if has_node(request) != types.is_empty() {
            fail("the node belongs into the first request of a stream, and only there".to_owned());
        }
        let first = types.insert(type_url(request).to_owned());
        let names = match request {
            Request::Sotw(request) => {
                let accepted = self.accepted.get(&request.type_url).map_or("", String::as_str);
                if request.version_info != accepted {
                    fail(format!("it claims {:?}, having accepted {accepted:?}", request.version_info));
                }
                &request.resource_names
            }
            Request::Delta(request) => {
                let kind = ResourceType::from_url(&request.type_url).unwrap();
                for (name, claimed) in &request.initial_resource_versions {
                    match self.client.known(kind, name) {
                        Known::Good { resource, .. } if *claimed == *version(&resource) && first => {}
                        // What is in trouble and nobody names.
                        Known::Good { note: Some(_), .. } | Known::Bad(_)
                            if claimed.is_empty() && first && self.client.wants(kind, name) => {}
                        known => fail(format!("it claims {claimed} of {kind} {name}, having {known:?}")),
                    }
                }
                &request.resource_names_subscribe
            }
        };
        let kind = ResourceType::from_url(type_url(request)).unwrap();
        let lists = names.iter().any(|name| name == WILDCARD);
        let wanted = self.watched.contains_key(&(kind, WILDCARD.into()));
        let says_all = matches!(request, Request::Sotw(_));
        if (first && names.is_empty()) || (lists && !wanted) || (says_all && lists != wanted) {
            fail(format!("a wildcard: {request:?}"));
        }
    }

    /// A watcher looks at what changed.
    fn saw(&mut self, key: (ResourceType, Name)) {
        if !self.watched.contains_key(&key) {
            fail(format!("{key:?} changed, and nobody watches it"));
        }
        if *key.1 == *WILDCARD {
            return self.saw_all(key.0);
        }
        let known = self.client.known(key.0, &key.1);
        let was_good = matches!(self.seen.get(&key), Some(Known::Good { .. }));
        let is_good = matches!(known, Known::Good { .. });
        // To go by the control plane's word is what `fail_on_data_errors` is for.
        let may_go = self.setup.fail_on_data_errors && self.spoiled.contains(&key);
        if was_good && !is_good && !may_go && !self.lives.is_over(&key, self.now) {
            fail(format!("{} {} was lost: {known:?}", key.0, key.1));
        }
        let is_level = self.is_level();
        if let Known::Good { resource, note: None } = &known
            && is_level
            && self.truth().get(key.0, &key.1).as_ref() == Some(resource)
        {
            self.spoiled.remove(&key);
        }
        self.seen.insert(key, known);
    }

    /// Nothing older is under way, and nothing that the server has not heard of.
    fn is_level(&self) -> bool {
        !self.behind && matches!(&self.link, Link::Open { transport, .. } if transport.down.is_empty())
    }

    /// Lets everything be delivered. If `finally`, the server comes back and every wait ends.
    pub(crate) fn come_to_rest(&mut self, finally: bool) {
        if finally && !self.server_is_up {
            self.happen(&Event::Start { back: 0 });
        }
        for _ in 0..1_000 {
            if self.behind {
                self.show();
            }
            if self.deliver(true, None) || self.deliver(false, None) {
                continue;
            }
            let server = match &self.link {
                Link::Open { server, .. } => server.stream().deadline(),
                _ => None,
            };
            let next = self.client.deadline().into_iter().chain(server).min();
            let Some(next) = next.filter(|_| self.server_is_up) else { return };
            if next <= self.now {
                fail("time stands still".to_owned());
            }
            self.now = next;
            self.tick();
        }
        fail("it does not come to rest".to_owned());
    }

    pub(crate) fn has_lives(&self) -> bool {
        self.lives.ttl.is_some()
    }

    pub(crate) fn server_is_up(&self) -> bool {
        self.server_is_up
    }

    /// What is seen of everything watched, as far as it does not depend on the variant.
    pub(crate) fn seen(&self) -> BTreeMap<(ResourceType, Name), Seen> {
        // Another client concludes from silence what ours is told.
        let concludes = !self.setup.timer_is_transient;
        let told = |kind: ResourceType| self.setup.peer == Peer::Ours || (kind.is_complete() && concludes);
        let keys = self.watched.keys().filter(|(kind, name)| told(*kind) && **name != *WILDCARD);
        let named = keys.map(|key| (key.clone(), seen(self.client.known(key.0, &key.1))));
        let all = named.chain(self.seen_all().into_iter().filter(|((kind, _), _)| told(*kind)));
        // What is kept is what there was, and that depends on who was told of it.
        all.filter(|((kind, _), _)| !self.is_kept(*kind)).collect()
    }
}

/// What is left of a response for who does not know resource errors.
fn without_errors(response: &mut Response) {
    match response {
        Response::Sotw(response) => response.resource_errors.clear(),
        Response::Delta(response) => response.resource_errors.clear(),
    }
}

fn machine(variant: Variant, setup: &Setup) -> Machine<Toy> {
    let mut settings = testing::settings(variant);
    settings.fail_on_data_errors = setup.fail_on_data_errors;
    settings.timer_is_transient = setup.timer_is_transient;
    settings.seed = setup.seed;
    Machine::new(Toy, settings)
}
