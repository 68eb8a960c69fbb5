//! What a process adds to a file that several share.
//!
//! Each reads the file again before it writes, and adds what it was told itself. A record goes when a control plane
//! that speaks for it says that it does not exist, with its age, or with the control plane it is of: of an authority
//! the file is of one, and that is the one that spoke last of everything that one of the processes watches.

use super::{Record, file::is_usable};
use crate::{client::machine::Key, name};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Of whom a name is.
pub(super) fn authority((kind, name): &Key) -> Option<String> {
    name::authority(*kind, name).map(str::to_owned)
}

/// What control planes said of a name.
#[derive(Clone)]
struct Word {
    server: Arc<str>,
    /// In seconds since the epoch.
    at: f64,
    /// `None`: it does not exist.
    record: Option<Record>,
}

/// What control planes said since this process wrote last. Of an authority it is of one.
#[derive(Clone, Default)]
pub(in crate::client) struct News {
    words: BTreeMap<Key, Word>,
    /// Who has spoken of everything that is watched of an authority.
    whole: BTreeMap<Option<String>, Arc<str>>,
}

impl News {
    /// `server` stands by this record, or says that there is none.
    pub(super) fn say(&mut self, key: Key, server: Arc<str>, at: f64, record: Option<Record>) {
        self.words.insert(key, Word { server, at, record });
    }

    /// `server` has spoken of everything that is watched of an authority.
    pub(super) fn displace(&mut self, authority_of: Option<String>, server: Arc<str>) {
        self.words.retain(|key, word| word.server == server || authority(key) != authority_of);
        self.whole.insert(authority_of, server);
    }

    /// Forgets what is too old to be written.
    pub(super) fn forget(&mut self, oldest: f64) {
        self.words.retain(|_, word| word.at >= oldest);
    }

    /// Whether a file would get anything of it.
    pub(super) fn is_empty(&self) -> bool {
        self.words.values().all(|word| word.record.is_none())
    }

    /// Whether it says anything of a name.
    pub(super) fn mentions(&self, key: &Key) -> bool {
        self.words.contains_key(key)
    }

    /// What is to be on disk at `now`, where `there` is.
    pub(super) fn onto(
        &self,
        mut there: BTreeMap<Key, Record>,
        now: f64,
        max_age: Duration,
    ) -> BTreeMap<Key, Record> {
        there.retain(|key, record| {
            let displaced = self.whole.get(&authority(key)).is_some_and(|server| *server != record.server);
            is_usable(record, now, max_age) && !displaced
        });
        let speakers: BTreeMap<_, _> =
            there.iter().map(|(key, record)| (authority(key), record.server.clone())).collect();
        for (key, word) in &self.words {
            if speakers.get(&authority(key)).is_some_and(|server| *server != word.server) {
                continue;
            }
            // Another process may have been told since.
            if there.get(key).is_some_and(|other| other.confirmed > word.at) {
                continue;
            }
            match &word.record {
                Some(record) => there.insert(key.clone(), record.clone()),
                None => there.remove(key),
            };
        }
        there
    }
}
