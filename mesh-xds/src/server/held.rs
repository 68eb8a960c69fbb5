//! What a client holds, and how much memory it is that no other stream shares.

use super::Encoded;
use crate::name::Name;
use std::{collections::BTreeMap, ops::Deref, sync::Arc};

/// What an entry costs, beside a name that is counted elsewhere and a resource that all share.
pub(super) const OVERHEAD: usize = 96;

/// What the client was sent under a name.
pub(super) struct Held {
    pub(super) version: Arc<str>,
    /// Absent when the client brought it from an earlier stream (delta), until it was compared.
    pub(super) encoded: Option<Arc<Encoded>>,
    /// Bytes of it that are there for this stream alone.
    pub(super) own: usize,
}

impl Held {
    /// In a version of which there is no more to know.
    pub(super) fn version(version: Arc<str>) -> Self {
        Self { version, encoded: None, own: 0 }
    }
}

/// By name. It is read as the map that it is, and changed so that it knows its weight.
#[derive(Default)]
pub(super) struct Holding {
    map: BTreeMap<Name, Held>,
    own: usize,
}

impl Deref for Holding {
    type Target = BTreeMap<Name, Held>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl Holding {
    /// Bytes that no other stream shares.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    pub(super) fn insert(&mut self, name: Name, held: Held) -> Option<Held> {
        self.own += held.own;
        let before = self.map.insert(name, held);
        self.own -= before.as_ref().map_or(0, |before| before.own);
        before
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.own -= self.map.remove(name).map_or(0, |held| held.own);
    }

    pub(super) fn retain(&mut self, stays: impl Fn(&Name) -> bool) {
        self.map.retain(|name, _| stays(name));
        self.own = self.map.values().map(|held| held.own).sum();
    }

    /// It is in this version, or in none that is worth anything.
    pub(super) fn set_version(&mut self, name: &str, version: Arc<str>) {
        if let Some(held) = self.map.get_mut(name) {
            held.version = version;
        }
    }

    /// Whether it is held in the version of a resource, which then is shared with all who hold it.
    pub(super) fn is_at(&mut self, name: &str, encoded: &Arc<Encoded>) -> bool {
        let held = self.map.get_mut(name).filter(|held| held.version == encoded.version);
        held.map(|held| held.encoded.get_or_insert_with(|| encoded.clone())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_weighs_what_is_in_it() {
        let held = |own| Held { own, ..Held::version("v".into()) };
        let mut all = Holding::default();
        for (name, own) in [("a", 1), ("b", 2), ("c", 4), ("a", 8)] {
            all.insert(name.into(), held(own));
        }
        assert_eq!((all.len(), all.own()), (3, 14));
        all.remove("b");
        all.remove("none");
        assert_eq!(all.own(), 12);
        all.retain(|name| &**name == "c");
        assert_eq!((all.len(), all.own()), (1, 4));
        let of = |version: &str| {
            Arc::new(Encoded { name: "c".into(), version: version.into(), body: bytes::Bytes::new() })
        };
        assert!(all.is_at("c", &of("v")) && !all.is_at("c", &of("w")) && !all.is_at("a", &of("v")));
        assert!(all["c"].encoded.is_some());
    }
}
