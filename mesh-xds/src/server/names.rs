//! The names that a client subscribed to, and how much memory they are.

use crate::name::Name;
use std::{
    borrow::Borrow,
    collections::{BTreeSet, btree_set},
    ops::RangeBounds,
};

/// What a name costs beyond its bytes: its places in the maps of a stream.
const OVERHEAD: usize = 256;

/// What is counted for a name.
pub(super) fn weight(name: &str) -> usize {
    name.len() + OVERHEAD
}

/// A set that knows what it weighs.
#[derive(Default)]
pub(super) struct Names {
    set: BTreeSet<Name>,
    bytes: usize,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// Bytes of the names, and of what is kept for each.
    pub(super) fn weight(&self) -> usize {
        self.bytes + self.set.len() * OVERHEAD
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Name> {
        self.set.get(name)
    }

    pub(super) fn iter(&self) -> btree_set::Iter<'_, Name> {
        self.set.iter()
    }

    /// Those between two.
    pub(super) fn range<T: Ord + ?Sized>(&self, range: impl RangeBounds<T>) -> btree_set::Range<'_, Name>
    where
        Name: Borrow<T>,
    {
        self.set.range(range)
    }

    /// False: it was there.
    pub(super) fn insert(&mut self, name: Name) -> bool {
        let length = name.len();
        let is_new = self.set.insert(name);
        self.bytes += if is_new { length } else { 0 };
        is_new
    }

    /// False: it was not there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let was_there = self.set.remove(name);
        self.bytes -= if was_there { name.len() } else { 0 };
        was_there
    }

    /// The same name in another place of memory.
    pub(super) fn share(&mut self, name: &Name) {
        if self.set.contains(name) {
            self.set.replace(name.clone());
        }
    }

    /// Those that are not in `other`.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Name> {
        self.set.difference(&other.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_weighs_what_its_names_weigh() {
        let mut names = Names::default();
        assert!(names.insert("abc".into()) && !names.insert("abc".into()) && names.insert("d".into()));
        assert_eq!((names.len(), names.weight()), (2, 4 + 2 * OVERHEAD));
        names.share(&"abc".into());
        names.share(&"none".into());
        names.remove("abc");
        names.remove("abc");
        assert_eq!((names.len(), names.weight()), (1, 1 + OVERHEAD));
    }
}
