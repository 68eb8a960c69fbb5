//! The last known good configuration on disk: for a process that starts while no control plane answers.
//!
//! One file per node and control planes, written whole and renamed into place, readable by its owner only. Processes
//! that share it add to it in turn. It holds what was understood of accepted resources, which name certificates and keys but contain none; secrets are
//! left out, so that a cluster that needs one waits for a control plane. What is
//! read goes through the same parser as what is received, so a file can do no more than a control plane. A file that is
//! damaged, foreign, too new, too large or too old, or that another user can have written, is ignored with a warning
//! that names it.

mod file;
mod news;
mod trust;
mod writer;

pub use file::CacheSettings;
#[cfg(test)]
pub(super) use file::content;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use file::reread;
pub(super) use file::{Owner, load};
use news::News;
pub(super) use writer::{Writer, keep};

use super::machine::Key;
use bytes::Bytes;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// One resource that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) version: Arc<str>,
    pub(super) body: Bytes,
    /// Who sent it.
    pub(super) server: Arc<str>,
    /// When that control plane stood by it last, in seconds since the epoch.
    pub(super) confirmed: f64,
}

/// A record that was read, and what it parses to.
pub(super) struct Kept<R> {
    pub(super) resource: R,
    pub(super) version: Arc<str>,
    pub(super) body: Bytes,
    pub(super) server: Arc<str>,
    pub(super) confirmed: f64,
}

/// What was on disk when the process began.
pub(super) struct Stored<R> {
    entries: BTreeMap<Key, Kept<R>>,
    path: PathBuf,
    /// Of the oldest of the entries, in whole seconds.
    age: u64,
}

impl<R> Stored<R> {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self { entries: BTreeMap::new(), path: PathBuf::new(), age: 0 }
    }

    #[cfg(test)]
    pub(super) fn of(entries: BTreeMap<Key, Kept<R>>, path: &str, age: u64) -> Self {
        Self { entries, path: path.into(), age }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Kept<R>> {
        self.entries.get(key)
    }

    /// What it is, for notes, errors and the log; always the same.
    pub(super) fn describe(&self) -> String {
        format!(
            "the last known good one from {}, up to {} s old when this process began",
            self.path.display(),
            self.age
        )
    }

    /// The records, to be written again with what is learnt.
    pub(super) fn records(&self) -> BTreeMap<Key, Record> {
        let record = |(key, kept): (&Key, &Kept<R>)| {
            let record = Record {
                version: kept.version.clone(),
                body: kept.body.clone(),
                server: kept.server.clone(),
                confirmed: kept.confirmed,
            };
            (key.clone(), record)
        };
        self.entries.iter().map(record).collect()
    }
}

/// What a process reads that starts at `now`, of what a writer had to write then.
#[cfg(test)]
pub(super) fn rewritten<R>(
    writer: &Writer,
    now: f64,
    parse: impl Fn(crate::name::ResourceType, &Bytes) -> Result<(crate::name::Name, R), super::Unparsable>,
) -> Stored<R> {
    let bytes = file::encode(&writer.owner, &writer.records);
    let records = file::decode(&writer.owner, &bytes).expect("what was written is read");
    let parse = |kind, body: &Bytes, _: &str| parse(kind, body);
    let (stored, faults) = file::revive(records, "disk".into(), writer.settings.max_age, now, parse);
    assert_eq!(faults, [""; 0]);
    stored
}

#[cfg(test)]
mod tests;
