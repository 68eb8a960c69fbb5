//! The stream to the control plane: its beginning, what of it says that the control plane is there, and its end.
//!
//! A stream that had a response ends well (gRFC A57), unless what came on it could not be read here: that comes again on
//! the next one, so it is a failure, and stays one as long as anything is awaited. What is awaited goes on being awaited
//! over streams that end well, however many: a control plane that ends each before it has said everything is silent.

use super::{Link, Machine, Outputs, Parse, TypeState};
use crate::{
    client::cache::Awaited,
    name::{Name, ResourceType},
};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

impl<P: Parse> Machine<P> {
    pub(super) fn connect(&mut self, out: &mut Outputs) {
        self.link = Link::Opening;
        out.connect = true;
    }

    pub(super) fn hang_up(&mut self, out: &mut Outputs) {
        if self.watches_something() {
            return;
        }
        out.disconnect = !self.is_idle();
        self.link = Link::Idle;
        self.held = None;
        self.link_since = None;
        self.unreachable = None;
        self.unreadable = false;
        self.timers.clear();
        for state in &mut self.types {
            *state = TypeState::new();
        }
    }

    pub(super) fn opened(&mut self, now: Instant, out: &mut Outputs) {
        if !matches!(self.link, Link::Opening) {
            return;
        }
        self.link = Link::Open { since: now, heard: false, responded: false };
        self.link_since = Some(now);
        self.node_sent = false;
        for kind in ResourceType::ALL {
            let named = || self.types[kind as usize].entries.iter().filter(|(_, entry)| entry.references > 0);
            let names: BTreeSet<Name> = named().map(|(name, _)| name.clone()).collect();
            let has_all = named().all(|(_, entry)| entry.good.is_some() && entry.failure.is_none());
            if names.is_empty() || !has_all || self.types[kind as usize].mixed {
                // It is the version of what was watched then. A control plane that has no other may take it for a
                // receipt of all that is named now, and say nothing; it would be silent, too, if it has gone back to the
                // version before one that was rejected: neither the trouble would end, nor what counts of that one.
                let state = self.of(kind);
                (state.version, state.mixed) = (Arc::default(), false);
            }
            self.list_anew(now, kind, out);
            if !names.is_empty() {
                self.ask(now, kind, &names, BTreeSet::new(), out);
            }
        }
    }

    /// Whether a response came on the stream that is open.
    pub(in crate::client) fn has_responded(&self) -> bool {
        matches!(self.link, Link::Open { responded: true, .. })
    }

    pub(super) fn heard(&mut self) {
        if let Link::Open { heard, .. } = &mut self.link {
            *heard = true;
        }
    }

    /// The control plane answers: what was said about its absence is void. Something that could not be read may come
    /// again, as long as anything is awaited.
    pub(super) fn reachable(&mut self, out: &mut Outputs) {
        if self.unreachable.is_none() || !matches!(self.link, Link::Open { heard: true, .. }) {
            return;
        }
        let entries = || self.types.iter().flat_map(|state| state.entries.values());
        if self.unreadable && entries().any(|entry| entry.references > 0 && !entry.is_answered()) {
            return;
        }
        self.unreachable = None;
        self.unreadable = false;
        self.all_changed(out);
    }

    pub(super) fn hold(&mut self, now: Instant) {
        if self.is_open() {
            self.held.get_or_insert(now);
        }
    }

    /// Timers go on, later by as long as nothing was read.
    pub(super) fn resume(&mut self, now: Instant) {
        let Some(since) = self.held.take() else { return };
        let late = now.saturating_duration_since(since);
        // One that is too far away for a clock stays where it is.
        let later = |due: Instant| due.checked_add(late).unwrap_or(due);
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers.into_iter().map(|(due, kind, name)| (later(due), kind, name)).collect();
        for (due, kind, name) in &self.timers {
            let Some(entry) = self.types[*kind as usize].entries.get_mut(name) else { continue };
            entry.due = Some(*due);
            entry.expires = entry.expires.map(later);
        }
    }

    pub(super) fn all_changed(&self, out: &mut Outputs) {
        for (kind, state) in ResourceType::ALL.into_iter().zip(&self.types) {
            let watched = state.entries.iter().filter(|(_, entry)| entry.references > 0);
            out.changed.extend(watched.map(|(name, _)| (kind, name.clone())));
        }
    }

    pub(super) fn closed(&mut self, now: Instant, why: Arc<str>, unreadable: bool, out: &mut Outputs) {
        self.resume(now);
        let well = matches!(self.link, Link::Open { responded: true, .. }) && !unreadable;
        let delay = match self.link {
            Link::Open { since, .. } if well => self.backoff.worked(now.saturating_duration_since(since)),
            Link::Open { .. } | Link::Opening => {
                if let Link::Open { since, .. } = self.link {
                    self.backoff.lived(now.saturating_duration_since(since));
                }
                self.unreadable |= unreadable;
                if self.unreachable.as_ref() != Some(&why) {
                    self.unreachable = Some(why);
                    self.all_changed(out);
                }
                self.backoff.failed()
            }
            Link::Idle | Link::Waiting { .. } => return,
        };
        if self.is_open() {
            self.link_since = Some(now);
        }
        self.link = Link::Waiting { until: now + delay };
        self.timers.clear();
        for (kind, state) in ResourceType::ALL.into_iter().zip(&mut self.types) {
            state.asked = false;
            state.nonce.clear();
            let wild = state.is_wild();
            state
                .entries
                .retain(|_, entry| entry.references > 0 || wild && entry.listed && entry.is_served());
            for (name, entry) in &mut state.entries {
                let is_awaited = well && entry.references > 0 && entry.good.is_none();
                let streams = entry.awaited.map_or(0, |awaited| awaited.streams) + 1;
                entry.awaited = entry.due.filter(|_| is_awaited).map(|due| Awaited { due, streams });
                entry.asked = false;
                entry.restored = false;
                (entry.unconfirmed, entry.of_earlier_list, entry.excused) = (false, false, false);
                // On the next stream it is sent again.
                entry.lapsed = None;
                // A time to live is for when the control plane is away.
                entry.due = entry.expires;
                self.timers.extend(entry.due.map(|due| (due, kind, name.clone())));
            }
        }
    }
}
