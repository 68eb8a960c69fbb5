//! The IO of serving: ADS over [`Views`], one stream at a time.
//!
//! Each stream has a task, which reads requests, watches for changes and hands responses over one at a time, when
//! the transport takes them ([`super::desk`]). Nothing queues up for a slow reader: a type has one response that is
//! not answered, and a request that answers one which has not left yet is not read before it has. A transport
//! that takes nothing holds nothing up but that: the stream ends all the same when its time comes. Dropping the
//! connection ends the task and the stream's entry in [`AdsService::streams`].
//!
//! When everybody comes back at once, streams get their first configuration some at a time, as all of them at a time
//! would all be late: in the order in which they came, and one after the other for each account.

use super::{
    Node, View, Views,
    desk::{Desk, Responses},
    http::AdsServer,
    node::{self, read_node},
    places::{Full, Place, Places},
    refusals::{expired, forgetful, unreadable},
    rejections::{Lines, Rejections},
    requests::Requests,
    status::{StreamStatus, epoch_seconds},
    stream::{Input, Protocol, Settings},
    turns::{Turn, Turns},
    unsent::{Leave, Unsent},
};
use futures_util::future::BoxFuture;
use prost::Message;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{broadcast, watch};
use tonic::{Request, Status, body::Body};

/// How ADS is served.
#[derive(Clone, Debug)]
pub struct AdsSettings {
    /// Limits and times of each stream.
    pub stream: Settings,
    /// Streams at once. A peer ([`Views::account`]) gets another one only while it holds less than three times as
    /// many as are free, so none can take them all.
    pub max_streams: usize,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Bytes of one response.
    pub max_response_bytes: usize,
    /// Bytes of responses that connections may have taken and not written yet, in all. A peer ([`Views::account`]) gets
    /// more only while its connections hold less than three times as many as are free. A response that finds no room
    /// waits, not encoded, and after 30 s its stream ends with UNAVAILABLE.
    pub max_unsent_bytes: usize,
    /// Bytes of nodes, names and answers about names that clients have the server keep, and of requests that have begun
    /// and not ended, in all; shared among peers in the same way. A name counts 256 bytes more than it has. A stream that
    /// needs more ends with UNAVAILABLE.
    pub max_kept_bytes: usize,
    /// A stream is ended after this, give or take a tenth, so that clients spread over replicas. A client
    /// comes back at once. `None`: never.
    pub max_age: Option<Duration>,
    /// A stream that says nothing for this long after its start is ended.
    pub first_request_timeout: Duration,
    /// Bytes of the node in the first request, which is kept as long as the stream.
    pub max_node_bytes: usize,
    /// Streams that get their first configuration at the same time; others wait for their turn.
    pub max_starting: usize,
    /// How long a stream keeps its turn when its client does not acknowledge all it asked for.
    pub start_time: Duration,
    /// A stream whose turn does not come in this time is told to come back later.
    pub admission_timeout: Duration,
}

impl Default for AdsSettings {
    fn default() -> Self {
        Self {
            stream: Settings::default(),
            max_streams: 20_000,
            max_request_bytes: 4 << 20,
            max_response_bytes: 256 << 20,
            max_unsent_bytes: 1 << 30,
            max_kept_bytes: 3 << 30,
            max_age: Some(Duration::from_secs(30 * 60)),
            first_request_timeout: Duration::from_secs(10),
            max_node_bytes: 256 << 10,
            max_starting: 256,
            start_time: Duration::from_millis(500),
            admission_timeout: Duration::from_secs(20),
        }
    }
}

/// Something worth knowing about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// A node connected.
    Connected {
        /// [`StreamStatus::id`].
        stream: u64,
        /// Its id.
        node: Arc<str>,
    },
    /// A stream holds all it asked for of a revision, and accepted it.
    Acked {
        /// [`StreamStatus::id`].
        stream: u64,
        /// Node id.
        node: Arc<str>,
        /// Which revision.
        revision: Arc<str>,
    },
    /// A client rejected a response.
    Rejected {
        /// [`StreamStatus::id`].
        stream: u64,
        /// Node id.
        node: Arc<str>,
        /// Which type.
        kind: crate::name::ResourceType,
        /// What the client said.
        text: Arc<str>,
    },
    /// A stream ended.
    Gone {
        /// [`StreamStatus::id`].
        stream: u64,
        /// Node id.
        node: Arc<str>,
        /// The node has no other stream here.
        last: bool,
    },
}

/// Serves ADS, both ways, from [`Views`]. Cheap to clone.
pub struct AdsService<V> {
    shared: Arc<Shared<V>>,
}

impl<V> Clone for AdsService<V> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<V> {
    views: Arc<V>,
    settings: AdsSettings,
    streams: Mutex<Streams>,
    /// Every stream, from the first byte of its request on.
    places: Arc<Places>,
    /// Bytes that are kept of what clients say.
    kept: Arc<Places>,
    unsent: Unsent,
    /// Turns to get a first configuration.
    turns: Arc<Turns>,
    lines: Lines,
    next_id: AtomicU64,
    events: broadcast::Sender<StreamEvent>,
    closing: watch::Sender<bool>,
}

/// Says what a stream looks like, and if it is asked so each of its resources.
type Describe = Arc<dyn Fn(bool) -> StreamStatus + Send + Sync>;

/// The connected streams.
#[derive(Default)]
struct Streams {
    /// By id, hence oldest first.
    status: BTreeMap<u64, (Arc<Node>, Describe)>,
    /// How many each node has.
    nodes: HashMap<Arc<str>, usize>,
}

impl<V> Shared<V> {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        lock(&self.streams)
    }

    fn tell(&self, event: StreamEvent) {
        // Nobody listening is not an error.
        drop(self.events.send(event));
    }
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<V: Views> AdsService<V> {
    /// A service over `views`.
    pub fn new(views: Arc<V>, settings: AdsSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                places: Places::new(settings.max_streams),
                kept: Places::new(settings.max_kept_bytes),
                unsent: Unsent::new(settings.max_unsent_bytes),
                turns: Turns::new(settings.max_starting),
                lines: Lines::default(),
                views,
                settings,
                streams: Mutex::default(),
                next_id: AtomicU64::new(1),
                events: broadcast::Sender::new(1024),
                closing: watch::Sender::new(false),
            }),
        }
    }

    /// The service for tonic's `Server`, with the limits of the settings.
    pub fn service(&self) -> AdsServer<V> {
        AdsServer(self.clone())
    }

    pub(super) fn settings(&self) -> &AdsSettings {
        &self.shared.settings
    }

    /// Every connected stream, oldest first.
    pub fn streams(&self) -> Vec<StreamStatus> {
        self.select(|_| true, &mut 0)
    }

    /// The connected streams of these nodes, oldest first, and each of their resources, while that makes no more
    /// than `resources`; what is left of that number is left in it.
    pub fn select(&self, is_wanted: impl Fn(&Node) -> bool, resources: &mut usize) -> Vec<StreamStatus> {
        let all: Vec<_> = self.shared.streams().status.values().cloned().collect();
        let wanted = all.iter().filter(|(node, _)| is_wanted(node));
        let mut describe = |(_, describe): &(Arc<Node>, Describe)| {
            let mut status = describe(*resources > 0);
            let count = status.types.iter().map(|kind| kind.resources.len()).sum();
            if let Some(left) = resources.checked_sub(count) {
                *resources = left;
            } else {
                *resources = 0;
                status.types.iter_mut().for_each(|kind| kind.resources.clear());
            }
            status
        };
        wanted.map(&mut describe).collect()
    }

    /// How many streams are connected and have named their node.
    pub fn stream_count(&self) -> usize {
        self.shared.streams().status.len()
    }

    /// What happens from now on. A receiver that lags is told so by its error, and reads
    /// [`AdsService::streams`] to catch up; it delays nobody.
    pub fn events(&self) -> broadcast::Receiver<StreamEvent> {
        self.shared.events.subscribe()
    }

    /// Ends every stream, and refuses new ones: for shutdown. Clients keep what they have.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Begins a stream, or refuses it.
    pub(super) fn open<P: Protocol>(
        &self,
        request: Request<Body>,
    ) -> Result<Responses<(P::Response, Leave)>, Status>
    where
        P::Request: Message + Default,
    {
        let shared = &self.shared;
        if *shared.closing.borrow() {
            return Err(Status::unavailable("the control plane is shutting down"));
        }
        let peer = shared.views.authenticate(request.extensions(), request.metadata())?;
        let account: Arc<str> = shared.views.account(&peer).into();
        let place = shared.places.take(&account).map_err(|full| {
            let limit = shared.settings.max_streams;
            Status::unavailable(match full {
                Full::All => format!(
                    "this control plane serves its limit of {limit} streams; try again, or add a replica"
                ),
                Full::Peer => format!(
                    "this control plane serves nearly its limit of {limit} streams, and what is left is not for a \
                     peer that has as many as this one; try again, or add a replica"
                ),
            })
        })?;
        let expires = shared.views.lifetime(&peer).map(|left| now() + left);
        let remote = remote(&request, &shared.views.describe(&peer));
        let changes = shared.views.changes();
        let limit = shared.settings.max_request_bytes;
        let requests = Requests::new(request.into_inner(), decode, limit, (&shared.kept, &account));
        let opening =
            Opening { shared: shared.clone(), place, account, peer, expires, remote, changes, requests };
        // The node is in the first request, and some clients wait for headers before they send it.
        Ok(Responses::of(|desk| async move {
            match opening.first::<P>().await? {
                Some(mut serving) => serving.serve(&desk).await,
                None => Ok(()),
            }
        }))
    }
}

fn decode<Q: Message + Default>(bytes: &[u8]) -> Result<Q, Status> {
    Q::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("a request is not a discovery request: {error}")))
}

/// The peer: who it is, and where, as far as known.
fn remote<T>(request: &Request<T>, identity: &str) -> Arc<str> {
    match (request.remote_addr(), identity) {
        (None, "") => "unknown".into(),
        (None, identity) => identity.into(),
        (Some(address), "") => address.to_string().into(),
        (Some(address), identity) => format!("{identity} at {address}").into(),
    }
}

/// A stream whose node is not known yet.
struct Opening<V: Views, Q> {
    shared: Arc<Shared<V>>,
    place: Place,
    account: Arc<str>,
    peer: V::Peer,
    expires: Option<Instant>,
    remote: Arc<str>,
    changes: watch::Receiver<u64>,
    requests: Requests<Q>,
}

impl<V: Views, Q: Message> Opening<V, Q> {
    /// `None`: the client left without a word.
    async fn first<P: Protocol<Request = Q>>(mut self) -> Result<Option<Box<Serving<V, P>>>, Status> {
        let settings = self.shared.settings.clone();
        let mut closing = self.shared.closing.subscribe();
        let first = tokio::select! {
            first = self.requests.next() => first.map_err(|error| unreadable(error, &settings))?,
            () = tokio::time::sleep(settings.first_request_timeout) => {
                return Err(Status::deadline_exceeded("no request came; the first one must name the node"));
            }
            () = sleep_until(self.expires) => return Err(expired()),
            () = closed(&mut closing) => None,
        };
        let Some(first) = first else { return Ok(None) };
        let Some(node) = P::node(&first) else {
            return Err(Status::invalid_argument("the first request of a stream must name its node"));
        };
        let size = node.encoded_len();
        if size > settings.max_node_bytes {
            return Err(Status::resource_exhausted(format!(
                "a node of {size} bytes is larger than the limit of {}; its metadata is kept as long as the stream",
                settings.max_node_bytes
            )));
        }
        let node = Arc::new(read_node(node));
        let node_bytes = node::weight(&node);
        let mut kept = self.shared.kept.none(&self.account);
        kept.resize(node_bytes + weight_of::<P>(&first)).map_err(|full| forgetful(full, &settings))?;
        let turn = tokio::select! {
            turn = self.shared.turns.take(&self.account) => turn,
            () = tokio::time::sleep(settings.admission_timeout) => {
                return Err(Status::unavailable(format!(
                    "{} streams are getting their first configuration and others wait; try again in a while",
                    settings.max_starting
                )));
            }
            () = sleep_until(self.expires) => return Err(expired()),
            () = closed(&mut closing) => return Ok(None),
        };
        self.changes.borrow_and_update();
        let view = self.shared.views.view(&self.peer, &node)?;
        let machine = Arc::new(Mutex::new(P::new(&node, view.clone(), settings.stream.clone())));
        let registration = self.shared.clone().register(&machine, &node, self.remote);
        let age = settings.max_age.map(|age| now() + age.mul_f64(0.9 + 0.2 * fastrand::f64()));
        let mut serving = Serving {
            rejections: Rejections::new(&self.shared.lines),
            registration,
            machine,
            node,
            peer: self.peer,
            view,
            changes: self.changes,
            closing,
            requests: self.requests,
            early: None,
            is_done: false,
            ready: VecDeque::new(),
            age,
            expires: self.expires,
            account: self.account,
            leave: None,
            turn: Some((turn, now() + settings.start_time)),
            kept,
            node_bytes,
            _place: self.place,
        };
        serving.request(first)?;
        Ok(Some(Box::new(serving)))
    }
}

/// An entry of the registry, as long as its stream lives.
struct Registration<V> {
    shared: Arc<Shared<V>>,
    id: u64,
    node: Arc<str>,
}

impl<V> Shared<V> {
    fn register<P: Protocol>(
        self: Arc<Self>,
        machine: &Arc<Mutex<P>>,
        node: &Arc<Node>,
        remote: Arc<str>,
    ) -> Registration<V> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let started = now();
        let machine = machine.clone();
        let said = node.clone();
        let described = node.clone();
        let status = move |full: bool| {
            let now = now();
            let machine = lock(&machine);
            let stream = machine.stream();
            StreamStatus {
                id,
                node: said.id.clone(),
                cluster: said.cluster.clone(),
                user_agent: said.user_agent.clone(),
                said: said.clone(),
                peer: remote.clone(),
                connected_since: epoch_seconds(now.saturating_duration_since(started)),
                variant: P::VARIANT,
                acked_revision: stream.acked_revision(),
                target_revision: stream.target_revision(),
                types: if full { stream.types_in_full(now) } else { stream.types(now) },
            }
        };
        let node = node.id.clone();
        let mut streams = self.streams();
        streams.status.insert(id, (described, Arc::new(status)));
        *streams.nodes.entry(node.clone()).or_default() += 1;
        drop(streams);
        self.tell(StreamEvent::Connected { stream: id, node: node.clone() });
        Registration { shared: self, id, node }
    }
}

impl<V> Drop for Registration<V> {
    fn drop(&mut self) {
        let last = {
            let mut streams = self.shared.streams();
            streams.status.remove(&self.id);
            let left = streams.nodes.get_mut(&self.node).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if left == 0 {
                streams.nodes.remove(&self.node);
            }
            left == 0
        };
        self.shared.tell(StreamEvent::Gone { stream: self.id, node: self.node.clone(), last });
    }
}

/// A stream that is served.
struct Serving<V: Views, P: Protocol> {
    registration: Registration<V>,
    rejections: Rejections,
    machine: Arc<Mutex<P>>,
    node: Arc<Node>,
    peer: V::Peer,
    /// The latest; the machine's, too.
    view: Arc<dyn View>,
    changes: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    requests: Requests<P::Request>,
    /// Answers a response that has not left; nothing is read before that is so.
    early: Option<P::Request>,
    /// The client has said all that it will.
    is_done: bool,
    /// At most one for each type, since none of them is answered; and what it weighs.
    ready: VecDeque<(P::Response, usize)>,
    account: Arc<str>,
    /// To hand the next of them over.
    leave: Option<BoxFuture<'static, Result<Leave, Status>>>,
    age: Option<Instant>,
    /// When the peer's credentials end.
    expires: Option<Instant>,
    /// While the client gets its first configuration; and until when at the latest.
    turn: Option<(Turn, Instant)>,
    /// What is kept of what the client says.
    kept: Place,
    node_bytes: usize,
    _place: Place,
}

impl<V: Views, P: Protocol> Serving<V, P> {
    /// Until the stream is over.
    async fn serve(&mut self, desk: &Desk<(P::Response, Leave)>) -> Result<(), Status> {
        loop {
            if self.expires.is_some_and(|at| at <= now()) {
                return Err(expired());
            }
            if let Some(request) = self.early.take() {
                self.request(request)?;
            }
            if self.is_done && self.ready.is_empty() && self.early.is_none() {
                return Ok(());
            }
            let due = lock(&self.machine).stream().deadline();
            let turn = self.turn.as_ref().map(|(_, until)| *until);
            let next = [due, turn, self.age, self.expires].into_iter().flatten().min();
            if self.leave.is_none()
                && let Some((next, _)) = self.ready.front()
            {
                let (unsent, size) = (self.registration.shared.unsent.clone(), next.encoded_len());
                self.leave = Some(Box::pin(unsent.leave(self.account.clone(), size)));
            }
            tokio::select! {
                leave = handed(desk, self.leave.as_mut()) => {
                    self.leave = None;
                    if let Some((response, _)) = self.ready.pop_front() {
                        desk.put((response, leave?));
                        self.weigh()?;
                    }
                }
                request = self.requests.next(), if !self.is_done && self.early.is_none() => match request {
                    Ok(Some(request)) => self.request(request)?,
                    Ok(None) => self.is_done = true,
                    // If its connection is, nobody reads this.
                    Err(error) => return Err(unreadable(error, &self.registration.shared.settings)),
                },
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the control plane is shutting down"));
                    }
                    self.changes.borrow_and_update();
                    let views = &self.registration.shared.views;
                    self.view = views.next_view(&self.peer, &self.node, &self.view)?;
                    self.advance(Input::View(self.view.clone()))?;
                    self.weigh()?;
                }
                // One timer for all: a stream sets it anew each time that something happens.
                () = sleep_until(next) => {
                    let now = now();
                    let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
                    if is_due(self.age) {
                        return Ok(());
                    }
                    if is_due(turn) {
                        self.turn = None;
                    }
                    if is_due(due) {
                        self.advance(Input::Tick)?;
                        self.weigh()?;
                    }
                }
                () = closed(&mut self.closing) => return Ok(()),
            }
        }
    }

    fn request(&mut self, request: P::Request) -> Result<(), Status> {
        if self.ready.iter().any(|(response, _)| P::answers(&request, response)) {
            self.early = Some(request);
        } else {
            self.advance(Input::Request(request))?;
        }
        self.weigh()
    }

    /// What the client has this stream keep is counted; or there is no room for it.
    fn weigh(&mut self) -> Result<(), Status> {
        let ready: usize = self.ready.iter().map(|(_, weight)| weight).sum();
        let early = self.early.as_ref().map_or(0, weight_of::<P>);
        let weight = lock(&self.machine).stream().weight();
        let settings = &self.registration.shared.settings;
        self.kept.resize(self.node_bytes + weight + ready + early).map_err(|full| forgetful(full, settings))
    }

    fn advance(&mut self, input: Input<P::Request>) -> Result<(), Status> {
        let outputs = lock(&self.machine).on(now(), input)?;
        self.ready.extend(outputs.responses.into_iter().map(|response| {
            let weight = P::own_bytes(&response);
            (response, weight)
        }));
        let Registration { shared, id, node } = &self.registration;
        if let Some(rejection) = outputs.rejected {
            self.rejections.log(now(), *id, node, &rejection);
            shared.tell(StreamEvent::Rejected {
                stream: *id,
                node: node.clone(),
                kind: rejection.kind,
                text: rejection.text,
            });
        }
        if let Some(revision) = outputs.acked {
            self.turn = None;
            shared.tell(StreamEvent::Acked { stream: *id, node: node.clone(), revision });
        }
        Ok(())
    }
}

/// Bytes of a request that waits: each of its names is a string, however short.
fn weight_of<P: Protocol>(request: &P::Request) -> usize {
    request.encoded_len() + 64 * P::names(request)
}

/// Until the next response may be handed over, if there is one.
async fn handed<R: Send + 'static>(
    desk: &Desk<(R, Leave)>,
    leave: Option<&mut BoxFuture<'static, Result<Leave, Status>>>,
) -> Result<Leave, Status> {
    match leave {
        Some(leave) => {
            desk.room().await;
            leave.await
        }
        None => std::future::pending().await,
    }
}

/// Until the service is closed.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the service is gone, which is as final.
    drop(closing.wait_for(|closing| *closing).await);
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
