//! What state-of-the-world and delta streams share: order, grace, limits, and what is outstanding.
//!
//! - Additions go out as CDS, EDS, SDS, LDS, RDS; LDS and RDS wait until the types before them are answered, but not
//!   longer than [`Settings::order_wait`]. Removals go out last, in the opposite order, after
//!   [`Settings::removal_grace`]: make before break (gRFC A74). While a client rejects a resource, or has not answered
//!   whether it does, it goes on with the one before, and what that one may name is not removed from it. Another stream
//!   begins anew: what a state-of-the-world client has from an earlier one nobody knows.
//! - A type has one outstanding response; whatever changes meanwhile is sent when it is answered, once,
//!   in its latest version. A slow client costs nobody but itself.
//! - A rejected resource is sent again only when its content changes.

use super::{
    Node, View,
    bucket::Bucket,
    status::{TypeStatus, Variant},
    subscription::{Answer, Batch, Subscription},
    view::{Changes, Touched},
};
use crate::{
    name::{Name, ResourceType, WILDCARD},
    printable::clip,
    proto,
};
use prost::Message;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::Status;

/// Fewer touched resources than this are looked at one by one, however little a client asked for.
const MANY_TOUCHED: usize = 16;

/// Longest part of a client's rejection text that is kept.
const NACK_TEXT_LIMIT: usize = 8 * 1024;

/// Limits and times of a stream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names that a stream may subscribe to, all types together.
    pub max_subscriptions: usize,
    /// Bytes of a resource name.
    pub max_name_length: usize,
    /// Requests that a stream may make at once, beyond the answers to what it is sent.
    pub request_burst: u32,
    /// How many more it may make each second.
    pub requests_per_second: u32,
    /// Names that a stream may ask for at once of which there is no resource.
    pub name_burst: u32,
    /// How many more it may ask for each second; asking for one again counts.
    pub names_per_second: u32,
    /// How long a type waits for the answers of the types before it.
    pub order_wait: Duration,
    /// How long a resource that is gone stays at the clients that hold it.
    pub removal_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_subscriptions: 10_000,
            max_name_length: 2048,
            request_burst: 2_000,
            requests_per_second: 100,
            name_burst: 20_000,
            names_per_second: 1_000,
            order_wait: Duration::from_secs(1),
            removal_grace: Duration::from_secs(2),
        }
    }
}

/// What happens to a stream.
pub enum Input<R> {
    /// The client sent a request.
    Request(R),
    /// There is another view for the client.
    View(Arc<dyn View>),
    /// [`Stream::deadline`] passed.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub struct Outputs<R> {
    /// To be sent, in order.
    pub responses: Vec<R>,
    /// The client has just accepted all it asked for of this revision.
    pub acked: Option<Arc<str>>,
    /// The client has just rejected a response.
    pub rejected: Option<Rejection>,
}

/// A response that the client rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which type.
    pub kind: ResourceType,
    /// What the client said.
    pub text: Arc<str>,
}

/// One of the two machines.
pub trait Protocol: Send + Sized + 'static {
    /// What the client sends.
    type Request: Message;
    /// What it is sent.
    type Response: Message;
    /// Which way of ADS.
    const VARIANT: Variant;

    /// A machine for a node, with its first view.
    fn new(node: &Node, view: Arc<dyn View>, settings: Settings) -> Self;

    /// The node that a request names.
    fn node(request: &Self::Request) -> Option<&proto::Node>;

    /// How many names a request has, whatever for.
    fn names(request: &Self::Request) -> usize;

    /// Bytes of a response that are its own: all but the bodies of resources.
    fn own_bytes(response: &Self::Response) -> usize;

    /// Whether a request answers a response.
    fn answers(request: &Self::Request, response: &Self::Response) -> bool;

    /// Advances the machine. The status ends the stream.
    fn on(&mut self, now: Instant, input: Input<Self::Request>) -> Result<Outputs<Self::Response>, Status>;

    /// The state that both machines share.
    fn stream(&self) -> &Stream;
}

/// State of a stream, whatever its variant.
pub struct Stream {
    pub(super) view: Arc<dyn View>,
    pub(super) settings: Settings,
    variant: Variant,
    types: [Subscription; ResourceType::COUNT],
    requests: Bucket,
    lookups: Bucket,
    nonce: u64,
    deadline: Option<Instant>,
    synced: Option<Arc<str>>,
}

impl Stream {
    pub(super) fn new(variant: Variant, view: Arc<dyn View>, settings: Settings) -> Self {
        Self {
            view,
            requests: Bucket::new(settings.request_burst, settings.requests_per_second),
            lookups: Bucket::new(settings.name_burst, settings.names_per_second),
            settings,
            variant,
            types: ResourceType::ALL.map(Subscription::new),
            nonce: 0,
            deadline: None,
            synced: None,
        }
    }

    pub(super) fn of(&mut self, kind: ResourceType) -> &mut Subscription {
        &mut self.types[kind as usize]
    }

    /// A new view: compares with it what the client holds, as far as that may have changed.
    pub(super) fn show(&mut self, view: Arc<dyn View>, now: Instant) {
        let changes = view.changes_since(&*self.view);
        self.view = view;
        let (view, grace) = (&*self.view, self.settings.removal_grace);
        let breadth: usize = self.types.iter().map(Subscription::breadth).sum();
        match changes {
            Changes::Only(touched) if touched.len() <= breadth.max(MANY_TOUCHED) => {
                for one in &touched {
                    let (Touched::Resource(kind, _) | Touched::Prefix(kind, _)) = one;
                    let subscription = &mut self.types[*kind as usize];
                    match one {
                        _ if !subscription.started => {}
                        Touched::Resource(_, name) => subscription.touch(view, name, now, grace),
                        Touched::Prefix(_, prefix) => subscription.touch_prefix(view, prefix, now, grace),
                    }
                }
            }
            Changes::Only(_) | Changes::Anything => {
                for subscription in self.types.iter_mut().filter(|s| s.started) {
                    subscription.scan(view, now, grace);
                }
            }
        }
    }

    /// Counts a request that is no mere answer to a response. What clients are sent paces their answers; all
    /// else is paced by this.
    pub(super) fn charge(&mut self, now: Instant) -> Result<(), Status> {
        if self.requests.take(now) {
            return Ok(());
        }
        let Settings { request_burst, requests_per_second, .. } = self.settings;
        Err(Status::resource_exhausted(format!(
            "this stream makes requests faster than the limit of {requests_per_second} a second after the first \
             {request_burst}"
        )))
    }

    /// Counts names of which the view had nothing: what there is not is looked for anew each time.
    pub(super) fn charge_names(&mut self, now: Instant, names: usize) -> Result<(), Status> {
        if self.lookups.take_many(now, names) {
            return Ok(());
        }
        let Settings { name_burst, names_per_second, .. } = self.settings;
        Err(Status::resource_exhausted(format!(
            "this stream asks for names that do not exist faster than the limit of {names_per_second} a second after \
             the first {name_burst}"
        )))
    }

    /// Compares everything of one type with the view.
    pub(super) fn scan(&mut self, kind: ResourceType, now: Instant) -> Result<(), Status> {
        let absent = self.types[kind as usize].scan(&*self.view, now, self.settings.removal_grace);
        self.charge_names(now, absent)
    }

    /// Compares one name with the view; false: it is not there.
    pub(super) fn look(&mut self, kind: ResourceType, name: Name, now: Instant) -> bool {
        self.types[kind as usize].look(&*self.view, name, now, self.settings.removal_grace)
    }

    /// Compares what a client asks for with the view.
    pub(super) fn look_all(
        &mut self,
        kind: ResourceType,
        names: impl IntoIterator<Item = Name>,
        now: Instant,
    ) -> Result<(), Status> {
        let absent = names.into_iter().filter(|name| !self.look(kind, name.clone(), now)).count();
        self.charge_names(now, absent)
    }

    /// Reads the answer in a request.
    pub(super) fn answer(
        &mut self,
        kind: ResourceType,
        nonce: &str,
        error: Option<proto::Status>,
        now: Instant,
    ) -> (Answer, Option<Rejection>) {
        let error = error.map(|status| clip(&status.message, NACK_TEXT_LIMIT).into());
        let answer = self.of(kind).answer(nonce, error, now);
        let rejection = match &answer {
            Answer::Rejected(text) => Some(Rejection { kind, text: text.clone() }),
            _ => None,
        };
        (answer, rejection)
    }

    /// Refuses names that are too long.
    pub(super) fn spells(&self, kind: ResourceType, names: &[String]) -> Result<(), Status> {
        if let Some(long) = names.iter().find(|name| name.len() > self.settings.max_name_length) {
            return Err(Status::invalid_argument(format!(
                "a {kind} name of {} bytes is longer than the limit of {}",
                long.len(),
                self.settings.max_name_length
            )));
        }
        Ok(())
    }

    /// Refuses names that are too long, and more names than a stream may have.
    pub(super) fn admit(&self, kind: ResourceType, names: &[String], replaces: bool) -> Result<(), Status> {
        self.spells(kind, names)?;
        let present = |i: usize| self.types.get(i).map_or(0, |s| s.names.len());
        let others: usize = (0..self.types.len()).filter(|i| *i != kind as usize).map(present).sum();
        let known = &self.types[kind as usize].names;
        // Who repeats a name subscribes once.
        let named: HashSet<&str> =
            names.iter().map(String::as_str).filter(|name| *name != WILDCARD).collect();
        let here = if replaces {
            named.len()
        } else {
            known.len() + named.into_iter().filter(|name| !known.contains(name)).count()
        };
        let wanted = others + here;
        if wanted > self.settings.max_subscriptions {
            return Err(Status::resource_exhausted(format!(
                "{wanted} subscriptions are more than the limit of {} for a stream",
                self.settings.max_subscriptions
            )));
        }
        Ok(())
    }

    /// Sends what is due. `encode` makes a response of a batch; it is given the nonce.
    pub(super) fn flush<R>(
        &mut self,
        now: Instant,
        encode: impl Fn(ResourceType, Batch, &Subscription, String, Arc<str>) -> R,
    ) -> Vec<R> {
        let (view, revision, variant) = (&*self.view, self.view.revision(), self.variant);
        let mut responses = Vec::new();
        let mut send = |subscription: &mut Subscription, kind, batch: Batch, nonce: &mut u64| {
            let mut names: Vec<Name> = batch.resources.iter().map(|encoded| encoded.name.clone()).collect();
            let fresh = names.len();
            if variant == Variant::Sotw && ResourceType::is_complete(kind) {
                let batch: BTreeSet<Name> = names.iter().cloned().collect();
                names.extend(subscription.held().filter(|name| !batch.contains(*name)).cloned());
            }
            let next = (*nonce + 1).to_string();
            responses.push(encode(kind, batch, subscription, next.clone(), revision.clone()));
            *nonce += 1;
            subscription.sent(next, (names, fresh), revision.clone(), now);
        };
        let mut blocked = false;
        let mut behind = false;
        for (kind, subscription) in ResourceType::ALL.into_iter().zip(&mut self.types) {
            if let Some(since) = subscription.outstanding_since() {
                behind |= subscription.is_behind();
                blocked |= now < since + self.settings.order_wait;
            } else if subscription.is_behind()
                && (!blocked || matches!(kind, ResourceType::ClusterLoadAssignment | ResourceType::Secret))
            {
                // An Envoy accepts clusters when it has their endpoints and secrets: behind the clusters, these need
                // not wait.
                let batch = subscription.take_additions(view);
                send(subscription, kind, batch, &mut self.nonce);
                blocked = true;
            } else {
                behind |= subscription.is_behind();
            }
        }
        if !behind && !blocked {
            let goes_on = ResourceType::ALL.map(|kind| {
                let subscription = &self.types[kind as usize];
                subscription.goes_on() || subscription.outstanding_since().is_some()
            });
            for (kind, subscription) in ResourceType::ALL.into_iter().zip(&mut self.types).rev() {
                let in_use = kind.users().iter().any(|user| goes_on[*user as usize]);
                if !in_use
                    && subscription.outstanding_since().is_none()
                    && subscription.next_removal().is_some_and(|due| due <= now)
                {
                    let batch = subscription.take_removals(view, now);
                    send(subscription, kind, batch, &mut self.nonce);
                    break;
                }
            }
        }
        self.deadline = self.next_deadline(now);
        responses
    }

    /// The next moment at which time alone makes something due. What waits for an answer of the client is
    /// not due by time, except that the wait for the order of types is bounded.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let waits = self.types.iter().any(|s| s.is_behind() || s.next_removal().is_some());
        let order = self.types.iter().filter_map(Subscription::outstanding_since).filter(|_| waits);
        let order = order.map(|since| since + self.settings.order_wait);
        let removals = self.types.iter().filter_map(Subscription::next_removal);
        order.chain(removals).filter(|due| *due > now).min()
    }

    /// The revision that has just been reached by all types, if one has.
    pub(super) fn newly_synced(&mut self) -> Option<Arc<str>> {
        let revision = self.view.revision();
        let mut all = true;
        for subscription in self.types.iter_mut().filter(|s| s.started) {
            if subscription.is_synced() {
                subscription.reached(&revision);
            } else {
                all = false;
                // What was asked for later, at the same revision, may be what is rejected.
                if subscription.unreached(&revision) && self.synced.as_ref() == Some(&revision) {
                    self.synced = None;
                }
            }
        }
        if !all || self.synced.as_ref() == Some(&revision) || !self.types.iter().any(|s| s.started) {
            return None;
        }
        self.synced = Some(revision.clone());
        Some(revision)
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The revision whose every subscribed resource the client has accepted. None while it is being sent more of
    /// the revision that it had: accepting routes, a client asks for the clusters that they name, and does not use
    /// the routes before it has those.
    pub fn acked_revision(&self) -> Option<Arc<str>> {
        let started = || self.types.iter().filter(|subscription| subscription.started);
        let at_target = self.synced.as_ref() == Some(&self.view.revision());
        if at_target && !started().all(Subscription::is_synced) {
            return None;
        }
        self.synced.clone()
    }

    /// The revision that the client is being brought to.
    pub fn target_revision(&self) -> Arc<str> {
        self.view.revision()
    }

    /// Bytes that the client has this stream keep: the names that it subscribed to.
    pub fn weight(&self) -> usize {
        self.types.iter().map(Subscription::weight).sum()
    }

    /// State of each type that the client asked for.
    pub fn types(&self, now: Instant) -> Vec<TypeStatus> {
        self.types.iter().filter(|s| s.started).map(|s| s.status(now)).collect()
    }

    /// The same, with each resource.
    pub fn types_in_full(&self, now: Instant) -> Vec<TypeStatus> {
        let full = |s: &Subscription| TypeStatus { resources: s.resources(&*self.view), ..s.status(now) };
        self.types.iter().filter(|s| s.started).map(full).collect()
    }
}
