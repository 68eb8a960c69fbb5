//! What a response does to the machine: each resource for itself (gRFC A46), deletions and explicit errors
//! (gRFC A88), one ACK or NACK.

use super::{Link, Machine, Outputs, Parse, Unparsable};
use crate::{
    client::{
        cache::{Entry, Good, ResourceState},
        wire::{Content, Faults, Incoming, IncomingResource, Request, Response},
    },
    config::XdsErrorCause,
    name::{Name, ResourceType, WILDCARD, canonical},
    proto,
    server::Variant,
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

/// gRPC status codes that speak about data (gRFC A88).
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;

/// A resource that was read: its name, and its value with the mark of its bytes unless it is the one in use.
type Read<R> = Result<(Name, Option<(R, Bytes)>), Unparsable>;

/// When a life ends that begins now. None is longer than a century, so that there is room for a timer's arithmetic.
fn end_of(now: Instant, ttl: Duration) -> Option<Instant> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(ttl.min(CENTURY))
}

impl<P: Parse> Machine<P> {
    pub(super) fn response(&mut self, now: Instant, response: Response, out: &mut Outputs) {
        let Link::Open { heard, responded, .. } = &mut self.link else { return };
        (*heard, *responded) = (true, true);
        let Some(incoming) = Incoming::read(response) else { return };
        let kind = incoming.kind;
        if !self.of(kind).asked {
            // An answer would be a first request with an empty list: a wildcard.
            return;
        }
        self.of(kind).nonce.clone_from(&incoming.nonce);
        let version = incoming.version.clone();
        let faults = self.take_apart(now, incoming, out);
        self.list_changed(kind, out);
        let error = faults.into_nack();
        if error.is_none() {
            let state = self.of(kind);
            (state.version, state.mixed) = (version.clone(), false);
            self.version = version;
        }
        out.rejected = error.as_ref().map(|status| status.message.as_str().into());
        let request = match self.settings.variant {
            Variant::Sotw => Request::Sotw(self.sotw_request(kind, error)),
            Variant::Delta => Request::Delta(proto::DeltaDiscoveryRequest {
                node: self.first_node(),
                type_url: kind.url().to_owned(),
                response_nonce: self.of(kind).nonce.clone(),
                error_detail: error,
                ..Default::default()
            }),
        };
        out.requests.push(request);
    }

    /// Takes each resource of a response for itself.
    fn take_apart(&mut self, now: Instant, incoming: Incoming, out: &mut Outputs) -> Faults {
        let kind = incoming.kind;
        let mut faults = Faults::default();
        let drop_data = self.settings.fail_on_data_errors;
        let refuses_list = incoming.errors.iter().any(|error| *error.name == *WILDCARD);
        // Whether this answers who asked for everything.
        let named = self.types[kind as usize].names_something();
        let empty =
            incoming.resources.is_empty() && incoming.removed.is_empty() && incoming.errors.is_empty();
        let mut lists = empty && !(incoming.complete && named);
        // Names that the response speaks about, well or ill.
        let mut mentioned = BTreeSet::new();
        let mut is_new = false;
        // A complete response repeats all that did not change; it is not parsed again.
        let mut repeated: HashMap<Bytes, Name> = HashMap::new();
        if incoming.complete {
            let entries = self.types[kind as usize].entries.iter();
            repeated.extend(
                entries.filter_map(|(name, entry)| Some((entry.good.as_ref()?.mark.clone(), name.clone()))),
            );
        }
        for IncomingResource { name: said, version, ttl, body } in incoming.resources {
            let body = match body {
                Ok(Content::Resource(body)) => Ok(body),
                Ok(Content::Heartbeat) => {
                    if let Some(name) = said {
                        if let Err(why) = self.heartbeat(now, kind, &name, version.as_deref(), ttl, out) {
                            faults.add(kind, Some(&name), &why);
                        }
                        mentioned.insert(name);
                    }
                    continue;
                }
                Err(why) => Err(why),
            };
            let version = version.unwrap_or_else(|| incoming.version.clone());
            let known = said.as_ref().or_else(|| repeated.get(body.as_ref().ok()?)).cloned();
            let result =
                match known.filter(|name| body.as_ref().is_ok_and(|body| self.holds(kind, name, body))) {
                    Some(name) => Ok((name, None)),
                    None => self.parse(kind, said, body),
                };
            let name = match &result {
                Ok((name, _)) => Some(name.clone()),
                Err(Unparsable { name, why }) => {
                    faults.add(kind, name.as_ref(), why);
                    name.clone()
                }
            };
            let Some(name) = name else { continue };
            if &*name == WILDCARD {
                faults.add(kind, Some(&name), "no resource is called so: it stands for all of them");
                continue;
            }
            if !mentioned.insert(name.clone()) {
                // Which of them is meant nobody can tell; the first counts.
                faults.add(kind, Some(&name), "it is in the response more than once");
                continue;
            }
            let Some(entry) = self.types[kind as usize].wanted(kind, &name) else { continue };
            lists |= entry.unnamed;
            let changed = match result {
                Ok((_, new)) => {
                    let new = match (new, &entry.good) {
                        (Some((_, mark)), Some(good)) if good.mark == mark => None,
                        (Some((new, mark)), Some(good)) => {
                            Some((self.parse.share(new, &good.resource), mark))
                        }
                        (new, _) => new,
                    };
                    is_new |= new.is_some();
                    entry.accept(new, version, now)
                }
                Err(Unparsable { why, .. }) => {
                    let cause = XdsErrorCause::Rejected(why.into());
                    entry.fail(cause, ResourceState::Nacked, version, drop_data, now)
                }
            };
            if matches!(entry.state, ResourceState::Acked) {
                entry.expires = ttl.and_then(|ttl| end_of(now, ttl));
            }
            self.settle(kind, name, changed, out);
        }
        let state = self.of(kind);
        state.mixed |= is_new && incoming.version != state.version;
        if lists || !refuses_list {
            self.list_heard(now, kind, lists || incoming.complete && !named, named);
        }
        let mut gone = incoming.removed;
        // Some servers say it in both ways, for clients that do not know errors; the one with a reason counts.
        let reasoned: BTreeSet<&Name> = incoming.errors.iter().map(|error| &error.name).collect();
        gone.retain(|name| !reasoned.contains(name));
        for error in incoming.errors {
            mentioned.insert(error.name.clone());
            self.told(now, kind, error.name.clone(), error.code, &error.text, out);
            if let Some(entry) = self.types[kind as usize].entries.get_mut(&error.name) {
                entry.excused = true;
            }
        }
        if incoming.complete {
            let entries = &self.types[kind as usize].entries;
            // One that was never there may have been asked for after this was sent.
            let was_there = |entry: &Entry<_>| {
                let came =
                    entry.good.is_some() || entry.lapsed.is_some() || entry.state == ResourceState::Nacked;
                let listed = entry.references == 0 && entry.listed;
                // Who refuses to list does not say what is no more.
                (came || listed) && !(listed && refuses_list) && !entry.excused
            };
            let sent = entries.iter().filter(|(_, entry)| was_there(entry)).map(|(name, _)| name);
            gone.extend(sent.filter(|name| !mentioned.contains(*name)).cloned());
        }
        for name in gone {
            if incoming.complete && self.is_unconfirmed(kind, &name) {
                self.await_confirmation(now, kind, &name);
                continue;
            }
            self.told(now, kind, name, NOT_FOUND, "the control plane does not have it", out);
        }
        faults
    }

    /// The resource that is in use lives on, or the one whose time just ended lives again. A heart-beat of anything else
    /// is a fault, which costs nothing.
    fn heartbeat(
        &mut self,
        now: Instant,
        kind: ResourceType,
        name: &Name,
        version: Option<&str>,
        ttl: Option<Duration>,
        out: &mut Outputs,
    ) -> Result<(), String> {
        // Of a resource that is no longer watched it is no business of ours.
        let Some(entry) = self.types[kind as usize].entries.get_mut(name) else { return Ok(()) };
        if !entry.is_wanted() {
            return Ok(());
        }
        let Some(good) = entry.good.as_ref().or(entry.lapsed.as_ref()) else {
            return Err("a heart-beat for a resource that was never sent".to_owned());
        };
        match version {
            Some(version) if *version != *good.version => {
                Err(format!("a heart-beat for version {version}, and version {} is in use", good.version))
            }
            _ => {
                entry.expires = ttl.and_then(|ttl| end_of(now, ttl));
                (entry.unconfirmed, entry.of_earlier_list) = (false, false);
                if let Some(Good { resource, version, mark }) = entry.lapsed.take() {
                    entry.accept(Some((resource, mark)), version, now);
                    self.notify(kind, name.clone(), out);
                }
                self.await_end(kind, name);
                Ok(())
            }
        }
    }

    fn is_unconfirmed(&self, kind: ResourceType, name: &str) -> bool {
        self.types[kind as usize].entries.get(name).is_some_and(|entry| entry.unconfirmed)
    }

    /// Gives an unconfirmed resource the time that a new one has.
    fn await_confirmation(&mut self, now: Instant, kind: ResourceType, name: &Name) {
        let entry = self.types[kind as usize].entries.get(name);
        if entry.is_some_and(|entry| entry.due.is_none()) {
            self.arm(kind, name, now + self.patience());
        }
    }

    /// Whether these bytes are what is in use under a name.
    fn holds(&self, kind: ResourceType, name: &str, body: &Bytes) -> bool {
        let entry = self.types[kind as usize].entries.get(name);
        entry
            .and_then(|entry| entry.good.as_ref())
            .is_some_and(|good| good.mark == self.parse.mark(kind, body))
    }

    fn parse(
        &self,
        kind: ResourceType,
        said: Option<Name>,
        body: Result<Bytes, String>,
    ) -> Read<P::Resource> {
        let body = body.map_err(|why| Unparsable { name: said.clone(), why })?;
        // Those who watch it hear of its fault, though the response names it nowhere else.
        let unparsable = |why| {
            let own = || self.parse.name_of(&body).map(|own| canonical(kind, &own));
            Unparsable { name: said.clone().or_else(own), why }
        };
        let limit = self.settings.max_resource_bytes;
        if body.len() > limit {
            return Err(unparsable(format!("{} bytes are more than the limit of {limit}", body.len())));
        }
        // A fault of the parser must not end the client, and with it every later update.
        match catch_unwind(AssertUnwindSafe(|| self.parse.parse(kind, &body))) {
            Ok(Ok((own, resource))) => {
                let own = canonical(kind, &own);
                if said.as_ref().is_some_and(|said| *said != own) {
                    return Err(unparsable(format!("the resource calls itself {own}")));
                }
                let mark = self.parse.mark(kind, &body);
                Ok((own, Some((resource, mark))))
            }
            Ok(Err(error)) => {
                let own = error.name.map(|own| canonical(kind, &own));
                Err(Unparsable { name: said.or(own), why: error.why })
            }
            Err(_) => Err(unparsable("the parser failed; this is a fault of this client".into())),
        }
    }

    /// The control plane says that a resource cannot be had.
    fn told(
        &mut self,
        now: Instant,
        kind: ResourceType,
        name: Name,
        code: i32,
        text: &str,
        out: &mut Outputs,
    ) {
        let is_data_error = matches!(code, NOT_FOUND | PERMISSION_DENIED);
        let drop_data = is_data_error && self.settings.fail_on_data_errors;
        let Some(entry) = self.types[kind as usize].entries.get_mut(&name) else { return };
        // Of a part of a wildcard any error says that it is not served: it may be about a name that was given up, and
        // then nothing else is said.
        if entry.references == 0 && (code == NOT_FOUND || entry.listed) && &*name != WILDCARD {
            self.disarm(kind, &name);
            self.drop_entry(kind, &name);
            return;
        }
        let (cause, state) = if code == NOT_FOUND {
            (XdsErrorCause::DoesNotExist(text.into()), ResourceState::DoesNotExist)
        } else {
            (XdsErrorCause::Failed(text.into()), ResourceState::ReceivedError)
        };
        let changed = entry.fail(cause, state, Arc::default(), drop_data, now);
        self.settle(kind, name, changed, out);
    }

    /// An answer came for a name: its timer ends, and its watchers hear of a difference.
    fn settle(&mut self, kind: ResourceType, name: Name, changed: bool, out: &mut Outputs) {
        let Some(entry) = self.types[kind as usize].entries.get(&name) else { return };
        if !entry.is_wanted() {
            return;
        }
        self.await_end(kind, &name);
        if changed {
            self.notify(kind, name, out);
        }
    }
}
