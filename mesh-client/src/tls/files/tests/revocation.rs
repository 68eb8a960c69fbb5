//! Files of revocation lists: as they change, and when they are of no use.

use super::*;
use crate::testing::outside::Outside;
use mesh_xds::resource::tls::CrlFile;

/// A directory with the roots and the lists of an authority outside the mesh.
struct World {
    directory: TempDir,
    outside: Outside,
}

impl World {
    fn new() -> Self {
        let world = Self { directory: TempDir::new().unwrap(), outside: Outside::new() };
        fs::write(world.path("roots.pem"), world.outside.root()).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> Arc<str> {
        self.path(name).to_str().unwrap().into()
    }

    fn write(&self, lists: &str) {
        fs::write(self.path("crl.pem"), lists).unwrap();
    }

    fn client(&self) -> Providers {
        let server = ServerConfig::new("127.0.0.1:15010", ChannelCredentials::Insecure).unwrap();
        let watcher = FileWatcher {
            identity: None,
            ca_certificate_file: Some(self.path("roots.pem")),
            crl_file: Some(self.path("crl.pem")),
            spiffe_trust_bundle_map_file: None,
            refresh_interval: REFRESH,
        };
        let bootstrap = Bootstrap::new(server, Node::default())
            .with_certificate_provider("outside", CertificateProvider::FileWatcher(watcher));
        Providers::start(&bootstrap).unwrap()
    }

    fn context(&self) -> UpstreamTls {
        UpstreamTls {
            identity: None,
            roots: Roots::File(self.text("roots.pem")),
            crl: Some(CrlFile { path: self.text("crl.pem"), only_leaf: false }),
            ..upstream(vec![StringMatcher::exact("partner.test", false)])
        }
    }

    /// Why a connection to the server with this serial number cannot be made, if so.
    async fn refused(&self, client: &Providers, serial: u64) -> Option<String> {
        match tls(client, &self.context()) {
            Err(error) => Some(error.to_string()),
            Ok(tls) => handshake(&tls, self.outside.server("partner.test", serial)).await.0.err(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_refused_from_the_look_at_the_file_on_that_finds_it_there() {
    let world = World::new();
    let client = world.client();
    world.write(&world.outside.list(&[8], false));
    assert_eq!(world.refused(&client, 7).await, None);
    let why = world.refused(&client, 8).await.unwrap();
    assert!(why.contains("is revoked") && why.contains("crl.pem"), "{why}");

    world.write(&world.outside.list(&[7], false));
    assert_eq!(world.refused(&client, 7).await, None, "not looked at yet");
    tokio::time::advance(REFRESH).await;
    assert!(world.refused(&client, 7).await.unwrap().contains("is revoked"));
    assert_eq!(world.refused(&client, 8).await, None);
    // Who names no lists asks nobody; who names the instance asks those that stand beside its roots.
    let unasked = UpstreamTls { crl: None, ..world.context() };
    let unasked = tls(&client, &unasked).unwrap();
    handshake(&unasked, world.outside.server("partner.test", 7)).await.0.unwrap();
    let by_name = UpstreamTls { crl: None, roots: Roots::Provider("outside".into()), ..world.context() };
    let by_name = tls(&client, &by_name).unwrap();
    let why = handshake(&by_name, world.outside.server("partner.test", 7)).await.0.unwrap_err();
    assert!(why.contains("is revoked"), "{why}");
    handshake(&by_name, world.outside.server("partner.test", 8)).await.0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_of_no_use_lets_nobody_in_and_what_it_said_before_does_not_count() {
    let world = World::new();
    let client = world.client();
    let why = world.refused(&client, 7).await.unwrap();
    assert!(why.contains("crl.pem: No such file"), "{why}");
    let good = world.outside.list(&[], false);
    for (lists, reason) in [
        ("", "it holds no certificate revocation list"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "certificate revocation list 0: "),
        (&world.outside.list(&[], true), "ended at"),
        (&Outside::new().list(&[], false), "was not signed by the issuer"),
        (&format!("{good}{}", world.outside.list(&[7], false)), "lists 0 and 1 are of the same issuer"),
    ] {
        world.write(&good);
        tokio::time::advance(REFRESH).await;
        assert_eq!(world.refused(&client, 7).await, None);
        world.write(lists);
        tokio::time::advance(REFRESH).await;
        let why = world.refused(&client, 7).await.unwrap();
        assert!(why.contains(reason), "{reason}: {why}");
        assert!(why.contains("crl.pem"), "{why}");
        // Once more, without another look being due: it is not forgotten that it is of no use.
        assert!(world.refused(&client, 7).await.is_some());
    }
}

#[tokio::test]
async fn no_other_file_of_lists_is_read() {
    let world = World::new();
    world.write(&world.outside.list(&[], false));
    fs::copy(world.path("crl.pem"), world.path("others.pem")).unwrap();
    let crl = Some(CrlFile { path: world.text("others.pem"), only_leaf: false });
    let why = tls(&world.client(), &UpstreamTls { crl, ..world.context() }).unwrap_err().to_string();
    for part in ["others.pem", "as crl_file of a `file_watcher`", "crl.pem)"] {
        assert!(why.contains(part), "{part}: {why}");
    }
}
