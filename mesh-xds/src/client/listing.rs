//! All resources of a type that a control plane has for this node, over time.
//!
//! A view is of one control plane (gRFC A71): when another one takes over, what it lists replaces what was published as a
//! whole, once it has answered. Until then, and if it cannot list, what was published stays, with a note that says so.
//! The first part of a delta control plane's answer is an answer: nothing says which is the last.

use super::{
    authority::Federation,
    cache::{Known, ResourceState},
    machine::Parse,
    slot::{Receipt, Slot},
};
use crate::{
    config::{Lookup, XdsError, XdsErrorCause},
    name::{Name, WILDCARD},
    resource::{AnyResource, Cluster, Listener, Resource},
};
use std::{collections::BTreeMap, sync::Arc};

/// All resources of a type that a control plane has for this node, at one moment. Those that did not change keep their
/// `Arc` from one moment to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSet<R> {
    /// By name. Also those that some other watch names and that the wildcard does not cover, if they are there: a control
    /// plane does not say which are which.
    pub resources: BTreeMap<Name, Arc<Listed<Arc<R>>>>,
    /// Why it may be out of date, or not all: the control plane cannot be reached, says that it cannot list them, has
    /// sent nothing but what is asked for by name, or has not answered since it took over from another one.
    pub note: Option<Arc<str>>,
    /// Version of the last response that was accepted, as the control plane calls it; empty before the first.
    pub version: Arc<str>,
}

/// One of the resources that a control plane has.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<R> {
    /// The last good version; `None`: there was none yet, or `fail_on_data_errors` dropped it (gRFC A88).
    pub resource: Option<R>,
    /// What the control plane calls that version.
    pub version: Option<Arc<str>>,
    /// What became of the last that it said.
    pub state: ResourceState,
    /// What is wrong with the last that it said.
    pub error: Option<XdsError>,
    /// The version that was rejected, if it has a name.
    pub rejected: Option<Arc<str>>,
}

/// What differs between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetChanges {
    /// Names that are there now, sorted.
    pub added: Vec<Name>,
    /// Names with another value, state or error, sorted. Another version alone is no change: state-of-the-world versions
    /// are those of responses, which repeat everything.
    pub changed: Vec<Name>,
    /// Names that are gone, sorted.
    pub removed: Vec<Name>,
}

impl SetChanges {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl<R> ResourceSet<R> {
    /// The same, in doubt.
    fn noting(&self, note: &str) -> Arc<Self> {
        let Self { resources, version, .. } = self;
        Arc::new(Self { resources: resources.clone(), note: Some(note.into()), version: version.clone() })
    }
}

impl<R: PartialEq> ResourceSet<R> {
    /// How it differs from an earlier one; `None`: from nothing. Looks at each name once, and into what changed only.
    pub fn changes_since(&self, earlier: Option<&Self>) -> SetChanges {
        let mut changes = SetChanges::default();
        let none = BTreeMap::new();
        let before = earlier.map_or(&none, |earlier| &earlier.resources);
        for (name, now) in &self.resources {
            match before.get(name) {
                None => changes.added.push(name.clone()),
                Some(then) if !Arc::ptr_eq(then, now) && !then.says_the_same(now) => {
                    changes.changed.push(name.clone());
                }
                Some(_) => {}
            }
        }
        changes.removed = before.keys().filter(|name| !self.resources.contains_key(*name)).cloned().collect();
        changes
    }
}

impl<R: PartialEq> Listed<Arc<R>> {
    /// In whatever version.
    fn says_the_same(&self, other: &Self) -> bool {
        self.state == other.state && self.error == other.error && self.has_value_of(other)
    }

    fn has_value_of(&self, other: &Self) -> bool {
        match (&self.resource, &other.resource) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.version == other.version && self.rejected == other.rejected && self.says_the_same(other)
    }
}

/// A type that control planes list.
pub(super) trait Kind: Resource {
    fn of(resource: AnyResource) -> Option<Arc<Self>>;
}

impl Kind for Listener {
    fn of(resource: AnyResource) -> Option<Arc<Self>> {
        if let AnyResource::Listener(listener) = resource { Some(listener) } else { None }
    }
}

impl Kind for Cluster {
    fn of(resource: AnyResource) -> Option<Arc<Self>> {
        if let AnyResource::Cluster(cluster) = resource { Some(cluster) } else { None }
    }
}

/// Where all of a type is published.
pub(super) struct AllTarget<R> {
    slot: Slot<ResourceSet<R>>,
    published: Option<Result<Arc<ResourceSet<R>>, XdsError>>,
}

impl<R: Kind> AllTarget<R> {
    pub(super) fn new(slot: Slot<ResourceSet<R>>) -> Self {
        Self { slot, published: None }
    }

    /// Publishes what follows from what is known, and differs.
    pub(super) fn resolve<P: Parse<Resource = AnyResource>>(
        &mut self,
        federation: &Federation<P>,
        receipt: Option<&Receipt>,
    ) {
        let before = self.published.as_ref().and_then(|published| published.as_ref().ok());
        let next = match (federation.listing(R::TYPE), before) {
            (Known::Good { resource: listed, note }, before) => {
                let resources = share(listed, before.map(|before| &before.resources));
                let version = federation.version(R::TYPE, WILDCARD);
                Ok(Arc::new(ResourceSet { resources, note, version }))
            }
            (Known::Pending, None) => return,
            // Nothing good is lost because it is asked for anew, or because who is asked now cannot say.
            (Known::Pending, Some(before)) => {
                let server = federation.default_machine().map(|(config, _)| config.to_string());
                let server = server.unwrap_or_default();
                Ok(before.noting(&format!(
                    "an earlier list of {}s: {server} has not said yet what there is",
                    R::TYPE
                )))
            }
            (Known::Bad(error), Some(before)) if !drops(federation, &error) => {
                Ok(before.noting(&format!("an earlier list: {error}")))
            }
            (Known::Bad(error), _) => Err(error),
        };
        let is_same = match (&next, &self.published) {
            (Ok(next), Some(Ok(before))) => is_same(next, before),
            (Err(next), Some(Err(before))) => next == before,
            _ => false,
        };
        if is_same {
            return;
        }
        if let Err(error) = &next {
            tracing::warn!(%error, "what there is cannot be listed");
        }
        self.published = Some(next.clone());
        self.slot.publish(next, receipt);
    }
}

/// Whether an error of a list takes the list away: `fail_on_data_errors` is about what a control plane says (gRFC A88).
fn drops<P: Parse<Resource = AnyResource>>(federation: &Federation<P>, error: &XdsError) -> bool {
    !matches!(error.cause, XdsErrorCause::Unreachable(_))
        && federation.drops_data(federation.source(error.resource_type, WILDCARD))
}

/// With what did not change as it was.
fn share<R: Kind>(
    listed: Vec<(Name, Listed<AnyResource>)>,
    before: Option<&BTreeMap<Name, Arc<Listed<Arc<R>>>>>,
) -> BTreeMap<Name, Arc<Listed<Arc<R>>>> {
    let one = |(name, listed): (Name, Listed<AnyResource>)| {
        let Listed { resource, version, state, error, rejected } = listed;
        let mut new = Listed { resource: resource.and_then(R::of), version, state, error, rejected };
        let then = before.and_then(|before| before.get(&name));
        match then {
            Some(then) if then.is_same(&new) => (name, then.clone()),
            Some(then) if then.has_value_of(&new) => {
                new.resource.clone_from(&then.resource);
                (name, Arc::new(new))
            }
            _ => (name, Arc::new(new)),
        }
    };
    listed.into_iter().map(one).collect()
}

fn is_same<R>(one: &ResourceSet<R>, other: &ResourceSet<R>) -> bool {
    let equal = one
        .resources
        .iter()
        .zip(&other.resources)
        .all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1));
    equal
        && one.resources.len() == other.resources.len()
        && (&one.note, &one.version) == (&other.note, &other.version)
}
