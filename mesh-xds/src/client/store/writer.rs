//! Keeps the file up to date, off the path of the stream: changes of a moment become one write.
//!
//! What is kept of an authority is of one control plane. Another one takes its place when it has spoken of everything
//! that is watched, and what the one before said is dropped: no view is of two (gRFC A71), after a restart neither.
//! Between two writes this process's records say what it was told itself; a write brings in what others were told.

use super::{CacheSettings, News, Owner, Record, file::update, news::authority};
use crate::client::{
    authority::Accepted,
    machine::{Key, Parse},
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

/// What has to be known to write.
pub(in crate::client) struct Writer {
    pub(super) settings: CacheSettings,
    pub(super) owner: Owner,
    /// What is on disk, or is to be.
    pub(in crate::client) records: BTreeMap<Key, Record>,
    /// What was learnt, as it was understood, while it is watched or kept.
    seen: BTreeMap<Key, Bytes>,
    /// What was said since the last write.
    pub(super) news: News,
}

impl Writer {
    /// `records` are on disk already.
    pub(in crate::client) fn new(
        settings: CacheSettings,
        owner: Owner,
        records: BTreeMap<Key, Record>,
    ) -> Self {
        Self { settings, owner, records, seen: BTreeMap::new(), news: News::default() }
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
            // One whose stream has ended may be the one that another process has left since.
            let displaces = one.is_whole && one.is_open;
            speakers.entry(authority(&one.key)).or_insert((one.server.clone(), displaces));
        }
        for (authority, (server, _)) in speakers.iter().filter(|(_, (_, displaces))| *displaces) {
            self.news.displace(authority.clone(), server.clone());
        }
        let held: BTreeSet<Key> =
            accepted.iter().filter(|one| one.good.is_some()).map(|one| one.key.clone()).collect();
        let mut foreign = BTreeSet::new();
        self.records.retain(|key, record| match speakers.get(&authority(key)) {
            Some((server, displaces)) if *server != record.server => {
                changed |= displaces;
                foreign.extend((!displaces).then(|| authority(key)));
                !displaces
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
                self.news.say(key, server, now, None);
                continue;
            };
            let is_known = self.seen.get(&key) == Some(&body);
            if is_known && !is_open {
                // It is no news, and other processes may have had some since.
                continue;
            }
            if let Some(record) = self.records.get_mut(&key)
                && is_known
                && record.version == version
            {
                record.confirmed = now;
                self.news.say(key, server, now, Some(record.clone()));
                continue;
            }
            let kept = parser.keep(&resource, &body);
            changed |= self
                .records
                .get(&key)
                .is_none_or(|record| (&record.version, &record.body) != (&version, &kept));
            self.seen.insert(key.clone(), body);
            let record = Record { version, body: kept, server: server.clone(), confirmed: now };
            self.news.say(key.clone(), server, now, Some(record.clone()));
            self.records.insert(key, record);
        }
        // What is not watched any more may be again, by the next process; but not for ever.
        let oldest = now - self.settings.max_age.as_secs_f64();
        let count = self.records.len();
        self.records.retain(|_, record| record.confirmed >= oldest);
        self.seen.retain(|key, _| self.records.contains_key(key) || held.contains(key));
        self.news.forget(oldest);
        changed || count != self.records.len()
    }

    /// This is on disk now: what was said, and what other processes were told.
    pub(super) fn wrote(&mut self, records: BTreeMap<Key, Record>) {
        self.records = records;
        self.news = News::default();
    }

    /// Writes in a world without files: returns what is on disk then, where `there` is.
    #[cfg(test)]
    pub(in crate::client) fn write_over(
        &mut self,
        there: BTreeMap<Key, Record>,
        now: f64,
    ) -> BTreeMap<Key, Record> {
        self.wrote(self.news.onto(there, now, self.settings.max_age));
        self.records.clone()
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
        if dirty {
            let (settings, owner) = (writer.settings.clone(), writer.owner.clone());
            let (news, now) = (writer.news.clone(), now());
            let written = tokio::task::spawn_blocking(move || update(&settings, &owner, &news, now)).await;
            let why = match written {
                Ok(Ok(records)) => {
                    writer.wrote(records);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why.as_ref().filter(|_| !failing) {
                let directory = writer.settings.directory.display();
                tracing::warn!(%directory, %why, "the last known good configuration cannot be written");
            }
            (dirty, failing) = (why.is_some(), why.is_some());
        }
    }
}
