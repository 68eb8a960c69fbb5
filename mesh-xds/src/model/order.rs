//! Whether a server keeps the order of additions and the grace of removals (make before break), judged by what
//! it sends on one stream.

use super::{
    scripts::fail,
    server::{Server, Shelf},
    transport::{Said, type_url},
};
use crate::{
    client::{Request, Response},
    name::{Name, ResourceType, WILDCARD},
    server::{Settings, Variant},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

/// What a client holds, by what it was sent.
#[derive(Default)]
pub(super) struct Order {
    pub(super) sent: BTreeMap<(ResourceType, Name), Arc<str>>,
    /// Since when something that it was sent is no longer there.
    gone: BTreeMap<(ResourceType, Name), Instant>,
    /// Types that the client asked for.
    started: BTreeSet<ResourceType>,
    /// Types of which it asked for everything: what a stream holds of them, and since when, its names do not say.
    wild: BTreeSet<ResourceType>,
    /// Responses without an answer.
    pub(super) outstanding: BTreeMap<ResourceType, (String, Instant)>,
}

impl Order {
    /// A request says what the client holds: what it brings from an earlier stream, or what it still wants.
    pub(super) fn before(&mut self, request: &Request, shelf: &Shelf, now: Instant) {
        let kind = ResourceType::from_url(type_url(request)).unwrap();
        let request = match request {
            Request::Delta(request) => request,
            Request::Sotw(request) => {
                if request.resource_names.iter().any(|name| name == WILDCARD) {
                    self.wild.insert(kind);
                    return;
                }
                let named = |name: &str| request.resource_names.iter().any(|other| other == name);
                self.sent.retain(|(other, name), _| *other != kind || named(name));
                return;
            }
        };
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.wild.insert(kind);
            }
            self.sent.remove(&(kind, Name::from(name.as_str())));
        }
        if !self.started.insert(kind) {
            return;
        }
        for (name, version) in &request.initial_resource_versions {
            let key = (kind, Name::from(name.as_str()));
            if shelf.get(kind, name).is_none() {
                self.gone.insert(key.clone(), now);
            }
            if let Some(value) = version.strip_prefix("h:") {
                self.sent.insert(key, value.into());
            }
        }
    }

    /// Reads which answer a request is; false: it is none, or to an earlier response.
    pub(super) fn answered(&mut self, kind: ResourceType, nonce: &str) -> bool {
        let is_last = self.outstanding.get(&kind).is_some_and(|(last, _)| last == nonce);
        if is_last {
            self.outstanding.remove(&kind);
        }
        is_last
    }

    /// The server was shown another revision.
    pub(super) fn shown(&mut self, shelf: &Shelf, now: Instant) {
        for (kind, name) in self.sent.keys() {
            if shelf.get(*kind, name).is_some() {
                self.gone.remove(&(*kind, name.clone()));
            } else {
                self.gone.entry((*kind, name.clone())).or_insert(now);
            }
        }
    }

    /// The server sent something.
    pub(super) fn judge(
        &mut self,
        variant: Variant,
        says_removals: bool,
        server: &Server,
        shelf: &Shelf,
        responses: &[Response],
        now: Instant,
    ) {
        if responses.is_empty() {
            return;
        }
        let Settings { order_wait, removal_grace, .. } = Settings::default();
        let asked = Asked::of(server, now);
        self.sent.retain(|(kind, name), _| asked.has(*kind, name));
        self.gone.retain(|key, _| self.sent.contains_key(key));
        for response in responses {
            let said = Said::of(response);
            let kind = said.kind();
            if let Some(before) = self.outstanding.get(&kind) {
                fail(format!("{kind}: {} is sent while {before:?} is outstanding", said.nonce));
            }
            let listed = |name: &str| said.resources.iter().any(|(other, _)| *other == name);
            let whole = variant == Variant::Sotw && kind.is_complete();
            let held = self.sent.keys().filter(|(other, _)| *other == kind);
            let removed: Vec<_> = held
                .filter(|(_, name)| said.removed.contains(&&**name) || (whole && !listed(name)))
                .cloned()
                .collect();
            let adds = said.resources.iter().any(|(name, value)| {
                self.sent.get(&(kind, Name::from(*name))).is_none_or(|sent| **sent != **value)
            });
            let is_wild = self.wild.contains(&kind);
            if adds && !is_wild && matches!(kind, ResourceType::Listener | ResourceType::RouteConfiguration) {
                for earlier in ResourceType::ALL.into_iter().take_while(|other| *other != kind) {
                    match self.outstanding.get(&earlier) {
                        Some((_, at)) if now < *at + order_wait => {
                            fail(format!("{kind} is added while {earlier} waits for its answer"));
                        }
                        None if self.lacks(earlier, &asked, shelf) => {
                            fail(format!("{kind} is added before {earlier}"));
                        }
                        _ => {}
                    }
                }
            }
            for key in removed {
                if is_wild {
                    self.sent.remove(&key);
                    self.gone.remove(&key);
                    continue;
                }
                let Some(since) = self.gone.get(&key) else {
                    fail(format!("{kind} {} is removed, and is there", key.1));
                };
                if now < *since + removal_grace {
                    fail(format!("{kind} {} is removed within its grace", key.1));
                }
                if let Some(lacking) =
                    ResourceType::ALL.into_iter().find(|other| self.lacks(*other, &asked, shelf))
                {
                    fail(format!("{kind} {} is removed before {lacking} is added", key.1));
                }
                let mut later = self.gone.iter().filter(|((other, _), since)| {
                    *other > kind
                        && !self.wild.contains(other)
                        && **since + removal_grace <= now
                        && !self.outstanding.contains_key(other)
                        && (says_removals || other.is_complete())
                });
                if let Some(((other, name), _)) = later.next_back() {
                    fail(format!("{kind} {} is removed before {other} {name}", key.1));
                }
                self.sent.remove(&key);
                self.gone.remove(&key);
            }
            for (name, value) in &said.resources {
                self.sent.insert((kind, Name::from(*name)), Arc::from(*value));
            }
            self.outstanding.insert(kind, (said.nonce.to_owned(), now));
        }
    }

    /// Whether there is something of a type that the client asked for and was not sent.
    fn lacks(&self, kind: ResourceType, asked: &Asked, shelf: &Shelf) -> bool {
        let mut names = asked.of_type(kind).filter(|_| !self.wild.contains(&kind));
        names.any(|name| {
            shelf.get(kind, name).is_some_and(|value| self.sent.get(&(kind, name.clone())) != Some(&value))
        })
    }
}

/// What a stream is subscribed to.
struct Asked(Vec<(&'static str, bool, Vec<Name>)>);

impl Asked {
    fn of(server: &Server, now: Instant) -> Self {
        let types = server.stream().types(now).into_iter();
        Self(types.map(|status| (status.kind, status.wildcard, status.names)).collect())
    }

    fn of_type(&self, kind: ResourceType) -> impl Iterator<Item = &Name> {
        self.0.iter().filter(move |(other, ..)| *other == kind.abbreviation()).flat_map(|(.., names)| names)
    }

    fn has(&self, kind: ResourceType, name: &Name) -> bool {
        let is_wild = self.0.iter().any(|(other, wild, _)| *wild && *other == kind.abbreviation());
        is_wild || self.of_type(kind).any(|other| other == name)
    }
}
