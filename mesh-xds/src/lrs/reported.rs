//! Which names were reported lately, so that what is full lets go of those that were not.
//!
//! That is looked at when a report comes, once in a [`PERIOD`]: a name goes when nobody reported it for a whole one.

use super::sums::OTHERS;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// Reports come every few seconds.
const PERIOD: Duration = Duration::from_secs(3600);

/// The names of one set of sums.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// When the period began.
    since: Option<Instant>,
    /// Those that were reported in it.
    names: BTreeSet<Arc<str>>,
}

impl Reported {
    /// At the end of a period, takes out of full sums what was not reported in it and is not in use.
    pub(super) fn let_go<T>(
        &mut self,
        now: Instant,
        limit: usize,
        sums: &mut BTreeMap<Arc<str>, T>,
        is_in_use: impl Fn(&T) -> bool,
    ) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PERIOD {
            return;
        }
        if sums.len() >= limit {
            sums.retain(|name, sums| self.names.contains(name) || is_in_use(sums));
        }
        self.since = Some(now);
        self.names.clear();
    }

    /// These were reported, and summed up by themselves or with all others.
    pub(super) fn note_all<'a, T>(
        &mut self,
        names: impl Iterator<Item = &'a Arc<str>>,
        sums: &BTreeMap<Arc<str>, T>,
    ) {
        for name in names {
            if let Some((name, _)) = sums.get_key_value(name).or_else(|| sums.get_key_value(OTHERS)) {
                self.note(name);
            }
        }
    }

    /// It was reported.
    pub(super) fn note(&mut self, name: &Arc<str>) {
        if !self.names.contains(name) {
            self.names.insert(name.clone());
        }
    }
}
