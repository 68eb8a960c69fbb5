//! The service over loopback: bad requests, slow readers, turns, the end of credentials.

use super::*;
use crate::{
    name::{Name, ResourceType},
    proto::{
        self, DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    server::{
        Encoded,
        testing::{Toys, in_memory},
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use std::sync::atomic::AtomicUsize;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant as Moment, sleep, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code,
    client::GrpcService,
    transport::{Channel, Endpoint, Server},
};

const EDS: ResourceType = ResourceType::ClusterLoadAssignment;
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

struct Source {
    view: Mutex<Arc<dyn View>>,
    changes: watch::Sender<u64>,
    lifetime: Option<Duration>,
    account: String,
}

impl Source {
    fn of(view: Arc<dyn View>) -> Self {
        Self {
            view: Mutex::new(view),
            changes: watch::Sender::new(0),
            lifetime: None,
            account: String::new(),
        }
    }

    fn toys() -> Self {
        Self::of(Toys::of(1, &[(EDS, "a", "1")]))
    }

    fn publish(&self, view: Arc<dyn View>) {
        *lock(&self.view) = view;
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Views for Source {
    type Peer = ();

    fn authenticate(&self, _: &http::Extensions, _: &tonic::metadata::MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn view(&self, (): &(), _: &Node) -> Result<Arc<dyn View>, Status> {
        Ok(lock(&self.view).clone())
    }

    fn account(&self, (): &()) -> String {
        self.account.clone()
    }

    fn lifetime(&self, (): &()) -> Option<Duration> {
        self.lifetime
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A service at work, and a connection to it.
struct World {
    ads: AdsService<Source>,
    channel: Channel,
}

impl World {
    async fn new(source: Source, settings: AdsSettings) -> Self {
        let ads = AdsService::new(Arc::new(source), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Server::builder().add_service(ads.service());
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self { ads, channel }
    }

    /// In memory.
    fn in_memory(source: Source, settings: AdsSettings) -> Self {
        let ads = AdsService::new(Arc::new(source), settings);
        let channel = in_memory(Server::builder().add_service(ads.service()));
        Self { ads, channel }
    }

    /// A stream whose first request, if there is one, was made.
    async fn open(&self, first: Option<DeltaDiscoveryRequest>) -> Result<Client, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone());
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
        if let Some(first) = first {
            requests.send(first).await.unwrap();
        }
        Ok(Client { requests, responses })
    }

    /// Sends bytes as they are; the status, in whatever way it comes.
    async fn raw(&self, body: Vec<u8>) -> (i32, String) {
        let request = http::Request::post(METHOD)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(Full::new(Bytes::from(body))))
            .unwrap();
        let mut channel = self.channel.clone();
        std::future::poll_fn(|cx| GrpcService::<tonic::body::Body>::poll_ready(&mut channel, cx))
            .await
            .unwrap();
        let response = GrpcService::call(&mut channel, request).await.unwrap();
        let (parts, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let headers = trailers.unwrap_or(parts.headers);
        let text = headers.get("grpc-message").map_or("", |value| value.to_str().unwrap());
        let text = percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        (headers["grpc-status"].to_str().unwrap().parse().unwrap(), text)
    }
}

const ACCOUNT: &str = "spiffe://d/ns/a/sa/b";

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn next(&mut self) -> DeltaDiscoveryResponse {
        self.responses.message().await.unwrap().expect("the stream goes on")
    }

    async fn ack(&self, response: &DeltaDiscoveryResponse) {
        let response_nonce = response.nonce.clone();
        let ack = DeltaDiscoveryRequest { type_url: EDS.url().into(), response_nonce, ..Default::default() };
        self.requests.send(ack).await.unwrap();
    }

    async fn fails(mut self) -> Status {
        loop {
            match self.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if nothing were wrong"),
                Err(status) => return status,
            }
        }
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(proto::Node { id: "me".into(), ..Default::default() }),
        type_url: EDS.url().into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

/// A gRPC message: not compressed, and as long as it says.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

#[tokio::test]
async fn bad_requests_end_their_stream_with_the_reason_and_no_other() {
    let settings = AdsSettings { max_request_bytes: 4 << 20, ..AdsSettings::default() };
    let world = World::new(Source::toys(), settings).await;
    let mut neighbour = world.open(Some(subscribe(&["a"]))).await.unwrap();
    let response = neighbour.next().await;
    neighbour.ack(&response).await;

    let good = subscribe(&["a"]).encode_to_vec();
    // Field 3 (names) as a string of one byte that is no UTF-8.
    let no_text = [&good[..], &[3 << 3 | 2, 1, 0xff]].concat();
    let mut truncated = framed(&good);
    truncated.truncate(truncated.len() - 3);
    let nameless = DeltaDiscoveryRequest { node: None, ..subscribe(&["a"]) }.encode_to_vec();
    let many: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let dropping = DeltaDiscoveryRequest {
        resource_names_unsubscribe: subscribe(&many).resource_names_subscribe,
        ..subscribe(&[])
    };
    let fat = proto::Node { id: "n".repeat(300 << 10), ..Default::default() };
    let fat = DeltaDiscoveryRequest { node: Some(fat), ..subscribe(&[]) };
    let (invalid, exhausted) = (Code::InvalidArgument, Code::ResourceExhausted);
    let cases = [
        ("no UTF-8", framed(&no_text), invalid, "not a discovery request"),
        ("no protobuf", framed(&[0xff; 16]), invalid, "not a discovery request"),
        ("truncated", truncated, invalid, "ended within a request"),
        ("no node", framed(&nameless), invalid, "must name its node"),
        ("too large", framed(&vec![0; (4 << 20) + 1]), exhausted, "the limit of 4194304 (max_request_bytes)"),
        ("too many names", framed(&subscribe(&many).encode_to_vec()), exhausted, "the limit of 10000"),
        ("too many to drop", framed(&dropping.encode_to_vec()), exhausted, "the limit of 10000"),
        (
            "a long name",
            framed(&subscribe(&[&"x".repeat(3000)]).encode_to_vec()),
            invalid,
            "the limit of 2048",
        ),
        ("a fat node", framed(&fat.encode_to_vec()), exhausted, "the limit of 262144"),
    ];
    for (what, body, code, text) in cases {
        let (status, message) = world.raw(body).await;
        assert_eq!(Code::from(status), code, "{what}: {message}");
        assert!(message.contains(text), "{what}: {message}");
    }
    // The same after a first request that was good.
    let (status, message) = world.raw([framed(&good), framed(&no_text)].concat()).await;
    assert_eq!(Code::from(status), invalid, "{message}");

    world.ads.shared.views.publish(Toys::of(2, &[(EDS, "a", "2")]));
    assert_eq!(neighbour.next().await.system_version_info, "r2", "the neighbour is served as before");
    assert_eq!(world.ads.stream_count(), 1, "nothing is left of the others");
}

#[tokio::test]
async fn duplicate_names_are_one_subscription() {
    let world = World::new(Source::toys(), AdsSettings::default()).await;
    let mut client = world.open(Some(subscribe(&["a", "a", "a"]))).await.unwrap();
    assert_eq!(client.next().await.resources.len(), 1);
    assert_eq!(world.ads.streams()[0].types[0].names, ["a".into()]);
}

/// A large resource that counts how many of it are alive.
struct Large {
    revision: u64,
    encoded: Arc<Encoded>,
    /// Otherwise it is made for each stream.
    is_shared: bool,
}

struct Body(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Large {
    fn of(revision: u64, alive: &Arc<AtomicUsize>) -> Arc<dyn View> {
        Self::sized(256 << 10, revision, alive)
    }

    /// Of so many bytes.
    fn sized(size: usize, revision: u64, alive: &Arc<AtomicUsize>) -> Arc<dyn View> {
        alive.fetch_add(1, Ordering::SeqCst);
        let body = Bytes::from_owner(Body(vec![0; size], alive.clone()));
        let encoded = Encoded { name: "a".into(), version: revision.to_string().into(), body };
        Arc::new(Self { revision, encoded: Arc::new(encoded), is_shared: true })
    }
}

impl View for Large {
    fn revision(&self) -> Arc<str> {
        self.revision.to_string().into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        (kind == EDS && name == "a").then(|| self.encoded.clone())
    }

    fn is_shared(&self, _: ResourceType, _: &str) -> bool {
        self.is_shared
    }

    fn names(&self, _: ResourceType) -> Vec<Name> {
        vec!["a".into()]
    }
}

#[tokio::test]
async fn what_is_made_for_a_stream_alone_counts_to_its_client() {
    for (is_shared, expected) in [(true, 5), (false, 2)] {
        let encoded = Encoded { name: "a".into(), version: "1".into(), body: vec![0; 256 << 10].into() };
        let view = Large { revision: 1, encoded: Arc::new(encoded), is_shared };
        let settings = AdsSettings { max_kept_bytes: 600 << 10, ..AdsSettings::default() };
        let world = World::new(Source::of(Arc::new(view)), settings).await;
        let (mut served, mut clients) = (0, Vec::new());
        for _ in 0..5 {
            let mut client = world.open(Some(subscribe(&["a"]))).await.unwrap();
            match client.responses.message().await {
                Ok(_) => served += 1,
                Err(status) => assert!(status.message().contains("max_kept_bytes"), "{status}"),
            }
            clients.push(client);
        }
        assert_eq!(served, expected);
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_one_response_and_then_gets_the_latest() {
    let alive = Arc::new(AtomicUsize::new(0));
    let world = World::new(Source::of(Large::of(1, &alive)), AdsSettings::default()).await;
    // More than its window takes, so the server cannot even write the first one out.
    let mut slow = world.open(Some(subscribe(&["a"]))).await.unwrap();
    let mut quick = world.open(Some(subscribe(&["a"]))).await.unwrap();
    let first = quick.next().await;
    quick.ack(&first).await;
    for revision in 2..=1000 {
        world.ads.shared.views.publish(Large::of(revision, &alive));
        if revision % 10 == 0 {
            // The quick one follows meanwhile; so the server had its chance to pile up for the slow one.
            loop {
                let response = quick.next().await;
                quick.ack(&response).await;
                if response.system_version_info == revision.to_string() {
                    break;
                }
            }
            assert!(alive.load(Ordering::SeqCst) <= 8, "{} responses are kept", alive.load(Ordering::SeqCst));
        }
    }
    let first = slow.next().await;
    assert_eq!(first.system_version_info, "1");
    slow.ack(&first).await;
    assert_eq!(slow.next().await.system_version_info, "1000", "nothing between");
}

/// Waits until a stream is over.
async fn gone(events: &mut broadcast::Receiver<StreamEvent>) {
    let gone = async { while !matches!(events.recv().await.unwrap(), StreamEvent::Gone { .. }) {} };
    timeout(Duration::from_secs(24 * 3600), gone).await.expect("a stream ends");
}

const MINUTE: Duration = Duration::from_secs(60);

/// A stream of a client that has read nothing, and is to get more than fits: the transport has taken one response more,
/// and asks for none after that.
async fn blocked(lifetime: Option<Duration>, max_age: Option<Duration>) -> (World, Client) {
    let source = Source { lifetime, ..Source::of(Large::sized(3 << 20, 1, &Arc::default())) };
    let world = World::in_memory(source, AdsSettings { max_age, max_streams: 1, ..AdsSettings::default() });
    let client = world.open(Some(subscribe(&["a"]))).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    client.ack(&DeltaDiscoveryResponse { nonce: "1".into(), ..Default::default() }).await;
    world.ads.shared.views.publish(Large::sized(3 << 20, 2, &Arc::default()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.ads.stream_count(), 1);
    (world, client)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_keeps_its_place_no_longer_than_others() {
    for (what, lifetime, max_age) in [
        ("its certificate ends", Some(MINUTE), None),
        ("it is old", None, Some(MINUTE)),
        ("the service is closed", None, None),
    ] {
        let (world, client) = blocked(lifetime, max_age).await;
        let begun = Moment::now();
        let mut events = world.ads.events();
        if lifetime.or(max_age).is_none() {
            world.ads.close();
        }
        gone(&mut events).await;
        assert!(begun.elapsed() < 2 * MINUTE, "{what}: after {:?}", begun.elapsed());
        assert_eq!(world.ads.stream_count(), 0, "{what}");
        assert!(world.ads.shared.places.take("").is_ok(), "{what}: its place is free");
        if lifetime.is_some() {
            assert_eq!(client.fails().await.code(), Code::Unauthenticated, "it is told when it reads");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_a_client_that_does_not_read_are_read() {
    let (world, client) = blocked(None, None).await;
    let mut events = world.ads.events();
    client.requests.send(subscribe(&[&"x".repeat(3000)])).await.unwrap();
    gone(&mut events).await;
    let status = client.fails().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("the limit of 2048"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_what_it_has_not_read_makes_nothing_pile_up() {
    let alive = Arc::new(AtomicUsize::new(0));
    let world = World::in_memory(Source::of(Large::of(1, &alive)), AdsSettings::default());
    let mut client = world.open(Some(subscribe(&["a"]))).await.unwrap();
    for guess in 1..100_u64 {
        sleep(Duration::from_secs(1)).await;
        client.ack(&DeltaDiscoveryResponse { nonce: guess.to_string(), ..Default::default() }).await;
        world.ads.shared.views.publish(Large::of(guess + 1, &alive));
    }
    sleep(Duration::from_secs(1)).await;
    assert!(alive.load(Ordering::SeqCst) <= 8, "{} responses are kept", alive.load(Ordering::SeqCst));
    // It is served as soon as it reads, and up to date in the end.
    let mut last = client.next().await;
    while last.system_version_info != "100" {
        last = client.next().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_said_all_is_still_answered() {
    let world = World::in_memory(Source::of(Large::of(1, &Arc::default())), AdsSettings::default());
    let Client { requests, mut responses } = world.open(Some(subscribe(&["a"]))).await.unwrap();
    drop(requests);
    sleep(MINUTE).await;
    assert_eq!(responses.message().await.unwrap().unwrap().resources.len(), 1);
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_their_age_and_not_all_at_once() {
    let hour = Duration::from_secs(3600);
    let world =
        World::in_memory(Source::toys(), AdsSettings { max_age: Some(hour), ..AdsSettings::default() });
    let mut events = world.ads.events();
    let begun = Moment::now();
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(world.open(Some(subscribe(&["a"]))).await.unwrap());
    }
    let mut ages = Vec::new();
    while ages.len() < clients.len() {
        gone(&mut events).await;
        ages.push(begun.elapsed().as_secs());
    }
    // Half of the range, which 32 streams do not miss once in a million times.
    let (first, last) = (ages[0], ages[ages.len() - 1]);
    assert!(first >= 3240 && last <= 3960 + 1, "{ages:?}");
    assert!(last - first > 360, "{ages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_is_ended() {
    let first_request_timeout = Duration::from_secs(7);
    let settings = AdsSettings { first_request_timeout, max_streams: 1, ..AdsSettings::default() };
    let world = World::in_memory(Source::toys(), settings);
    let silent = world.open(None).await.unwrap();
    let begun = Moment::now();
    let status = timeout(MINUTE, silent.fails()).await.expect("it ends");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("must name the node"), "{status}");
    assert_eq!(begun.elapsed().as_secs(), 7);
    world.open(Some(subscribe(&["a"]))).await.unwrap().next().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_credentials_it_was_opened_with() {
    let source = Source { lifetime: Some(Duration::ZERO), ..Source::toys() };
    let world = World::new(source, AdsSettings::default()).await;
    let status = world.open(Some(subscribe(&["a"]))).await.unwrap().fails().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("has expired"), "{status}");
}

#[tokio::test]
async fn streams_get_their_first_configuration_in_turn() {
    let hour = Duration::from_secs(3600);
    let settings =
        AdsSettings { max_starting: 1, start_time: hour, admission_timeout: hour, ..AdsSettings::default() };
    let world = World::new(Source::toys(), settings).await;
    let mut first = world.open(Some(subscribe(&["a"]))).await.unwrap();
    let response = first.next().await;
    let mut second = world.open(Some(subscribe(&["a"]))).await.unwrap();
    let third = world.open(Some(subscribe(&["a"]))).await.unwrap();
    assert_eq!(world.ads.stream_count(), 1, "the others wait");
    first.ack(&response).await;
    second.next().await;
    drop(third);
    // One that leaves without an answer gives its turn up as well.
    drop(second);
    world.open(Some(subscribe(&["a"]))).await.unwrap().next().await;
}

#[tokio::test]
async fn a_turn_ends_with_its_time_though_nobody_answers() {
    let settings = AdsSettings { max_starting: 1, start_time: Duration::ZERO, ..AdsSettings::default() };
    let world = World::new(Source::toys(), settings).await;
    let mut first = world.open(Some(subscribe(&["a"]))).await.unwrap();
    first.next().await;
    world.open(Some(subscribe(&["a"]))).await.unwrap().next().await;
}

#[tokio::test]
async fn a_stream_whose_turn_does_not_come_is_told_to_come_back() {
    let settings = AdsSettings {
        max_starting: 1,
        start_time: Duration::from_secs(3600),
        admission_timeout: Duration::ZERO,
        ..AdsSettings::default()
    };
    let world = World::new(Source::toys(), settings).await;
    let mut first = world.open(Some(subscribe(&["a"]))).await.unwrap();
    first.next().await;
    let status = world.open(Some(subscribe(&["a"]))).await.unwrap().fails().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("try again"), "{status}");
}

#[tokio::test]
async fn streams_that_have_said_nothing_yet_count_as_well() {
    let world = World::new(Source::toys(), AdsSettings { max_streams: 1, ..AdsSettings::default() }).await;
    let _silent = world.open(None).await.unwrap();
    let status = world.open(None).await.err().expect("it fails");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("its limit of 1 streams"), "{status}");
}

#[tokio::test]
async fn credentials_end_before_the_first_request_and_while_a_stream_waits_for_its_turn() {
    let hour = Duration::from_secs(3600);
    let settings = AdsSettings {
        max_starting: 1,
        first_request_timeout: hour,
        admission_timeout: hour,
        ..AdsSettings::default()
    };
    let source = Source { lifetime: Some(Duration::ZERO), ..Source::toys() };
    let world = World::new(source, settings).await;
    let _turn = world.ads.shared.turns.take("").await;
    for first in [None, Some(subscribe(&["a"]))] {
        let status = world.open(first).await.unwrap().fails().await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
}

#[tokio::test]
async fn what_clients_have_kept_is_bounded_in_all_and_for_each_peer() {
    let name = "x".repeat(2_000);
    let known = Source { account: ACCOUNT.into(), ..Source::toys() };
    let cases = [
        (known, 10_000, "not for a peer of which it keeps as much"),
        (Source::toys(), 8_500, "keeps its limit of 8500 bytes"),
    ];
    for (source, max_kept_bytes, text) in cases {
        let settings = AdsSettings { max_kept_bytes, ..AdsSettings::default() };
        let world = World::new(source, settings).await;
        let mut first = world.open(Some(subscribe(&["a", &name]))).await.unwrap();
        let response = first.next().await;
        let status = world.open(Some(subscribe(&["b", &name]))).await.unwrap().fails().await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(text) && status.message().contains("max_kept_bytes"), "{status}");
        // Who was there goes on, and what it lets go is there for others.
        first.ack(&response).await;
        let other =
            DeltaDiscoveryRequest { resource_names_unsubscribe: vec![name.clone()], ..subscribe(&["c"]) };
        first.requests.send(other).await.unwrap();
        first.next().await;
        world.open(Some(subscribe(&["b", &name]))).await.unwrap().next().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_fills_a_part_and_whoever_waits_for_it_is_told() {
    let alive = Arc::new(AtomicUsize::new(0));
    let settings = AdsSettings { max_unsent_bytes: 520 << 10, ..AdsSettings::default() };
    let source = Source { account: ACCOUNT.into(), ..Source::of(Large::of(1, &alive)) };
    let world = World::in_memory(source, settings);
    // One response is more than a window, so the connection keeps it.
    let mut first = world.open(Some(subscribe(&["a"]))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = world.open(Some(subscribe(&["a"]))).await.unwrap().fails().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("stuck") && status.message().contains("max_unsent_bytes"), "{status}");
    assert_eq!(first.next().await.resources.len(), 1);
    let mut second = world.open(Some(subscribe(&["a"]))).await.unwrap();
    assert_eq!(second.next().await.resources.len(), 1);
}

#[tokio::test]
async fn one_peer_does_not_take_the_places_of_the_others() {
    let settings = AdsSettings { max_streams: 4, ..AdsSettings::default() };
    let world = World::new(Source { account: ACCOUNT.into(), ..Source::toys() }, settings).await;
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(world.open(None).await.unwrap());
    }
    let status = world.open(None).await.err().expect("it fails");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("not for a peer that has as many"), "{status}");
}

/// What the log says, by event: its texts.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line += &format!("{field}={value:?} ");
        });
        lock(&self.0).push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn rejections_without_end_are_a_line_a_minute_in_the_log() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let world = World::in_memory(Source::toys(), AdsSettings::default());
    let mut client = world.open(Some(subscribe(&["a"]))).await.unwrap();
    let mut events = world.ads.events();
    let text = "no ".repeat(2_000);
    let mut reject = async |revision: u64| {
        let response = client.next().await;
        let error_detail = Some(proto::Status { message: text.clone(), ..Default::default() });
        let nack = DeltaDiscoveryRequest {
            type_url: EDS.url().into(),
            response_nonce: response.nonce,
            error_detail,
            ..Default::default()
        };
        client.requests.send(nack).await.unwrap();
        while !matches!(events.recv().await.unwrap(), StreamEvent::Rejected { .. }) {}
        world.ads.shared.views.publish(Toys::of(revision, &[(EDS, "a", &revision.to_string())]));
    };
    for revision in 2..102 {
        reject(revision).await;
    }
    let lines = lock(&log.0).clone();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("rejected a response") && lines[0].contains("text=no no"), "{lines:?}");
    assert!(lines[0].len() < 700, "{lines:?}");
    let nack = world.ads.streams()[0].types[0].last_nack.clone().unwrap();
    assert_eq!(nack.text.len(), text.len(), "the status has all of it");

    sleep(MINUTE).await;
    reject(102).await;
    let lines = lock(&log.0).clone();
    assert!(lines.len() == 2 && lines[1].contains("others=99"), "{lines:?}");
}
