//! The verdict when everything is delivered.

use super::{Link, Seen, Trouble, World, is_earlier, seen};
use crate::{
    model::{event::Peer, scripts::fail},
    name::WILDCARD,
    server::Variant,
};

impl World {
    /// Everything is delivered: the client knows what the server has.
    pub(crate) fn check(&self) {
        let mut rejecting = self.check_all();
        for (kind, name) in self.watched.keys().filter(|(_, name)| **name != *WILDCARD) {
            let known = self.client.known(*kind, name);
            if self.seen.get(&(*kind, name.clone())) != Some(&known) {
                fail(format!("{kind} {name}: nobody heard of {known:?}"));
            }
            let truth = self.truth().get(*kind, name);
            let known = seen(known);
            let keeps = !self.setup.fail_on_data_errors;
            let is_told = self.setup.peer == Peer::Ours;
            let refusal = self.truth().refusal(*kind, name).filter(|_| is_told).map(Trouble::Refused);
            let right = match (&truth, &refusal) {
                (Some(bad), _) if bad.starts_with("bad") => {
                    rejecting = true;
                    let trouble = Trouble::Rejected(bad.clone());
                    match &known {
                        Seen::Nothing(why) => {
                            *why == trouble || (self.has_lives() && *why == Trouble::Absent)
                        }
                        Seen::Good(_, why) => keeps && why.as_ref() == Some(&trouble),
                        Seen::Pending => false,
                    }
                }
                (Some(good), _) if self.lives.has_ended(good) => known == Seen::Nothing(Trouble::Absent),
                (Some(good), _) => known == Seen::Good(good.clone(), None),
                (None, _) if self.is_kept(*kind) && is_earlier(&known) => true,
                (None, Some(refusal)) => {
                    let is_there = matches!(refusal, Trouble::Refused(value) if value.starts_with("err"));
                    match &known {
                        Seen::Nothing(why) => why == refusal || (self.has_lives() && *why == Trouble::Absent),
                        // What is there stays in use, whatever the settings.
                        Seen::Good(_, why) => (is_there || keeps) && why.as_ref() == Some(refusal),
                        Seen::Pending => false,
                    }
                }
                // A deletion that cannot be said is not heard of.
                (None, None) if self.variant == Variant::Sotw && !is_told && !kind.is_complete() => {
                    known != Seen::Pending
                }
                (None, None) => match &known {
                    Seen::Nothing(Trouble::Absent) => true,
                    Seen::Nothing(Trouble::Silence) => self.setup.timer_is_transient,
                    // Watched again while it went: what a response leaves out may be older than the watch, and then
                    // there is nothing but silence.
                    Seen::Good(_, Some(Trouble::Silence)) => {
                        self.setup.timer_is_transient
                            && self.variant == Variant::Sotw
                            && self.setup.peer != Peer::Ours
                    }
                    Seen::Good(_, why) => keeps && *why == Some(Trouble::Absent),
                    _ => false,
                },
            };
            if !right {
                fail(format!("{kind} {name} is {truth:?}, and the client knows {known:?}"));
            }
        }
        if self.client.status(|_| 0.0).len() != self.watched.len() + self.unnamed() {
            fail("the client keeps what nobody watches".to_owned());
        }
        let Link::Open { server, order, .. } = &self.link else {
            if !self.watched.is_empty() {
                fail("there is no stream".to_owned());
            }
            return;
        };
        if !order.outstanding.is_empty() {
            fail(format!("never answered: {:?}", order.outstanding));
        }
        let acked = server.stream().acked_revision();
        if !self.watched.is_empty() && (acked == Some(self.truth().revision())) == rejecting {
            fail(format!("the receipt is wrong: {acked:?}"));
        }
    }
}
