//! Certificates and roots from the control plane (Envoy's SDS), or from files that it names: calls over mutual TLS
//! with them, as they change.

use super::{
    world::{Echo, Plane, Published, Secured, ask, bootstrap, free_address, reviews},
    *,
};
use crate::testing::{authority, id, identity};
use mesh_ca::{
    issuer::Authority,
    rustls::{ClientAuth, default_provider, server_config},
    spiffe_id::TrustDomain,
    workload::WorkloadIdentity,
};
use mesh_xds::{
    bootstrap::{CertificateProvider, FileWatcher},
    matcher::StringMatcher,
    resource::{
        secret::{PrivateKey, Secret, SecretContent, TlsCertificate, ValidationContext},
        tls::{Identity, KeyFiles, Roots, SanMatcher, UpstreamTls},
    },
    server::StreamEvent,
};
use tokio::sync::broadcast;

/// Leads every stream to a server that wants to know its clients.
async fn server(authority: &Arc<Authority>, account: &str, echo: &Echo) -> Secured {
    let own = identity(authority, account).await;
    let config = server_config(&own, ClientAuth::Require, &[b"h2"], default_provider()).unwrap();
    Secured::new(config, echo.address)
}

/// Lets the others do something: calls that fail at once never wait.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

fn key_pair(name: &str, chain: &WorkloadIdentity, key: &WorkloadIdentity) -> Secret {
    let of = |identity: &WorkloadIdentity| identity.current().unwrap().svid().clone();
    let chain = of(chain).chain_pem().into_bytes().into();
    let key = PrivateKey::new(of(key).key().to_pem().as_bytes());
    Secret { name: name.into(), content: SecretContent::Certificate(TlsCertificate { chain, key }) }
}

fn roots_of(authority: &Authority, sans: Vec<SanMatcher>) -> Secret {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let roots = authority.bundles().roots(&domain).unwrap().pem().into_bytes().into();
    let content = SecretContent::Validation(ValidationContext { roots, sans });
    Secret { name: "roots".into(), content }
}

fn san(account: &str) -> SanMatcher {
    StringMatcher::exact(&id(account), false).into()
}

/// One endpoint, over TLS with the secrets `own` and `roots`.
fn secured(secrets: &[&Secret]) -> Published {
    let tls = UpstreamTls {
        identity: Some(Identity::Secret("own".into())),
        roots: Roots::Secret("roots".into()),
        sans: vec![],
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    };
    let secrets = secrets.iter().map(|secret| (*secret).clone()).collect();
    reviews([("v1", vec![free_address()])]).over(tls).with_secrets(secrets)
}

/// Publishes, and waits for the client to have all of it, or to have rejected something: what it says then.
async fn publish(plane: &Plane, config: &Published) -> Option<String> {
    let mut events = plane.events();
    let revision = plane.publish(config);
    within(async {
        loop {
            match events.recv().await {
                Ok(StreamEvent::Acked { revision: acked, .. }) if acked == revision => return None,
                Ok(StreamEvent::Rejected { text, .. }) => return Some(text.to_string()),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn calls_go_over_mutual_tls_with_the_secrets_of_the_control_plane() {
    let (plane, echo, authority) = (Plane::start().await, Echo::start("v1").await, authority());
    let (first, second) = (identity(&authority, "first").await, identity(&authority, "second").await);
    let server = server(&authority, "reviews", &echo).await;
    let endpoint = secured(&[&key_pair("own", &first, &first), &roots_of(&authority, vec![san("reviews")])]);
    plane.publish(&endpoint);
    // There is no certificate provider: all it knows is from the control plane.
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).connector(server.clone()).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    let call = || within(ask(channel.clone(), None));
    assert_eq!(call().await.unwrap().server, "v1");
    assert_eq!(server.clients(), [id("first")]);

    // Rotation: the connection that is up goes on; the next one is made with the new certificate.
    let rotated = |own: &Secret| {
        endpoint.clone().with_secrets(vec![own.clone(), roots_of(&authority, vec![san("reviews")])])
    };
    assert_eq!(publish(&plane, &rotated(&key_pair("own", &second, &second))).await, None);
    for _ in 0..20 {
        call().await.unwrap();
    }
    assert_eq!(server.clients(), [id("first")], "the old connection lives on");
    let reconnected = async {
        // The cluster hears of its secret a moment after it is acknowledged.
        while server.clients().last() != Some(&id("second")) {
            server.hang_up();
            let _ = ask(channel.clone(), None).await;
            pause().await;
        }
    };
    within(reconnected).await;
    assert_eq!(call().await.unwrap().server, "v1");

    // Another certificate's key: rejected, and the earlier one stays in use.
    let said = publish(&plane, &rotated(&key_pair("own", &first, &second))).await.unwrap();
    assert!(
        said.starts_with("Secret own: tls_certificate.private_key: the private key is not the one"),
        "{said}"
    );
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    let connections = server.clients().len();
    let reconnected = async {
        while server.clients().len() == connections {
            server.hang_up();
            let _ = ask(channel.clone(), None).await;
            pause().await;
        }
    };
    within(reconnected).await;
    assert_eq!(server.clients().last(), Some(&id("second")));

    // Nothing that is shown of this client has a key in it.
    let status = mesh.status();
    let own = status.control_plane.resources.iter().find(|resource| &*resource.name == "own").unwrap();
    let shown = format!("{own:?}{}", String::from_utf8_lossy(own.body.as_ref().unwrap()));
    assert!(shown.contains("[redacted]") && !shown.contains("PRIVATE KEY"), "{shown}");
}

/// A cluster names files of this machine; the bootstrap says which of them may be read.
#[tokio::test]
async fn files_are_shown_and_judged_by_where_the_bootstrap_names_them_too() {
    let (plane, echo, authority) = (Plane::start().await, Echo::start("v1").await, authority());
    let server = server(&authority, "reviews", &echo).await;
    let own = identity(&authority, "productpage").await.current().unwrap().svid().clone();
    let roots = authority.bundles().roots(&TrustDomain::parse("cluster.local").unwrap()).unwrap().pem();
    let dir = tempfile::TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (chain, key) = (file("own.pem", &own.chain_pem()), file("own.key", &own.key().to_pem()));
    let roots = file("roots.pem", &roots);
    let text = |path: &std::path::Path| Arc::<str>::from(path.to_str().unwrap());
    let tls = UpstreamTls {
        identity: Some(Identity::Files(KeyFiles { certificate: text(&chain), key: text(&key) })),
        roots: Roots::File(text(&roots)),
        sans: vec![san("reviews")],
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    };
    plane.publish(&reviews([("v1", vec![free_address()])]).over(tls));

    let mesh = |bootstrap| Mesh::builder().bootstrap(bootstrap).connector(server.clone()).build().unwrap();
    let stranger = mesh(bootstrap(plane.address));
    let status = within(ask(stranger.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    for told in ["own.pem and ", "own.key", "of a `file_watcher` in `certificate_providers` (known: none)"] {
        assert!(status.message().contains(told), "{told}: {status}");
    }
    assert_eq!(server.clients(), Vec::<String>::new(), "and never goes out without");

    let watcher = FileWatcher {
        identity: Some((chain, key)),
        ca_certificate_file: Some(roots),
        crl_file: None,
        spiffe_trust_bundle_map_file: None,
        refresh_interval: Duration::from_secs(600),
    };
    let partner = CertificateProvider::FileWatcher(watcher);
    let told = mesh(bootstrap(plane.address).with_certificate_provider("partner", partner));
    let reply = within(ask(told.channel("reviews:9080").unwrap(), None)).await.unwrap();
    assert_eq!(reply.server, "v1");
    assert_eq!(server.clients(), [id("productpage")]);
}

#[tokio::test]
async fn a_server_of_another_name_than_the_secret_says_is_refused() {
    let (plane, echo, authority) = (Plane::start().await, Echo::start("v1").await, authority());
    let own = identity(&authority, "productpage").await;
    let server = server(&authority, "impostor", &echo).await;
    plane.publish(&secured(&[&key_pair("own", &own, &own), &roots_of(&authority, vec![san("reviews")])]));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).connector(server.clone()).build().unwrap();
    let status = within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let names = [format!("expected {}", id("reviews")), id("impostor")];
    assert!(names.iter().all(|name| status.message().contains(name)), "{status}");
}

#[tokio::test]
async fn a_server_that_the_roots_of_the_secret_do_not_vouch_for_is_refused() {
    let (plane, echo, strange) = (Plane::start().await, Echo::start("v1").await, authority());
    let own = identity(&strange, "productpage").await;
    let server = server(&authority(), "reviews", &echo).await;
    plane.publish(&secured(&[&key_pair("own", &own, &own), &roots_of(&strange, vec![san("reviews")])]));
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).connector(server).build().unwrap();
    let status = within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("TLS handshake: "), "{status}");
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named_with_its_cluster_and_calls_go_when_it_comes() {
    let (plane, echo, authority) = (Plane::start().await, Echo::start("v1").await, authority());
    let own = identity(&authority, "productpage").await;
    let server = server(&authority, "reviews", &echo).await;
    let roots = roots_of(&authority, vec![]);
    let lacking = secured(&[&roots]);
    plane.publish(&lacking);
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).connector(server).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    let status = within(ask(channel.clone(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let says = "Cluster v1 cannot be used: its TLS context needs a secret: Secret own does not exist";
    assert!(status.message().contains(says), "{status}");

    plane.publish(&lacking.with_secrets(vec![key_pair("own", &own, &own), roots]));
    let comes = async {
        while ask(channel.clone(), None).await.is_err() {
            pause().await;
        }
    };
    within(comes).await;
}
