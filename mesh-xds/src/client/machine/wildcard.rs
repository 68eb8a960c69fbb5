//! Everything of a type (LDS and CDS), asked for by the word `*` of Envoy's xDS protocol: no gRPC client does that by
//! itself, so it is done only when [`WILDCARD`] is watched.
//!
//! The wildcard is an entry like a name. What came by it alone is kept beside it as *listed*: never named in a
//! subscription, but told to a delta server that the client comes back to.
//!
//! A control plane sends each resource once, however many subscriptions cover it, and does not say which do:
//!
//! - What is watched by name and is there is a part of the listing. What is given up by name stays listed until the
//!   control plane says that the wildcard does not cover it. It goes when it is said to be gone: by `removed_resources`,
//!   by an error, or left out of a complete response.
//! - The wildcard is answered by a resource that nobody has named, by a response of nothing at all (of state of the world
//!   only if nothing is named, whose absence that could mean), and by any response if nothing is named. One of named
//!   resources only may be all that there is, or be from a control plane that knows no wildcard, or from before it was
//!   asked for: it is an answer with a note.
//! - What is asked for anew without being told stays listed, with a note, until it is sent again, or has not been for as
//!   long as a resource that was never there: a delta server does not say when its answer is all.
//! - An error of a name lists nothing. An error of `*` stays until the wildcard is answered, and takes nothing away.
//!
//! Names of an authority (`xdstp:`) are no part of it.

use super::{Machine, Outputs, Parse, TypeState};
use crate::{
    client::{
        Listed,
        cache::{Entry, Failure, Known, ResourceState},
    },
    config::{XdsError, XdsErrorCause},
    name::{self, Name, ResourceType, WILDCARD},
    server::Variant,
};
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Of what nobody names, no more than this is told to a delta server that the client comes back to, in bytes: gRPC
/// servers take requests of 4 MiB, and one that is too large would end the stream again and again. What is more is
/// listed anew.
pub(super) const MAX_TOLD: usize = 2 << 20;

impl<R> TypeState<R> {
    /// Whether everything is watched.
    pub(super) fn is_wild(&self) -> bool {
        self.entries.get(WILDCARD).is_some_and(|entry| entry.references > 0)
    }

    /// Whether what there is is known.
    pub(super) fn lists(&self) -> bool {
        self.entries.get(WILDCARD).is_some_and(|entry| entry.references > 0 && entry.updated.is_some())
    }

    /// Whether a wildcard that is, or was a moment ago, watched may stand for this name.
    fn covers(&self, kind: ResourceType, name: &str) -> bool {
        name != WILDCARD && self.entries.contains_key(WILDCARD) && name::authority(kind, name).is_none()
    }

    /// Whether a response may be about a resource that is, or was a moment ago, watched by its name.
    pub(super) fn names_something(&self) -> bool {
        let named = |entry: &Entry<R>| entry.references > 0 || !entry.listed;
        self.entries.iter().any(|(name, entry)| **name != *WILDCARD && named(entry))
    }

    /// How many bytes a delta server is told of what nobody names.
    fn told_bytes(&self) -> usize {
        let listed = self.entries.iter().filter(|(_, entry)| entry.references == 0 && entry.listed);
        // A key and a value, each with tag and length, in an entry with its own.
        let size = |(name, entry): (&Name, &Entry<R>)| {
            name.len() + entry.good.as_ref().map_or(0, |good| good.version.len()) + 12
        };
        listed.map(size).sum()
    }

    /// Of a resource that the control plane speaks of: what is kept of it, if it is kept.
    pub(super) fn wanted(&mut self, kind: ResourceType, name: &Name) -> Option<&mut Entry<R>> {
        if !self.covers(kind, name) {
            return self.entries.get_mut(name);
        }
        let new = || Entry { unnamed: true, ..Entry::new() };
        let entry = self.entries.entry(name.clone()).or_insert_with(new);
        entry.listed = true;
        Some(entry)
    }
}

impl<P: Parse> Machine<P> {
    /// Everything of a type, if [`WILDCARD`] is watched: each resource that there is, in a good version or not. Pending
    /// before the first answer. A note says why it may be out of date.
    pub fn listing(&self, kind: ResourceType) -> Known<Vec<(Name, Listed<P::Resource>)>> {
        let error = |name: &Name, cause| XdsError {
            resource_type: kind,
            name: name.clone(),
            cause,
            server: self.settings.server.clone(),
            node: self.node.clone(),
        };
        let state = &self.types[kind as usize];
        let Some((star, entry)) = state.entries.get_key_value(WILDCARD).filter(|_| state.is_wild()) else {
            if kind.has_wildcard() {
                return Known::Pending;
            }
            let why =
                format!("only Listener and Cluster have a wildcard; subscribe to each {kind} by its name");
            return Known::Bad(error(&WILDCARD.into(), XdsErrorCause::Failed(why.into())));
        };
        let unreachable = || self.unreachable.clone().map(XdsErrorCause::Unreachable);
        let cause = entry.failure.as_ref().map(|failure| failure.cause.clone()).or_else(unreachable);
        let trouble = cause.map(|cause| error(star, cause));
        if entry.updated.is_none() {
            return trouble.map_or(Known::Pending, Known::Bad);
        }
        let of =
            |failure: &Failure, name: &Name| (error(name, failure.cause.clone()), failure.version.clone());
        let listed = |(name, entry): (&Name, &Entry<P::Resource>)| {
            let (error, rejected) = entry.failure.as_ref().map(|failure| of(failure, name)).unzip();
            let listed = Listed {
                resource: entry.good.as_ref().map(|good| good.resource.clone()),
                version: entry.good.as_ref().map(|good| good.version.clone()),
                state: entry.state,
                error,
                rejected: rejected.filter(|version| !version.is_empty()),
            };
            (name.clone(), listed)
        };
        let here = |(name, entry): &(&Name, &Entry<_>)| {
            entry.is_wanted()
                && entry.is_served()
                && ***name != *WILDCARD
                && name::authority(kind, name).is_none()
        };
        let resource = state.entries.iter().filter(here).map(listed).collect();
        let in_part = || state.entries.values().any(|entry| entry.of_earlier_list && entry.is_served());
        let trouble = trouble.or_else(|| {
            let why = "some of it is of an earlier list, and the control plane has not sent it again yet";
            in_part().then(|| error(star, XdsErrorCause::Failed(why.into())))
        });
        let note = trouble.map(|error| match error {
            // There is a list to use.
            XdsError { cause: XdsErrorCause::Failed(why), server, node, .. } => {
                format!("{kind} * is in doubt: {why} (control plane {server}, node {node})").into()
            }
            error => error.to_string().into(),
        });
        Known::Good { resource, note }
    }

    /// What is known of a name, or of the wildcard, but not the value.
    pub(in crate::client) fn outcome(&self, kind: ResourceType, name: &str) -> Known<()> {
        fn without<T>(known: Known<T>) -> Known<()> {
            match known {
                Known::Pending => Known::Pending,
                Known::Good { note, .. } => Known::Good { resource: (), note },
                Known::Bad(error) => Known::Bad(error),
            }
        }
        if name == WILDCARD { without(self.listing(kind)) } else { without(self.known(kind, name)) }
    }

    /// Whether anybody cares for a resource.
    #[cfg(test)]
    pub(crate) fn wants(&self, kind: ResourceType, name: &str) -> bool {
        self.types[kind as usize].entries.get(name).is_some_and(Entry::is_wanted)
    }

    /// What a delta server is told that is held, when the type is asked for on a new stream.
    pub(super) fn held(&self, kind: ResourceType) -> BTreeMap<String, String> {
        let entries = self.types[kind as usize].entries.iter();
        let held = entries.filter(|(_, entry)| !entry.of_earlier_list).filter_map(|(name, entry)| {
            // What is in trouble is asked for anew: if the control plane has gone back to the version in use, it would
            // otherwise say nothing, and the trouble would never end.
            let sound = entry.good.as_ref().filter(|_| entry.failure.is_none());
            let version = match sound {
                Some(good) => good.version.to_string(),
                // Nobody names it, so it has to be said to be there, lest nobody say that it is not; in no version.
                None if entry.references == 0 && entry.listed => String::new(),
                None => return None,
            };
            Some((name.to_string(), version))
        });
        held.collect()
    }

    /// A response came that has no error of the wildcard, or answers it all the same. `answers`: it has something that
    /// nobody has named, or nothing. `named`: it may be about what is named.
    pub(super) fn list_heard(&mut self, now: Instant, kind: ResourceType, answers: bool, named: bool) {
        let Some(entry) = self.types[kind as usize].entries.get_mut(WILDCARD) else { return };
        let is_refused = entry.failure.as_ref().is_some_and(|failure| !failure.silent);
        if answers || !named && !is_refused {
            entry.failure = None;
        } else {
            if is_refused || entry.updated.is_some() {
                return;
            }
            let why = "the control plane has sent nothing but what is asked for by name: there is nothing else, or it \
                       does not list what there is";
            let cause = XdsErrorCause::Failed(why.into());
            entry.failure = Some(Failure { cause, version: Arc::default(), at: now, silent: true });
        }
        entry.state = ResourceState::Acked;
        entry.updated = Some(now);
        if entry.references > 0 {
            self.disarm(kind, &WILDCARD.into());
        }
    }

    /// A stream begins. What of a list cannot be taken up where it was left is asked for anew: of state of the world the
    /// version may be that of a response to a smaller subscription; a delta server that refused to list would not say
    /// that it does again, and cannot be told what is too much.
    pub(super) fn list_anew(&mut self, now: Instant, kind: ResourceType, out: &mut Outputs) {
        let is_delta = self.settings.variant == Variant::Delta;
        let state = self.of(kind);
        let is_large = is_delta && state.told_bytes() > MAX_TOLD;
        let Some(star) = state.entries.get_mut(WILDCARD) else { return };
        if !is_delta || star.updated.is_none() {
            state.version = Arc::default();
        }
        let is_refused = star.failure.as_ref().is_some_and(|failure| !failure.silent);
        // It was asked for anew before, on a stream that ended without an answer.
        let is_unheard = is_delta && star.updated.is_none();
        let lists = state.entries.values().any(|entry| entry.references == 0 && entry.listed);
        if !(is_large || is_refused || is_unheard && lists) {
            return;
        }
        let Some(star) = state.entries.get_mut(WILDCARD) else { return };
        (star.state, star.updated, star.failure) = (ResourceState::Requested, None, None);
        if is_delta {
            self.await_listed(now, kind);
        }
        self.list_changed(kind, out);
    }

    /// What nobody names is listed on, and ends unless it comes again in time.
    fn await_listed(&mut self, now: Instant, kind: ResourceType) {
        let last = now + self.patience();
        let entries = self.of(kind).entries.iter_mut();
        let listed = entries.filter(|(_, entry)| entry.references == 0 && entry.listed);
        let end = |(name, entry): (&Name, &mut Entry<_>)| {
            entry.of_earlier_list = true;
            // Its time to live is no reason to keep it.
            (name.clone(), entry.expires.map_or(last, |end| end.min(last)))
        };
        for (name, end) in listed.map(end).collect::<Vec<_>>() {
            self.arm(kind, &name, end);
        }
    }

    /// Something else may be known of what the wildcard stands for.
    pub(super) fn list_changed(&self, kind: ResourceType, out: &mut Outputs) {
        if self.types[kind as usize].is_wild() {
            out.changed.insert((kind, WILDCARD.into()));
        }
    }

    /// Something else is known of a name.
    pub(super) fn notify(&self, kind: ResourceType, name: Name, out: &mut Outputs) {
        self.list_changed(kind, out);
        if self.types[kind as usize].entries.get(&name).is_some_and(|entry| entry.references > 0) {
            out.changed.insert((kind, name));
        }
    }

    /// The wildcard is watched again: a complete response without what is listed may be older than that.
    pub(super) fn doubt_listed(&mut self, kind: ResourceType) {
        for entry in self.of(kind).entries.values_mut().filter(|entry| entry.references == 0 && entry.listed)
        {
            entry.unconfirmed = true;
        }
    }

    /// A name was given up that the wildcard may cover, and stays, if it is there. What the control plane only speaks of
    /// does not: by the wildcard alone it need not say when that ends.
    pub(super) fn keep_listed(&mut self, kind: ResourceType, name: &Name) -> bool {
        let state = self.of(kind);
        let covered = state.covers(kind, name);
        let Some(entry) = state.entries.get_mut(name) else { return false };
        entry.listed = covered && entry.is_served() && entry.state != ResourceState::ReceivedError;
        entry.listed
    }

    /// Forgets a name; of the wildcard also what it alone stood for. Nothing is awaited of it any more.
    pub(super) fn drop_entry(&mut self, kind: ResourceType, name: &Name) {
        self.of(kind).entries.remove(name);
        if &**name == WILDCARD {
            self.drop_listed(kind);
        }
    }

    /// Forgets what nobody names.
    pub(super) fn drop_listed(&mut self, kind: ResourceType) {
        let timers = &mut self.timers;
        let state = &mut self.types[kind as usize];
        state.entries.retain(|name, entry| {
            let stays = entry.references > 0 || !entry.listed;
            if let (false, Some(due)) = (stays, entry.due) {
                timers.remove(&(due, kind, name.clone()));
            }
            entry.listed = false;
            stays
        });
    }
}
