//! The ADS client as a machine, state-of-the-world and delta (gRFC A27, A46, A53, A57, A88; xRFC TP3).
//!
//! - A response is taken apart resource by resource: good ones count at once, bad ones are named in one NACK
//!   and cost neither their neighbours nor the last good version of themselves.
//! - What is known survives rejections, deletions (unless the control plane has `fail_on_data_errors`) and
//!   reconnects. [`Machine::known`] is the only truth; [`Outputs::changed`] says where to look.
//! - It asks for everything of a type only when [`WILDCARD`](crate::name::WILDCARD) is watched, and by that word: never
//!   by an empty request. It never answers a type it did not ask for.

use super::{
    backoff::{Backoff, BackoffSettings},
    cache::{Awaited, Entry, ErrorStatus, Known, ResourceStatus},
    wire::{Request, Response},
};
use crate::{
    config::{XdsError, XdsErrorCause},
    name::{Name, ResourceType, WILDCARD},
    proto,
    server::Variant,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(test)]
mod hostile;
mod link;
mod response;
#[cfg(test)]
mod tests;
mod timers;
mod wildcard;

/// A resource's type and name.
pub type Key = (ResourceType, Name);

/// How bytes become resources.
pub trait Parse: Send + 'static {
    /// What they become; cheap to clone.
    type Resource: Clone + Send + Sync + 'static;

    /// Parses the value of an `Any` of this type.
    fn parse(&self, kind: ResourceType, body: &Bytes) -> Result<(Name, Self::Resource), Unparsable>;

    /// The name in bytes that are not to be parsed, or cannot be.
    fn name_of(&self, body: &Bytes) -> Option<Name>;

    /// What is remembered of the bytes of a resource, to know them when they come again. Default: all of them.
    fn mark(&self, _: ResourceType, body: &Bytes) -> Bytes {
        body.clone()
    }

    /// The bytes that people are shown; `mark` is what is remembered of those that came. Default: that.
    fn show(&self, _resource: &Self::Resource, mark: &Bytes) -> Bytes {
        mark.clone()
    }

    /// What may be written to disk of a resource: the value encoded, in a form that [`Parse::parse`] takes. Default:
    /// as it came.
    fn keep(&self, _resource: &Self::Resource, body: &Bytes) -> Bytes {
        body.clone()
    }

    /// The new value, sharing with the old one what is equal.
    fn share(&self, new: Self::Resource, _old: &Self::Resource) -> Self::Resource {
        new
    }
}

/// Why bytes are no resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unparsable {
    /// Its name, if that could be read.
    pub name: Option<Name>,
    /// Every fault.
    pub why: String,
}

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The control plane, for errors.
    pub server: Arc<str>,
    /// Sent in the first request of each stream.
    pub node: proto::Node,
    /// Which way of ADS.
    pub variant: Variant,
    /// Deletions and rejections drop the last good version (gRFC A88).
    pub fail_on_data_errors: bool,
    /// Silence is trouble of the control plane rather than absence of the resource (gRFC A88).
    pub timer_is_transient: bool,
    /// Between attempts to connect.
    pub backoff: BackoffSettings,
    /// A larger resource is rejected unread.
    pub max_resource_bytes: usize,
    /// Of the jitter.
    pub seed: u64,
}

/// What happens to a client.
#[derive(Debug)]
pub enum Input {
    /// Watches begin and end; counted for each name. [`WILDCARD`](crate::name::WILDCARD) is the name of everything of a
    /// type: [`Machine::listing`] tells what that is. Of a type that has no wildcard it is not asked for.
    Interest {
        /// Names watched once more.
        add: Vec<Key>,
        /// Names watched once less.
        remove: Vec<Key>,
    },
    /// The stream that [`Outputs::connect`] asked for takes requests.
    Opened,
    /// The server accepted the stream.
    Established,
    /// A response came.
    Response(Response),
    /// The stream, or the attempt to open it, ended; why.
    Closed(Arc<str>),
    /// What came on the stream cannot be read here, so it was given up; why. However well it worked before, this is
    /// a failure: on the next one the same will come again.
    Unreadable(Arc<str>),
    /// The stream is not read for now: what came is being taken. No timer of a resource runs meanwhile, for the answer
    /// may be there.
    Held,
    /// It is read on.
    Resumed,
    /// [`Machine::deadline`] passed.
    Tick,
    /// What is known of these is too old to be used: another control plane spoke for them meanwhile. They are
    /// asked for anew on the next stream; on one that is open nothing happens.
    Forget(Vec<Key>),
    /// The control plane is no longer needed. Nothing may be watched, and everything is forgotten.
    Hangup,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To be sent, in order.
    pub requests: Vec<Request>,
    /// Resources of which something else is known now.
    pub changed: BTreeSet<Key>,
    /// A stream is to be opened.
    pub connect: bool,
    /// The control plane is let go: the stream, or the attempt to open it, is to be given up if there is one.
    pub disconnect: bool,
    /// A response was rejected: the text of the NACK, for the log.
    pub rejected: Option<Arc<str>>,
}

enum Link {
    /// Nothing is watched.
    Idle,
    Opening,
    Open {
        since: Instant,
        /// The control plane accepted the stream.
        heard: bool,
        responded: bool,
    },
    Waiting {
        until: Instant,
    },
}

/// What each of many streams has for an answer at least.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

struct TypeState<R> {
    entries: BTreeMap<Name, Entry<R>>,
    /// Requested on this stream.
    asked: bool,
    /// Of the last response on this stream.
    nonce: String,
    /// Last accepted `version_info`; outlives streams, unless something that is named is not held when one begins.
    version: Arc<str>,
    /// Good parts of later versions, which were rejected, are held: as a whole that is no version.
    mixed: bool,
}

impl<R> TypeState<R> {
    fn new() -> Self {
        let (nonce, version) = (String::new(), Arc::default());
        Self { entries: BTreeMap::new(), asked: false, nonce, version, mixed: false }
    }
}

/// How long an unsubscribed resource is kept in case it is subscribed again. On a state-of-the-world stream
/// the server may miss both changes, if a response of its own crosses them, and would not send it again.
const LINGER: Duration = Duration::from_secs(2);

/// The ADS client.
pub struct Machine<P: Parse> {
    parse: P,
    settings: Settings,
    node: Arc<str>,
    types: [TypeState<P::Resource>; ResourceType::COUNT],
    timers: BTreeSet<(Instant, ResourceType, Name)>,
    link: Link,
    /// Since when the stream is not read.
    held: Option<Instant>,
    node_sent: bool,
    backoff: Backoff,
    /// Why the control plane cannot be reached.
    unreachable: Option<Arc<str>>,
    /// That is because it said something that cannot be read.
    unreadable: bool,
    /// Last accepted version of anything.
    version: Arc<str>,
    /// Since when the link is, or is not, open.
    link_since: Option<Instant>,
}

impl<P: Parse> Machine<P> {
    /// A machine that watches nothing.
    pub fn new(parse: P, settings: Settings) -> Self {
        let types = ResourceType::ALL.map(|_| TypeState::new());
        Self {
            backoff: Backoff::new(settings.backoff.clone(), settings.seed),
            node: settings.node.id.as_str().into(),
            parse,
            settings,
            types,
            timers: BTreeSet::new(),
            link: Link::Idle,
            held: None,
            node_sent: false,
            unreachable: None,
            unreadable: false,
            version: Arc::default(),
            link_since: None,
        }
    }

    /// Advances the machine.
    pub fn on(&mut self, now: Instant, input: Input) -> Outputs {
        let mut out = Outputs::default();
        match input {
            Input::Interest { add, remove } => self.interest(now, add, remove, &mut out),
            Input::Opened => self.opened(now, &mut out),
            Input::Established => self.heard(),
            Input::Response(response) => self.response(now, response, &mut out),
            Input::Closed(why) => self.closed(now, why, false, &mut out),
            Input::Unreadable(why) => self.closed(now, why, true, &mut out),
            Input::Held => self.hold(now),
            Input::Resumed => self.resume(now),
            Input::Tick => {}
            Input::Forget(keys) => self.forget(keys, &mut out),
            Input::Hangup => self.hang_up(&mut out),
        }
        self.elapse(now, &mut out);
        self.reachable(&mut out);
        out
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().filter(|_| self.held.is_none()).map(|(due, ..)| *due);
        let retry = match self.link {
            Link::Waiting { until } => Some(until),
            _ => None,
        };
        timer.into_iter().chain(retry).min()
    }

    /// What is known of a resource. One that nobody watches is pending.
    pub fn known(&self, kind: ResourceType, name: &str) -> Known<P::Resource> {
        let Some((name, entry)) = self.types[kind as usize].entries.get_key_value(name) else {
            return Known::Pending;
        };
        let unreachable = || self.unreachable.clone().map(XdsErrorCause::Unreachable);
        let cause = entry.failure.as_ref().map(|failure| failure.cause.clone()).or_else(unreachable);
        let error = cause.map(|cause| XdsError {
            resource_type: kind,
            name: name.clone(),
            cause,
            server: self.settings.server.clone(),
            node: self.node.clone(),
        });
        match (&entry.good, error) {
            (Some(good), error) => Known::Good {
                resource: good.resource.clone(),
                note: error.map(|error| error.to_string().into()),
            },
            (None, Some(error)) => Known::Bad(error),
            (None, None) => Known::Pending,
        }
    }

    /// Version, bytes and value of the resource that is in use, unless its life is limited.
    pub(super) fn good(&self, kind: ResourceType, name: &str) -> Option<(Arc<str>, Bytes, P::Resource)> {
        let entry = self.types[kind as usize].entries.get(name).filter(|entry| entry.expires.is_none())?;
        entry.good.as_ref().map(|good| (good.version.clone(), good.mark.clone(), good.resource.clone()))
    }

    /// What a late heart-beat would bring back.
    #[cfg(test)]
    pub(crate) fn lapsed(&self, kind: ResourceType, name: &str) -> Option<P::Resource> {
        let entry = self.types[kind as usize].entries.get(name)?;
        entry.lapsed.as_ref().map(|lapsed| lapsed.resource.clone())
    }

    /// Whether the control plane said that it does not exist; its silence says nothing, nor the end of a time to live.
    pub(super) fn is_gone(&self, kind: ResourceType, name: &str) -> bool {
        self.types[kind as usize].entries.get(name).is_some_and(Entry::is_gone)
    }

    /// An error of this client about a resource that is there but does not fit.
    pub fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError {
        XdsError {
            resource_type: kind,
            name: name.clone(),
            cause: XdsErrorCause::Failed(why.into()),
            server: self.settings.server.clone(),
            node: self.node.clone(),
        }
    }

    /// Id of the node that it speaks for.
    pub fn node(&self) -> Arc<str> {
        self.node.clone()
    }

    /// Whether there is neither a stream, nor an attempt to open one, now or later.
    pub fn is_idle(&self) -> bool {
        matches!(self.link, Link::Idle)
    }

    /// Version of the last response that was accepted.
    pub fn version(&self) -> Arc<str> {
        self.version.clone()
    }

    /// Whether a stream is open, and since when that is so.
    pub fn link(&self) -> (bool, Option<Instant>) {
        (matches!(self.link, Link::Open { .. }), self.link_since)
    }

    /// Why the control plane cannot be reached, if so.
    pub fn unreachable(&self) -> Option<Arc<str>> {
        self.unreachable.clone()
    }

    /// State of every watched resource, of the wildcard and of what it stands for. `epoch` turns a moment into seconds since the epoch.
    pub fn status(&self, epoch: impl Fn(Instant) -> f64) -> Vec<ResourceStatus> {
        let all = ResourceType::ALL.into_iter().zip(&self.types);
        all.flat_map(|(kind, state)| {
            let wild = state.lists();
            let shown =
                move |entry: &Entry<_>| entry.references > 0 || wild && entry.listed && entry.is_served();
            state
                .entries
                .iter()
                .filter(move |(_, entry)| shown(entry))
                .map(move |(name, entry)| (kind, name, entry))
        })
        .map(|(kind, name, entry)| ResourceStatus {
            resource_type: kind,
            kind: kind.abbreviation(),
            name: name.clone(),
            server: self.settings.server.clone(),
            version: entry.good.as_ref().map(|good| good.version.clone()),
            body: entry.good.as_ref().map(|good| self.parse.show(&good.resource, &good.mark)),
            from_cache: None,
            state: entry.state,
            error: entry.failure.as_ref().map(|failure| ErrorStatus {
                text: failure.cause.to_string().into(),
                version: failure.version.clone(),
                at: epoch(failure.at),
            }),
            updated: entry.updated.map(&epoch),
        })
        .collect()
    }

    fn of(&mut self, kind: ResourceType) -> &mut TypeState<P::Resource> {
        &mut self.types[kind as usize]
    }

    fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }

    pub(super) fn watches_something(&self) -> bool {
        self.types.iter().any(|state| state.entries.values().any(|entry| entry.references > 0))
    }

    fn interest(&mut self, now: Instant, add: Vec<Key>, remove: Vec<Key>, out: &mut Outputs) {
        // Names whose subscription really changed, by type.
        let mut started: BTreeMap<ResourceType, BTreeSet<Name>> = BTreeMap::new();
        let mut ended: BTreeMap<ResourceType, BTreeSet<Name>> = BTreeMap::new();
        for (kind, name) in add {
            if &*name == WILDCARD && !kind.has_wildcard() {
                // The listing says so.
                continue;
            }
            let entry = self.types[kind as usize].entries.entry(name.clone()).or_insert_with(Entry::new);
            entry.references += 1;
            if entry.references == 1 {
                (entry.asked, entry.unnamed, entry.of_earlier_list) = (false, false, false);
                entry.restored = true;
                entry.unconfirmed = entry.is_answered();
                self.await_end(kind, &name);
                if &*name == WILDCARD {
                    self.doubt_listed(kind);
                }
                out.changed.insert((kind, name.clone()));
                // What was kept of it for a moment counts again.
                self.list_changed(kind, out);
                started.entry(kind).or_default().insert(name);
            }
        }
        for (kind, name) in remove {
            let Some(entry) = self.types[kind as usize].entries.get_mut(&name) else { continue };
            entry.references = entry.references.saturating_sub(1);
            if entry.references == 0 {
                self.release(now, kind, &name);
                out.changed.remove(&(kind, name.clone()));
                self.list_changed(kind, out);
                if !started.get_mut(&kind).is_some_and(|names| names.remove(&name)) {
                    ended.entry(kind).or_default().insert(name);
                }
            }
        }
        if self.is_open() {
            let kinds: BTreeSet<_> = started.keys().chain(ended.keys()).copied().collect();
            for kind in kinds {
                let subscribe = started.remove(&kind).unwrap_or_default();
                let unsubscribe = ended.remove(&kind).unwrap_or_default();
                if !subscribe.is_empty() || !unsubscribe.is_empty() {
                    self.ask(now, kind, &subscribe, unsubscribe, out);
                }
            }
        } else if matches!(self.link, Link::Idle) && self.watches_something() {
            self.connect(out);
        }
    }

    /// The last watch of a name ended.
    fn release(&mut self, now: Instant, kind: ResourceType, name: &Name) {
        if self.keep_listed(kind, name) {
            return;
        }
        self.disarm(kind, name);
        let lingers = self.is_open() && self.settings.variant == Variant::Sotw;
        let state = self.of(kind);
        match state.entries.get_mut(name) {
            Some(entry) if lingers && entry.is_answered() => self.arm(kind, name, now + LINGER),
            _ => self.drop_entry(kind, name),
        }
    }

    fn forget(&mut self, keys: Vec<Key>, out: &mut Outputs) {
        if self.is_open() {
            return;
        }
        for (kind, name) in keys {
            if &*name == WILDCARD {
                self.drop_listed(kind);
            }
            let Some(entry) = self.types[kind as usize].entries.get_mut(&name) else { continue };
            if entry.references == 0 {
                self.disarm(kind, &name);
                self.drop_entry(kind, &name);
                self.list_changed(kind, out);
            } else if entry.is_answered() {
                let references = entry.references;
                self.disarm(kind, &name);
                let state = self.of(kind);
                state.entries.insert(name.clone(), Entry { references, ..Entry::new() });
                // With a version the control plane could think that we have it.
                state.version = Arc::default();
                out.changed.insert((kind, name));
            }
        }
    }

    /// Sends the subscription of a type, or its change.
    fn ask(
        &mut self,
        now: Instant,
        kind: ResourceType,
        subscribe: &BTreeSet<Name>,
        unsubscribe: BTreeSet<Name>,
        out: &mut Outputs,
    ) {
        let first = !std::mem::replace(&mut self.of(kind).asked, true);
        let request = match self.settings.variant {
            Variant::Sotw => Request::Sotw(self.sotw_request(kind, None)),
            Variant::Delta => {
                let initial_resource_versions = if first { self.held(kind) } else { BTreeMap::new() };
                Request::Delta(proto::DeltaDiscoveryRequest {
                    node: self.first_node(),
                    type_url: kind.url().to_owned(),
                    resource_names_subscribe: subscribe.iter().map(|name| name.to_string()).collect(),
                    resource_names_unsubscribe: unsubscribe.iter().map(|name| name.to_string()).collect(),
                    initial_resource_versions,
                    response_nonce: String::new(),
                    error_detail: None,
                })
            }
        };
        out.requests.push(request);
        let patience = self.patience();
        for name in subscribe {
            let Some(entry) = self.types[kind as usize].entries.get_mut(name) else { continue };
            let restored = std::mem::take(&mut entry.restored) && entry.is_answered();
            let again = std::mem::replace(&mut entry.asked, true);
            let held = entry.good.is_some() || &**name == WILDCARD && entry.updated.is_some();
            if entry.references > 0 && !again && !held && !restored {
                let due = match entry.awaited {
                    // Each stream gets some time to answer, and all of them together are not waited for without end.
                    Some(Awaited { due, streams: streams @ ..16 }) => {
                        due.max(now + (patience / (1 << streams)).max(LEAST_PATIENCE))
                    }
                    Some(Awaited { due, .. }) => due,
                    None => now + patience,
                };
                self.arm(kind, name, due);
            }
        }
    }

    fn first_node(&mut self) -> Option<proto::Node> {
        (!std::mem::replace(&mut self.node_sent, true)).then(|| self.settings.node.clone())
    }

    fn sotw_request(&mut self, kind: ResourceType, error: Option<proto::Status>) -> proto::DiscoveryRequest {
        let node = self.first_node();
        let state = &self.types[kind as usize];
        let watched = state.entries.iter().filter(|(_, entry)| entry.references > 0);
        proto::DiscoveryRequest {
            version_info: state.version.to_string(),
            node,
            resource_names: watched.map(|(name, _)| name.to_string()).collect(),
            type_url: kind.url().to_owned(),
            response_nonce: state.nonce.clone(),
            error_detail: error,
        }
    }
}
