//! The client against a control plane that the test plays itself, over connections in memory: it answers with any bytes,
//! and reads, or does not.

use super::{
    load::{Net, at},
    *,
};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use std::{
    convert::Infallible,
    future::{Ready, ready},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, codec::BufferSettings, server::NamedService};
use tonic_prost::ProstCodec;

/// One stream of the client.
pub(super) struct Peer<Q> {
    requests: Streaming<Q>,
    responses: mpsc::UnboundedSender<Frame<Bytes>>,
}

impl<Q: Message + Default + 'static> Peer<Q> {
    pub(super) async fn request(&mut self) -> Q {
        self.requests.message().await.unwrap().expect("the stream ended")
    }

    pub(super) fn send(&self, message: &[u8]) {
        self.responses.send(Frame::data(framed(message))).unwrap();
    }

    /// Ends the stream in good order, after these bytes.
    fn end(self, bytes: Bytes, status: Option<&'static str>) {
        self.responses.send(Frame::data(bytes)).unwrap();
        if let Some(status) = status {
            let status = http::HeaderValue::from_static(status);
            let trailers = [(http::HeaderName::from_static("grpc-status"), status)].into_iter().collect();
            self.responses.send(Frame::trailers(trailers)).unwrap();
        }
    }

    /// Until the client gives the stream up.
    async fn gone(mut self) {
        while let Ok(Some(_)) = self.requests.message().await {}
    }
}

/// A message as it stands in a stream.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// Hands out the streams of the clients.
struct Ads<Q>(mpsc::UnboundedSender<Peer<Q>>);

impl<Q> Clone for Ads<Q> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q> NamedService for Ads<Q> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<Q: Message + Default + 'static> tower_service::Service<http::Request<tonic::body::Body>> for Ads<Q> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let decoder = ProstCodec::<Q, Q>::raw_decoder(BufferSettings::default());
        let requests = Streaming::new_request(decoder, request.into_body(), None, Some(usize::MAX));
        let (responses, receiver) = mpsc::unbounded_channel();
        let frames = UnboundedReceiverStream::new(receiver).map(Ok::<_, Status>);
        let mut response = http::Response::new(tonic::body::Body::new(StreamBody::new(frames)));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let _ = self.0.send(Peer { requests, responses });
        ready(Ok(response))
    }
}

/// The streams that are opened to an address from now on.
pub(super) struct Peers<Q> {
    streams: mpsc::UnboundedReceiver<Peer<Q>>,
    _server: AbortOnDrop,
}

impl<Q: Message + Default + 'static> Peers<Q> {
    pub(super) fn listen(net: &Net, address: &str) -> Self {
        let (sender, streams) = mpsc::unbounded_channel();
        let serve = Server::builder().add_service(Ads(sender)).serve_with_incoming(net.listen(address));
        Self { streams, _server: AbortOnDrop(tokio::spawn(async move { serve.await.unwrap() })) }
    }

    pub(super) async fn next(&mut self) -> Peer<Q> {
        self.streams.recv().await.unwrap()
    }
}

pub(super) fn join(net: &Net, settings: ClientSettings) -> XdsClient {
    let bootstrap = Bootstrap::new(at("cp:1"), BootstrapNode { id: "me".into(), ..Default::default() });
    XdsClient::spawn_with(&bootstrap, Arc::new(net.clone()), settings)
}

/// What the control plane has of these resources, which are of one type.
pub(super) fn response(version: &str, resources: &[AnyResource]) -> Vec<u8> {
    let kind = resources[0].resource_type();
    let wrap =
        |resource: &AnyResource| proto::Any { type_url: kind.url().into(), value: resource.to_proto() };
    proto::DiscoveryResponse {
        version_info: version.into(),
        nonce: version.into(),
        type_url: kind.url().into(),
        resources: resources.iter().map(wrap).collect(),
        ..Default::default()
    }
    .encode_to_vec()
}

/// A response whose type is no text.
const GARBLED: &[u8] = b"\x22\x02\xff\xff";

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_read_after_good_ones_is_an_error_and_not_asked_for_in_a_loop() {
    let limit = 20_000;
    let large = vec![0; limit + 1];
    let cases = [
        (large.as_slice(), "found 20001 bytes, the limit is: 20000 bytes; raise max_response_bytes"),
        (GARBLED, "; this is a fault of the control plane"),
    ];
    for (bytes, text) in cases {
        let net = Net::default();
        let mut peers = Peers::<proto::DiscoveryRequest>::listen(&net, "cp:1");
        let client = join(&net, ClientSettings { max_response_bytes: limit, ..Default::default() });
        let mut watch = client.config("t", "t");
        let begun = tokio::time::Instant::now();
        for attempt in 0..8 {
            let mut peer = peers.next().await;
            peer.request().await;
            peer.send(&response("1", &[listener("t", "r")]));
            // The receipt, and then what it leads to.
            while peer.request().await.type_url != ResourceType::RouteConfiguration.url() {}
            if attempt > 0 {
                assert!(client.status().unreachable.is_some(), "it may come again");
            }
            peer.send(bytes);
            peer.gone().await;
            let error = watch.known().await.unwrap().unwrap_err().to_string();
            assert!(
                error.contains(text) && error.starts_with("RouteConfiguration r is not known"),
                "{error}"
            );
            assert!(client.status().unreachable.is_some_and(|why| why.contains(text)));
        }
        // As after failures: 1 s, 1.6 s and so on.
        assert!(begun.elapsed() > Duration::from_secs(30), "{:?}", begun.elapsed());

        let mut peer = peers.next().await;
        peer.send(&response("1", &[listener("t", "r")]));
        peer.request().await;
        peer.send(&response("1", &[routes("r", &[("t", &[])])]));
        while watch.known().await.unwrap().is_err() {
            watch.changed().await.unwrap();
        }
        assert_eq!(client.status().unreachable, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_within_a_message_is_a_failure_and_one_between_messages_is_not() {
    let routes = framed(&response("1", &[routes("r", &[("t", &[])])]));
    // With trailers, whatever they say; in the header, after it, and in the message. Without trailers it may be a reset.
    let places = [1, 4, 5, 6, routes.len() - 1];
    let cases = places.into_iter().flat_map(|at| [(at, None), (at, Some("0")), (at, Some("13"))]);
    for (at, status) in cases.chain([(0, None), (0, Some("0")), (0, Some("14"))]) {
        let net = Net::default();
        let mut peers = Peers::<proto::DiscoveryRequest>::listen(&net, "cp:1");
        let client = join(&net, ClientSettings::default());
        let mut watch = client.config("t", "t");
        let begun = tokio::time::Instant::now();
        for _ in 0..8 {
            let mut peer = peers.next().await;
            peer.request().await;
            peer.send(&response("1", &[listener("t", "r")]));
            while peer.request().await.type_url != ResourceType::RouteConfiguration.url() {}
            peer.end(routes.slice(..at), status);
            if at == 0 || status.is_none() {
                continue;
            }
            let error = watch.known().await.unwrap().unwrap_err().to_string();
            assert!(
                error.starts_with("RouteConfiguration r is not known")
                    && error.contains("ended the stream within a message"),
                "{at} {status:?}: {error}"
            );
        }
        drop(peers.next().await);
        if at > 0 && status.is_some() {
            assert!(begun.elapsed() > Duration::from_secs(30), "{at} {status:?}: {:?}", begun.elapsed());
        } else {
            assert!(begun.elapsed() < Duration::from_secs(12), "{status:?}: {:?}", begun.elapsed());
            assert_eq!(client.status().unreachable, None);
            assert!(watch.borrow().is_none());
        }
    }
}

/// The longest time from a moment on that a clock can say.
fn longest(from: Instant) -> Duration {
    let fits = |time: &Duration| from.checked_add(*time).is_some();
    let grow = |time: Duration, more: Duration| {
        time.checked_add(more).filter(|time| time.as_secs() <= i64::MAX as u64 && fits(time)).unwrap_or(time)
    };
    let whole = (0..63).rev().fold(Duration::ZERO, |time, bit| grow(time, Duration::from_secs(1 << bit)));
    (0..30).rev().fold(whole, |time, bit| grow(time, Duration::from_nanos(1 << bit)))
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_to_the_end_of_the_clock_ends_nobody() {
    let net = Net::default();
    let mut peers = Peers::<proto::DiscoveryRequest>::listen(&net, "cp:1");
    let client = join(&net, ClientSettings::default());
    let mut watch = client.config("t", "t");
    let mut peer = peers.next().await;
    peer.request().await;
    peer.send(&response("1", &[listener("t", "r")]));
    peer.send(&response("1", &[routes("r", &[("t", &[])])]));
    assert!(watch.known().await.unwrap().is_ok(), "nothing else is awaited");
    let url = ResourceType::Listener.url();
    let listener = proto::Any { type_url: url.into(), value: listener("t", "r").to_proto() };
    let end = longest(now());
    for early in [0, 100, 500_000, 999_999, 1_000_001].map(Duration::from_nanos) {
        let wrapper = proto::Resource {
            name: "t".into(),
            ttl: Some((end - early).try_into().unwrap()),
            resource: Some(listener.clone()),
            ..Default::default()
        };
        let type_url = "type.googleapis.com/envoy.service.discovery.v3.Resource".into();
        let response = proto::DiscoveryResponse {
            version_info: "1".into(),
            nonce: format!("{early:?}"),
            type_url: url.into(),
            resources: vec![proto::Any { type_url, value: wrapper.encode_to_vec().into() }],
            ..Default::default()
        };
        peer.send(&response.encode_to_vec());
        while peer.request().await.response_nonce != response.nonce {}
    }
    watch.borrow_and_update();
    peer.send(&response("2", &[routes("r", &[("t", &[]), ("u", &[])])]));
    watch.changed().await.expect("the client runs");
    assert!(client.is_running());
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_does_not_read_is_read_and_told_the_newest_at_last() {
    let net = Net::default();
    let mut peers = Peers::<proto::DiscoveryRequest>::listen(&net, "cp:1");
    let client = join(&net, ClientSettings::default());
    let mut known = client.server_config("s");
    let mut peer = peers.next().await;
    peer.request().await;
    // More than the transport takes, and then one change after the other.
    let name = |i: u32| format!("{i}{}", "x".repeat(1000));
    let mut watches: Vec<_> = (0..2000).map(|i| client.server_config(&name(i))).collect();
    for i in 2000..2020 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        watches.push(client.server_config(&name(i)));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let absent = |version: &str| {
        proto::DiscoveryResponse {
            version_info: version.into(),
            nonce: version.into(),
            type_url: ResourceType::Listener.url().into(),
            resource_errors: vec![proto::ResourceError {
                resource_name: Some(proto::ResourceName { name: "s".into() }),
                error_detail: Some(proto::Status { code: 5, message: "no such".into() }),
            }],
            ..Default::default()
        }
        .encode_to_vec()
    };
    peer.send(&absent("1"));
    let told = tokio::time::timeout(Duration::from_secs(1), known.known()).await;
    let error = told.expect("it is read").unwrap().unwrap_err();
    assert!(error.to_string().contains("no such"), "{error}");
    let mut requests = 1;
    while peer.request().await.resource_names.len() < 2021 {
        requests += 1;
    }
    assert!(requests < 10, "{requests} requests");
    peer.send(&absent("2"));
    while peer.request().await.response_nonce != "2" {}
}

#[test]
fn a_control_plane_that_always_has_something_to_say_keeps_nobody_from_being_heard() {
    let all = ["one:1", "two:1", "three:1"].map(|address| {
        let mut one = Conversation::new(at(address), Arc::new(Net::default()));
        let responses = futures_util::stream::repeat_with(|| Ok(Response::Sotw(Default::default())));
        one.link = Link::Open { responses: responses.boxed(), told: true };
        one
    });
    let mut conversations = Conversations { all: all.into(), first: 0 };
    let heard = std::array::from_fn(|_| conversations.next().now_or_never().unwrap().0);
    assert_eq!(heard, [0, 1, 2, 0, 1, 2, 0]);
}

/// Its SETTINGS may leave no room for a request, and then the transport asks for none.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_answered_before_it_takes_a_request_is_open() {
    let (_signal, opened) = oneshot::channel();
    let responses: Responses = stream::iter([Ok(Response::Sotw(Default::default()))]).boxed();
    let mut link = Link::Opening {
        responses: std::future::ready(Ok(responses)).boxed(),
        opened: Some(opened),
        give_up: Box::pin(tokio::time::sleep(Duration::from_secs(10))),
    };
    let server = at("cp:1");
    assert!(matches!(link.next(&server).await, Input::Opened));
    assert!(matches!(link.next(&server).await, Input::Established));
    assert!(matches!(link.next(&server).await, Input::Response(_)));
    assert!(matches!(link.next(&server).await, Input::Closed(_)));
}

/// Connections never come about.
struct Nowhere;

impl tower_service::Service<http::Uri> for Nowhere {
    type Response = hyper_util::rt::TokioIo<tokio::io::DuplexStream>;
    type Error = std::io::Error;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        std::future::pending()
    }
}

impl Connector for Nowhere {
    fn connect(&self, _: &ServerConfig) -> Result<Channel, String> {
        Ok(Endpoint::from_static("http://nowhere").connect_with_connector_lazy(Self))
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_about_in_time_has_failed() {
    let bootstrap = Bootstrap::new(at("cp:1"), BootstrapNode { id: "me".into(), ..Default::default() });
    let connect_timeout = Duration::from_secs(3);
    let settings = ClientSettings { connect_timeout, ..Default::default() };
    let client = XdsClient::spawn_with(&bootstrap, Arc::new(Nowhere), settings);
    let begun = tokio::time::Instant::now();
    let mut watch = client.config("t", "t");
    let known = tokio::time::timeout(2 * connect_timeout, watch.known()).await;
    let error = known.expect("it is given up").unwrap().unwrap_err().to_string();
    assert!(error.contains("cp:1: no connection in time"), "{error}");
    assert!(begun.elapsed() >= connect_timeout);
}
