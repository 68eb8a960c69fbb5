//! Keeps the file up to date, off the path of the stream: changes of a moment become one write.

use super::{CacheSettings, Owner, Record, file::write};
use crate::client::{authority::Accepted, machine::Key};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::mpsc;

/// After the first change; those meanwhile are written with it.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// What has to be known to write.
pub(in crate::client) struct Writer {
    pub(in crate::client) settings: CacheSettings,
    pub(in crate::client) owner: Owner,
    /// What is on disk already.
    pub(in crate::client) records: BTreeMap<Key, Record>,
}

impl Writer {
    /// What control planes said at `now` (seconds since the epoch). Says whether anything else is to be written.
    pub(super) fn learn(&mut self, accepted: Vec<Accepted>, now: f64) -> bool {
        let mut changed = false;
        for Accepted { key, server, is_open, good } in accepted {
            let Some((version, body)) = good else {
                changed |= self.records.remove(&key).is_some();
                continue;
            };
            let before = self.records.get(&key);
            let same = before.is_some_and(|record| (&record.version, &record.body) == (&version, &body));
            let confirmed = match before {
                // Nobody stands by it now.
                Some(record) if same && !is_open => record.confirmed,
                _ => now,
            };
            changed |= !same;
            self.records.insert(key, Record { version, body, server, confirmed });
        }
        // What is not watched any more may be again, by the next process; but not for ever.
        let oldest = now - self.settings.max_age.as_secs_f64();
        let count = self.records.len();
        self.records.retain(|_, record| record.confirmed >= oldest);
        changed || count != self.records.len()
    }

    /// How often what did not change is confirmed.
    fn refresh(&self) -> Duration {
        (self.settings.max_age / 24).max(Duration::from_secs(1))
    }
}

/// Writes until the client ends, and then once more. `news` says that something changed; `accepted` tells what
/// is accepted, or `None` when the client has ended.
pub(in crate::client) async fn keep(
    mut writer: Writer,
    mut news: mpsc::Receiver<()>,
    accepted: impl Fn() -> Option<Vec<Accepted>>,
    now: impl Fn() -> f64,
) {
    // Something is not written yet; the last attempt failed.
    let (mut dirty, mut failing) = (false, false);
    loop {
        let mut ended = false;
        tokio::select! {
            one = news.recv() => ended = one.is_none(),
            () = tokio::time::sleep(writer.refresh()) => dirty = true,
        }
        let debounce = tokio::time::sleep(DEBOUNCE);
        tokio::pin!(debounce);
        // Looks at once, since what is watched now may not be in a moment.
        loop {
            if let Some(accepted) = accepted() {
                dirty |= writer.learn(accepted, now());
            }
            if ended {
                break;
            }
            tokio::select! {
                () = &mut debounce => break,
                one = news.recv() => ended = one.is_none(),
            }
        }
        if dirty && !writer.records.is_empty() {
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
        }
        if ended {
            return;
        }
    }
}
