//! Encoded resources, kept as long as somebody who would get them is connected.

use super::encode;
use crate::compile::{Compiled, client::Client};
use mesh_xds::{
    name::{Name, ResourceType},
    server::{Encoded, Touched},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// What a kept resource was made from: it is good for every snapshot with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) config: u64,
    pub(super) workloads: u64,
}

/// Clients of so many kinds can be connected for one account: resources are compiled, and kept, for each kind, and most
/// of what makes one is what a client says of itself.
const MAX_KINDS: usize = 256;

/// The resources of all clients, by what they share.
#[derive(Default)]
pub(super) struct Shared(Mutex<All>);

#[derive(Default)]
struct All {
    clients: HashMap<Client, Weak<Resources>>,
    accounts: HashMap<Box<str>, Vec<Weak<Kind>>>,
    /// Those whose last client has left are taken out when there are so many of either.
    full: usize,
}

/// A kind of clients, as long as one of its account is connected.
pub(super) struct Kind(pub(super) Arc<Resources>);

impl Shared {
    /// The resources of clients like this one, for one of an account; without an account, kinds are not counted. The error
    /// says that it has too many.
    pub(super) fn of(&self, client: Client, account: &str) -> Result<Arc<Kind>, String> {
        let all = &mut *lock(&self.0);
        all.tidy();
        let resources = all.resources(client);
        if account.is_empty() {
            return Ok(Arc::new(Kind(resources)));
        }
        let kinds = all.accounts.entry(account.into()).or_default();
        kinds.retain(|kind| kind.strong_count() > 0);
        let mut known = kinds.iter().filter_map(Weak::upgrade);
        if let Some(kind) = known.find(|kind| Arc::ptr_eq(&kind.0, &resources)) {
            return Ok(kind);
        }
        if kinds.len() >= MAX_KINDS {
            return Err(format!(
                "the clients of {account} that are connected are of {MAX_KINDS} kinds, and configuration is compiled for \
                 each kind: let fewer of them differ in namespace, domain, locality, labels that the configuration asks \
                 about, or (Envoys) HTTP_PROXY_PORT and certificate files"
            ));
        }
        let kind = Arc::new(Kind(resources));
        kinds.push(Arc::downgrade(&kind));
        Ok(kind)
    }
}

impl All {
    fn tidy(&mut self) {
        if self.clients.len().max(self.accounts.len()) >= self.full {
            self.clients.retain(|_, resources| resources.strong_count() > 0);
            self.accounts.retain(|_, kinds| kinds.iter().any(|kind| kind.strong_count() > 0));
            self.full = 2 * self.clients.len().max(self.accounts.len()) + 16;
        }
    }

    fn resources(&mut self, client: Client) -> Arc<Resources> {
        if let Some(found) = self.clients.get(&client).and_then(Weak::upgrade) {
            return found;
        }
        let (kept, touched) = (Mutex::default(), Mutex::default());
        let made = Arc::new(Resources { client: client.clone(), kept, touched });
        self.clients.insert(client, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
impl Shared {
    /// How many resources are kept for clients that are there.
    pub(super) fn kept(&self) -> usize {
        let all = self.0.lock().unwrap();
        all.clients
            .values()
            .filter_map(Weak::upgrade)
            .map(|resources| resources.kept.lock().unwrap().slots.len())
            .sum()
    }
}

/// The resources of clients that get the same.
pub(super) struct Resources {
    client: Client,
    kept: Mutex<Slots>,
    /// What differs between two generations, for all who take the same step.
    touched: Mutex<Option<(Step, Vec<Touched>)>>,
}

/// From one generation to another.
pub(super) type Step = (u64, u64);

type Key = (ResourceType, Name);

#[derive(Default)]
struct Slots {
    slots: HashMap<Key, Slot>,
    /// What no stream holds is let go when there are so many.
    full: usize,
}

/// One resource, once it was made. Locked while it is made: others who want the same wait for it, and nobody else does.
type Slot = Arc<Mutex<Option<Kept>>>;

struct Kept {
    stamp: Stamp,
    encoded: Arc<Encoded>,
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    fn slot(&mut self, key: &Key) -> Slot {
        if let Some(slot) = self.slots.get(key) {
            return slot.clone();
        }
        if self.slots.len() >= self.full {
            self.slots.retain(|_, slot| {
                // Whoever has the slot is at work on it.
                Arc::strong_count(slot) > 1
                    || lock(slot).as_ref().is_some_and(|kept| Arc::strong_count(&kept.encoded) > 1)
            });
            self.full = 2 * self.slots.len() + 64;
        }
        self.slots.entry(key.clone()).or_default().clone()
    }
}

impl Resources {
    /// What a step from one generation to another touches; asked of `make` for the first who takes it.
    pub(super) fn touched(
        &self,
        step: (u64, u64),
        make: impl FnOnce(&Client) -> Vec<Touched>,
    ) -> Vec<Touched> {
        let mut latest = lock(&self.touched);
        match &*latest {
            Some((known, touched)) if *known == step => touched.clone(),
            _ => {
                let touched = make(&self.client);
                *latest = Some((step, touched.clone()));
                touched
            }
        }
    }

    /// A resource made from `stamp`. What does not exist is not kept: clients make names up.
    pub(super) fn find_or_make(
        &self,
        kind: ResourceType,
        name: &str,
        stamp: Stamp,
        make: impl FnOnce(&Client) -> Option<Compiled>,
    ) -> Option<Arc<Encoded>> {
        let key = (kind, Name::from(name));
        let slot = lock(&self.kept).slot(&key);
        let mut kept = lock(&slot);
        if let Some(found) = kept.as_ref().filter(|found| found.stamp == stamp) {
            return Some(found.encoded.clone());
        }
        // A view that is behind must not undo what a newer one made.
        let is_newest = kept.as_ref().is_none_or(|found| found.stamp <= stamp);
        let Some(compiled) = make(&self.client) else {
            if is_newest {
                *kept = None;
            }
            drop(kept);
            self.let_go(&key, slot);
            return None;
        };
        let made = encode(name, &compiled);
        // Equal resources have equal bytes; the ones that streams hold are kept.
        let encoded = match kept.as_ref().filter(|found| found.encoded == made) {
            Some(found) => found.encoded.clone(),
            None => made,
        };
        if is_newest {
            *kept = Some(Kept { stamp, encoded: encoded.clone() });
        }
        Some(encoded)
    }

    /// Forgets a slot in which there is nothing. Of several who found nothing in it, the last does.
    fn let_go(&self, key: &Key, slot: Slot) {
        let all = &mut lock(&self.kept).slots;
        // Slots are handed out under the same lock, so that nobody comes by another one now.
        drop(slot);
        if all.get(key).is_some_and(|slot| Arc::strong_count(slot) == 1 && lock(slot).is_none()) {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::{resource::Locality, server::Node};

    fn client_in(zone: &str) -> Client {
        let locality = Locality { zone: zone.into(), ..Locality::default() };
        Client::of(&Node { locality, ..Node::default() }, None, "cluster.local").unwrap()
    }

    #[test]
    fn an_account_has_no_more_kinds_than_its_part_and_each_is_made_once_for_all() {
        let shared = Shared::default();
        let of = |zone: usize, account: &str| shared.of(client_in(&format!("z{zone}")), account);
        let mut kinds: Vec<_> = (0..MAX_KINDS).map(|zone| of(zone, "a").unwrap()).collect();
        assert!(of(0, "a").is_ok(), "a kind that it has");
        let refused = of(MAX_KINDS, "a").err().expect("it is one more");
        assert!(refused.contains("the clients of a") && refused.contains("locality"), "{refused}");
        let other = of(0, "b").unwrap();
        assert!(Arc::ptr_eq(&other.0, &kinds[0].0) && !Arc::ptr_eq(&other, &kinds[0]));
        kinds.pop();
        kinds.push(of(MAX_KINDS, "a").unwrap());
        let untold: Vec<_> = (0..2 * MAX_KINDS).map(|zone| of(zone, "").unwrap()).collect();
        assert!(Arc::ptr_eq(&untold[0].0, &other.0));
        drop((kinds, untold, other));
        for one in 0..10 * MAX_KINDS {
            drop(of(0, &format!("account {one}")).unwrap());
        }
        let all = lock(&shared.0);
        assert!(all.accounts.len() < 5 * MAX_KINDS && all.clients.len() < 40, "who left is forgotten");
    }

    #[test]
    fn what_no_stream_holds_any_more_is_let_go_in_time() {
        let kind = Shared::default().of(client_in("z"), "").unwrap();
        let stamp = Stamp { config: 1, workloads: 0 };
        let make = |name: &str| {
            let cluster = mesh_xds::resource::Cluster::eds(name);
            let made = |_: &Client| Some(Compiled::Cluster(Box::new(cluster)));
            kind.0.find_or_make(ResourceType::Cluster, name, stamp, made).unwrap()
        };
        let held: Vec<_> = (0..50).map(|i| make(&format!("held {i}"))).collect();
        for i in 0..10_000 {
            make(&format!("gone {i}"));
        }
        assert!(lock(&kind.0.kept).slots.len() < 500, "{}", lock(&kind.0.kept).slots.len());
        assert!(held.iter().all(|held| Arc::ptr_eq(held, &make(&held.name))), "others are found");
    }
}
