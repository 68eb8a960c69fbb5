//! Streams that a program opens itself: the mesh's TLS is over them, whatever they are.

use super::{
    world::{Echo, Plane, ask, bootstrap, reviews},
    *,
};
use crate::{
    connector::{Connect, Connecting, Destination, Stream},
    testing::{authority, id, identity},
};
use mesh_ca::rustls::{ClientAuth, default_provider, server_config};
use mesh_xds::{
    matcher::StringMatcher,
    resource::tls::{Identity, Roots, UpstreamTls},
};
use std::sync::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional, duplex},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

/// Nobody can be reached there (RFC 5737).
const NOWHERE: &str = "192.0.2.1:9080";

fn nowhere() -> SocketAddr {
    NOWHERE.parse().unwrap()
}

/// The other end of a stream in memory is this server.
async fn bridge(mut stream: impl AsyncRead + AsyncWrite + Unpin, server: SocketAddr) {
    let mut tcp = TcpStream::connect(server).await.unwrap();
    // Either end may go first when the test ends.
    let _ = copy_bidirectional(&mut stream, &mut tcp).await;
}

#[tokio::test]
async fn a_function_opens_the_streams_and_is_told_the_endpoints_address() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![nowhere()])]));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, server) = (asked.clone(), echo.address);
    let open = move |address: SocketAddr| {
        seen.lock().unwrap().push(address);
        let (ours, theirs) = duplex(1 << 16);
        tokio::spawn(bridge(theirs, server));
        std::future::ready(Ok::<DuplexStream, std::io::Error>(ours))
    };
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).connector(open).build().unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    for _ in 0..10 {
        let answer = within(ask(channel.clone(), None)).await.unwrap();
        assert_eq!((answer.server.as_str(), answer.authority.as_str()), ("v1", "reviews:9080"));
    }
    assert_eq!(*asked.lock().unwrap(), [nowhere()], "one connection for all calls");
}

#[tokio::test]
async fn what_a_connector_cannot_open_is_named_in_the_status_of_the_call() {
    let plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![nowhere()])]));
    let closed =
        |_: SocketAddr| async { Err::<DuplexStream, _>(std::io::Error::other("no such vsock port")) };
    let mesh = Mesh::builder().bootstrap(bootstrap(plane.address)).connector(closed).build().unwrap();
    let status = within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("192.0.2.1:9080: no such vsock port"), "{status}");
}

/// Leads every stream to a server that speaks TLS with this identity.
struct TlsInMemory {
    acceptor: TlsAcceptor,
    server: SocketAddr,
}

impl Connect for TlsInMemory {
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        assert_eq!((to.address, to.hostname, to.tcp_keepalive), (nowhere(), None, None));
        Box::pin(async {
            let (ours, theirs) = duplex(1 << 16);
            let (acceptor, server) = (self.acceptor.clone(), self.server);
            tokio::spawn(async move {
                // A client that refuses this server ends the handshake.
                if let Ok(stream) = acceptor.accept(theirs).await {
                    bridge(stream, server).await;
                }
            });
            Ok(Stream::new(ours))
        })
    }
}

/// TLS with a peer that proves to be this account.
pub(super) fn with_reviews() -> UpstreamTls {
    let name = StringMatcher::exact(&id("reviews"), false);
    UpstreamTls {
        identity: Some(Identity::Provider("default".into())),
        roots: Roots::Provider("default".into()),
        sans: vec![name.into()],
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    }
}

#[tokio::test]
async fn whoever_a_connector_leads_to_must_prove_to_be_the_peer() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    let tls = with_reviews();
    plane.publish(&reviews([("v1", vec![nowhere()])]).over(tls));
    let authority = authority();
    let client = identity(&authority, "productpage").await;
    let mesh_to = async |account: &str| {
        let identity = identity(&authority, account).await;
        let config = server_config(&identity, ClientAuth::Require, &[b"h2"], default_provider());
        let acceptor = TlsAcceptor::from(config.unwrap());
        Mesh::builder()
            .bootstrap(bootstrap(plane.address))
            .identity("default", client.clone())
            .connector(TlsInMemory { acceptor, server: echo.address })
            .build()
            .unwrap()
    };
    let mesh = mesh_to("reviews").await;
    assert_eq!(within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap().server, "v1");

    let mesh = mesh_to("impostor").await;
    let status = within(ask(mesh.channel("reviews:9080").unwrap(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("192.0.2.1:9080: TLS handshake: "), "{status}");
}
