//! TLS between identities that rotate, on simulated time: who gets through, and what the refusals say.

use mesh_ca::{
    certificate::PeerCertificate,
    clock::Clock,
    issuer::{Authority, OwnSource, Policy, ServerNames},
    rotation::Backoff,
    rustls::{
        ClientAuth, ServerTrust, client_config, client_config_with, default_provider, peer_identity,
        server_config,
    },
    spiffe_id::{SpiffeId, TrustDomain},
    verifier::ServerCheck,
    workload::{Identity, WorkloadIdentity},
};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_pki_types::ServerName;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CLIENT: &str = "spiffe://td/ns/default/sa/productpage";
const SERVER: &str = "spiffe://td/ns/default/sa/reviews";
const ALPN: &[&[u8]] = &[b"h2"];

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).unwrap()
}

/// An authority whose certificates live so long.
fn authority(clock: &Clock, domain: &str, lifetime: Duration) -> Arc<Authority> {
    let policy = Policy { default_lifetime: lifetime, ..Policy::default() };
    let domain = TrustDomain::parse(domain).unwrap();
    Arc::new(Authority::in_memory_with(&domain, policy, clock.clone()).unwrap())
}

/// An identity that this authority keeps fresh.
async fn workload(authority: &Arc<Authority>, uri: &str) -> WorkloadIdentity {
    let source = OwnSource::new(authority.clone(), id(uri), ServerNames::default());
    let identity = WorkloadIdentity::start_with(source, authority.clock().clone(), Backoff::default(), 1);
    identity.ready().await.unwrap();
    identity
}

fn clock() -> Clock {
    Clock::tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

fn client(identity: &WorkloadIdentity, check: ServerCheck) -> Arc<ClientConfig> {
    client_config(identity, check, ALPN, default_provider()).unwrap()
}

fn server(identity: &WorkloadIdentity, clients: ClientAuth) -> Arc<ServerConfig> {
    server_config(identity, clients, ALPN, default_provider()).unwrap()
}

/// What both sides saw.
struct Met {
    client: PeerCertificate,
    server: Option<PeerCertificate>,
    kind: Option<HandshakeKind>,
    alpn: Option<Vec<u8>>,
}

/// One handshake and one byte each way; the errors of either side.
async fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Met, String> {
    let (near, far) = duplex(64 * 1024);
    let accept = async {
        let mut stream = TlsAcceptor::from(server.clone()).accept(far).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(peer_identity(stream.get_ref().1))
    };
    let connect = async {
        let name = ServerName::try_from("irrelevant.example").unwrap();
        let mut stream = TlsConnector::from(client.clone()).connect(name, near).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        let connection = stream.get_ref().1;
        let peer = peer_identity(connection).expect("a server has a certificate");
        Ok::<_, std::io::Error>((
            peer,
            connection.handshake_kind(),
            connection.alpn_protocol().map(Vec::from),
        ))
    };
    match tokio::join!(connect, accept) {
        (Ok((client, kind, alpn)), Ok(server)) => Ok(Met { client, server, kind, alpn }),
        (connect, accept) => {
            let text = |error: Option<std::io::Error>| error.map(|e| e.to_string()).unwrap_or_default();
            Err(format!("client: {}; server: {}", text(connect.err()), text(accept.err())))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_handshakes_across_many_rotations_and_none_fails() {
    let clock = clock();
    let authority = authority(&clock, "td", Duration::from_secs(4));
    let (productpage, reviews) = (workload(&authority, CLIENT).await, workload(&authority, SERVER).await);
    // Made once: the configurations follow the identities.
    let connect = client(&productpage, ServerCheck::exact(id(SERVER)));
    let accept = server(&reviews, ClientAuth::Require);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..400 {
        let met = meet(&connect, &accept).await.unwrap_or_else(|error| panic!("handshake {n}: {error}"));
        assert_eq!(met.client.spiffe_id, Some(id(SERVER)));
        let server_saw = met.server.unwrap();
        assert_eq!(server_saw.spiffe_id, Some(id(CLIENT)));
        assert_eq!(met.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(met.kind.map(full), Some(true), "a session was resumed");
        seen.insert((met.client.der.to_vec(), server_saw.der.to_vec()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Twenty seconds in lives of three to four.
    for identity in [&productpage, &reviews] {
        assert!(identity.status().rotations >= 8, "{:?}", identity.status());
    }
    assert!(seen.len() >= 8, "only {} different pairs of certificates were used", seen.len());
}

fn full(kind: HandshakeKind) -> bool {
    matches!(kind, HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
}

#[tokio::test(start_paused = true)]
async fn the_wrong_server_is_refused_by_name() {
    let clock = clock();
    let authority = authority(&clock, "td", Duration::from_secs(60));
    let (productpage, reviews) = (workload(&authority, CLIENT).await, workload(&authority, SERVER).await);
    let accept = server(&reviews, ClientAuth::Require);
    let expected = "spiffe://td/ns/default/sa/ratings";
    let error = meet(&client(&productpage, ServerCheck::exact(id(expected))), &accept).await.err().unwrap();
    assert!(error.contains(&format!("expected {expected}, found {SERVER}")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_authority_is_refused_by_both_sides() {
    let clock = clock();
    let (ours, foreign) =
        (authority(&clock, "td", Duration::from_secs(60)), authority(&clock, "td", Duration::from_secs(60)));
    let check = || ServerCheck::exact(id(SERVER));
    let (productpage, reviews) = (workload(&ours, CLIENT).await, workload(&ours, SERVER).await);
    let (stranger, impostor) = (workload(&foreign, CLIENT).await, workload(&foreign, SERVER).await);

    let error =
        meet(&client(&productpage, check()), &server(&impostor, ClientAuth::None)).await.err().unwrap();
    assert!(error.contains("client: ") && error.contains(SERVER), "{error}");

    // The stranger believes our authority, but ours does not believe the stranger's.
    let current = stranger.current().unwrap();
    let believing = Identity::new(current.svid().clone(), ours.bundles()).unwrap();
    let stranger = WorkloadIdentity::fixed_at(Arc::new(believing), clock);
    let error =
        meet(&client(&stranger, check()), &server(&reviews, ClientAuth::Require)).await.err().unwrap();
    let servers = error.split_once("; server: ").unwrap().1;
    assert!(servers.contains(CLIENT), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_trust_domain_is_refused() {
    let clock = clock();
    let (ours, theirs) = (
        authority(&clock, "td", Duration::from_secs(60)),
        authority(&clock, "elsewhere", Duration::from_secs(60)),
    );
    let theirs = workload(&theirs, "spiffe://elsewhere/x").await;
    let ours = workload(&ours, CLIENT).await;
    let anyone = ServerCheck::custom(|_: &PeerCertificate| Ok(()));
    let error = meet(&client(&ours, anyone), &server(&theirs, ClientAuth::None)).await.err().unwrap();
    assert!(error.contains("no trust bundle for elsewhere"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn expired_certificates_are_refused_with_both_clocks() {
    let clock = clock();
    let authority = authority(&clock, "td", Duration::from_secs(60));
    let old = workload(&authority, CLIENT).await.current().unwrap();
    let end = old.svid().not_after();
    tokio::time::sleep(Duration::from_secs(70)).await;
    let reviews = workload(&authority, SERVER).await;
    let old = WorkloadIdentity::fixed_at(old, clock);
    let connect = client(&old, ServerCheck::exact(id(SERVER)));
    let error = meet(&connect, &server(&reviews, ClientAuth::Require)).await.err().unwrap();
    let expired = format!("certificate of {CLIENT} expired at {}", mesh_ca::clock::utc(end));
    assert!(error.contains(&expired) && error.contains("the clock here says"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_certificate_gets_only_as_far_as_the_server_allows() {
    let clock = clock();
    let authority = authority(&clock, "td", Duration::from_secs(60));
    let reviews = workload(&authority, SERVER).await;
    let trust = ServerTrust::Bundles(authority.bundles(), ServerCheck::exact(id(SERVER)));
    let anonymous = client_config_with(trust, None, ALPN, default_provider(), clock).unwrap();
    meet(&anonymous, &server(&reviews, ClientAuth::Require)).await.err().unwrap();
    for allowed in [ClientAuth::Optional, ClientAuth::None] {
        let met = meet(&anonymous, &server(&reviews, allowed)).await.unwrap();
        assert_eq!(met.server, None);
    }
    // Optional does not mean unchecked, and None does not mean unknown to the client.
    let productpage = workload(&authority, CLIENT).await;
    let known = client(&productpage, ServerCheck::exact(id(SERVER)));
    let met = meet(&known, &server(&reviews, ClientAuth::Optional)).await.unwrap();
    assert_eq!(met.server.unwrap().spiffe_id, Some(id(CLIENT)));
    assert_eq!(meet(&known, &server(&reviews, ClientAuth::None)).await.unwrap().server, None);
}

#[tokio::test(start_paused = true)]
async fn plaintext_is_refused() {
    let clock = clock();
    let authority = authority(&clock, "td", Duration::from_secs(60));
    let reviews = workload(&authority, SERVER).await;
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let accepted = TlsAcceptor::from(server(&reviews, ClientAuth::Require)).accept(far).await;
    let error = accepted.err().unwrap().to_string();
    assert!(error.contains("corrupt"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_root_that_is_withdrawn_ends_trust_at_the_next_handshake() {
    use mesh_ca::{
        rotation::Schedule,
        source::{Source, SourceError},
    };
    /// Gives the identity that the test put there last.
    struct Put(tokio::sync::watch::Receiver<Arc<Identity>>);
    impl Source for Put {
        fn origin(&self) -> String {
            "the test".to_owned()
        }
        fn schedule(&self) -> Schedule {
            Schedule::Every(Duration::from_secs(1))
        }
        async fn fetch(&mut self, _: Option<&Arc<Identity>>) -> Result<Arc<Identity>, SourceError> {
            Ok(self.0.borrow().clone())
        }
    }

    let clock = clock();
    let (old, new) = (
        authority(&clock, "td", Duration::from_secs(600)),
        authority(&clock, "td", Duration::from_secs(600)),
    );
    let (put, source) = tokio::sync::watch::channel(workload(&old, SERVER).await.current().unwrap());
    let reviews = WorkloadIdentity::start_with(Put(source), clock.clone(), Backoff::default(), 1);
    reviews.ready().await.unwrap();
    let accept = server(&reviews, ClientAuth::Require);
    let connect = client(&workload(&old, CLIENT).await, ServerCheck::exact(id(SERVER)));
    meet(&connect, &accept).await.unwrap();

    let replaced =
        Identity::new(workload(&old, SERVER).await.current().unwrap().svid().clone(), new.bundles());
    put.send(Arc::new(replaced.unwrap())).unwrap();
    let mut watch = reviews.watch();
    watch.mark_unchanged();
    watch.changed().await.unwrap();
    let error = meet(&connect, &accept).await.err().unwrap();
    assert!(error.split_once("; server: ").unwrap().1.contains(CLIENT), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_a_mesh_client_says_that_it_has_none() {
    use mesh_ca::source::file::FileSource;
    let clock = clock();
    let authority = authority(&clock, "td", Duration::from_secs(60));
    let reviews = workload(&authority, SERVER).await;
    let files = FileSource::new("/nonexistent/cert.pem", "/nonexistent/key.pem", "/nonexistent/ca.pem");
    let nobody = WorkloadIdentity::start_with(files, clock, Backoff::default(), 1);
    nobody.ready().await.unwrap_err();
    let connect = client(&nobody, ServerCheck::exact(id(SERVER)));
    let error = meet(&connect, &server(&reviews, ClientAuth::None)).await.err().unwrap();
    assert!(error.contains("no identity") && error.contains("/nonexistent/cert.pem"), "{error}");
}
