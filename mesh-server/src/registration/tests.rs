//! A registration and the certificate that it was made with.

use super::*;
use crate::{
    app::connection::{self, Ages},
    compile::{Mesh, fixture},
    source::Loaded,
};
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use mesh_ca::{
    certificate::PeerCertificate,
    issuer::{Authority, PeerInfo},
};
use std::io;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    client::Grpc,
    service::{Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server, server::Router},
};

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

/// Any certificate, with the names and times of these tests.
fn certificate(not_after: SystemTime) -> PeerCertificate {
    let authority = Authority::in_memory(&trust_domain()).unwrap();
    let mut certificate = PeerCertificate::from_der(&authority.bundle().roots().certificates()[0]).unwrap();
    certificate.spiffe_id = Some(SpiffeId::parse("spiffe://cluster.local/ns/default/sa/reviews").unwrap());
    certificate.not_after = not_after;
    certificate
}

/// The service of callers that all have one certificate, good until `not_after`, and one connection.
fn service(registry: &Registry, clock: Clock, not_after: SystemTime, grace: Grace) -> Router {
    let certificate = certificate(not_after);
    let service = registry.service(trust_domain(), clock, AnonymousPeers::Refused);
    let service = InterceptedService::new(service, move |mut request: Request<()>| {
        let peer = PeerInfo { certificate: Some(certificate.clone()), address: None };
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(grace.clone());
        Ok(request)
    });
    Server::builder().add_service(service)
}

/// A registry whose callers all have one certificate, good until `not_after`.
async fn serve(registry: &Registry, clock: Clock, not_after: SystemTime) -> Channel {
    serve_until(registry, clock, not_after, Grace::default()).await
}

/// The same, over a connection that may reach its age.
async fn serve_until(registry: &Registry, clock: Clock, not_after: SystemTime, grace: Grace) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = service(registry, clock, not_after, grace);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// A connection in memory, so that the clock may stand still; of a stream that is not read it takes so many bytes.
fn in_memory(router: Router, window: u32) -> Channel {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let connections = stream::iter([Ok::<_, io::Error>(theirs)]).chain(stream::pending());
    tokio::spawn(router.serve_with_incoming(connections));
    let mut ours = Some(TokioIo::new(ours));
    let dial = tower::service_fn(move |_: http::Uri| {
        std::future::ready(ours.take().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused)))
    });
    let endpoint = Endpoint::from_static("http://in-memory").initial_stream_window_size(window);
    endpoint.connect_with_connector_lazy(dial)
}

/// Nobody of the account may change anything for now.
fn tire(registry: &Registry) {
    let account = "spiffe://cluster.local/ns/default/sa/reviews";
    while registry.pace.turn(account, tokio::time::Instant::now()).is_some() {}
}

async fn register(channel: Channel) -> (mpsc::Sender<RegisterRequest>, Streaming<RegisterResponse>) {
    let (requests, mut responses) = open(channel).await;
    responses.message().await.unwrap().unwrap();
    (requests, responses)
}

/// Asks to be registered.
async fn open(channel: Channel) -> (mpsc::Sender<RegisterRequest>, Streaming<RegisterResponse>) {
    let (requests, receiver) = mpsc::channel(1);
    let workload = proto::Workload {
        name: "reviews".into(),
        address: "10.0.0.1".into(),
        ports: [("grpc".to_owned(), 9080)].into(),
        ..Default::default()
    };
    let request = RegisterRequest { workload: Some(workload), ..Default::default() };
    requests.send(request).await.unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/mesh.v1.WorkloadRegistration/Register");
    let codec = tonic_prost::ProstCodec::<RegisterRequest, RegisterResponse>::default();
    let responses = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, codec).await;
    (requests, responses.unwrap().into_inner())
}

fn registry() -> Registry {
    let mesh =
        Mesh { trust_domain: "cluster.local".into(), trust_domain_aliases: Vec::new(), load_reports: false };
    let config = fixture::world(fixture::MESH, "").model.config;
    Registry::new(Publisher::new(mesh, &Loaded { config, ..Loaded::default() }))
}

#[tokio::test]
async fn a_stream_that_changes_without_end_is_ended_and_its_entry_goes() {
    let registry = registry();
    let hour = Duration::from_secs(3600);
    let channel = serve(&registry, Clock::system(), SystemTime::now() + hour).await;
    let (requests, mut responses) = register(channel).await;
    tokio::spawn(async move {
        for _ in 0..500 {
            let request = RegisterRequest { health: proto::Health::Healthy.into(), ..Default::default() };
            if requests.send(request).await.is_err() {
                return;
            }
        }
    });
    let status = loop {
        match responses.message().await {
            Ok(answer) => assert!(answer.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("the limit of 5 a second"), "{status}");
    assert!(registry.publisher.current().model.workloads.is_empty());
}

#[tokio::test]
async fn a_stream_ends_with_its_certificate_and_the_entry_waits_for_the_next_one() {
    let registry = registry();
    let publisher = registry.publisher.clone();
    let registered = || publisher.current().model.workloads.len();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let (clock, hand) = Clock::manual(start);
    let hour = Duration::from_secs(3600);
    let old = serve(&registry, clock.clone(), start + hour).await;
    let new = serve(&registry, clock, start + 10 * hour).await;

    let (_requests, mut responses) = register(old).await;
    hand.set(start + 2 * hour);
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    assert!(status.message().contains("has expired"), "{status}");
    assert_eq!(registered(), 1, "the workload is there");

    let (requests, responses) = register(new).await;
    // What is left of the old stream does not take the entry from the new one.
    let owner = registry.owners().0;
    let entry = publisher.current().model.workloads.iter().next().unwrap().as_ref().clone();
    registry.remove(entry.clone(), owner - 1);
    assert_eq!(registered(), 1);
    drop((requests, responses));
    registry.remove(entry, owner);
    assert_eq!(registered(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_is_no_change_of_its_account() {
    let registry = registry();
    let channel = in_memory(
        service(&registry, Clock::system(), SystemTime::now() + HOUR, Grace::default()),
        u16::MAX.into(),
    );
    let (requests, mut responses) = register(channel.clone()).await;
    tire(&registry);
    requests.send(RegisterRequest::default()).await.unwrap();
    assert!(responses.message().await.unwrap().is_some(), "it is as healthy as before");
    let (_again, _responses) = register(channel.clone()).await;
    let drains = RegisterRequest { health: proto::Health::Draining.into(), ..RegisterRequest::default() };
    requests.send(drains).await.unwrap();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("changes its workloads so often"), "{status}");
}

/// Registers in a client that takes no answers, says that it is there some more times, and lets this happen.
async fn unread_until<F: Future>(
    registry: &Registry,
    lifetime: Duration,
    more: usize,
    happens: impl FnOnce() -> F,
) {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let router = service(registry, Clock::tokio(start), start + lifetime, Grace::default());
    let (requests, _responses) = open(in_memory(router, 0)).await;
    until(registry, |awaited| awaited == Some(false)).await;
    // As many as fit somewhere.
    for _ in 0..more {
        let again = requests.send(RegisterRequest::default());
        drop(tokio::time::timeout(Duration::from_secs(1), again).await);
    }
    happens().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answers_is_there_no_longer_than_its_certificate() {
    for more in [0, 10] {
        let registry = Registry { places: Places::new(1), ..registry() };
        unread_until(&registry, HOUR, more, || async {
            let registered = || registry.publisher.current().model.workloads.len();
            tokio::time::sleep(HOUR - Duration::from_secs(60)).await;
            assert_eq!((registered(), registry.places.take("a").is_ok()), (1, false), "{more}");
            tokio::time::sleep(Duration::from_secs(60) + RENEWAL + Duration::from_secs(1)).await;
            assert_eq!((registered(), registry.places.take("a").is_ok()), (0, true), "{more}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answers_is_let_go_at_shutdown() {
    for more in [0, 10] {
        let registry = Registry { places: Places::new(1), ..registry() };
        unread_until(&registry, HOUR, more, || async {
            registry.close();
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(registry.places.take("a").is_ok(), "{more}");
            assert_eq!(registry.publisher.current().model.workloads.len(), 1, "the workload is there");
        })
        .await;
    }
}

/// Waits for what becomes of an entry that had one stream.
async fn until(registry: &Registry, what: impl Fn(Option<bool>) -> bool) {
    loop {
        let awaited = registry.owners().1.values().next().map(Owner::is_awaited);
        if what(awaited) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_with_its_connections_age_takes_no_endpoint_away() {
    let registry = registry();
    let registered = || registry.publisher.current().model.workloads.len();
    let hour = SystemTime::now() + Duration::from_secs(3600);
    let short = Duration::from_millis(20);
    let ages = Ages::new(Some(short), short);
    let peer = PeerInfo { certificate: Some(certificate(hour)), address: None };
    let service = registry.service(trust_domain(), Clock::system(), AnonymousPeers::Refused);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let io = listener.accept().await.unwrap().0;
        connection::serve(io, peer, Routes::new(service), ages, stopped).await;
    });
    let aging = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let (_requests, mut responses) = register(aging).await;
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    until(&registry, |awaited| awaited != Some(false)).await;
    assert_eq!(registered(), 1, "its workload is there");

    let (requests, mut responses) = register(serve(&registry, Clock::system(), hour).await).await;
    until(&registry, |awaited| awaited == Some(false)).await;
    drop(requests);
    assert!(responses.message().await.unwrap().is_none());
    until(&registry, |awaited| awaited.is_none()).await;
    assert_eq!(registered(), 0);
}

#[tokio::test]
async fn a_workload_that_says_it_goes_is_gone_though_its_connection_is_to_end() {
    let (registry, grace) = (registry(), Grace::default());
    let hour = SystemTime::now() + Duration::from_secs(3600);
    let channel = serve_until(&registry, Clock::system(), hour, grace.clone()).await;
    let (requests, mut responses) = register(channel).await;
    grace.begin();
    drop(requests);
    assert!(responses.message().await.unwrap().is_none());
    assert!(registry.publisher.current().model.workloads.is_empty());
}

#[tokio::test]
async fn no_identity_takes_all_places_for_registrations() {
    let registry = Registry { places: Places::new(4), ..registry() };
    let channel = serve(&registry, Clock::system(), SystemTime::now() + Duration::from_secs(3600)).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(register(channel.clone()).await);
    }
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/mesh.v1.WorkloadRegistration/Register");
    let codec = tonic_prost::ProstCodec::<RegisterRequest, RegisterResponse>::default();
    let refused = grpc.streaming(Request::new(stream::pending()), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.message().contains("nearly its limit"), "{refused}");
}
