//! TLS of connections: demanded, missing, refused, rotated.

use super::net::*;
use crate::{
    cluster::{AttemptErrorKind, Cluster, ClusterDeps},
    endpoint::{ClientTls, TlsConfigs},
};
use mesh_xds::{
    config::ClusterSecrets,
    resource::tls::{self, Roots, UpstreamTls},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

/// A root, and a certificate that it signed for both sides.
pub(super) struct Pki {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let root_key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["reviews".to_owned()]).unwrap();
        let issuer = rcgen::Issuer::from_params(&root, &root_key);
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root_certificate.der().clone()).unwrap();
        Self {
            roots: Arc::new(roots),
            chain: vec![leaf.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        }
    }

    /// A server that demands a certificate of these roots.
    pub(super) fn server(&self, clients: &Self, alpn: &[u8]) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&clients.roots), Arc::clone(&provider));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(self.chain.clone(), self.key.clone_key().into())
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    pub(super) fn client(&self, servers: &Self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&servers.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key().into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// An identity that a test gives, and how long connections made with it may live.
#[derive(Default)]
pub(super) struct Identity {
    pub(super) config: Mutex<Option<Arc<ClientConfig>>>,
    life: Mutex<Option<Duration>>,
    asked: Mutex<Vec<Option<String>>>,
}

impl TlsConfigs for Identity {
    fn client_tls(
        &self,
        _: &UpstreamTls,
        _: &ClusterSecrets,
        hostname: Option<&str>,
    ) -> Result<ClientTls, String> {
        self.asked.lock().unwrap().push(hostname.map(str::to_owned));
        let config = self.config.lock().unwrap().clone().ok_or("no identity yet")?;
        let reconnect_before = self.life.lock().unwrap().map(|life| Instant::now() + life);
        Ok(ClientTls { config, server_name: ServerName::try_from("reviews").unwrap(), reconnect_before })
    }
}

/// TLS with certificates on both sides.
pub(super) fn mutual() -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls {
        identity: Some(tls::Identity::Provider("default".into())),
        roots: Roots::Provider("default".into()),
        sans: Vec::new(),
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    })
}

struct World {
    net: Net,
    server: Arc<Server>,
    pki: Pki,
    identity: Arc<Identity>,
    config: Config,
}

impl World {
    fn new() -> Self {
        let (net, pki) = (Net::default(), Pki::new());
        let server = net.server(1);
        *server.tls.lock().unwrap() = Some(pki.server(&pki, b"h2"));
        let identity = Arc::new(Identity::default());
        *identity.config.lock().unwrap() = Some(pki.client(&pki));
        let mut config = Config::of(&[1]);
        config.cluster.tls = Some(mutual());
        Self { net, server, pki, identity, config }
    }

    fn spawn(&self) -> Arc<Cluster> {
        let tls: Arc<dyn TlsConfigs> = Arc::clone(&self.identity) as _;
        spawn(self.config.build(), &ClusterDeps { tls, ..deps(&self.net) })
    }

    /// The message of a call that must not succeed.
    async fn failure(&self) -> String {
        let error = call(&self.spawn()).await.unwrap_err();
        assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
        assert_eq!(self.server.hits(), 0);
        error.status.message().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_over_mutual_tls_and_says_https() {
    let mut world = World::new();
    world.config.endpoint(0).hostname = Some("pod-7".into());
    assert_eq!(call(&world.spawn()).await.unwrap(), Code::Ok);
    assert_eq!(*world.server.seen_uris.lock().unwrap(), ["https://reviews:9080/reviews.Reviews/Get"]);
    assert_eq!(*world.identity.asked.lock().unwrap(), [Some("pod-7".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_the_call_fails_with_that_reason_and_never_in_plaintext() {
    let world = World::new();
    *world.identity.config.lock().unwrap() = None;
    *world.server.tls.lock().unwrap() = None;
    assert_eq!(
        world.failure().await,
        "cluster reviews: no ready endpoint (1 backing off: 127.0.0.1:1: no identity yet)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_of_foreign_roots_is_refused_by_name_of_the_fault() {
    let world = World::new();
    *world.server.tls.lock().unwrap() = Some(Pki::new().server(&world.pki, b"h2"));
    let message = world.failure().await;
    assert!(message.contains("127.0.0.1:1: TLS handshake: invalid peer certificate"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_the_server_refuses_is_never_ready_and_learns_why() {
    let world = World::new();
    *world.server.tls.lock().unwrap() = Some(world.pki.server(&Pki::new(), b"h2"));
    let message = world.failure().await;
    assert!(message.contains("127.0.0.1:1: received fatal alert: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_agree_to_http2_is_refused() {
    let world = World::new();
    *world.server.tls.lock().unwrap() = Some(world.pki.server(&world.pki, b"http/1.1"));
    let message = world.failure().await;
    assert!(message.contains("TLS handshake: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn auto_mtls_uses_plaintext_only_for_endpoints_that_do_not_speak_it() {
    let mut world = World::new();
    let tls = world.config.cluster.tls.take().unwrap();
    let tls = UpstreamTls { only_mesh_endpoints: true, ..UpstreamTls::clone(&tls) };
    world.config.cluster.tls = Some(Arc::new(tls));
    world.config.endpoint(0).mesh_tls = true;
    let cluster = world.spawn();
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    world.config.endpoint(0).mesh_tls = false;
    *world.server.tls.lock().unwrap() = None;
    cluster.update(world.config.build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let schemes: Vec<_> =
        world.server.seen_uris.lock().unwrap().iter().map(|uri| uri[..5].to_owned()).collect();
    assert_eq!((schemes, world.server.dials()), (vec!["https".to_owned(), "http:".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn when_tls_is_demanded_from_now_on_no_call_uses_an_old_plaintext_connection() {
    let mut world = World::new();
    let tls = world.config.cluster.tls.take();
    *world.server.tls.lock().unwrap() = None;
    let cluster = world.spawn();
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    *world.identity.config.lock().unwrap() = None;
    world.config.cluster.tls = tls;
    cluster.update(world.config.build());
    rest().await;
    let error = call(&cluster).await.unwrap_err();
    assert!(error.status.message().contains("no identity yet"), "{}", error.status.message());
}

#[tokio::test(start_paused = true)]
async fn connections_are_replaced_before_their_identity_expires_and_no_call_fails() {
    let world = World::new();
    *world.identity.life.lock().unwrap() = Some(Duration::from_secs(5));
    let cluster = world.spawn();
    rest().await;
    for _ in 0..60 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        pass(Duration::from_millis(500)).await;
    }
    assert!((6..=7).contains(&world.server.dials()), "{}", world.server.dials());
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_always_expired_makes_no_loop_of_dials() {
    let world = World::new();
    *world.identity.life.lock().unwrap() = Some(Duration::ZERO);
    let _cluster = world.spawn();
    pass(Duration::from_millis(10_500)).await;
    assert!((2..=11).contains(&world.server.dials()), "{}", world.server.dials());
}
