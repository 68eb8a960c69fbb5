//! Bare ADS streams: they ask, answer, and count.

use super::control_plane::{service, time};
use crate::Outcome;
use bytes::Bytes;
use mesh_xds::{
    name::ResourceType,
    proto::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use prost::Message;
use rustix::time::ClockId;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes, unless it never happens.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the streams ask for, in this order.
const KINDS: [ResourceType; 2] = [ResourceType::Cluster, ResourceType::ClusterLoadAssignment];

/// Which way of ADS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Delta,
    Sotw,
}

/// Streams that are open and have all that they asked for.
pub(super) struct Clients {
    seen: Arc<Seen>,
    arrivals: mpsc::UnboundedReceiver<Duration>,
    _streams: JoinSet<()>,
}

/// What the streams share.
struct Seen {
    /// The change that is waited for.
    wanted: Mutex<Option<(ResourceType, String)>>,
    bytes: AtomicUsize,
    resources: AtomicUsize,
    /// Whether bodies are kept: those of the first configuration.
    keeps: AtomicBool,
    bodies: Mutex<Vec<(ResourceType, Bytes)>>,
    arrived: mpsc::UnboundedSender<Duration>,
}

/// What came of a change.
#[derive(Debug)]
pub(super) struct Arrived {
    /// When the last follower had it.
    pub(super) last: Duration,
    /// Of all responses together.
    pub(super) bytes: usize,
    pub(super) resources: usize,
}

/// A response of either kind.
struct Received {
    kind: Option<ResourceType>,
    version: String,
    nonce: String,
    bytes: usize,
    /// Bodies, and the names in delta; in state of the world they are in the bodies.
    resources: Vec<(String, Bytes)>,
}

impl From<DeltaDiscoveryResponse> for Received {
    fn from(response: DeltaDiscoveryResponse) -> Self {
        let bytes = response.encoded_len();
        let resources = response.resources.into_iter();
        Self {
            kind: ResourceType::from_url(&response.type_url),
            version: response.system_version_info,
            nonce: response.nonce,
            bytes,
            resources: resources.map(|one| (one.name, one.resource.unwrap_or_default().value)).collect(),
        }
    }
}

impl From<DiscoveryResponse> for Received {
    fn from(response: DiscoveryResponse) -> Self {
        let bytes = response.encoded_len();
        let resources = response.resources.into_iter();
        Self {
            kind: ResourceType::from_url(&response.type_url),
            version: response.version_info,
            nonce: response.nonce,
            bytes,
            resources: resources.map(|one| (String::new(), one.value)).collect(),
        }
    }
}

impl Clients {
    /// Opens the streams, and waits until each has all that it asks for.
    pub(super) async fn connect(
        address: SocketAddr,
        connections: usize,
        streams: usize,
        follows: impl Fn(usize) -> Vec<usize>,
        variant: Variant,
    ) -> Outcome<Self> {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let seen = Arc::new(Seen {
            wanted: Mutex::default(),
            bytes: AtomicUsize::new(0),
            resources: AtomicUsize::new(0),
            keeps: AtomicBool::new(streams == 1),
            bodies: Mutex::default(),
            arrived,
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let channels: Vec<Channel> = (0..connections).map(|_| endpoint.connect_lazy()).collect();
        let (ready, mut readies) = mpsc::channel(streams);
        let mut tasks = JoinSet::new();
        for stream in 0..streams {
            let channel = channels.get(stream % connections).cloned().ok_or("no connections")?;
            let client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(256 << 20);
            let names: Vec<String> = follows(stream).into_iter().map(service).collect();
            let (seen, ready) = (seen.clone(), ready.clone());
            tasks.spawn(async move {
                if let Err(error) = run(client, stream, names, variant, &seen, ready).await {
                    eprintln!("stream {stream}: {error}");
                }
            });
        }
        drop(ready);
        for _ in 0..streams {
            timeout(PATIENCE, readies.recv()).await?.ok_or("a stream ended early")?;
        }
        seen.keeps.store(false, SeqCst);
        Ok(Self { seen, arrivals, _streams: tasks })
    }

    /// From now on, streams that are sent this resource have the change.
    pub(super) fn expect(&mut self, kind: ResourceType, name: String) {
        while self.arrivals.try_recv().is_ok() {}
        self.seen.bytes.store(0, SeqCst);
        self.seen.resources.store(0, SeqCst);
        *self.seen.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some((kind, name));
    }

    /// Waits until so many streams have it.
    pub(super) async fn all_have_it(&mut self, followers: usize) -> Outcome<Arrived> {
        let mut last = Duration::ZERO;
        for _ in 0..followers {
            last = last.max(timeout(PATIENCE, self.arrivals.recv()).await?.ok_or("the streams are gone")?);
        }
        Ok(Arrived { last, bytes: self.seen.bytes.load(SeqCst), resources: self.seen.resources.load(SeqCst) })
    }

    /// The bodies of a type that the only stream was sent.
    pub(super) fn bodies(&self, kind: ResourceType) -> Vec<Bytes> {
        let bodies = self.seen.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.iter().filter(|(of, _)| *of == kind).map(|(_, body)| body.clone()).collect()
    }
}

async fn run(
    mut client: AggregatedDiscoveryServiceClient<Channel>,
    stream: usize,
    names: Vec<String>,
    variant: Variant,
    seen: &Seen,
    ready: mpsc::Sender<()>,
) -> Outcome {
    let node = Node {
        id: format!("client-{stream}"),
        user_agent_name: "mesh-client".to_owned(),
        ..Default::default()
    };
    match variant {
        Variant::Delta => {
            let (requests, receiver) = mpsc::channel(16);
            for (i, kind) in KINDS.into_iter().enumerate() {
                let request = DeltaDiscoveryRequest {
                    node: (i == 0).then(|| node.clone()),
                    type_url: kind.url().to_owned(),
                    resource_names_subscribe: names.clone(),
                    ..Default::default()
                };
                requests.send(request).await?;
            }
            let responses =
                client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
            let ack = |kind: ResourceType, received: &Received| DeltaDiscoveryRequest {
                type_url: kind.url().to_owned(),
                response_nonce: received.nonce.clone(),
                ..Default::default()
            };
            follow(responses, requests, ack, seen, ready).await
        }
        Variant::Sotw => {
            let (requests, receiver) = mpsc::channel(16);
            for (i, kind) in KINDS.into_iter().enumerate() {
                let request = DiscoveryRequest {
                    node: (i == 0).then(|| node.clone()),
                    type_url: kind.url().to_owned(),
                    resource_names: names.clone(),
                    ..Default::default()
                };
                requests.send(request).await?;
            }
            let responses =
                client.stream_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
            let ack = |kind: ResourceType, received: &Received| DiscoveryRequest {
                type_url: kind.url().to_owned(),
                version_info: received.version.clone(),
                response_nonce: received.nonce.clone(),
                resource_names: names.clone(),
                ..Default::default()
            };
            follow(responses, requests, ack, seen, ready).await
        }
    }
}

/// Answers and counts until the stream ends; has all when each type was answered once.
async fn follow<Q: Send + Sync + 'static, R: Into<Received>>(
    mut responses: impl Stream<Item = Result<R, tonic::Status>> + Unpin,
    requests: mpsc::Sender<Q>,
    ack: impl Fn(ResourceType, &Received) -> Q,
    seen: &Seen,
    ready: mpsc::Sender<()>,
) -> Outcome {
    let mut missing: Vec<ResourceType> = KINDS.into();
    let mut ready = Some(ready);
    while let Some(response) = responses.next().await {
        let received: Received = response?.into();
        let now = time(ClockId::Monotonic);
        let Some(kind) = received.kind else { return Err("a type that nobody asked for".into()) };
        requests.send(ack(kind, &received)).await?;
        seen.bytes.fetch_add(received.bytes, SeqCst);
        seen.resources.fetch_add(received.resources.len(), SeqCst);
        if seen.is_wanted(kind, &received) {
            seen.arrived.send(now)?;
        }
        if seen.keeps.load(SeqCst) {
            let mut bodies = seen.bodies.lock().unwrap_or_else(PoisonError::into_inner);
            bodies.extend(received.resources.into_iter().map(|(_, body)| (kind, body)));
        }
        missing.retain(|other| *other != kind);
        if missing.is_empty()
            && let Some(ready) = ready.take()
        {
            ready.send(()).await?;
        }
    }
    Err("the control plane ended the stream".into())
}

impl Seen {
    fn is_wanted(&self, kind: ResourceType, received: &Received) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, name)) = wanted.as_ref().filter(|(of, _)| *of == kind) else { return false };
        // Both messages begin with their name: field 1 or 2, its length, and the name.
        let is_of = |body: &Bytes| body.get(2..2 + name.len()).is_some_and(|begin| begin == name.as_bytes());
        received.resources.iter().any(|(named, body)| named == name || is_of(body))
    }
}
