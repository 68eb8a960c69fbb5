//! Servers whose certificate was revoked, by a file that the cluster and the bootstrap name: calls over TLS.

use super::{
    world::{Echo, Plane, Secured, ask, bootstrap, free_address, reviews},
    *,
};
use crate::testing::outside::Outside;
use mesh_xds::{
    bootstrap::{CertificateProvider, FileWatcher},
    matcher::StringMatcher,
    resource::tls::{CrlFile, Roots, UpstreamTls},
};

#[tokio::test]
async fn calls_to_a_server_fail_once_its_certificate_is_revoked_and_it_has_to_be_connected_to_anew() {
    let (plane, echo, outside) = (Plane::start().await, Echo::start("v1").await, Outside::new());
    let server = Secured::new(outside.server("partner.test", 7), echo.address);
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| Arc::<str>::from(path(name).to_str().unwrap());
    std::fs::write(path("roots.pem"), outside.root()).unwrap();
    std::fs::write(path("crl.pem"), outside.list(&[8], false)).unwrap();
    let tls = UpstreamTls {
        identity: None,
        roots: Roots::File(text("roots.pem")),
        crl: Some(CrlFile { path: text("crl.pem"), only_leaf: false }),
        sans: vec![StringMatcher::exact("partner.test", false).into()],
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    };
    plane.publish(&reviews([("v1", vec![free_address()])]).over(tls));
    let mesh = |lists: bool| {
        let watcher = FileWatcher {
            identity: None,
            ca_certificate_file: Some(path("roots.pem")),
            crl_file: lists.then(|| path("crl.pem")),
            spiffe_trust_bundle_map_file: None,
            refresh_interval: Duration::ZERO,
        };
        let partner = CertificateProvider::FileWatcher(watcher);
        let bootstrap = bootstrap(plane.address).with_certificate_provider("partner", partner);
        Mesh::builder().bootstrap(bootstrap).connector(server.clone()).build().unwrap()
    };

    // The machine does not say that this file may be read.
    let stranger = mesh(false);
    let status = within(ask(stranger.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    for told in ["crl.pem", "as crl_file of a `file_watcher`", "(known: none)"] {
        assert!(status.message().contains(told), "{told}: {status}");
    }

    let mesh = mesh(true);
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "v1");

    std::fs::write(path("crl.pem"), outside.list(&[8, 7], false)).unwrap();
    assert!(within(ask(channel.clone(), None)).await.is_ok(), "a connection that is up lives on");
    server.hang_up();
    let refused = async {
        loop {
            // The first may still go to the connection that just broke.
            match ask(channel.clone(), None).await {
                Err(status) if status.message().contains("is revoked") => return status,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let status = within(refused).await;
    assert_eq!(status.code(), Code::Unavailable);
    for told in ["TLS handshake: ", "partner.test", "crl.pem"] {
        assert!(status.message().contains(told), "{told}: {status}");
    }
}
