//! What watchers of everything see: exactly what the server lists, besides what is watched by name and is there.

use super::{Seen, Trouble, World, is_earlier, trouble};
use crate::{
    client::{Known, Listed, Response},
    model::{
        event::{NAMES, Peer, name},
        scripts::fail,
        transport::Said,
    },
    name::{Name, ResourceType, WILDCARD},
    server::Variant,
};
use std::{collections::BTreeMap, sync::Arc};

/// A listing as it was seen.
pub(super) type All = Known<BTreeMap<Name, Listed<Arc<str>>>>;

/// What is seen of a resource of a listing.
fn seen(listed: &Listed<Arc<str>>) -> Seen {
    let trouble = listed.error.as_ref().map(|error| trouble(&error.to_string()));
    match (&listed.resource, trouble) {
        (Some(resource), trouble) => Seen::Good(resource.clone(), trouble),
        (None, Some(trouble)) => Seen::Nothing(trouble),
        (None, None) => fail("a resource that is neither good nor bad".to_owned()),
    }
}

impl World {
    /// The types of which everything is watched.
    pub(super) fn listed_kinds(&self) -> impl Iterator<Item = ResourceType> + use<> {
        let kinds: Vec<_> =
            self.watched.keys().filter(|(_, name)| **name == *WILDCARD).map(|key| key.0).collect();
        kinds.into_iter()
    }

    pub(super) fn listing(&self, kind: ResourceType) -> All {
        match self.client.listing(kind) {
            Known::Pending => Known::Pending,
            Known::Bad(error) => Known::Bad(error),
            Known::Good { resource, note } => {
                let count = resource.len();
                let resource: BTreeMap<_, _> = resource.into_iter().collect();
                if count != resource.len() {
                    fail(format!("{kind}: something is listed twice"));
                }
                Known::Good { resource, note }
            }
        }
    }

    /// How many resources are listed that nobody watches by name.
    pub(super) fn unnamed(&self) -> usize {
        let unnamed = |kind| match self.listing(kind) {
            Known::Good { resource, .. } => {
                resource.keys().filter(|name| !self.watched.contains_key(&(kind, (*name).clone()))).count()
            }
            _ => 0,
        };
        self.listed_kinds().map(unnamed).sum()
    }

    /// Whether a wildcard stands for a name.
    fn is_covered(&self, name: &Name) -> bool {
        !(self.setup.hides && *name == super::name(NAMES - 1))
    }

    /// A response is about to be taken: whether it says more than who watches by name asked for.
    pub(super) fn hears(&mut self, response: &Response) {
        let said = Said::of(response);
        let kind = said.kind();
        let is_strange = |(name, _): &(&str, &str)| !self.named.contains(&(kind, (*name).into()));
        if self.watched.contains_key(&(kind, WILDCARD.into())) && said.resources.iter().any(is_strange) {
            self.strange.insert(kind);
        }
    }

    /// A watcher of everything looks.
    pub(super) fn saw_all(&mut self, kind: ResourceType) {
        let now = self.listing(kind);
        let before = self.all.remove(&kind);
        if let Some(Known::Good { resource: before, .. }) = before {
            let Known::Good { resource: now, .. } = &now else {
                fail(format!("{kind}: the list was lost: {now:?}"));
            };
            for name in before.into_iter().filter(|(_, one)| one.resource.is_some()).map(|(name, _)| name) {
                let key = (kind, name.clone());
                let may_go = match now.get(&name) {
                    Some(one) if one.resource.is_some() => continue,
                    Some(_) => self.setup.fail_on_data_errors && self.spoiled.contains(&key),
                    None => {
                        let is_old = self.doubled && self.variant == Variant::Sotw;
                        is_old || self.spoiled.contains(&key) || !self.is_covered(&name)
                    }
                };
                if !may_go && !self.lives.is_over(&key, self.now) {
                    fail(format!("{kind} {name} was lost from the list: {now:?}"));
                }
            }
        }
        if let (Known::Good { resource, .. }, true) = (&now, self.is_level()) {
            let sound = resource.iter().filter(|(_, one)| one.error.is_none());
            let right = sound.filter(|(name, one)| self.truth().get(kind, name) == one.resource);
            let right: Vec<_> = right.map(|(name, _)| (kind, name.clone())).collect();
            self.spoiled.retain(|key| !right.contains(key));
        }
        self.all.insert(kind, now);
    }

    /// Whoever watches everything has heard of everything, and nothing in it is used beyond its time.
    pub(super) fn judge_all(&mut self) {
        for kind in self.listed_kinds() {
            let now = self.listing(kind);
            if self.all.get(&kind) != Some(&now) {
                fail(format!("{kind}: nobody heard of {now:?}, but of {:?}", self.all.get(&kind)));
            }
            let Known::Good { resource, .. } = now else { continue };
            let ends = self.has_lives();
            for (name, _) in resource.iter().filter(|_| ends) {
                self.lives.judge(&(kind, name.clone()), &self.client.known(kind, name), self.now);
            }
        }
    }

    /// What is seen of it, as far as it does not depend on the variant.
    pub(super) fn seen_all(&self) -> BTreeMap<(ResourceType, Name), Seen> {
        let mut all = BTreeMap::new();
        for kind in self.listed_kinds() {
            let Known::Good { resource, .. } = self.listing(kind) else { continue };
            all.extend(resource.iter().map(|(name, one)| ((kind, format!("*/{name}").into()), seen(one))));
        }
        all
    }

    /// Whether what is gone of a type is not taken away, for what may name it is rejected.
    pub(super) fn is_kept(&self, kind: ResourceType) -> bool {
        let wanted = |kind, name: &Name| {
            self.watched.contains_key(&(kind, name.clone()))
                || self.listed_kinds().any(|listed| listed == kind) && self.is_covered(name)
        };
        self.truth().keeps(kind, wanted)
    }

    /// Everything is delivered: what is listed is what there is. Says whether something of it is rejected.
    pub(super) fn check_all(&self) -> bool {
        let mut rejecting = false;
        for kind in self.listed_kinds() {
            let keeps = !self.setup.fail_on_data_errors;
            let Known::Good { resource: all, note } = self.listing(kind) else {
                fail(format!("{kind}: the list is {:?}", self.listing(kind)));
            };
            // Nobody can know that what is named is everything, as long as nothing else came.
            if note.is_some_and(|note| {
                self.strange.contains(&kind) || !note.contains("what is asked for by name")
            }) {
                fail(format!("{kind}: the list is {:?}", self.listing(kind)));
            }
            if let Some(stranger) = all.keys().find(|listed| !(0..NAMES).any(|index| name(index) == **listed))
            {
                fail(format!("{kind}: {stranger} is listed, and is not there"));
            }
            for name in (0..NAMES).map(name) {
                let is_named = self.watched.contains_key(&(kind, name.clone()));
                let truth = self.truth().get(kind, &name).filter(|_| is_named || self.is_covered(&name));
                let is_told = is_named && self.setup.peer == Peer::Ours;
                let refusal = self.truth().refusal(kind, &name).filter(|_| is_told).map(Trouble::Refused);
                let known = all.get(&name).map(seen);
                let right = match (&truth, &known) {
                    (Some(bad), known) if bad.starts_with("bad") => {
                        rejecting = true;
                        let trouble = Trouble::Rejected(bad.clone());
                        match known {
                            Some(Seen::Nothing(why)) => *why == trouble,
                            Some(Seen::Good(_, why)) => keeps && why.as_ref() == Some(&trouble),
                            _ => self.has_lives(),
                        }
                    }
                    (Some(good), None) => self.lives.has_ended(good),
                    (Some(good), Some(known)) => {
                        *known == Seen::Good(good.clone(), None) && !self.lives.has_ended(good)
                    }
                    (None, None) => true,
                    (None, Some(known)) if self.is_kept(kind) && is_earlier(known) => true,
                    (None, Some(Seen::Nothing(why))) => Some(why) == refusal.as_ref(),
                    // See what is said of those that are watched by name.
                    (None, Some(Seen::Good(_, Some(Trouble::Silence)))) => {
                        is_named && self.setup.timer_is_transient && self.variant == Variant::Sotw
                    }
                    (None, Some(Seen::Good(_, why))) => why.is_some() && *why == refusal,
                    (None, Some(Seen::Pending)) => false,
                };
                if !right {
                    fail(format!("{kind} {name} is {truth:?}, and what is listed is {known:?}"));
                }
            }
        }
        rejecting
    }
}
