//! Connections that begin with the PROXY protocol, or lead through an HTTP CONNECT proxy, as a control plane asks: over
//! real sockets.

use super::{
    connector::with_reviews,
    world::{Echo, Plane, Published, ask, bootstrap, lead, reviews},
    *,
};
use crate::testing::{authority, identity};
use mesh_ca::{
    rustls::{ClientAuth, default_provider, server_config},
    workload::WorkloadIdentity,
};
use mesh_xds::resource::cluster::{Cluster, ProxyProtocol};
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Who calls, and the TLS of a server that wants to know.
async fn both_ends() -> (WorkloadIdentity, TlsAcceptor) {
    let authority = authority();
    let (client, server) = (identity(&authority, "productpage").await, identity(&authority, "reviews").await);
    let config = server_config(&server, ClientAuth::Require, &[b"h2"], default_provider()).unwrap();
    (client, TlsAcceptor::from(config))
}

/// Calls the one server three times, and returns how that is explained.
async fn called(published: Published, client: &WorkloadIdentity, encrypted: bool) -> String {
    let plane = Plane::start().await;
    plane.publish(&if encrypted { published.over(with_reviews()) } else { published });
    let mesh = Mesh::builder()
        .bootstrap(bootstrap(plane.address))
        .identity("default", client.clone())
        .build()
        .unwrap();
    let channel = mesh.channel("reviews:9080").unwrap();
    for _ in 0..3 {
        assert_eq!(within(ask(channel.clone(), None)).await.unwrap().server, "v1", "TLS: {encrypted}");
    }
    let head = http::Request::builder().uri("/a.B/C").body(()).unwrap().into_parts().0;
    channel.explain(&head).await.to_string()
}

/// Reads the header in front of a server, and checks that it is true.
struct Front {
    address: SocketAddr,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Front {
    async fn of(server: SocketAddr, version: u8, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<usize>>::default();
        let (count, mut tasks) = (connections.clone(), JoinSet::new());
        tasks.spawn(async move {
            loop {
                let (mut tcp, from) = listener.accept().await.unwrap();
                let (tls, count) = (tls.clone(), count.clone());
                tokio::spawn(async move {
                    assert_eq!(read_header(&mut tcp, version).await, expected(version, from, address));
                    *count.lock().unwrap() += 1;
                    match tls {
                        None => lead(tcp, server).await,
                        Some(tls) => lead(tls.accept(tcp).await.unwrap(), server).await,
                    }
                });
            }
        });
        Self { address, connections, _tasks: tasks }
    }
}

/// Not a byte more than the header.
async fn read_header(tcp: &mut TcpStream, version: u8) -> Vec<u8> {
    let mut header = Vec::new();
    let done = |header: &[u8]| match version {
        1 => header.ends_with(b"\r\n"),
        _ => header.len() == 28,
    };
    while !done(&header) {
        header.push(tcp.read_u8().await.unwrap());
    }
    header
}

fn expected(version: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    if version == 1 {
        return format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port()).into_bytes();
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}

#[tokio::test]
async fn a_server_reads_in_the_header_what_it_sees_and_serves_what_follows_plain_or_encrypted() {
    let echo = Echo::start("v1").await;
    let (client, acceptor) = both_ends().await;
    let first: fn(&mut Cluster) = |cluster| cluster.proxy_protocol = Some(ProxyProtocol::V1);
    let second: fn(&mut Cluster) =
        |cluster| cluster.proxy_protocol = Some(ProxyProtocol::V2 { tlvs: [].into() });
    for (version, change) in [(1, first), (2, second)] {
        for tls in [None, Some(acceptor.clone())] {
            let front = Front::of(echo.address, version, tls.clone()).await;
            let published = reviews([("v1", vec![front.address])]).with_clusters(change);
            let told = called(published, &client, tls.is_some()).await;
            assert_eq!(*front.connections.lock().unwrap(), 1);
            assert!(told.contains(&format!("V{version}: connections begin with its header")), "{told}");
        }
    }
}

/// An HTTP CONNECT proxy, to which every address is this server.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    /// What it says instead of going ahead.
    refusal: Arc<Mutex<Option<&'static str>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, refusal) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Option<_>>>::default());
        let (seen, refuses, mut tasks) = (asked.clone(), refusal.clone(), JoinSet::new());
        tasks.spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let (seen, refuses) = (seen.clone(), refuses.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(tcp.read_u8().await.unwrap());
                    }
                    seen.lock().unwrap().push(String::from_utf8(request).unwrap());
                    let refusal = *refuses.lock().unwrap();
                    let answer = refusal.unwrap_or("HTTP/1.1 200 Connection established\r\n\r\n");
                    tcp.write_all(answer.as_bytes()).await.unwrap();
                    if refusal.is_none() {
                        lead(tcp, server).await;
                    }
                });
            }
        });
        Self { address, asked, refusal, _tasks: tasks }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn behind(proxy: &Proxy) -> impl Fn(SocketAddr) -> Option<SocketAddr> + Send + Sync + use<> {
    let proxy = proxy.address;
    move |_| Some(proxy)
}

/// Nobody can be reached there (RFC 5737).
fn nowhere() -> SocketAddr {
    "192.0.2.1:9080".parse().unwrap()
}

const REQUEST: &str = "CONNECT 192.0.2.1:9080 HTTP/1.1\r\nHost: 192.0.2.1:9080\r\n\r\n";

#[tokio::test]
async fn endpoints_behind_a_proxy_are_called_through_it_plain_or_encrypted() {
    let echo = Echo::start("v1").await;
    let (client, acceptor) = both_ends().await;
    let encrypted = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secured = encrypted.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (tcp, _) = encrypted.accept().await.unwrap();
            tokio::spawn(lead(acceptor.accept(tcp).await.unwrap(), echo.address));
        }
    });
    for tls in [false, true] {
        let proxy = Proxy::to(if tls { secured } else { echo.address }).await;
        let published = reviews([("v1", vec![nowhere()])]).behind(behind(&proxy));
        let told = called(published, &client, tls).await;
        assert_eq!(proxy.asked(), [REQUEST]);
        assert!(told.contains(&format!("through proxy {}", proxy.address)), "{told}");
    }
}

#[tokio::test]
async fn the_status_of_a_call_says_what_the_proxy_said_and_the_proxy_is_asked_again() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    let proxy = Proxy::to(echo.address).await;
    *proxy.refusal.lock().unwrap() = Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    plane.publish(&reviews([("v1", vec![nowhere()])]).behind(behind(&proxy)));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let status = within(ask(channel.clone(), None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let reason = format!(
        "192.0.2.1:9080: HTTP CONNECT proxy {}: answered 407 Proxy Authentication Required",
        proxy.address
    );
    assert!(status.message().contains(&reason), "{status}");
    *proxy.refusal.lock().unwrap() = None;
    // After the back-off.
    let mut request = Request::new(crate::registration::proto::RegisterRequest::default());
    request.extensions_mut().insert(WaitForReady(true));
    assert_eq!(within(ask(channel, Some(request))).await.unwrap().server, "v1");
    assert_eq!(echo.hits(), 1);
}
