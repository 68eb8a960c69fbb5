//! What time alone brings about: silence that means something, the end of a time to live, the end of what is kept for a
//! moment, and the next attempt to connect. A name has one timer at most.

use super::{Link, Machine, Outputs, Parse};
use crate::{
    client::cache::ResourceState,
    config::XdsErrorCause,
    name::{Name, ResourceType, WILDCARD},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

impl<P: Parse> Machine<P> {
    pub(super) fn arm(&mut self, kind: ResourceType, name: &Name, due: Instant) {
        self.disarm(kind, name);
        if let Some(entry) = self.types[kind as usize].entries.get_mut(name) {
            entry.due = Some(due);
            self.timers.insert((due, kind, name.clone()));
        }
    }

    /// How long silence means nothing (gRFC A88).
    pub(super) fn patience(&self) -> Duration {
        patience(self.settings.timer_is_transient)
    }

    pub(super) fn disarm(&mut self, kind: ResourceType, name: &Name) {
        if let Some(entry) = self.types[kind as usize].entries.get_mut(name)
            && let Some(due) = entry.due.take()
        {
            self.timers.remove(&(due, kind, name.clone()));
        }
    }

    /// Nothing is awaited of a name but the end of its time to live, if it has one.
    pub(super) fn await_end(&mut self, kind: ResourceType, name: &Name) {
        let expires = self.types[kind as usize].entries.get(name).and_then(|entry| entry.expires);
        match expires {
            Some(end) => self.arm(kind, name, end),
            None => self.disarm(kind, name),
        }
    }

    /// What time alone brings about.
    pub(super) fn elapse(&mut self, now: Instant, out: &mut Outputs) {
        while self.held.is_none()
            && let Some((due, kind, name)) = self.timers.first().cloned().filter(|(due, ..)| *due <= now)
        {
            self.timers.remove(&(due, kind, name.clone()));
            let is_open = self.is_open();
            let transient = self.settings.timer_is_transient;
            let drop_data = self.settings.fail_on_data_errors && !transient;
            let state = self.of(kind);
            let Some(entry) = state.entries.get_mut(&name) else { continue };
            entry.due = None;
            if !entry.is_wanted() {
                self.drop_entry(kind, &name);
                continue;
            }
            if entry.expires.take_if(|end| *end <= due).is_some() {
                let why = "its time to live ended, and the control plane did not refresh it".into();
                let cause = XdsErrorCause::DoesNotExist(why);
                let may_return = is_open && entry.failure.is_none();
                let lapsed = entry.good.take().filter(|_| may_return);
                entry.fail(cause, ResourceState::DoesNotExist, Arc::default(), true, now);
                if let Some(failure) = &mut entry.failure {
                    failure.silent = true;
                }
                entry.lapsed = lapsed;
                self.notify(kind, name, out);
                continue;
            }
            if entry.references == 0 {
                // It may have been a part of the wildcard, and is not.
                self.drop_entry(kind, &name);
                self.list_changed(kind, out);
                continue;
            }
            let cause = silence(&*name == WILDCARD, transient, entry.awaited.is_some());
            let is_absent = matches!(cause, XdsErrorCause::DoesNotExist(_));
            let outcome = if is_absent { ResourceState::DoesNotExist } else { ResourceState::Timeout };
            let changed = entry.fail(cause, outcome, Arc::default(), drop_data, now);
            if let Some(failure) = &mut entry.failure {
                failure.silent = true;
            }
            if changed {
                self.notify(kind, name, out);
            }
        }
        if let Link::Waiting { until } = self.link
            && until <= now
        {
            if self.watches_something() {
                self.connect(out);
            } else {
                // What is known of its absence is too old for who watches next.
                self.hang_up(out);
            }
        }
    }
}

/// What it means that nothing came. Of a wait over several streams the words do not tell the length: the same silence
/// again is no news.
fn silence(is_list: bool, transient: bool, several_streams: bool) -> XdsErrorCause {
    let what = if is_list { "say what there is" } else { "send it" };
    let seconds = patience(transient).as_secs();
    let time = if several_streams { "on several streams, in no less than" } else { "within" };
    let why = format!("the control plane did not {what} {time} {seconds} s").into();
    // Nothing is something else than no answer.
    if transient || is_list { XdsErrorCause::Failed(why) } else { XdsErrorCause::DoesNotExist(why) }
}

/// How long silence means nothing (gRFC A88).
fn patience(transient: bool) -> Duration {
    Duration::from_secs(if transient { 30 } else { 15 })
}
