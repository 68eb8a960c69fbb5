//! The only part of the client that does IO: opens the streams, carries messages, keeps time.
//!
//! Flow control: a response is parsed, resolved, published, and taken by those who watch, before the next one of its
//! stream is read; its receipt is sent at once. A watcher is waited for [`PATIENCE`] long and then not before it takes
//! something again, so that one that sleeps, or waits for another watch, stops nobody for good, and the end of a stream is
//! noticed that much later at most. Meanwhile requests leave, other streams go on, HTTP/2 asks and answers pings, and no
//! timer of a resource runs. What it makes necessary to say waits, and is brought together ([`Outbox`]), while the
//! control plane reads nothing: one that reads only when its response was taken would wait for ever if that were not
//! read meanwhile. What is published goes into slots that hold only the latest. So nothing piles up, whatever the
//! control plane does and however slow a watcher is.

use super::{
    authority::{Action, Actions, Id},
    backoff::BackoffSettings,
    core::{Command, Core},
    handle::lock,
    machine::{Input, Parse, Settings},
    noting::{Ended, Noting},
    outbox::Outbox,
    slot::Outstanding,
    speakers::Speakers,
    store::CacheSettings,
    wire::{Request, Response},
};
use crate::{
    bootstrap::{Bootstrap, ServerConfig},
    proto::{self, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient},
    resource::{AnyResource, Support, secret::SecretCheck},
    server::Variant,
};
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, select_all},
    stream::{self, BoxStream},
};
use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Status, metadata::MetadataMap, transport::Channel};

/// Makes connections to the control plane: addresses, credentials and HTTP/2 keepalive are its business.
pub trait Connector: Send + Sync + 'static {
    /// A new channel. It connects when it is used; the error says why there cannot be one.
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String>;

    /// The channel to that server that was made last, for its further services; a new one when there is none, or it was
    /// let go.
    fn shared(&self, server: &ServerConfig) -> Result<Channel, String> {
        self.connect(server)
    }

    /// Nothing of that server is needed any more for now: what is kept of its channel for [`Self::shared`] can go, so
    /// that its connection ends with the last stream. Default: nothing.
    fn let_go(&self, _server: &ServerConfig) {}

    /// What is sent with a new stream: the call credentials of the bootstrap (gRFC A97). The status fails the
    /// attempt. Default: nothing.
    fn metadata<'a>(&'a self, _server: &'a ServerConfig) -> BoxFuture<'a, Result<MetadataMap, Status>> {
        std::future::ready(Ok(MetadataMap::new())).boxed()
    }
}

/// How a client behaves where the bootstrap does not say.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Between attempts to connect.
    pub backoff: BackoffSettings,
    /// An attempt that takes longer has failed.
    pub connect_timeout: Duration,
    /// A larger resource is rejected unread.
    pub max_resource_bytes: usize,
    /// A larger response is not read: the stream is given up, and what was awaited of it fails with that reason.
    pub max_response_bytes: usize,
    /// What the data path can do beyond the core; what needs more is rejected. Default: nothing.
    pub support: Support,
    /// Whether the data path can use a secret; one that it cannot is rejected. Needed with
    /// [`Feature::Sds`](crate::resource::Feature::Sds). Default: any that is well formed.
    pub secrets: SecretCheck,
    /// The last known good configuration on disk, for when no control plane answers at the start. Default: none.
    pub cache: Option<CacheSettings>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            backoff: BackoffSettings::default(),
            connect_timeout: Duration::from_secs(10),
            max_resource_bytes: 16 << 20,
            max_response_bytes: 256 << 20,
            support: Support::NONE,
            secrets: |_| Ok(()),
            cache: None,
        }
    }
}

/// What a client says it understands: gRPC's two, and Envoy's for times to live.
const FEATURES: [&str; 3] = [
    "envoy.lb.does_not_support_overprovisioning",
    "xds.config.resource-in-sotw",
    "xds.config.supports-resource-ttl",
];

impl ClientSettings {
    pub(super) fn machine(&self, bootstrap: &Bootstrap, server: &ServerConfig) -> Settings {
        Settings {
            server: server.address.as_str().into(),
            node: self.node(bootstrap),
            variant: server.variant(),
            fail_on_data_errors: server.features.fail_on_data_errors,
            timer_is_transient: server.features.resource_timer_is_transient_error,
            backoff: self.backoff.clone(),
            max_resource_bytes: self.max_resource_bytes,
            seed: fastrand::u64(..),
        }
    }

    pub(super) fn node(&self, bootstrap: &Bootstrap) -> proto::Node {
        bootstrap.node.to_proto(&FEATURES)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A moment as seconds since the epoch.
pub(super) fn epoch(then: Instant) -> f64 {
    crate::server::epoch_seconds(now().saturating_duration_since(then))
}

/// Requests on their way into the stream.
struct Outbound {
    requests: mpsc::Receiver<Request>,
    /// Told when the transport first asks for a request: then the connection is there.
    opened: Option<oneshot::Sender<()>>,
}

impl Stream for Outbound {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        if let Some(opened) = self.opened.take() {
            // If nobody waits for it, the attempt was given up.
            let _ = opened.send(());
        }
        self.requests.poll_recv(cx)
    }
}

/// How a stream goes on that does not go on.
enum End {
    /// The control plane, or the connection, ended it.
    Theirs(Status),
    /// A response cannot be read here.
    Ours(Status),
}

type Responses = BoxStream<'static, Result<Response, End>>;

/// The stream in its three stages.
enum Link {
    Closed,
    Opening {
        responses: BoxFuture<'static, Result<Responses, Status>>,
        opened: Option<oneshot::Receiver<()>>,
        give_up: Pin<Box<tokio::time::Sleep>>,
    },
    Open {
        responses: Responses,
        /// It was said that it is.
        told: bool,
    },
}

impl Link {
    /// The next thing that happens. Cancel safe.
    async fn next(&mut self, server: &ServerConfig) -> Input {
        let input = match self {
            Self::Closed => std::future::pending().await,
            Self::Opening { responses, opened, give_up } => tokio::select! {
                // A connection is open before it is answered.
                biased;
                () = signalled(opened) => return Input::Opened,
                result = responses => match result {
                    Ok(responses) => {
                        // One that takes no requests for now may be answered before it has asked for the first.
                        let told = opened.is_none();
                        *self = Self::Open { responses, told };
                        return if told { Input::Established } else { Input::Opened };
                    }
                    Err(status) => Input::Closed(describe(server, &status)),
                },
                () = give_up, if opened.is_some() => {
                    Input::Closed(format!("{server}: no connection in time").into())
                }
            },
            Self::Open { told: told @ false, .. } => {
                *told = true;
                return Input::Established;
            }
            Self::Open { responses, .. } => match responses.next().await {
                Some(Ok(response)) => return Input::Response(response),
                Some(Err(End::Theirs(status))) => Input::Closed(describe(server, &status)),
                Some(Err(End::Ours(status))) => Input::Unreadable(explain(server, &status)),
                None => Input::Closed(format!("{server}: the control plane ended the stream").into()),
            },
        };
        *self = Self::Closed;
        input
    }
}

/// Until the transport asks for the first request.
async fn signalled(opened: &mut Option<oneshot::Receiver<()>>) {
    if let Some(receiver) = opened {
        let signal = receiver.await;
        *opened = None;
        if signal.is_ok() {
            return;
        }
    }
    // Never: the attempt failed, and its result says why.
    std::future::pending().await
}

/// Why a stream ended: address, code, and every cause that says something new.
fn describe(server: &ServerConfig, status: &Status) -> Arc<str> {
    let mut text = format!("{server}: ");
    if status.source().is_none() {
        text.push_str(&format!("{:?}: ", status.code()));
    }
    text.push_str(status.message());
    let mut source = status.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // What tonic calls any failure of a connection says nothing.
        if cause != "transport error" && !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text.into()
}

/// What is wrong with a response, and what to do.
fn explain(server: &ServerConfig, status: &Status) -> Arc<str> {
    let advice = if status.code() == Code::OutOfRange {
        "raise max_response_bytes of the client, or let the control plane send less"
    } else {
        "this is a fault of the control plane, or of what is between"
    };
    format!("{server}: a response cannot be read: {}; {advice}", status.message()).into()
}

async fn open(
    connector: Arc<dyn Connector>,
    server: ServerConfig,
    channel: Channel,
    max_response_bytes: usize,
    outbound: Outbound,
) -> Result<Responses, Status> {
    let metadata = connector.metadata(&server).await?;
    let (channel, ended) = Noting::new(channel);
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(max_response_bytes);
    Ok(match server.variant() {
        Variant::Sotw => {
            let requests = outbound.filter_map(|request| async move {
                match request {
                    Request::Sotw(request) => Some(request),
                    Request::Delta(_) => None,
                }
            });
            let requests = with(metadata, requests);
            let responses = client.stream_aggregated_resources(requests).await?.into_inner();
            read_until(ended, responses, Response::Sotw)
        }
        Variant::Delta => {
            let requests = outbound.filter_map(|request| async move {
                match request {
                    Request::Delta(request) => Some(request),
                    Request::Sotw(_) => None,
                }
            });
            let requests = with(metadata, requests);
            let responses = client.delta_aggregated_resources(requests).await?.into_inner();
            read_until(ended, responses, Response::Delta)
        }
    })
}

/// The responses of a stream until its end, and whose end that is.
fn read_until<T: Send + 'static>(
    ended: Ended,
    responses: tonic::Streaming<T>,
    response: impl Fn(T) -> Response + Send + 'static,
) -> Responses {
    const CUT_SHORT: &str = "the control plane ended the stream within a message";
    let last = ended.clone();
    let end = move |status: Status| {
        if ended.is_within_a_message() {
            End::Ours(Status::data_loss(format!("{CUT_SHORT} ({}: {})", status.code(), status.message())))
        } else if ended.is_noted() {
            End::Theirs(status)
        } else {
            End::Ours(status)
        }
    };
    let all = responses.map(move |one| one.map(&response).map_err(&end));
    // Of a message that is not all there tonic does not always speak.
    let last = stream::once(async move {
        last.is_within_a_message().then(|| Err(End::Ours(Status::data_loss(CUT_SHORT))))
    });
    all.chain(last.filter_map(std::future::ready)).boxed()
}

fn with<T>(metadata: MetadataMap, message: T) -> tonic::Request<T> {
    tonic::Request::from_parts(metadata, tonic::Extensions::default(), message)
}

/// How long a watcher may take to look at what came.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream that is not read on yet.
struct Held {
    outstanding: Outstanding,
    until: Pin<Box<tokio::time::Sleep>>,
}

impl Held {
    /// Until the stream is to be read on. Cancel safe.
    async fn over(&mut self) {
        tokio::select! {
            () = self.outstanding.over() => {}
            () = &mut self.until => {
                tracing::debug!("a watch was not looked at in time: the stream is read on");
                self.outstanding.give_up();
            }
        }
    }
}

/// The stream of one control plane.
struct Conversation {
    server: ServerConfig,
    connector: Arc<dyn Connector>,
    link: Link,
    held: Option<Held>,
    sender: mpsc::Sender<Request>,
    unsent: Outbox,
}

impl Conversation {
    fn new(server: ServerConfig, connector: Arc<dyn Connector>) -> Self {
        let (sender, _) = mpsc::channel(1);
        Self { server, connector, link: Link::Closed, held: None, sender, unsent: Outbox::default() }
    }

    /// Writes what is to be written, as far as it can be, and reads the next thing that happens. Cancel safe.
    async fn next(&mut self) -> Input {
        let input = tokio::select! {
            biased;
            never = write(&mut self.unsent, &self.sender) => match never {},
            input = read(&mut self.link, &mut self.held, &self.server) => input,
        };
        let server = &self.server;
        match &input {
            Input::Closed(why) => {
                tracing::info!(%server, %why, "the stream to the control plane ended");
                self.hang_up();
            }
            Input::Unreadable(why) => {
                tracing::warn!(%server, %why, "the stream to the control plane was given up");
                self.hang_up();
            }
            _ => {}
        }
        input
    }

    /// Begins a stream, in the place of the one before; the error says why there cannot be one.
    fn connect(&mut self, settings: &ClientSettings) -> Result<(), Arc<str>> {
        self.hang_up();
        let channel =
            self.connector.connect(&self.server).map_err(|why| format!("{}: {why}", self.server))?;
        // What waits in it cannot be brought together any more.
        let (requests, receiver) = mpsc::channel(1);
        let (opened, is_open) = oneshot::channel();
        let outbound = Outbound { requests: receiver, opened: Some(opened) };
        self.sender = requests;
        self.link = Link::Opening {
            responses: open(
                self.connector.clone(),
                self.server.clone(),
                channel,
                settings.max_response_bytes,
                outbound,
            )
            .boxed(),
            opened: Some(is_open),
            give_up: Box::pin(tokio::time::sleep(settings.connect_timeout)),
        };
        Ok(())
    }

    /// Reads on when what came has been taken.
    fn hold(&mut self, outstanding: Outstanding) {
        if matches!(self.link, Link::Open { .. }) {
            self.held = Some(Held { outstanding, until: Box::pin(tokio::time::sleep(PATIENCE)) });
        }
    }

    fn hang_up(&mut self) {
        self.link = Link::Closed;
        self.held = None;
        // The stream is reset when both its halves are gone.
        self.sender = mpsc::channel(1).0;
        self.unsent = Outbox::default();
    }

    fn send(&mut self, request: Request) {
        if !matches!(self.link, Link::Closed) {
            self.unsent.push(request);
        }
    }
}

/// The next thing that happens; while the stream is held, that it is no longer. Cancel safe.
async fn read(link: &mut Link, held: &mut Option<Held>, server: &ServerConfig) -> Input {
    if let Some(one) = held {
        one.over().await;
        *held = None;
        return Input::Resumed;
    }
    link.next(server).await
}

/// Writes what there is, whenever the transport takes it. Cancel safe.
async fn write(unsent: &mut Outbox, sender: &mpsc::Sender<Request>) -> Infallible {
    while unsent.is_ready() {
        // An error: the stream has ended; reading it says why.
        let Ok(permit) = sender.reserve().await else { break };
        if let Some(request) = unsent.pop() {
            permit.send(request);
        }
    }
    std::future::pending().await
}

/// The streams of all control planes.
struct Conversations {
    all: Vec<Conversation>,
    /// Looked at first.
    first: Id,
}

impl Conversations {
    /// The next thing that happens on any of them; each in its turn, so that one that always has something to say
    /// keeps nobody from being heard. Cancel safe.
    async fn next(&mut self) -> (Id, Input) {
        let next = self.all.iter_mut().enumerate();
        let mut all: Vec<_> =
            next.map(|(id, one)| one.next().map(move |input| (id, input)).boxed()).collect();
        all.rotate_left(self.first);
        let ((id, input), ..) = select_all(all).await;
        self.first = id + 1;
        (id, input)
    }
}

/// Runs a client until its last handle is gone. `speakers` is told when another control plane speaks than before,
/// `news` when something else is known.
pub(super) async fn run<P: Parse<Resource = AnyResource>>(
    core: Arc<Mutex<Core<P>>>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    connector: Arc<dyn Connector>,
    servers: Vec<ServerConfig>,
    settings: ClientSettings,
    speakers: watch::Sender<Arc<Speakers>>,
    news: Option<mpsc::Sender<()>>,
) {
    let all = servers.into_iter().map(|server| Conversation::new(server, connector.clone())).collect();
    let mut conversations = Conversations { all, first: 0 };
    let mut inbox = Vec::new();
    loop {
        let deadline = lock(&core).federation.deadline();
        let mut actions = tokio::select! {
            count = commands.recv_many(&mut inbox, 1024) => {
                if count == 0 {
                    return;
                }
                lock(&core).command(now(), inbox.drain(..))
            }
            (id, input) = conversations.next() => {
                let mut actions = lock(&core).on(now(), id, input);
                if let Some(outstanding) = actions.outstanding.take()
                    && let Some(conversation) = conversations.all.get_mut(id)
                {
                    conversation.hold(outstanding);
                }
                actions
            }
            () = sleep_until(deadline) => lock(&core).tick(now()),
        };
        loop {
            if actions.moved {
                let now = lock(&core).federation.speakers();
                speakers.send_replace(Arc::new(now));
            }
            if let Some(news) = news.as_ref().filter(|_| !actions.changed.is_empty()) {
                // One that is not heard yet says the same.
                let _ = news.try_send(());
            }
            let failed = carry_out(&mut conversations.all, actions, &settings);
            if failed.is_empty() {
                break;
            }
            actions = Actions::default();
            for (id, why) in failed {
                actions.merge(lock(&core).on(now(), id, Input::Closed(why)));
            }
        }
    }
}

/// Does what is to be done; says which streams could not be begun, and why.
fn carry_out(
    conversations: &mut [Conversation],
    actions: Actions,
    settings: &ClientSettings,
) -> Vec<(Id, Arc<str>)> {
    let mut failed = Vec::new();
    for (id, action) in actions.io {
        let Some(conversation) = conversations.get_mut(id) else { continue };
        match action {
            Action::Connect => {
                if let Err(why) = conversation.connect(settings) {
                    failed.push((id, why));
                }
            }
            Action::Disconnect => {
                conversation.hang_up();
                conversation.connector.let_go(&conversation.server);
            }
            Action::Send(request) => conversation.send(request),
            Action::Rejected(text) => {
                let server = &conversation.server;
                tracing::error!(%server, faults = %text, "rejected a response of the control plane");
            }
        }
    }
    failed
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
