//! Keeps the file up to date, off the path of the stream: changes of a moment become one write.
//!
//! What is kept of an authority is of one control plane. Another one takes its place when it has spoken of everything
//! that is watched, and what the one before said is dropped: no view is of two (gRFC A71), after a restart neither.

use super::{CacheSettings, Owner, Record, file::write};
use crate::{
    client::{
        authority::Accepted,
        machine::{Key, Parse},
    },
    name,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// After the first change; those meanwhile are written with it.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Of whom a name is.
fn authority((kind, name): &Key) -> Option<String> {
    name::authority(*kind, name).map(str::to_owned)
}

/// What has to be known to write.
pub(in crate::client) struct Writer {
    pub(super) settings: CacheSettings,
    pub(super) owner: Owner,
    /// What is on disk, or is to be.
    pub(in crate::client) records: BTreeMap<Key, Record>,
    /// What they were encoded from, as it was received.
    seen: BTreeMap<Key, Bytes>,
}

impl Writer {
    /// `records` are on disk already.
    pub(in crate::client) fn new(
        settings: CacheSettings,
        owner: Owner,
        records: BTreeMap<Key, Record>,
    ) -> Self {
        Self { settings, owner, records, seen: BTreeMap::new() }
    }

    /// What control planes said at `now` (seconds since the epoch). Says whether anything else is to be written.
    pub(in crate::client) fn learn<P: Parse>(
        &mut self,
        accepted: Vec<Accepted<P::Resource>>,
        parser: &P,
        now: f64,
    ) -> bool {
        let mut changed = false;
        let mut speakers: BTreeMap<Option<String>, (Arc<str>, bool)> = BTreeMap::new();
        for one in &accepted {
            speakers.entry(authority(&one.key)).or_insert((one.server.clone(), one.is_whole));
        }
        let mut foreign = BTreeSet::new();
        self.records.retain(|key, record| match speakers.get(&authority(key)) {
            Some((server, is_whole)) if *server != record.server => {
                changed |= is_whole;
                foreign.extend((!is_whole).then(|| authority(key)));
                !is_whole
            }
            _ => true,
        });
        for Accepted { key, server, is_open, good, .. } in accepted {
            if foreign.contains(&authority(&key)) {
                continue;
            }
            let Some((version, body, resource)) = good else {
                self.seen.remove(&key);
                changed |= self.records.remove(&key).is_some();
                continue;
            };
            if let Some(record) = self.records.get_mut(&key)
                && self.seen.get(&key) == Some(&body)
                && record.version == version
            {
                if is_open {
                    record.confirmed = now;
                }
                continue;
            }
            let kept = parser.keep(&resource, &body);
            changed |= self
                .records
                .get(&key)
                .is_none_or(|record| (&record.version, &record.body) != (&version, &kept));
            self.seen.insert(key.clone(), body);
            self.records.insert(key, Record { version, body: kept, server, confirmed: now });
        }
        // What is not watched any more may be again, by the next process; but not for ever.
        let oldest = now - self.settings.max_age.as_secs_f64();
        let count = self.records.len();
        self.records.retain(|_, record| record.confirmed >= oldest);
        self.seen.retain(|key, _| self.records.contains_key(key));
        changed || count != self.records.len()
    }

    /// How often what did not change is confirmed.
    fn refresh(&self) -> Duration {
        (self.settings.max_age / 24).max(Duration::from_secs(1))
    }
}

/// Writes until the client ends, and then once more. `news` says that something changed; `accepted` tells what
/// is accepted, or `None` when the client has ended.
pub(in crate::client) async fn keep<P: Parse>(
    mut writer: Writer,
    mut news: mpsc::Receiver<()>,
    accepted: impl Fn() -> Option<Vec<Accepted<P::Resource>>>,
    parser: P,
    now: impl Fn() -> f64,
) {
    // Something is not written yet; the last attempt failed.
    let (mut dirty, mut failing) = (false, false);
    // There is a file: then that nothing is left is news for it as well.
    let mut exists = !writer.records.is_empty();
    let mut ended = false;
    while !ended {
        tokio::select! {
            one = news.recv() => ended = one.is_none(),
            () = tokio::time::sleep(writer.refresh()) => dirty = true,
        }
        let debounce = tokio::time::sleep(DEBOUNCE);
        tokio::pin!(debounce);
        // Looks at every piece of news at once, since what is watched now may not be in a moment.
        loop {
            if let Some(accepted) = accepted() {
                dirty |= writer.learn(accepted, &parser, now());
            }
            if ended {
                break;
            }
            tokio::select! {
                () = &mut debounce => break,
                one = news.recv() => ended = one.is_none(),
            }
        }
        if dirty && (exists || !writer.records.is_empty()) {
            let (settings, owner) = (writer.settings.clone(), writer.owner.clone());
            let records = writer.records.clone();
            let written = tokio::task::spawn_blocking(move || write(&settings, &owner, &records)).await;
            let why = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why.as_ref().filter(|_| !failing) {
                let directory = writer.settings.directory.display();
                tracing::warn!(%directory, %why, "the last known good configuration cannot be written");
            }
            (dirty, failing) = (why.is_some(), why.is_some());
            exists |= why.is_none();
        }
    }
}
