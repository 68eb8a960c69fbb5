//! What can happen to a client and its server.

use super::{scripts::Script, server::Claim};
use crate::name::{Name, ResourceType, WILDCARD};
use fastrand::Rng;
use std::sync::{Arc, LazyLock};

/// What does not change while a script runs.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) fail_on_data_errors: bool,
    pub(crate) timer_is_transient: bool,
    pub(crate) peer: Peer,
    pub(crate) claim: Claim,
    /// Wildcards do not list the last of the names; it can be asked for.
    pub(crate) hides: bool,
    /// Seconds that some values live; 0: for ever.
    pub(crate) ttl: u8,
    /// Requests wait until the server reads the one before.
    pub(crate) slow: bool,
    /// Everything is delivered after each event.
    pub(crate) lockstep: bool,
}

/// What the server takes the client for, and what the client knows of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Our own: it knows resource errors.
    Ours,
    /// One that learns of what is missing by waiting for it.
    Foreign,
    /// One that has to be sent the endpoints of a changed cluster again.
    Envoy,
}

/// A resource by the index of its name.
pub(crate) type Key = (ResourceType, u8);

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Watches begin and end, together.
    Interest { add: Vec<Key>, remove: Vec<Key> },
    /// The configuration changes; `None` deletes. Unless `shown`, streams hear of it later.
    Change { changes: Vec<(Key, Option<u8>)>, shown: bool },
    /// Streams hear of all changes.
    Show,
    /// A message arrives; the next of all, or the next of a type.
    Deliver { to_server: bool, kind: Option<ResourceType> },
    /// The next message arrives twice.
    Duplicate { to_server: bool },
    /// The stream breaks; messages under way are lost.
    Cut,
    /// The next response cannot be read, and the client gives the stream up.
    Garble,
    /// The server goes away.
    Stop,
    /// The server starts, with the configuration of so many changes ago.
    Start { back: u8 },
    /// The client starts anew, and watches what it did.
    Forget,
    /// The hearts of the resources of a type beat.
    Beat(ResourceType),
    /// Milliseconds pass.
    Pass(u16),
}

pub(crate) const NAMES: u8 = 3;

/// The name with an index; the one after the last is the wildcard.
pub(crate) fn name(index: u8) -> Name {
    static ALL: LazyLock<Vec<Name>> = LazyLock::new(|| {
        let names = (0..NAMES).map(|index| format!("n{index}").into());
        names.chain([WILDCARD.into()]).collect()
    });
    ALL[index as usize].clone()
}

/// How many values there are.
pub(crate) const VALUES: u8 = 24;

/// Values that begin with `bad` are rejected. Those that begin with `err` cannot be served, and those that begin with
/// `gone` stand for no resource; clients that understand it are told why.
pub(crate) fn value(seed: u8) -> Arc<str> {
    static ALL: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
        (0..VALUES)
            .map(|v| match v % 12 {
                1 | 4 | 7 | 10 => format!("bad{v}").into(),
                5 => format!("err{v}").into(),
                11 => format!("gone{v}").into(),
                _ => format!("v{v}").into(),
            })
            .collect()
    });
    ALL[seed as usize].clone()
}

fn key(random: &mut Rng, kinds: &[ResourceType]) -> Key {
    (*random.choice(kinds).unwrap(), random.u8(0..NAMES))
}

/// What is watched: a name, or everything.
fn wish(random: &mut Rng, kinds: &[ResourceType]) -> Key {
    let (kind, name) = key(random, kinds);
    let all = kind.has_wildcard() && random.u8(..4) == 0;
    (kind, if all { NAMES } else { name })
}

fn wishes(random: &mut Rng, kinds: &[ResourceType], most: usize) -> Vec<Key> {
    (0..random.usize(0..=most)).map(|_| wish(random, kinds)).collect()
}

impl Script<Setup, Event> {
    pub(crate) fn random(random: &mut Rng) -> Self {
        let setup = Setup {
            seed: random.u64(..),
            fail_on_data_errors: random.u8(..3) == 0,
            timer_is_transient: random.u8(..4) == 0,
            peer: random.choice([Peer::Ours, Peer::Ours, Peer::Foreign, Peer::Envoy]).unwrap(),
            claim: random.choice([Claim::Anything, Claim::Exact, Claim::Prefix, Claim::TooMuch]).unwrap(),
            hides: random.u8(..4) == 0,
            ttl: if random.u8(..4) == 0 { random.u8(1..10) } else { 0 },
            slow: random.bool(),
            lockstep: random.u8(..8) == 0,
        };
        // Most are short, which finds as much sooner.
        let length = if random.u8(..8) == 0 { random.usize(0..150) } else { random.usize(0..30) };
        // Of one type alone more happens to it.
        let kinds = if random.u8(..3) == 0 { &ResourceType::ALL[..1] } else { &ResourceType::ALL[..] };
        Self { setup, events: (0..length).map(|_| Event::random(random, kinds)).collect() }
    }
}

impl Event {
    fn random(random: &mut Rng, kinds: &[ResourceType]) -> Self {
        match random.u8(..64) {
            0..14 => Self::Interest { add: wishes(random, kinds, 3), remove: wishes(random, kinds, 2) },
            14..27 => {
                let changes = (0..random.u8(1..4))
                    .map(|_| (key(random, kinds), (random.u8(..4) > 0).then(|| random.u8(..12))))
                    .collect();
                Self::Change { changes, shown: random.u8(..4) > 0 }
            }
            27..29 => Self::Show,
            29..49 => {
                let kind = if random.u8(..4) == 0 { random.choice(ResourceType::ALL) } else { None };
                Self::Deliver { to_server: random.bool(), kind }
            }
            49..51 => Self::Duplicate { to_server: random.bool() },
            51 => Self::Cut,
            52 => {
                if random.bool() {
                    Self::Cut
                } else {
                    Self::Garble
                }
            }
            53 => Self::Stop,
            54..56 => Self::Start { back: random.u8(..4) },
            56 => Self::Forget,
            57 => Self::Pass(random.u16(3_000..40_000)),
            58 | 59 => Self::Beat(random.choice(ResourceType::ALL).unwrap()),
            _ => Self::Pass(random.u16(..3_000)),
        }
    }
}
