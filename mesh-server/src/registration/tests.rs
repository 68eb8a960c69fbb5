//! A registration and the certificate that it was made with.

use super::*;
use crate::{
    app::connection::{self, Ages},
    compile::{Mesh, fixture},
    source::Loaded,
};
use http::uri::PathAndQuery;
use mesh_ca::{
    certificate::PeerCertificate,
    issuer::{Authority, PeerInfo},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    client::Grpc,
    service::{Routes, interceptor::InterceptedService},
    transport::{Channel, Server},
};

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

/// Any certificate, with the names and times of these tests.
fn certificate(not_after: SystemTime) -> PeerCertificate {
    let authority = Authority::in_memory(&trust_domain()).unwrap();
    let mut certificate = PeerCertificate::from_der(&authority.bundle().roots().certificates()[0]).unwrap();
    certificate.spiffe_id = Some(SpiffeId::parse("spiffe://cluster.local/ns/default/sa/reviews").unwrap());
    certificate.not_after = not_after;
    certificate
}

/// A registry whose callers all have one certificate, good until `not_after`.
async fn serve(registry: &Registry, clock: Clock, not_after: SystemTime) -> Channel {
    serve_until(registry, clock, not_after, Grace::default()).await
}

/// The same, over a connection that may reach its age.
async fn serve_until(registry: &Registry, clock: Clock, not_after: SystemTime, grace: Grace) -> Channel {
    let certificate = certificate(not_after);
    let service = registry.service(trust_domain(), clock, AnonymousPeers::Refused);
    let service = InterceptedService::new(service, move |mut request: Request<()>| {
        let peer = PeerInfo { certificate: Some(certificate.clone()), address: None };
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(grace.clone());
        Ok(request)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

async fn register(channel: Channel) -> (mpsc::Sender<RegisterRequest>, Streaming<RegisterResponse>) {
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
    let mut responses = responses.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    (requests, responses)
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
    let ages = Ages { max: Some(short), grace: short, ..Ages::new(None) };
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
