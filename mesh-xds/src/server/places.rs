//! Places for streams, or connections: so many in all, and no peer can take them all.
//!
//! A peer may hold three times as many as are still free. Alone it gets three quarters; N greedy peers get the same
//! number each and leave a share for whoever comes next. Nothing is reserved for peers that are not there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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

/// One place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    account: Arc<str>,
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
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.limit.saturating_sub(held.all);
        if free == 0 {
            return Err(Full::All);
        }
        let own = held.peers.get_key_value(account).map(|(account, count)| (account.clone(), *count));
        let (account, count) = own.unwrap_or_else(|| (account.into(), 0));
        if !account.is_empty() {
            if count >= free.saturating_mul(GREED) {
                return Err(Full::Peer);
            }
            held.peers.insert(account.clone(), count + 1);
        }
        held.all += 1;
        Ok(Place { places: self.clone(), account })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(1);
        if let Some(count) = held.peers.get_mut(&self.account) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.peers.remove(&self.account);
            }
        }
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
        assert!(!places.held.lock().unwrap().peers.contains_key("a"), "who left is forgotten");
        drop(other);
        assert_eq!(places.held.lock().unwrap().all, 0);
    }

    #[test]
    fn peers_that_cannot_be_told_apart_share_the_whole() {
        let places = Places::new(10);
        let all = as_many_as_it_gets(&places, "");
        assert_eq!((all.len(), places.take("").err()), (10, Some(Full::All)));
        assert_eq!(as_many_as_it_gets(&Places::new(0), "a").len(), 1, "there is at least one");
    }
}
