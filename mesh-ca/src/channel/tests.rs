//! Addresses, and connections that cannot be made.

use super::*;
use crate::{
    bundle::TrustBundles,
    proto::istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
    rustls::{ClientAuth, server_config},
    spiffe_id::{SpiffeId, TrustDomain},
    testing::Ca,
    verifier::ServerCheck,
};
use tokio::net::TcpListener;

fn mesh_server(ca: &Ca) -> ServerTrust {
    let check = ServerCheck::exact(SpiffeId::mesh_server(&TrustDomain::parse("td").unwrap()));
    ServerTrust::Bundles(TrustBundles::of(ca.bundle("td")), check)
}

async fn call(target: &Target) -> Status {
    let mut client = IstioCertificateServiceClient::new(connect(target));
    client.create_certificate(IstioCertificateRequest::default()).await.unwrap_err()
}

#[test]
fn only_host_and_port_make_an_address() {
    for good in ["127.0.0.1:15012", "[::1]:15012", "mesh-server.mesh-system.svc:15012", "localhost:1"] {
        Target::plaintext(good).unwrap();
        Target::tls(good, mesh_server(&Ca::new("root")), None).unwrap();
    }
    for bad in [
        "",
        "localhost",
        "localhost:",
        ":15012",
        "localhost:0",
        "localhost:70000",
        "http://a:1",
        "u@h:1",
        "h:1/x",
    ] {
        let error = Target::plaintext(bad).unwrap_err();
        assert!(error.to_string().contains("host:port"), "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_names_address_and_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let targets = [
        Target::plaintext(&address).unwrap(),
        Target::tls(&address, mesh_server(&Ca::new("root")), None).unwrap(),
    ];
    for target in targets {
        let status = call(&target).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains(&address), "{status:?}");
        assert!(status.message().to_lowercase().contains("refused"), "{status:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_unavailable_and_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    });
    let status = call(&Target::tls(&address, mesh_server(&Ca::new("root")), None).unwrap()).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains(&format!("TLS handshake with {address}")), "{status:?}");
    drop(server.await.unwrap());
}

#[tokio::test]
async fn a_server_that_does_not_agree_on_http2_is_refused() {
    let ca = Ca::new("root");
    let id = SpiffeId::mesh_server(&TrustDomain::parse("td").unwrap());
    let identity = WorkloadIdentity::fixed(ca.identity(id.as_str()));
    let config = server_config(&identity, ClientAuth::None, &[], default_provider()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(config).accept(stream).await
    });
    let status = call(&Target::tls(&address, mesh_server(&ca), None).unwrap()).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("did not agree to speak HTTP/2"), "{status:?}");
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limit = Duration::from_millis(20);
    let target = Target::tls(&address, mesh_server(&Ca::new("root")), None).unwrap().connect_limit(limit);
    let status = call(&target).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("nothing within 20ms"), "{status:?}");
}

#[test]
fn a_status_of_the_servers_own_is_left_as_it_is() {
    let status = clarify(Status::unknown("the server's words"));
    assert_eq!((status.code(), status.message()), (Code::Unknown, "the server's words"));
    let status = clarify(Status::unauthenticated("no"));
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "no"));
}

#[test]
fn debug_output_says_how_the_server_is_known() {
    let target = Target::tls("h:1", mesh_server(&Ca::new("root")), None).unwrap();
    let shown = format!("{target:?}");
    assert!(shown.contains("h:1") && shown.contains("spiffe://td/ns/mesh-system/sa/mesh-server"), "{shown}");
    assert!(shown.contains("without own identity"), "{shown}");
}
