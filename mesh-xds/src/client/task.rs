//! The only part of the client that does IO: opens the stream, carries messages, keeps time.
//!
//! Flow control: a response is parsed, resolved and published before the next one is read. What is published
//! goes into slots that hold only the latest, so nothing piles up, whatever the control plane sends.

use super::{
    backoff::BackoffSettings,
    core::{Command, Core},
    handle::lock,
    machine::{Input, Outputs, Parse, Settings},
    wire::{Request, Response},
};
use crate::{
    bootstrap::{Bootstrap, ServerConfig},
    proto::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    resource::{AnyResource, Support},
    server::{RESOURCE_ERRORS_FEATURE, Variant},
};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use std::{
    collections::VecDeque,
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, transport::Channel};

/// Makes connections to the control plane: addresses, credentials and HTTP/2 keepalive are its business.
pub trait Connector: Send + Sync + 'static {
    /// A new channel. It connects when it is used; the error says why there cannot be one.
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String>;
}

/// How a client behaves where the bootstrap does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// Between attempts to connect.
    pub backoff: BackoffSettings,
    /// An attempt that takes longer has failed.
    pub connect_timeout: Duration,
    /// A larger resource is rejected unread.
    pub max_resource_bytes: usize,
    /// A larger response ends the stream.
    pub max_response_bytes: usize,
    /// What the data path can do beyond the core; what needs more is rejected. Default: nothing.
    pub support: Support,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            backoff: BackoffSettings::default(),
            connect_timeout: Duration::from_secs(10),
            max_resource_bytes: 16 << 20,
            max_response_bytes: 256 << 20,
            support: Support::NONE,
        }
    }
}

/// What a client says it understands. gRPC's two, and ours.
const FEATURES: [&str; 3] =
    ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw", RESOURCE_ERRORS_FEATURE];

impl ClientSettings {
    pub(super) fn machine(&self, bootstrap: &Bootstrap, server: &ServerConfig) -> Settings {
        Settings {
            server: server.address.as_str().into(),
            node: bootstrap.node.to_proto(&FEATURES),
            variant: if server.features.delta { Variant::Delta } else { Variant::Sotw },
            fail_on_data_errors: server.features.fail_on_data_errors,
            timer_is_transient: server.features.resource_timer_is_transient_error,
            backoff: self.backoff.clone(),
            max_resource_bytes: self.max_resource_bytes,
            seed: fastrand::u64(..),
        }
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

type Responses = BoxStream<'static, Result<Response, Status>>;

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
                        *self = Self::Open { responses };
                        return Input::Established;
                    }
                    Err(status) => Input::Closed(describe(server, &status)),
                },
                () = give_up, if opened.is_some() => {
                    Input::Closed(format!("{server}: no connection in time").into())
                }
            },
            Self::Open { responses } => match responses.next().await {
                Some(Ok(response)) => return Input::Response(response),
                Some(Err(status)) => Input::Closed(describe(server, &status)),
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

async fn open(
    channel: Channel,
    variant: Variant,
    max_response_bytes: usize,
    outbound: Outbound,
) -> Result<Responses, Status> {
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(max_response_bytes);
    Ok(match variant {
        Variant::Sotw => {
            let requests = outbound.filter_map(|request| async move {
                match request {
                    Request::Sotw(request) => Some(request),
                    Request::Delta(_) => None,
                }
            });
            let responses = client.stream_aggregated_resources(requests).await?.into_inner();
            responses.map(|response| response.map(Response::Sotw)).boxed()
        }
        Variant::Delta => {
            let requests = outbound.filter_map(|request| async move {
                match request {
                    Request::Delta(request) => Some(request),
                    Request::Sotw(_) => None,
                }
            });
            let responses = client.delta_aggregated_resources(requests).await?.into_inner();
            responses.map(|response| response.map(Response::Delta)).boxed()
        }
    })
}

/// Runs a client until its last handle is gone.
pub(super) async fn run<P: Parse<Resource = AnyResource>>(
    core: Arc<Mutex<Core<P>>>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    connector: Arc<dyn Connector>,
    server: ServerConfig,
    settings: ClientSettings,
) {
    let variant = if server.features.delta { Variant::Delta } else { Variant::Sotw };
    let mut link = Link::Closed;
    let (mut sender, _) = mpsc::channel::<Request>(1);
    // Written before anything more is read.
    let mut unsent: VecDeque<Request> = VecDeque::new();
    let mut inbox = Vec::new();
    loop {
        let deadline = lock(&core).machine.deadline();
        let mut outputs = tokio::select! {
            count = commands.recv_many(&mut inbox, 1024) => {
                if count == 0 {
                    return;
                }
                lock(&core).command(now(), inbox.drain(..))
            }
            permit = sender.reserve(), if !unsent.is_empty() => {
                match (permit, unsent.pop_front()) {
                    (Ok(permit), Some(request)) => permit.send(request),
                    // The stream has ended; reading it says why.
                    _ => unsent.clear(),
                }
                continue;
            }
            input = link.next(&server), if unsent.is_empty() => {
                if let Input::Closed(why) = &input {
                    tracing::info!(%server, %why, "the stream to the control plane ended");
                }
                lock(&core).on(now(), input)
            }
            () = sleep_until(deadline) => lock(&core).on(now(), Input::Tick),
        };
        log(&server, &outputs);
        while std::mem::take(&mut outputs.connect) {
            unsent.clear();
            match connector.connect(&server) {
                Ok(channel) => {
                    let (requests, receiver) = mpsc::channel(16);
                    let (opened, is_open) = oneshot::channel();
                    let outbound = Outbound { requests: receiver, opened: Some(opened) };
                    sender = requests;
                    link = Link::Opening {
                        responses: open(channel, variant, settings.max_response_bytes, outbound).boxed(),
                        opened: Some(is_open),
                        give_up: Box::pin(tokio::time::sleep(settings.connect_timeout)),
                    };
                }
                Err(why) => {
                    link = Link::Closed;
                    outputs = lock(&core).on(now(), Input::Closed(format!("{server}: {why}").into()));
                }
            }
        }
        if matches!(link, Link::Closed) {
            unsent.clear();
        } else {
            unsent.extend(outputs.requests);
        }
    }
}

fn log(server: &ServerConfig, outputs: &Outputs) {
    if let Some(text) = &outputs.rejected {
        tracing::error!(%server, faults = %text, "rejected a response of the control plane");
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
