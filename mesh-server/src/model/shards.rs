//! A map that is cheap to change while others keep the one before: what is not touched is shared.
//!
//! Entries are spread over small ordered maps by hash; a change copies one of these and the list of them, so it
//! costs about the same whatever the number of entries.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// Entries of a shard, on average, before there are more shards.
const FULL: usize = 16;
/// How many times more.
const GROWTH: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Shards<K, V> {
    shards: Arc<[Arc<BTreeMap<K, V>>]>,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: [Arc::default()].into(), len: 0 }
    }
}

impl<K: Hash + Ord + Clone, V: Clone> Shards<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get<Q: ?Sized + Hash + Ord>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.index(key))?.get(key)
    }

    /// Every entry, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let index = self.index(&key);
        let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(index) else { return };
        if Arc::make_mut(shard).insert(key, value).is_none() {
            self.len += 1;
        }
        if self.len > FULL * self.shards.len() {
            self.grow();
        }
    }

    pub(crate) fn remove<Q: ?Sized + Hash + Ord>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let index = self.index(key);
        if self.get(key).is_none() {
            return;
        }
        let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(index) else { return };
        if Arc::make_mut(shard).remove(key).is_some() {
            self.len -= 1;
        }
    }

    fn index<Q: ?Sized + Hash>(&self, key: &Q) -> usize {
        place(key, self.shards.len())
    }

    fn grow(&mut self) {
        let mut grown: Vec<BTreeMap<K, V>> = vec![BTreeMap::new(); self.shards.len() * GROWTH];
        let before = std::mem::take(&mut self.shards);
        for (key, value) in before.iter().flat_map(|shard| shard.iter()) {
            let index = place(key, grown.len());
            if let Some(shard) = grown.get_mut(index) {
                shard.insert(key.clone(), value.clone());
            }
        }
        self.shards = grown.into_iter().map(Arc::new).collect();
    }
}

/// Which of `count` shards.
fn place<Q: ?Sized + Hash>(key: &Q, count: usize) -> usize {
    // Without a seed: the same in every process.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % count.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_the_one_before_stays_as_it_was(
            changes in prop::collection::vec((0..100_u32, prop::option::of(any::<u8>())), 0..400),
        ) {
            let mut map = Shards::<String, u8>::default();
            let mut expected = BTreeMap::new();
            for (key, value) in changes {
                let (key, before, was) = (key.to_string(), map.clone(), expected.clone());
                match value {
                    Some(value) => {
                        map.insert(key.clone(), value);
                        expected.insert(key, value);
                    }
                    None => {
                        map.remove(key.as_str());
                        expected.remove(&key);
                    }
                }
                prop_assert_eq!(before.iter().map(|(k, v)| (k.clone(), *v)).collect::<BTreeMap<_, _>>(), was);
                prop_assert_eq!(map.len(), expected.len());
            }
            prop_assert_eq!(map.is_empty(), expected.is_empty());
            for key in 0..100 {
                let key = key.to_string();
                prop_assert_eq!(map.get(key.as_str()), expected.get(&key));
            }
        }
    }

    #[test]
    fn a_change_copies_little_whatever_the_number_of_entries() {
        let mut map = Shards::<u32, u32>::default();
        (0..10_000).for_each(|i| map.insert(i, i));
        let before = map.clone();
        map.insert(7, 8);
        let copied = map.shards.iter().zip(before.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        assert!(map.shards.iter().all(|shard| shard.len() < 64), "shards are small");
    }
}
