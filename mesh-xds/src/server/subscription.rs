//! One resource type on one stream: what the client asked for, what it holds, what it lacks.
//!
//! Looks only at names that are subscribed; a resource whose version the client holds is never sent.

use super::{
    Encoded, View,
    absent::{Absent, Told},
    held::{self, Held, Holding},
    names::{self, Names},
    status::{HeldStatus, NackStatus, TypeStatus, epoch_seconds},
};
use crate::{
    client::ResourceState,
    name::{Name, ResourceType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

/// A response that was neither accepted nor rejected yet.
struct Outstanding {
    revision: Arc<str>,
    at: Instant,
    /// What it says; what the client had in that version already comes last.
    names: Vec<Name>,
    /// How many of the names it had not.
    fresh: usize,
}

struct Nack {
    revision: Arc<str>,
    text: Arc<str>,
    at: Instant,
}

/// What the next response of a type has to say.
#[derive(Default)]
pub(super) struct Batch {
    /// New to the client, or changed.
    pub(super) resources: Vec<Arc<Encoded>>,
    /// Held by the client, and gone.
    pub(super) removed: Vec<Absent>,
    /// Asked for, and never there.
    pub(super) missing: Vec<Absent>,
}

/// How the nonce of a request relates to the last response.
pub(super) enum Answer {
    /// Not an answer.
    None,
    /// An answer to an earlier response.
    Stale,
    /// The last response was accepted just now.
    Accepted,
    /// The last response was rejected just now.
    Rejected(Arc<str>),
    /// The last response had been answered before.
    Again,
}

pub(super) struct Subscription {
    kind: ResourceType,
    /// The client asked for this type on this stream.
    pub(super) started: bool,
    pub(super) wildcard: bool,
    /// The wildcard came from an empty list, and lasts as long as lists are empty.
    pub(super) implicit: bool,
    pub(super) names: Names,
    held: Holding,
    /// In the view in another version than held.
    changed: BTreeSet<Name>,
    /// Subscribed by name, not in the view, and the client does not know, or not why.
    missing: BTreeSet<Name>,
    /// Not subscribed, neither by name nor by wildcard, and the client waits to hear so.
    denied: Names,
    /// Names of which the client knows that they are missing, and why.
    told: BTreeMap<Name, Told>,
    /// Held, not in the view any more; when the client is to be told.
    leaving: BTreeMap<Name, Instant>,
    /// What names weigh that the client brought and nobody here knew; they leave.
    brought: usize,
    /// A response is due even if it says nothing.
    pub(super) must_answer: bool,
    nonce: String,
    outstanding: Option<Outstanding>,
    sent: Option<Arc<str>>,
    acked: Option<Arc<str>>,
    /// Held by the client's word, but rejected, as far as its text says which.
    refused: BTreeSet<Name>,
    /// Sent, and never accepted in any version.
    firsts: BTreeSet<Name>,
    /// Removed, but accepted before: the client may not have heard of it, or goes on all the same (gRFC A88).
    outlived: BTreeSet<Name>,
    last_nack: Option<Nack>,
}

impl Subscription {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            started: false,
            wildcard: false,
            implicit: false,
            names: Names::default(),
            held: Holding::default(),
            changed: BTreeSet::new(),
            missing: BTreeSet::new(),
            denied: Names::default(),
            told: BTreeMap::new(),
            leaving: BTreeMap::new(),
            brought: 0,
            must_answer: false,
            nonce: String::new(),
            outstanding: None,
            sent: None,
            acked: None,
            refused: BTreeSet::new(),
            firsts: BTreeSet::new(),
            outlived: BTreeSet::new(),
            last_nack: None,
        }
    }

    /// Compares everything subscribed with the view. Returns how many names are not there.
    pub(super) fn scan(&mut self, view: &dyn View, now: Instant, grace: Duration) -> usize {
        self.changed.clear();
        self.missing.clear();
        let mut names: BTreeSet<Name> = self.names.iter().chain(self.held.keys()).cloned().collect();
        let listed: BTreeSet<Name> =
            if self.wildcard { view.names(self.kind).into_iter().collect() } else { BTreeSet::new() };
        names.extend(listed.iter().cloned());
        let mut absent = 0;
        for name in names {
            if self.wildcard && !listed.contains(&name) && !self.names.contains(&name) {
                // There may be one, for who asks for it by name.
                self.changed.remove(&name);
                self.leaving.entry(name).or_insert(now + grace);
            } else {
                absent += usize::from(!self.look(view, name, now, grace));
            }
        }
        absent
    }

    /// Compares one name with the view; false: it is not there.
    pub(super) fn look(&mut self, view: &dyn View, name: Name, now: Instant, grace: Duration) -> bool {
        if let Some(encoded) = view.resource(self.kind, &name) {
            self.leaving.remove(&name);
            self.told.remove(&name);
            self.missing.remove(&name);
            if self.denied.remove(&name) {
                // It waits to hear of it, and still does if it goes before it is sent.
                self.hold(name.clone(), Arc::default());
            }
            if self.held.is_at(&name, &encoded) {
                self.changed.remove(&name);
            } else if self.wildcard || self.names.contains(&name) {
                self.changed.insert(name);
            }
            true
        } else {
            self.changed.remove(&name);
            if self.held.contains_key(&name) {
                self.leaving.entry(name).or_insert(now + grace);
            } else if self.names.contains(&name) {
                let told = self.told.get(&name);
                if told.is_some_and(|told| *told == Told::of(view.absence(self.kind, &name).as_ref())) {
                    self.missing.remove(&name);
                } else {
                    self.missing.insert(name);
                }
            }
            false
        }
    }

    /// Looks at one name that may have changed, if the client cares for it.
    pub(super) fn touch(&mut self, view: &dyn View, name: &Name, now: Instant, grace: Duration) {
        if self.wildcard && self.leaving.contains_key(name) {
            // Whether it is back for a wildcard, the view says.
            self.scan(view, now, grace);
        } else if self.names.contains(name) || self.held.contains_key(name) || self.changed.contains(name) {
            self.look(view, name.clone(), now, grace);
        } else if self.wildcard && view.resource(self.kind, name).is_some() {
            // Something new, or a further name of something old: the view says which.
            self.scan(view, now, grace);
        }
    }

    /// The same for every name that begins so.
    pub(super) fn touch_prefix(&mut self, view: &dyn View, prefix: &str, now: Instant, grace: Duration) {
        if self.wildcard {
            self.scan(view, now, grace);
            return;
        }
        let begins = |name: &&Name| name.starts_with(prefix);
        let from = || (Bound::Included(prefix), Bound::Unbounded);
        let mut names: BTreeSet<Name> = self.names.range::<str>(from()).take_while(begins).cloned().collect();
        let held = self.held.range::<str, _>(from()).map(|(name, _)| name);
        names.extend(held.take_while(begins).cloned());
        for name in names {
            self.look(view, name, now, grace);
        }
    }

    /// How many names a comparison with a view looks at; a wildcard's are not counted.
    pub(super) fn breadth(&self) -> usize {
        self.names.len().max(self.held.len())
    }

    /// The client no longer has `name`, or no longer cares.
    pub(super) fn forget(&mut self, name: &str) {
        self.held.remove(name);
        self.changed.remove(name);
        self.missing.remove(name);
        self.denied.remove(name);
        self.told.remove(name);
        self.leaving.remove(name);
        self.refused.remove(name);
        self.firsts.remove(name);
        self.outlived.remove(name);
    }

    /// The client no longer names `name`, and its wildcard does not cover it: that has to be told.
    pub(super) fn deny(&mut self, name: Name) {
        self.denied.insert(name);
    }

    /// A wildcard begins. What is under way to the client, and was given up before it could arrive, will be taken for
    /// a part of it; the next comparison with the view says whether it is.
    pub(super) fn begin_wildcard(&mut self) {
        self.wildcard = true;
        let sent = self.outstanding.iter().flat_map(|outstanding| &outstanding.names);
        let given_up = sent.filter(|name| !self.names.contains(name) && !self.held.contains_key(*name));
        for name in given_up {
            self.denied.insert(name.clone());
        }
    }

    /// How many such names the client has not been told of.
    pub(super) fn untold(&self) -> usize {
        self.denied.len()
    }

    /// The client no longer names `name`, which its wildcard covers if it is there; that it is not there is
    /// nothing to tell any more.
    pub(super) fn unname(&mut self, name: &str) {
        self.missing.remove(name);
        self.told.remove(name);
    }

    /// The client is to be sent `name` again, in whatever version it has it; to be looked at next. It counts as
    /// held, so that it gets its grace if it goes.
    pub(super) fn send_again(&mut self, name: &str) {
        self.held.set_version(name, Arc::default());
    }

    /// Ends a wildcard: what is not subscribed by name is forgotten.
    pub(super) fn end_wildcard(&mut self) {
        self.wildcard = false;
        self.denied = Names::default();
        let names = &self.names;
        self.held.retain(|name| names.contains(name));
        self.changed.retain(|name| names.contains(name));
        self.leaving.retain(|name, _| names.contains(name));
        self.refused.retain(|name| names.contains(name));
        self.firsts.retain(|name| names.contains(name));
        self.outlived.retain(|name| names.contains(name));
    }

    /// The client says that it holds a resource from an earlier stream of which nobody here knows.
    pub(super) fn hold_strange(&mut self, name: Name, version: Arc<str>) {
        self.brought += names::weight(&name);
        self.hold(name, version);
    }

    /// The client says that it holds `name` in `version` from an earlier stream.
    pub(super) fn hold(&mut self, name: Name, version: Arc<str>) {
        self.held.insert(name, Held::version(version));
    }

    /// Reads the nonce of a request, and remembers what became of the last response.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<Arc<str>>, now: Instant) -> Answer {
        // Before the first response there is nothing to answer; some clients bring a nonce from an earlier
        // stream.
        if nonce.is_empty() || self.nonce.is_empty() {
            return Answer::None;
        }
        if nonce != self.nonce {
            return Answer::Stale;
        }
        let Some(outstanding) = self.outstanding.take() else { return Answer::Again };
        let Outstanding { revision, names, .. } = outstanding;
        if let Some(text) = error {
            // The protocol does not say which resource of a response was rejected, but every client's text
            // says where it stood or names it. When in doubt, all of them.
            let mut refused: BTreeSet<Name> = placed(&text, &names).into_iter().collect();
            if refused.is_empty() {
                refused = names.iter().filter(|name| mentions(&text, name)).cloned().collect();
            }
            if refused.is_empty() {
                refused = names.iter().cloned().collect();
            }
            for name in &names {
                self.refused.remove(name);
                if !refused.contains(name) {
                    self.firsts.remove(name);
                }
            }
            // One that was unsubscribed meanwhile is no matter any more.
            self.refused.extend(refused.into_iter().filter(|name| self.held.contains_key(name)));
            self.last_nack = Some(Nack { revision, text: text.clone(), at: now });
            return Answer::Rejected(text);
        }
        for name in &names {
            self.refused.remove(name);
            self.firsts.remove(name);
        }
        Answer::Accepted
    }

    /// Whether the client lacks something that is in the view, or does not know that something is not.
    pub(super) fn is_behind(&self) -> bool {
        self.must_answer || !self.changed.is_empty() || !self.missing.is_empty() || self.denied.len() > 0
    }

    /// When the response that awaits an answer was sent.
    pub(super) fn outstanding_since(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.at)
    }

    /// When the next removal is due.
    pub(super) fn next_removal(&self) -> Option<Instant> {
        self.leaving.values().min().copied()
    }

    /// Takes what the client lacks.
    pub(super) fn take_additions(&mut self, view: &dyn View) -> Batch {
        self.must_answer = false;
        let mut batch = Batch::default();
        for name in std::mem::take(&mut self.changed) {
            if let Some(encoded) = view.resource(self.kind, &name) {
                let version = encoded.version.clone();
                // One name for all streams; a client's own copy of it is let go.
                let name = if encoded.name == name { encoded.name.clone() } else { name };
                self.names.share(&name);
                let own = if view.is_shared(self.kind, &name) { 0 } else { encoded.body.len() };
                let held = Held { version, encoded: Some(encoded.clone()), own };
                let before = self.held.insert(name.clone(), held);
                if before.is_none() && !self.outlived.remove(&name) {
                    self.firsts.insert(name);
                }
                batch.resources.push(encoded);
            }
        }
        for name in std::mem::take(&mut self.missing) {
            let absence = view.absence(self.kind, &name);
            self.told.insert(name.clone(), Told::of(absence.as_ref()));
            batch.missing.push((name, absence));
        }
        batch.missing.extend(std::mem::take(&mut self.denied).iter().map(|name| (name.clone(), None)));
        batch
    }

    /// Takes what the client holds and is gone for longer than the grace.
    pub(super) fn take_removals(&mut self, view: &dyn View, now: Instant) -> Batch {
        let due = self.leaving.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone());
        let mut removed = Vec::new();
        for name in due.collect::<Vec<_>>() {
            self.leaving.remove(&name);
            self.held.remove(&name);
            self.refused.remove(&name);
            let is_first = self.firsts.remove(&name);
            if !is_first && self.names.contains(&name) {
                self.outlived.insert(name.clone());
            }
            let mut absence = None;
            // What a wildcard loses has no more to say.
            if self.names.contains(&name) {
                absence = view.absence(self.kind, &name);
                self.told.insert(name.clone(), Told::of(absence.as_ref()));
            }
            removed.push((name, absence));
        }
        Batch { removed, ..Batch::default() }
    }

    /// Everything that the client holds, for a response that has to be complete.
    pub(super) fn complete(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.held.values().filter_map(|held| held.encoded.as_ref())
    }

    /// Whether the client was sent `name`, as far as it still matters.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// Names of everything that the client holds.
    pub(super) fn held(&self) -> impl Iterator<Item = &Name> {
        self.held.keys()
    }

    /// A response goes out that says these names, of which so many come first as the client lacked.
    pub(super) fn sent(
        &mut self,
        nonce: String,
        (names, fresh): (Vec<Name>, usize),
        revision: Arc<str>,
        now: Instant,
    ) {
        self.nonce = nonce;
        self.sent = Some(revision.clone());
        self.outstanding = Some(Outstanding { revision, at: now, names, fresh });
    }

    /// Whether the client rejected something that it holds.
    fn is_refusing(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether the client rejected something of which it had another version before, and goes on with that.
    pub(super) fn goes_on(&self) -> bool {
        !self.refused.is_subset(&self.firsts)
    }

    /// Bytes that the client has this stream keep.
    pub(super) fn weight(&self) -> usize {
        let brought = if self.leaving.is_empty() { 0 } else { self.brought };
        let listed = self.held.len().saturating_sub(self.names.len()) * held::OVERHEAD;
        let said = self.last_nack.as_ref().map_or(0, |nack| nack.text.len());
        self.names.weight() + self.denied.weight() + brought + listed + self.held.own() + said
    }

    /// Whether the client holds all of the view that it asked for, and said so.
    pub(super) fn is_synced(&self) -> bool {
        self.outstanding.is_none() && !self.is_refusing() && !self.is_behind()
    }

    /// Notes that the client is at `revision`.
    pub(super) fn reached(&mut self, revision: &Arc<str>) {
        self.acked = Some(revision.clone());
    }

    /// Whether the client rejected something that it holds at `revision`, which is then not reached.
    pub(super) fn unreached(&mut self, revision: &Arc<str>) -> bool {
        let rejecting = self.is_refusing();
        if rejecting && self.acked.as_ref() == Some(revision) {
            self.acked = None;
        }
        rejecting
    }

    pub(super) fn status(&self, now: Instant) -> TypeStatus {
        TypeStatus {
            kind: self.kind.abbreviation(),
            wildcard: self.wildcard,
            names: self.names.iter().cloned().collect(),
            held: self.held.len(),
            sent_revision: self.sent.clone(),
            acked_revision: self.acked.clone(),
            outstanding: self.outstanding.is_some(),
            last_nack: self.last_nack.as_ref().map(|nack| NackStatus {
                revision: nack.revision.clone(),
                text: nack.text.clone(),
                at: epoch_seconds(now.saturating_duration_since(nack.at)),
            }),
            rejected: self.refused.iter().cloned().collect(),
            resources: Vec::new(),
        }
    }

    /// Each resource that the client holds or names.
    pub(super) fn resources(&self, view: &dyn View) -> Vec<HeldStatus> {
        let sent = self.outstanding.iter().flat_map(|sent| sent.names.iter().take(sent.fresh));
        let sent: BTreeSet<&Name> = sent.collect();
        let held = self.held.iter().map(|(name, held)| {
            let state = if self.refused.contains(name) {
                ResourceState::Nacked
            } else if sent.contains(name) || held.version.is_empty() {
                ResourceState::Requested
            } else {
                ResourceState::Acked
            };
            let version = (state == ResourceState::Acked).then(|| held.version.clone());
            HeldStatus { name: name.clone(), version, state, reason: None }
        });
        let absent = self.names.iter().filter(|name| !self.holds(name)).map(|name| {
            let told = self.told.get(name);
            let state = match told {
                None => ResourceState::Requested,
                Some(told) if told.is_final() => ResourceState::DoesNotExist,
                Some(_) => ResourceState::ReceivedError,
            };
            // Words are not kept; if they have changed, the client is about to hear of it.
            let absence = told.filter(|told| told.has_reason()).and_then(|_| view.absence(self.kind, name));
            let reason = absence.map(|absence| absence.message);
            HeldStatus { name: name.clone(), version: None, state, reason }
        });
        held.chain(absent).collect()
    }
}

/// Those at the places in their response that `text` tells: `resource index 1: …`, as gRPC does. Responses are in the
/// order of names.
fn placed(text: &str, names: &[Name]) -> Vec<Name> {
    let mut sorted: Vec<&Name> = names.iter().collect();
    sorted.sort();
    let place = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok();
    let places = text.split("resource index ").skip(1).filter_map(place);
    places.filter_map(|place| sorted.get(place).copied().cloned()).collect()
}

/// Whether `text` names `name`: as a whole, not as a part of a longer name.
fn mentions(text: &str, name: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let joins = |c: char| matches!(c, '.' | ':' | '|' | '/' | '~' | '%');
    text.match_indices(name).any(|(start, _)| {
        let before = text.get(..start).and_then(|before| before.chars().next_back());
        let mut after = text.get(start + name.len()..).unwrap_or_default().chars();
        // A colon after a name is punctuation, unless the name goes on behind it.
        let goes_on = match after.next() {
            Some(c) if joins(c) => after.next().is_some_and(|c| in_word(c) || joins(c)),
            Some(c) => in_word(c),
            None => false,
        };
        !before.is_some_and(|c| in_word(c) || joins(c)) && !goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::{mentions, placed};
    use crate::name::Name;

    #[test]
    fn a_name_is_found_as_a_whole() {
        let facts = [
            ("Cluster a: bad", "a", true),
            ("RouteConfiguration b: no", "a", false),
            ("Listener reviews:9080: bad", "reviews:9080", true),
            ("Listener reviews:9080: bad", "reviews", false),
            ("Listener reviews:9080: bad", "9080", false),
            ("Cluster outbound|9080|v1|reviews.default: bad", "outbound|9080|v1|reviews", false),
            ("[resource index 0: r: INVALID_ARGUMENT: errors]", "r", true),
            ("Error adding/updating listener(s) l, m: x", "m", true),
            ("the last one is x.", "x", true),
            ("", "x", false),
        ];
        for (text, name, expected) in facts {
            assert_eq!(mentions(text, name), expected, "{name:?} in {text:?}");
        }
    }

    #[test]
    fn a_place_in_a_response_is_found() {
        // As sent: what is new comes first, the response is sorted.
        let names = ["b", "a", "c"].map(Name::from);
        let facts: [(&str, &[&str]); 5] = [
            ("resource index 1: Cluster message validation failed: [a b c]", &["b"]),
            ("[resource index 0: no, resource index 2: no]", &["a", "c"]),
            ("resource index 3: there are three", &[]),
            ("resource index none", &[]),
            ("b: no", &[]),
        ];
        for (text, expected) in facts {
            let found: Vec<_> = placed(text, &names).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
