//! Places, for streams, connections, or bytes that are kept for them: so many in all, and no peer can take them all.
//!
//! A peer may hold three times as many as are still free. Alone it gets three quarters; N greedy peers get the same
//! number each and leave a share for whoever comes next. Nothing is reserved for peers that are not there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many places a peer may hold for each one that is free.
const GREED: usize = 3;

/// The places of a service: so many in all, and no peer can take them all.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// By account; those that cannot be told apart are not in it.
    peers: HashMap<Arc<str>, usize>,
}

/// Places of one holder; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    account: Arc<str>,
    count: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All are taken.
    All,
    /// What is left is for others.
    Peer,
}

impl Places {
    /// At least one.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), held: Mutex::default() })
    }

    /// A place for a peer. Peers without an account are not told apart, and held to the limit of all alone.
    pub fn take(self: &Arc<Self>, account: &str) -> Result<Place, Full> {
        let mut place = self.none(account);
        place.resize(1)?;
        Ok(place)
    }

    /// No place yet.
    pub(crate) fn none(self: &Arc<Self>, account: &str) -> Place {
        let known = self.held().peers.get_key_value(account).map(|(account, _)| account.clone());
        Place { places: self.clone(), account: known.unwrap_or_else(|| account.into()), count: 0 }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing here is left half done by a panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// So many at least, from now on. Refused, it is as many as before.
    pub(crate) fn at_least(&mut self, count: usize) -> Result<(), Full> {
        self.resize(count.max(self.count))
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// So many from now on. Refused, it is as many as before.
    pub(crate) fn resize(&mut self, count: usize) -> Result<(), Full> {
        if count == self.count {
            return Ok(());
        }
        let mut held = self.places.held();
        let own = held.peers.get(&self.account).copied().unwrap_or_default();
        if let Some(more) = count.checked_sub(self.count) {
            let free = self.places.limit.saturating_sub(held.all);
            if more > free {
                return Err(Full::All);
            }
            // As if they were taken one by one.
            if !self.account.is_empty() && own + more > (free - more + 1).saturating_mul(GREED) {
                return Err(Full::Peer);
            }
        }
        held.all = held.all + count - self.count;
        if !self.account.is_empty() {
            match own + count - self.count {
                0 => drop(held.peers.remove(&self.account)),
                own => drop(held.peers.insert(self.account.clone(), own)),
            }
        }
        self.count = count;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Less is never refused.
        let _less = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_many_as_it_gets(places: &Arc<Places>, account: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(account).ok()).collect()
    }

    #[test]
    fn one_peer_alone_gets_most_and_never_all() {
        let places = Places::new(100);
        let greedy = as_many_as_it_gets(&places, "a");
        assert_eq!(greedy.len(), 75);
        assert_eq!(places.take("a").err(), Some(Full::Peer));
        let other = as_many_as_it_gets(&places, "b");
        assert!(other.len() >= 18, "{}", other.len());
        assert!(places.take("c").is_ok(), "and there is one for whoever comes next");
        drop(greedy);
        assert!(places.take("a").is_ok());
        assert!(!places.held().peers.contains_key("a"), "who left is forgotten");
        drop(other);
        assert_eq!(places.held().all, 0);
    }

    #[test]
    fn places_grow_and_shrink_and_what_is_refused_changes_nothing() {
        let places = Places::new(1000);
        let mut one = places.none("a");
        assert_eq!(one.resize(700), Ok(()));
        assert_eq!(one.resize(800), Err(Full::Peer));
        assert_eq!(one.resize(2000), Err(Full::All));
        let mut other = places.none("b");
        assert_eq!(other.resize(250), Err(Full::Peer));
        assert_eq!(other.resize(200), Ok(()));
        assert_eq!(one.resize(100), Ok(()));
        assert_eq!(other.resize(600), Ok(()));
        assert_eq!(places.held().all, 700);
        drop((one, other));
        let held = places.held();
        assert_eq!((held.all, held.peers.len()), (0, 0));
    }

    #[test]
    fn peers_that_cannot_be_told_apart_share_the_whole() {
        let places = Places::new(10);
        let all = as_many_as_it_gets(&places, "");
        assert_eq!((all.len(), places.take("").err()), (10, Some(Full::All)));
        assert_eq!(as_many_as_it_gets(&Places::new(0), "a").len(), 1, "there is at least one");
    }
}
