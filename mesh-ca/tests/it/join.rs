//! Workloads that join: by token, then by certificate, over real TCP and TLS; and all that goes wrong.

use crate::server::{Running, serve};
use mesh_ca::{
    channel::{self, Target},
    clock::Clock,
    issuer::{
        Attestors, Authority, CertificateAttestor, CertificateService, JoinTokenAttestor, JoinTokens,
        LoopbackAttestor, Policy, ServerNames, TokenError,
    },
    proto::istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
    rotation::{Backoff, Schedule},
    rustls::ServerTrust,
    source::{
        SourceError,
        ca::{CaSource, JoinToken},
    },
    spiffe_id::{SpiffeId, TrustDomain},
    verifier::ServerCheck,
    workload::{IdentityError, WorkloadIdentity},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

const ID: &str = "spiffe://td/ns/default/sa/reviews";

struct World {
    authority: Arc<Authority>,
    tokens: JoinTokens,
    identity: WorkloadIdentity,
    service: CertificateService,
}

impl World {
    async fn new(clock: Clock) -> Self {
        let authority = Authority::in_memory_with(&domain(), Policy::default(), clock.clone()).unwrap();
        let authority = Arc::new(authority);
        let tokens = JoinTokens::in_memory();
        let attestors = Attestors::none()
            .and(CertificateAttestor::new(domain(), clock))
            .and(JoinTokenAttestor::new(tokens.clone()))
            .and(LoopbackAttestor::new(domain()));
        let names =
            ServerNames { dns: vec!["localhost".to_owned()], ips: vec!["127.0.0.1".parse().unwrap()] };
        let identity = authority.server_identity(names);
        identity.ready().await.unwrap();
        let service = CertificateService::new(authority.clone(), attestors);
        Self { authority, tokens, identity, service }
    }

    async fn serve_at(&self, address: SocketAddr) -> Running {
        serve(self.service.clone(), Some(&self.identity), address).await
    }

    async fn serve(&self) -> Running {
        self.serve_at("127.0.0.1:0".parse().unwrap()).await
    }

    fn token(&self) -> JoinToken {
        JoinToken::value(self.tokens.create(&id(ID), Duration::from_secs(60)).unwrap().as_str())
    }

    /// The server, known by the root and its own id.
    fn target(&self, address: SocketAddr, server: SpiffeId) -> Target {
        let trust = ServerTrust::Bundles(self.authority.bundles(), ServerCheck::exact(server));
        Target::tls(&address.to_string(), trust, None).unwrap()
    }

    fn source(&self, address: SocketAddr) -> CaSource {
        CaSource::new(self.target(address, SpiffeId::mesh_server(&domain()))).token(self.token())
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("td").unwrap()
}

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).unwrap()
}

/// Renews after a twentieth of a life of ten seconds, and retries at once.
fn hasty(source: CaSource) -> WorkloadIdentity {
    let source =
        source.lifetime(Duration::from_secs(10)).schedule(Schedule::Share { share: 0.05, jitter: 0.0 });
    let backoff = Backoff { first: Duration::from_millis(50), ..Backoff::default() };
    WorkloadIdentity::start_with(source, Clock::system(), backoff, 1)
}

async fn rotations(identity: &WorkloadIdentity, at_least: u64) {
    let mut status = identity.watch_status();
    let waited = status.wait_for(|status| status.rotations >= at_least);
    tokio::time::timeout(Duration::from_secs(30), waited).await.expect("rotations stopped").unwrap();
}

#[tokio::test]
async fn a_token_joins_once_and_the_certificate_renews_through_an_outage() {
    let world = World::new(Clock::system()).await;
    let server = world.serve().await;
    let address = server.address;
    let identity = hasty(world.source(address).expect(id(ID)));
    let first = identity.ready().await.unwrap();
    assert_eq!(first.id(), &id(ID));
    assert_eq!(first.bundles(), &world.authority.bundles());
    // The token is used up, so these are by certificate.
    rotations(&identity, 3).await;

    server.stop().await;
    let mut status = identity.watch_status();
    status.wait_for(|status| status.last_error.is_some()).await.unwrap();
    let error = identity.status().last_error.unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("UNAVAILABLE"), "{error}");
    assert_eq!(identity.current().unwrap().id(), &id(ID), "the certificate in hand still serves");

    let before = identity.status().rotations;
    let _server = world.serve_at(address).await;
    rotations(&identity, before + 2).await;
    assert!(identity.status().last_error.is_none());
}

#[tokio::test]
async fn a_used_token_is_refused_with_a_hint() {
    let world = World::new(Clock::system()).await;
    let server = world.serve().await;
    let token = world.token();
    let source =
        || CaSource::new(world.target(server.address, SpiffeId::mesh_server(&domain()))).token(token.clone());
    WorkloadIdentity::start(source()).ready().await.unwrap();
    let error = WorkloadIdentity::start(source()).ready().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, IdentityError::Source { cause: SourceError::Refused(_), .. }), "{text}");
    assert!(text.contains("UNAUTHENTICATED") && text.contains("join token"), "{text}");
    assert!(text.contains(&server.address.to_string()), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_the_control_plane_gets_no_token() {
    let world = World::new(Clock::system()).await;
    let server = world.serve().await;
    let token = world.tokens.create(&id(ID), Duration::from_secs(60)).unwrap();
    let expected = id("spiffe://td/ns/mesh-system/sa/other");
    let source =
        CaSource::new(world.target(server.address, expected)).token(JoinToken::value(token.as_str()));
    let error = WorkloadIdentity::start(source).ready().await.unwrap_err().to_string();
    assert!(error.contains("expected spiffe://td/ns/mesh-system/sa/other"), "{error}");
    assert!(error.contains("found spiffe://td/ns/mesh-system/sa/mesh-server"), "{error}");
    // It was never sent: it still works.
    world.tokens.redeem(&token).unwrap();
}

#[tokio::test]
async fn a_server_of_a_foreign_authority_gets_no_token() {
    let (ours, foreign) = (World::new(Clock::system()).await, World::new(Clock::system()).await);
    let server = foreign.serve().await;
    let token = ours.tokens.create(&id(ID), Duration::from_secs(60)).unwrap();
    let target = ours.target(server.address, SpiffeId::mesh_server(&domain()));
    let source = CaSource::new(target).token(JoinToken::value(token.as_str()));
    let error = WorkloadIdentity::start(source).ready().await.unwrap_err().to_string();
    assert!(error.contains("TLS handshake") && error.contains("mesh-server"), "{error}");
    ours.tokens.redeem(&token).unwrap();
}

#[tokio::test]
async fn a_certificate_that_the_server_refuses_is_unavailable_with_its_alert() {
    let (ours, foreign) = (World::new(Clock::system()).await, World::new(Clock::system()).await);
    let server = ours.serve().await;
    let target = ours.target(server.address, SpiffeId::mesh_server(&domain()));
    let channel = channel::connect(&target.presenting(&foreign.identity).unwrap());
    let mut client = IstioCertificateServiceClient::new(channel);
    let answer = client.create_certificate(IstioCertificateRequest::default()).await;
    let status = channel::clarify(answer.unwrap_err());
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().contains(&server.address.to_string()), "{status:?}");
    assert!(status.message().contains("CertificateUnknown"), "{status:?}");
}

#[tokio::test]
async fn a_token_is_not_sent_in_plaintext() {
    let world = World::new(Clock::system()).await;
    let server = serve(world.service.clone(), None, "127.0.0.1:0".parse().unwrap()).await;
    let token = world.tokens.create(&id(ID), Duration::from_secs(60)).unwrap();
    let target = Target::plaintext(&server.address.to_string()).unwrap();
    let source = CaSource::new(target).token(JoinToken::value(token.as_str()));
    let error = WorkloadIdentity::start(source).ready().await.unwrap_err().to_string();
    assert!(error.contains("plaintext"), "{error}");
    world.tokens.redeem(&token).unwrap();
}

#[tokio::test]
async fn in_development_a_claim_from_loopback_joins_and_renews() {
    let world = World::new(Clock::system()).await;
    let plaintext = serve(world.service.clone(), None, "127.0.0.1:0".parse().unwrap()).await;
    let claim = |source: CaSource| source.claim(&domain(), "default", "reviews").unwrap();
    let target = Target::plaintext(&plaintext.address.to_string()).unwrap();
    let identity = hasty(claim(CaSource::new(target)));
    assert_eq!(identity.ready().await.unwrap().id(), &id(ID));
    rotations(&identity, 3).await;

    let server = world.serve().await;
    let target = world.target(server.address, SpiffeId::mesh_server(&domain()));
    let identity = hasty(claim(CaSource::new(target)));
    identity.ready().await.unwrap();
    rotations(&identity, 3).await;
}

#[tokio::test]
async fn a_certificate_for_another_id_than_expected_is_not_believed() {
    let world = World::new(Clock::system()).await;
    let server = world.serve().await;
    let expected = id("spiffe://td/ns/default/sa/ratings");
    let identity = WorkloadIdentity::start(world.source(server.address).expect(expected.clone()));
    let error = identity.ready().await.unwrap_err().to_string();
    assert!(error.contains(&format!("expected one for {expected}, found {ID}")), "{error}");
    assert!(identity.current().is_none());
}

#[tokio::test]
async fn a_clock_that_is_behind_the_cas_is_named_with_both_times() {
    let now = SystemTime::now();
    let (ahead, _hand) = Clock::manual(now + Duration::from_secs(600));
    let world = World::new(ahead).await;
    let server = world.serve().await;
    // Its own certificate is from the future too: the handshake says so before any token is sent.
    let identity = WorkloadIdentity::start(world.source(server.address));
    let error = identity.ready().await.unwrap_err().to_string();
    assert!(
        error.contains("not valid before") && error.contains("one of the two clocks is wrong"),
        "{error}"
    );

    // Two minutes are forgiven.
    let (ahead, _hand) = Clock::manual(SystemTime::now() + Duration::from_secs(100));
    let world = World::new(ahead).await;
    let server = world.serve().await;
    WorkloadIdentity::start(world.source(server.address)).ready().await.unwrap();
}

#[tokio::test]
async fn the_control_plane_is_also_known_by_its_dns_name_and_address() {
    let world = World::new(Clock::system()).await;
    let server = world.serve().await;
    let roots = || ServerTrust::Roots(world.authority.bundle().roots().clone());
    let by_name = format!("localhost:{}", server.address.port());
    for address in [server.address.to_string(), by_name] {
        let target = Target::tls(&address, roots(), None).unwrap();
        let identity = WorkloadIdentity::start(CaSource::new(target).token(world.token()));
        assert_eq!(identity.ready().await.unwrap().id(), &id(ID));
    }
    let target = Target::tls(&server.address.to_string(), roots(), None).unwrap();
    let target = target.server_name("istiod.istio-system.svc").unwrap();
    let error =
        WorkloadIdentity::start(CaSource::new(target).token(world.token())).ready().await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("expected a certificate for istiod.istio-system.svc"), "{error}");
    assert!(error.contains("localhost"), "{error}");
}

#[tokio::test]
async fn a_token_file_is_read_when_it_is_used() {
    let world = World::new(Clock::system()).await;
    let server = world.serve().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let source = CaSource::new(world.target(server.address, SpiffeId::mesh_server(&domain())))
        .token(JoinToken::file(&path));
    let identity = hasty(source);
    let error = identity.ready().await.unwrap_err().to_string();
    assert!(error.contains("token"), "{error}");
    let token = world.tokens.create(&id(ID), Duration::from_secs(60)).unwrap();
    std::fs::write(&path, format!("{}\n", *token)).unwrap();
    identity.ready_within(Duration::from_secs(30)).await.unwrap();
    assert!(matches!(world.tokens.redeem(&token).unwrap_err(), TokenError::Unknown));
}

#[tokio::test]
async fn a_refused_certificate_falls_back_to_the_token() {
    let world = World::new(Clock::system()).await;
    // A control plane that believes tokens only.
    let attestors = Attestors::none().and(JoinTokenAttestor::new(world.tokens.clone()));
    let service = CertificateService::new(world.authority.clone(), attestors);
    let server = serve(service, Some(&world.identity), "127.0.0.1:0".parse().unwrap()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let write = || {
        let token = world.tokens.create(&id(ID), Duration::from_secs(60)).unwrap();
        std::fs::write(&path, token.as_bytes()).unwrap();
    };
    write();
    let target = world.target(server.address, SpiffeId::mesh_server(&domain()));
    let identity = hasty(CaSource::new(target).token(JoinToken::file(&path)));
    identity.ready().await.unwrap();
    write();
    rotations(&identity, 2).await;
}

#[test]
fn tokens_are_not_shown() {
    let source = CaSource::new(Target::plaintext("h:1").unwrap()).token(JoinToken::value("mesh-join-secret"));
    assert!(!format!("{source:?}").contains("secret"), "{source:?}");
}
