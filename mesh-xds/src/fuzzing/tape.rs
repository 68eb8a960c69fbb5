//! What happens to machines, written down as the bytes of the fuzz targets that drive them: recorded and modelled lives
//! become seeds, so that a fuzzer begins where a life has led.
//!
//! The targets know three names and few values, so a life is written down in theirs; what matters is the order of what
//! happens. `tests` hold that each seed leads as deep as it should.

use crate::{
    client::{self, Request, Response},
    name::{Name, ResourceType},
    proto,
    server::Variant,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Everything that is served, with its version.
pub(crate) type Served = BTreeMap<(ResourceType, Name), String>;

/// Place of a type among all.
fn kind(url: &str) -> Option<u8> {
    Some(ResourceType::from_url(url)? as u8)
}

/// A list, as [`super::bytes::Bytes::several`] reads it: what is beyond the limit is left out.
fn several<T>(limit: u8, all: impl IntoIterator<Item = T>, one: impl Fn(T) -> Vec<u8>) -> Vec<u8> {
    let all: Vec<_> = all.into_iter().take(usize::from(limit) - 1).collect();
    let count = u8::try_from(all.len()).unwrap();
    std::iter::once(count).chain(all.into_iter().flat_map(one)).collect()
}

/// Names as they come first.
#[derive(Default)]
struct Names(BTreeMap<Name, u8>);

impl Names {
    /// `a`, `b` or `c`; those that come later are `c` too.
    fn place(&mut self, name: &str) -> u8 {
        let next = u8::try_from(self.0.len()).unwrap().min(2);
        *self.0.entry(name.into()).or_insert(next)
    }
}

/// A stream of a server, in the bytes of `sotw_server` and `delta_server`.
#[derive(Default)]
pub(crate) struct ServerTape {
    bytes: Vec<u8>,
    names: Names,
    /// What was served last, by type and name; and the bits of it.
    served: Served,
    bits: u8,
}

impl ServerTape {
    pub(crate) fn begin(is_envoy: bool, served: Served) -> Self {
        let mut tape = Self::default();
        tape.serve(served);
        tape.bytes = vec![u8::from(!is_envoy), tape.bits];
        tape
    }

    /// A name is there or not, whatever the type; a type has one of two versions.
    fn serve(&mut self, served: Served) {
        let mut present = 0;
        for (_, name) in served.keys() {
            present |= 1 << self.names.place(name);
        }
        let differs = |kind: &ResourceType| {
            served.iter().any(|(key, value)| {
                key.0 == *kind && self.served.get(key).is_some_and(|before| before != value)
            })
        };
        let toggled =
            ResourceType::ALL.iter().filter(|kind| differs(kind)).map(|kind| 1 << (3 + *kind as u8));
        self.bits = ((self.bits & !7) ^ toggled.sum::<u8>()) | present;
        self.served = served;
    }

    pub(crate) fn view(&mut self, served: Served) {
        self.serve(served);
        self.bytes.extend([5, self.bits]);
    }

    /// Time passes: as much as a tick of the target can.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.bytes.extend([7, u8::try_from(time.as_millis() / 20).unwrap_or(u8::MAX)]);
    }

    fn name(&mut self, name: &str) -> u8 {
        if name == "*" { 3 } else { self.names.place(name) }
    }

    fn names(&mut self, limit: u8, names: &[String]) -> Vec<u8> {
        let places: Vec<u8> = names.iter().map(|name| self.name(name)).collect();
        several(limit, places, |place| vec![place])
    }

    pub(crate) fn request(&mut self, request: &Request) {
        let (url, nonce, rejects) = match request {
            Request::Sotw(one) => (&one.type_url, &one.response_nonce, one.error_detail.is_some()),
            Request::Delta(one) => (&one.type_url, &one.response_nonce, one.error_detail.is_some()),
        };
        let Some(kind) = kind(url) else { return };
        // An answer is one to what is outstanding.
        let answers = if nonce.is_empty() { 3 } else { 0 };
        self.bytes.extend([0, kind, answers, if rejects { 2 } else { 0 }, 0]);
        let rest = match request {
            Request::Sotw(one) => [vec![0], self.names(5, &one.resource_names)].concat(),
            Request::Delta(one) => {
                let subscribe = self.names(5, &one.resource_names_subscribe);
                let unsubscribe = self.names(4, &one.resource_names_unsubscribe);
                let held: Vec<String> = one.initial_resource_versions.keys().cloned().collect();
                let held: Vec<u8> = held.iter().map(|name| self.name(name)).collect();
                [subscribe, unsubscribe, several(4, held, |name| vec![name, 0])].concat()
            }
        };
        self.bytes.extend(rest);
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A client's life, in the bytes of `client_machine`.
pub(crate) struct ClientTape {
    bytes: Vec<u8>,
    names: Names,
}

impl ClientTape {
    pub(crate) fn begin(variant: Variant, fails: bool, is_transient: bool) -> Self {
        let is_delta = u8::from(variant == Variant::Delta);
        Self { bytes: vec![is_delta, fails.into(), is_transient.into(), 0], names: Names::default() }
    }

    fn key(&mut self, (kind, name): &client::Key) -> Vec<u8> {
        let name = if &**name == "*" { 3 } else { self.names.place(name) };
        vec![*kind as u8, name]
    }

    fn keys(&mut self, keys: &[client::Key]) -> Vec<u8> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        several(3, keys, |key| key)
    }

    /// One of the words of the target, and the type.
    fn any(&mut self, any: &proto::Any) -> Vec<u8> {
        let text = String::from_utf8_lossy(&any.value);
        let (name, value) = text.split_once('=').unwrap_or_default();
        let is_bad = value.starts_with("bad");
        let is_odd = value.bytes().last().is_some_and(|last| last % 2 == 1);
        let body = match (self.names.place(name), is_bad) {
            (0, true) => 4,
            (_, true) => 5,
            (0, false) => u8::from(is_odd),
            (place, false) => place + 1,
        };
        vec![body, 0, kind(&any.type_url).unwrap_or_default()]
    }

    fn error(&mut self, error: &proto::ResourceError) -> Vec<u8> {
        let name = error.resource_name.as_ref().map_or(String::new(), |name| name.name.clone());
        let code = error.error_detail.as_ref().map_or(0, |status| status.code);
        vec![1, self.said(&name), 1, u8::try_from(code).unwrap_or_default()]
    }

    fn said(&mut self, name: &str) -> u8 {
        if name == "*" { 4 } else { self.names.place(name) }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.bytes.extend([10, u8::try_from(time.as_millis() / 200).unwrap_or(u8::MAX)]);
    }

    pub(crate) fn input(&mut self, input: &client::Input) {
        let bytes = match input {
            client::Input::Interest { add, remove } => {
                // No more than two of each at a time.
                let steps = add.len().div_ceil(2).max(remove.len().div_ceil(2));
                let two =
                    |keys: &[client::Key], step: usize| keys.iter().skip(2 * step).take(2).cloned().collect();
                let step = |step| {
                    let (add, remove): (Vec<_>, Vec<_>) = (two(add, step), two(remove, step));
                    [vec![0], self.keys(&add), self.keys(&remove)].concat()
                };
                (0..steps).flat_map(step).collect()
            }
            client::Input::Opened => vec![3],
            client::Input::Established => vec![5],
            client::Input::Response(response) => self.response(response),
            client::Input::Closed(_) => vec![9, 1],
            client::Input::Unreadable(_) => vec![9, 0],
            client::Input::Held => vec![11, 2],
            client::Input::Resumed => vec![11, 3],
            client::Input::Forget(keys) => [vec![11, 1], self.keys(keys)].concat(),
            client::Input::Hangup => vec![11, 0],
            client::Input::Tick => vec![10, 0],
        };
        self.bytes.extend(bytes);
    }

    fn response(&mut self, response: &Response) -> Vec<u8> {
        match response {
            Response::Sotw(response) => {
                let resources: Vec<_> =
                    response.resources.iter().map(|any| [vec![0], self.any(any)].concat()).collect();
                let errors: Vec<_> = response.resource_errors.iter().map(|one| self.error(one)).collect();
                let url = vec![6, 1, 0, 0, kind(&response.type_url).unwrap_or_default()];
                [url, several(4, resources, |one| one), several(2, errors, |one| one)].concat()
            }
            Response::Delta(response) => {
                let resource = |tape: &mut Self, one: &proto::Resource| {
                    let body = one.resource.as_ref().map_or(vec![7], |any| [vec![0], tape.any(any)].concat());
                    let ttl = if one.ttl.is_some() { vec![0, 25] } else { vec![2] };
                    [vec![tape.said(&one.name), 1], body, ttl].concat()
                };
                let resources: Vec<_> = response.resources.iter().map(|one| resource(self, one)).collect();
                let removed: Vec<_> = response.removed_resources.iter().map(|name| self.said(name)).collect();
                let errors: Vec<_> = response.resource_errors.iter().map(|one| self.error(one)).collect();
                [
                    vec![6, 1, 1, 0, kind(&response.type_url).unwrap_or_default()],
                    several(4, resources, |one| one),
                    several(3, removed, |name| vec![name]),
                    several(2, errors, |one| one),
                ]
                .concat()
            }
        }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A life of a client and of the servers that it speaks to, one after another.
pub(crate) struct Tape {
    variant: Variant,
    fails: bool,
    is_transient: bool,
    now: Instant,
    /// What each had; a client that starts anew, and each stream of a server, begins another one.
    clients: Vec<Vec<u8>>,
    servers: Vec<Vec<u8>>,
    client: ClientTape,
    server: Option<ServerTape>,
}

impl Tape {
    pub(crate) fn new(variant: Variant, fails: bool, is_transient: bool, now: Instant) -> Self {
        let client = ClientTape::begin(variant, fails, is_transient);
        let (clients, servers) = (Vec::new(), Vec::new());
        Self { variant, fails, is_transient, now, clients, servers, client, server: None }
    }

    fn pass(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.now);
        self.now = now;
        if !time.is_zero() {
            self.client.pass(time);
            if let Some(server) = &mut self.server {
                server.pass(time);
            }
        }
    }

    pub(crate) fn client(&mut self, now: Instant, input: &client::Input) {
        self.pass(now);
        if !matches!(input, client::Input::Tick) {
            self.client.input(input);
        }
    }

    pub(crate) fn begin_client(&mut self) {
        let client = ClientTape::begin(self.variant, self.fails, self.is_transient);
        self.clients.push(std::mem::replace(&mut self.client, client).bytes());
    }

    pub(crate) fn begin_server(&mut self, is_envoy: bool, served: Served) {
        let server = self.server.replace(ServerTape::begin(is_envoy, served));
        self.servers.extend(server.map(ServerTape::bytes));
    }

    pub(crate) fn request(&mut self, now: Instant, request: &Request) {
        self.pass(now);
        if let Some(server) = &mut self.server {
            server.request(request);
        }
    }

    pub(crate) fn view(&mut self, now: Instant, served: Served) {
        self.pass(now);
        if let Some(server) = &mut self.server {
            server.view(served);
        }
    }

    /// All of both.
    pub(crate) fn end(mut self) -> [Vec<Vec<u8>>; 2] {
        self.begin_client();
        self.servers.extend(self.server.map(ServerTape::bytes));
        [self.clients, self.servers]
    }
}
