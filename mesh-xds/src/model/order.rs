//! Whether a server keeps the order of additions and the grace of removals (make before break), judged by what
//! it sends on one stream.

use super::{
    scripts::fail,
    server::{Server, Shelf},
    transport::{Said, type_url},
};
use crate::{
    client::{Request, Response},
    name::{Name, ResourceType},
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
    /// Since when something that it was sent is no longer there for it.
    gone: BTreeMap<(ResourceType, Name), Instant>,
    /// What of it the client has accepted in some version: it goes on with that when it rejects another.
    good: BTreeSet<(ResourceType, Name)>,
    /// Types that the client asked for.
    started: BTreeSet<ResourceType>,
    /// What the stream was subscribed to when it was looked at last.
    asked: Asked,
    /// Responses without an answer.
    pub(super) outstanding: BTreeMap<ResourceType, (String, Instant)>,
}

impl Order {
    /// A request says what the client holds: what it brings from an earlier stream, or what it still wants.
    pub(super) fn before(&mut self, request: &Request) {
        let kind = ResourceType::from_url(type_url(request)).unwrap();
        let request = match request {
            Request::Delta(request) => request,
            // Under a wildcard the subscription says more than the names of a request: see `follow`.
            Request::Sotw(_) if self.asked.is_wild(kind) => return,
            Request::Sotw(request) => {
                let named = |name: &str| request.resource_names.iter().any(|other| other == name);
                self.sent.retain(|(other, name), _| *other != kind || named(name));
                return;
            }
        };
        for name in request.resource_names_subscribe.iter().chain(&request.resource_names_unsubscribe) {
            self.sent.remove(&(kind, Name::from(name.as_str())));
        }
        if !self.started.insert(kind) {
            return;
        }
        for (name, version) in &request.initial_resource_versions {
            if let Some(value) = version.strip_prefix("h:") {
                self.sent.insert((kind, Name::from(name.as_str())), value.into());
                self.good.insert((kind, Name::from(name.as_str())));
            }
        }
    }

    /// Reads which answer a request is; false: it is none, or to an earlier response.
    pub(super) fn answered(&mut self, kind: ResourceType, nonce: &str) -> bool {
        let is_last = self.outstanding.get(&kind).is_some_and(|(last, _)| last == nonce);
        if is_last {
            self.outstanding.remove(&kind);
            let good = self.sent.iter().filter(|((other, _), value)| *other == kind && !is_bad(value));
            self.good.extend(good.map(|(key, _)| key.clone()));
        }
        is_last
    }

    /// Whether the client has rejected something of this type, and goes on with what it had before.
    fn goes_on(&self, kind: ResourceType) -> bool {
        let mut sent = self.sent.iter().filter(|((other, _), _)| *other == kind);
        !self.outstanding.contains_key(&kind)
            && sent.any(|(key, value)| is_bad(value) && self.good.contains(key))
    }

    /// The server read a request, or was shown another revision: what the client still holds of what it was sent,
    /// and what of that is no longer there for it.
    fn follow(&mut self, server: &Server, shelf: &Shelf, now: Instant) {
        let before = std::mem::replace(&mut self.asked, Asked::of(server, now));
        let asked = &self.asked;
        self.sent.retain(|(kind, name), _| {
            // Given up by name, it stays held only by a wildcard that covers it and did so before.
            let given_up = before.names(*kind, name) && !asked.names(*kind, name);
            asked.has(*kind, name) && (!given_up || (before.is_wild(*kind) && shelf.lists(*kind, name)))
        });
        let sent = &self.sent;
        self.good.retain(|key| sent.contains_key(key));
        self.gone.retain(|key, _| sent.contains_key(key));
        for (kind, name) in sent.keys() {
            let is_there = shelf.get(*kind, name).is_some() && asked.names(*kind, name);
            if is_there || (asked.is_wild(*kind) && shelf.lists(*kind, name)) {
                self.gone.remove(&(*kind, name.clone()));
            } else {
                self.gone.entry((*kind, name.clone())).or_insert(now);
            }
        }
    }

    /// The server read or saw something, and sent this.
    pub(super) fn judge(
        &mut self,
        variant: Variant,
        says_removals: bool,
        server: &Server,
        shelf: &Shelf,
        responses: &[Response],
        now: Instant,
    ) {
        self.follow(server, shelf, now);
        let Settings { order_wait, .. } = Settings::default();
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
            if adds && matches!(kind, ResourceType::Listener | ResourceType::RouteConfiguration) {
                for earlier in ResourceType::ALL.into_iter().take_while(|other| *other != kind) {
                    match self.outstanding.get(&earlier) {
                        Some((_, at)) if now < *at + order_wait => {
                            fail(format!("{kind} is added while {earlier} waits for its answer"));
                        }
                        None if self.lacks(earlier, shelf) => {
                            fail(format!("{kind} is added before {earlier}"));
                        }
                        _ => {}
                    }
                }
            }
            for key in removed {
                self.judge_removal(&key, says_removals, shelf, now);
                self.sent.remove(&key);
                self.gone.remove(&key);
            }
            for (name, value) in &said.resources {
                self.sent.insert((kind, Name::from(*name)), Arc::from(*value));
            }
            self.outstanding.insert(kind, (said.nonce.to_owned(), now));
        }
    }

    /// Something that the client holds is taken from it: break, after make.
    fn judge_removal(
        &self,
        (kind, name): &(ResourceType, Name),
        says_removals: bool,
        shelf: &Shelf,
        now: Instant,
    ) {
        let Settings { order_wait, removal_grace, .. } = Settings::default();
        let Some(since) = self.gone.get(&(*kind, name.clone())) else {
            fail(format!("{kind} {name} is removed, and is there"));
        };
        if now < *since + removal_grace {
            fail(format!("{kind} {name} is removed within its grace"));
        }
        if let Some(lacking) = ResourceType::ALL.into_iter().find(|other| self.lacks(*other, shelf)) {
            fail(format!("{kind} {name} is removed before {lacking} is added"));
        }
        let mut unanswered = self.outstanding.iter().filter(|(_, (_, at))| now < *at + order_wait);
        if let Some((other, _)) = unanswered.next() {
            fail(format!("{kind} {name} is removed while {other} waits for its answer"));
        }
        if let Some(user) = kind.users().iter().find(|user| self.goes_on(**user)) {
            fail(format!("{kind} {name} is removed, and what it had of {user} before may name it"));
        }
        let rejects = |kind| self.sent.iter().any(|((other, _), value)| *other == kind && is_bad(value));
        let mut later = self.gone.iter().filter(|((other, _), since)| {
            *other > *kind
                && !other.users().iter().any(|user| rejects(*user))
                && **since + removal_grace <= now
                && !self.outstanding.contains_key(other)
                && (says_removals || other.is_complete())
        });
        if let Some(((other, later), _)) = later.next_back() {
            fail(format!("{kind} {name} is removed before {other} {later}"));
        }
    }

    /// Whether there is something of a type that the client asked for and was not sent.
    fn lacks(&self, kind: ResourceType, shelf: &Shelf) -> bool {
        let asked = shelf.all(kind).filter(|(name, _)| {
            self.asked.names(kind, name) || (self.asked.is_wild(kind) && shelf.lists(kind, name))
        });
        asked.into_iter().any(|(name, value)| self.sent.get(&(kind, name)) != Some(&value))
    }
}

/// What our toys reject.
fn is_bad(value: &str) -> bool {
    value.starts_with("bad")
}

/// What a stream is subscribed to.
#[derive(Default)]
struct Asked(Vec<(&'static str, bool, Vec<Name>)>);

impl Asked {
    fn of(server: &Server, now: Instant) -> Self {
        let types = server.stream().types(now).into_iter();
        Self(types.map(|status| (status.kind, status.wildcard, status.names)).collect())
    }

    /// Whether a resource is asked for by its name.
    fn names(&self, kind: ResourceType, name: &Name) -> bool {
        let mut those = self.0.iter().filter(|(other, ..)| *other == kind.abbreviation());
        those.any(|(.., names)| names.contains(name))
    }

    /// Whether everything of a type is asked for.
    fn is_wild(&self, kind: ResourceType) -> bool {
        self.0.iter().any(|(other, wild, _)| *wild && *other == kind.abbreviation())
    }

    fn has(&self, kind: ResourceType, name: &Name) -> bool {
        self.is_wild(kind) || self.names(kind, name)
    }
}
