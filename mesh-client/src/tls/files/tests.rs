//! Which files are read, when, and what becomes of them in handshakes.

mod revocation;

use super::super::{
    TlsError,
    tests::{downstream, handshake, upstream},
    *,
};
use crate::testing::{authority, id, identity};
use mesh_ca::{
    issuer::{Authority, ServerNames},
    spiffe_id::TrustDomain,
};
use mesh_xds::{
    bootstrap::{Bootstrap, CertificateProvider, ChannelCredentials, FileWatcher, Node, ServerConfig},
    matcher::StringMatcher,
};
use std::{fs, time::Duration};
use tempfile::TempDir;

const REFRESH: Duration = Duration::from_secs(60);

/// A directory with the certificate and the key of an identity, and the roots of its authority.
struct World {
    directory: TempDir,
    authority: Arc<Authority>,
}

impl World {
    async fn new() -> Self {
        let (directory, authority) = (TempDir::new().unwrap(), authority());
        let world = Self { directory, authority };
        world.write_own("partner").await;
        world.write("roots.pem", &world.roots());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> Arc<str> {
        self.path(name).to_str().unwrap().into()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    async fn write_own(&self, account: &str) {
        let identity = identity(&self.authority, account).await;
        let svid = identity.current().unwrap().svid().clone();
        self.write("own.pem", &svid.chain_pem());
        self.write("own.key", &svid.key().to_pem());
    }

    fn roots(&self) -> String {
        self.authority.bundles().roots(&TrustDomain::parse("cluster.local").unwrap()).unwrap().pem()
    }

    fn watcher(&self, identity: bool, roots: bool) -> FileWatcher {
        FileWatcher {
            identity: identity.then(|| (self.path("own.pem"), self.path("own.key"))),
            ca_certificate_file: roots.then(|| self.path("roots.pem")),
            crl_file: None,
            spiffe_trust_bundle_map_file: None,
            refresh_interval: REFRESH,
        }
    }

    /// A process whose bootstrap has an instance for the certificate and one for the roots.
    fn client(&self) -> Providers {
        let server = ServerConfig::new("127.0.0.1:15010", ChannelCredentials::Insecure).unwrap();
        let bootstrap = Bootstrap::new(server, Node::default())
            .with_certificate_provider("own", CertificateProvider::FileWatcher(self.watcher(true, false)))
            .with_certificate_provider("roots", CertificateProvider::FileWatcher(self.watcher(false, true)));
        Providers::start(&bootstrap).unwrap()
    }

    /// A server outside the mesh that wants to know its clients.
    async fn server(&self, name: &str) -> Arc<rustls::ServerConfig> {
        let names = ServerNames { dns: vec![name.into()], ips: vec![] };
        let own = self.authority.server_identity(names);
        own.ready().await.unwrap();
        Providers::new([("default".into(), own)]).server_tls(&downstream(Some("default"), true)).unwrap()
    }

    fn context(&self) -> UpstreamTls {
        UpstreamTls {
            identity: Some(Identity::Files(KeyFiles {
                certificate: self.text("own.pem"),
                key: self.text("own.key"),
            })),
            roots: Roots::File(self.text("roots.pem")),
            ..upstream(vec![StringMatcher::exact("partner.test", false)])
        }
    }
}

fn tls(client: &Providers, context: &UpstreamTls) -> Result<ClientTls, TlsError> {
    client.client_tls(context, &ClusterSecrets::default(), None)
}

#[tokio::test]
async fn files_that_the_bootstrap_names_show_and_judge() {
    let world = World::new().await;
    let client = world.client();
    let own = tls(&client, &world.context()).unwrap();
    assert!(own.reconnect_before.is_some());
    let (connected, accepted) = handshake(&own, world.server("partner.test").await).await;
    connected.unwrap();
    accepted.unwrap();
    let why = handshake(&own, world.server("other.test").await).await.0.unwrap_err();
    assert!(why.contains("expected partner.test"), "{why}");
    // Of another authority.
    assert!(handshake(&own, World::new().await.server("partner.test").await).await.0.is_err());
    // Without a certificate this server lets nobody in.
    let anonymous = tls(&client, &UpstreamTls { identity: None, ..world.context() }).unwrap();
    assert!(handshake(&anonymous, world.server("partner.test").await).await.1.is_err());
}

/// gRFC A29: an instance has a certificate, or roots, or both.
#[tokio::test]
async fn an_instance_with_one_of_the_two_is_good_for_that_one() {
    let world = World::new().await;
    let client = world.client();
    let named = UpstreamTls {
        identity: Some(Identity::Provider("own".into())),
        roots: Roots::Provider("roots".into()),
        ..world.context()
    };
    let (connected, accepted) =
        handshake(&tls(&client, &named).unwrap(), world.server("partner.test").await).await;
    connected.unwrap();
    accepted.unwrap();

    let crossed = UpstreamTls { identity: Some(Identity::Provider("roots".into())), ..named.clone() };
    let why = tls(&client, &crossed).unwrap_err().to_string();
    assert!(why.contains("`roots` has no certificate (`certificate_file` and `private_key_file`)"), "{why}");
    let crossed = UpstreamTls { roots: Roots::Provider("own".into()), ..named };
    let why = tls(&client, &crossed).unwrap_err().to_string();
    assert!(why.contains("`own` has no roots (`ca_certificate_file`)"), "{why}");
    let server = DownstreamTls { identity: "own".into(), ..downstream(None, false) };
    assert!(matches!(client.server_tls(&server), Err(TlsError::Half { .. })));
}

#[tokio::test]
async fn no_other_file_of_the_machine_is_read() {
    let world = World::new().await;
    let client = world.client();
    // Both are there, and sound.
    fs::copy(world.path("roots.pem"), world.path("others.pem")).unwrap();
    let context = UpstreamTls { roots: Roots::File(world.text("others.pem")), ..world.context() };
    let why = tls(&client, &context).unwrap_err().to_string();
    for part in ["others.pem", "as ca_certificate_file of a `file_watcher`", "known: "] {
        assert!(why.contains(part), "{part}: {why}");
    }
    // A pair is one of files that belong together.
    let files = KeyFiles { certificate: world.text("own.pem"), key: world.text("roots.pem") };
    let context = UpstreamTls { identity: Some(Identity::Files(files)), ..world.context() };
    let why = tls(&client, &context).unwrap_err().to_string();
    assert!(why.contains("as certificate_file and private_key_file of a `file_watcher`"), "{why}");
    // A process without such files says so.
    let why = tls(&Providers::new([]), &world.context()).unwrap_err().to_string();
    assert!(why.contains("(known: none)"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_again_and_one_that_is_broken_leaves_what_was() {
    let world = World::new().await;
    let client = world.client();
    let subject = |tls: &ClientTls| {
        let server =
            world.authority.server_identity(ServerNames { dns: vec!["partner.test".into()], ips: vec![] });
        let config = tls.clone();
        async move {
            server.ready().await.unwrap();
            let accepts = Providers::new([("default".into(), server)]);
            let accepts = accepts.server_tls(&downstream(Some("default"), true)).unwrap();
            peer_of(&config, accepts).await
        }
    };
    let first = tls(&client, &world.context()).unwrap();
    assert!(subject(&first).await.contains(&id("partner")));

    world.write_own("renewed").await;
    assert!(subject(&tls(&client, &world.context()).unwrap()).await.contains(&id("partner")));
    tokio::time::advance(REFRESH).await;
    assert!(subject(&tls(&client, &world.context()).unwrap()).await.contains(&id("renewed")));

    world.write("own.key", "half written");
    world.write("roots.pem", "");
    tokio::time::advance(REFRESH).await;
    assert!(subject(&tls(&client, &world.context()).unwrap()).await.contains(&id("renewed")));
    world.write_own("mended").await;
    tokio::time::advance(REFRESH).await;
    assert!(subject(&tls(&client, &world.context()).unwrap()).await.contains(&id("mended")));
}

/// The name that a server reads in the client's certificate.
async fn peer_of(client: &ClientTls, server: Arc<rustls::ServerConfig>) -> String {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connect =
        tokio_rustls::TlsConnector::from(client.config.clone()).connect(client.server_name.clone(), near);
    let (connected, accepted) = tokio::join!(connect, tokio_rustls::TlsAcceptor::from(server).accept(far));
    connected.unwrap();
    let accepted = accepted.unwrap();
    let certificate = &accepted.get_ref().1.peer_certificates().unwrap()[0];
    mesh_ca::certificate::PeerCertificate::from_der(certificate).unwrap().names()
}

#[tokio::test]
async fn a_file_of_no_use_is_named_with_what_is_wrong_and_looked_at_again() {
    let world = World::new().await;
    let client = world.client();
    fs::remove_file(world.path("own.key")).unwrap();
    let why = tls(&client, &world.context()).unwrap_err().to_string();
    assert!(why.contains("own.key: No such file"), "{why}");
    world.write("own.key", "no key SECRET");
    let why = tls(&client, &world.context()).unwrap_err().to_string();
    assert!(why.contains("own.key of the TLS context cannot be used") && !why.contains("SECRET"), "{why}");
    world.write_own("partner").await;
    world.write("roots.pem", "nothing");
    let why = tls(&client, &world.context()).unwrap_err().to_string();
    assert!(why.contains("roots.pem of the TLS context cannot be used"), "{why}");
    world.write("roots.pem", &world.roots());
    tls(&client, &world.context()).unwrap();
}
