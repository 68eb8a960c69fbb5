//! What a connection begins with: the way through an HTTP CONNECT proxy (gRFC A86), the header of the PROXY protocol.

use super::{
    net::*,
    tls::{Identity, Pki, mutual},
};
use crate::{
    cluster::{AttemptErrorKind, Cluster, ClusterDeps},
    connector::{Connect, Connecting, Destination, Stream},
};
use mesh_xds::resource::cluster::{HealthProbe, HttpConnect, ProxyProtocol, Tlv};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional};
use tonic::Code;

/// What a proxy does when it is asked for a way.
#[derive(Clone, Copy)]
enum Proxy {
    Tunnels,
    Answers(&'static [u8]),
    AnswersAndHangsUp(&'static [u8]),
    Stalls,
}

/// Where streams lead: to proxies, and to servers that are behind what reads the header, if one is to come.
#[derive(Clone, Default)]
struct Town {
    net: Net,
    proxies: Arc<Mutex<HashMap<SocketAddr, Proxy>>>,
    /// Servers want the header.
    announced: bool,
    /// Streams say that they come from there.
    local: Option<SocketAddr>,
    /// What happened, in order.
    log: Arc<Mutex<Vec<String>>>,
}

impl Town {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    /// Since the last question.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    async fn be_proxy(self, proxy: Proxy, mut io: DuplexStream) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(io.read_u8().await?);
        }
        let request = String::from_utf8(request).unwrap();
        let line = request.lines().next().unwrap().to_owned();
        self.note(&line);
        match proxy {
            Proxy::Tunnels => {
                io.write_all(b"HTTP/1.1 200 Go ahead\r\n\r\n").await?;
                let to = line.split(' ').nth(1).unwrap().parse().unwrap();
                self.be_server(to, io).await
            }
            Proxy::Answers(answer) => {
                io.write_all(answer).await?;
                std::future::pending().await
            }
            Proxy::AnswersAndHangsUp(answer) => io.write_all(answer).await,
            Proxy::Stalls => std::future::pending().await,
        }
    }

    async fn be_server(self, address: SocketAddr, mut io: DuplexStream) -> io::Result<()> {
        if self.announced {
            self.note(read_header(&mut io).await?);
        }
        let to = Destination { address, hostname: None, proxy_to: None, tcp_keepalive: None };
        let mut server = self.net.connect(to).await?.into_parts().0;
        copy_bidirectional(&mut io, &mut server).await.map(drop)
    }

    fn spawn(&self, config: &Config) -> Arc<Cluster> {
        let connect: Arc<dyn Connect> = Arc::new(self.clone());
        spawn(config.build(), &ClusterDeps { connect, ..deps(&self.net) })
    }

    /// It is configured otherwise, and called: what that takes.
    async fn then(
        &self,
        cluster: &Arc<Cluster>,
        config: &mut Config,
        change: &dyn Fn(&mut Config),
        expected: &[&str],
    ) {
        change(config);
        cluster.update(config.build());
        rest().await;
        assert_eq!(call(cluster).await.unwrap(), Code::Ok);
        assert_eq!(self.log(), expected);
    }

    /// A cluster that was called three times; over TLS, if this server is to speak it.
    async fn called(&self, mut config: Config, secured: Option<&Server>) -> Arc<Cluster> {
        let (identity, pki) = (Arc::new(Identity::default()), Pki::new());
        if let Some(server) = secured {
            *server.tls.lock().unwrap() = Some(pki.server(&pki, b"h2"));
            *identity.config.lock().unwrap() = Some(pki.client(&pki));
            config.cluster.tls = Some(mutual());
        }
        let connect: Arc<dyn Connect> = Arc::new(self.clone());
        let cluster = spawn(config.build(), &ClusterDeps { connect, tls: identity, ..deps(&self.net) });
        for _ in 0..3 {
            assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        }
        cluster
    }
}

/// As the specification has a receiver tell the versions apart.
async fn read_header(io: &mut DuplexStream) -> io::Result<String> {
    let mut header = vec![0; 12];
    io.read_exact(&mut header).await?;
    if header == b"\r\n\r\n\0\r\nQUIT\n" {
        let mut rest = vec![0; 4];
        io.read_exact(&mut rest).await?;
        let mut block = vec![0; usize::from(u16::from_be_bytes([rest[2], rest[3]]))];
        io.read_exact(&mut block).await?;
        return Ok(format!("{:x} {:x} {block:?}", rest[0], rest[1]));
    }
    while !header.ends_with(b"\r\n") {
        header.push(io.read_u8().await?);
    }
    Ok(String::from_utf8(header).unwrap().trim_end().to_owned())
}

impl Connect for Town {
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let address = to.address;
            match to.proxy_to {
                Some(_) => {
                    let proxy = self.proxies.lock().unwrap().get(&address).copied();
                    let proxy = proxy.ok_or_else(|| io::Error::from_raw_os_error(111))?;
                    self.note(format!("proxy {address}"));
                    tokio::spawn(self.clone().be_proxy(proxy, theirs));
                }
                None => {
                    self.note(format!("server {address}"));
                    tokio::spawn(self.clone().be_server(address, theirs));
                }
            }
            let stream = Stream::new(ours);
            Ok(match self.local {
                Some(local) => stream.with_local_address(local),
                None => stream,
            })
        })
    }
}

const V2: fn() -> ProxyProtocol = || ProxyProtocol::V2 { tlvs: [].into() };

fn local() -> SocketAddr {
    "10.9.8.7:4000".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_begins_with_the_header_and_goes_on_as_without() {
    let tlvs = [Tlv { kind: 0xe0, value: (*b"x").into() }].into();
    let addresses = "10, 9, 8, 7, 127, 0, 0, 1, 15, 160, 0, 1";
    for (header, local, expected) in [
        (ProxyProtocol::V1, Some(local()), "PROXY TCP4 10.9.8.7 127.0.0.1 4000 1".to_owned()),
        (ProxyProtocol::V1, None, "PROXY UNKNOWN".to_owned()),
        (V2(), Some(local()), format!("21 11 [{addresses}]")),
        (ProxyProtocol::V2 { tlvs }, Some(local()), format!("21 11 [{addresses}, 224, 0, 1, 120]")),
        (V2(), None, "20 0 []".to_owned()),
    ] {
        for encrypted in [false, true] {
            let town = Town { announced: true, local, ..Town::default() };
            let server = town.net.server(1);
            let mut config = Config::of(&[1]);
            config.cluster.proxy_protocol = Some(header.clone());
            let _cluster = town.called(config, encrypted.then_some(&*server)).await;
            assert_eq!(town.log(), ["server 127.0.0.1:1", &expected], "encrypted: {encrypted}");
            let scheme = if encrypted { "https:" } else { "http:" };
            assert!(server.seen_uris.lock().unwrap().iter().all(|uri| uri.starts_with(scheme)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoints_own_tlvs_are_in_a_header_of_version_2_and_nowhere_else() {
    let tlv = |kind, value: &[u8]| Tlv { kind, value: value.into() };
    let addresses = "10, 9, 8, 7, 127, 0, 0, 1, 15, 160, 0, 1";
    let town = Town { announced: true, local: Some(local()), ..Town::default() };
    let server = town.net.server(1);
    let mut config = Config::of(&[1]);
    let tlvs = [tlv(1, b"c"), tlv(2, b"c")].into();
    config.cluster.proxy_protocol = Some(ProxyProtocol::V2 { tlvs });
    config.endpoint(0).tlvs = Some([tlv(1, b"o")].into());
    let cluster = town.spawn(&config);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let said = |more: &str| format!("21 11 [{addresses}, {more}]");
    assert_eq!(town.log(), ["server 127.0.0.1:1", &said("1, 0, 1, 111, 2, 0, 1, 99")]);

    let mut then = async |change: &dyn Fn(&mut Config), expected: &[&str]| {
        town.then(&cluster, &mut config, change, expected).await;
    };
    // A connection that said something else is replaced.
    let others = |config: &mut Config| config.endpoint(0).tlvs = Some([tlv(3, b"o")].into());
    then(&others, &["server 127.0.0.1:1", &said("3, 0, 1, 111, 1, 0, 1, 99, 2, 0, 1, 99")]).await;
    let v1 = |config: &mut Config| config.cluster.proxy_protocol = Some(ProxyProtocol::V1);
    then(&v1, &["server 127.0.0.1:1", "PROXY TCP4 10.9.8.7 127.0.0.1 4000 1"]).await;
    // Of a version that does not say them they are no reason for another.
    then(&|config| config.endpoint(0).tlvs = None, &[]).await;
    assert_eq!(server.dials(), 3);
}

#[tokio::test(start_paused = true)]
async fn health_checks_begin_with_it_as_well_in_version_2_for_nobodys_sake() {
    // That it opens is all, so that nothing follows the header.
    let tcp = HealthProbe::Tcp { send: bytes::Bytes::new(), receive: vec![] };
    let grpc = crate::health::tests::check().probe;
    for probe in [grpc, tcp] {
        for (header, of_check) in
            [(ProxyProtocol::V1, "PROXY TCP4 10.9.8.7 127.0.0.1 4000 1"), (V2(), "20 0 []")]
        {
            let town = Town { announced: true, local: Some(local()), ..Town::default() };
            let _server = town.net.server(1);
            let mut config = Config::of(&[1]);
            config.cluster.proxy_protocol = Some(header);
            let check = crate::health::tests::check();
            config.cluster.health_check =
                Some(Arc::new(mesh_xds::resource::cluster::HealthCheck { probe: probe.clone(), ..check }));
            let cluster = town.spawn(&config);
            assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
            let headers: Vec<_> = town.log().into_iter().filter(|what| !what.starts_with("server")).collect();
            assert_eq!(headers.len(), 2, "{headers:?}");
            assert!(headers.contains(&of_check.to_owned()), "{headers:?}");
        }
    }
}

fn proxy_address() -> SocketAddr {
    "10.1.1.1:3128".parse().unwrap()
}

/// An endpoint behind this proxy, which does that.
fn behind(proxy: Proxy) -> (Town, Arc<Server>, Config) {
    let town = Town::default();
    let server = town.net.server(1);
    town.proxies.lock().unwrap().insert(proxy_address(), proxy);
    let mut config = Config::of(&[1]);
    config.cluster.http_connect = Some(HttpConnect::default());
    config.endpoint(0).proxy = Some(proxy_address());
    (town, server, config)
}

#[tokio::test(start_paused = true)]
async fn calls_and_health_checks_go_through_the_proxy_with_header_and_tls_inside() {
    for encrypted in [false, true] {
        let (mut town, server, mut config) = behind(Proxy::Tunnels);
        (town.announced, town.local) = (true, Some(local()));
        config.cluster.proxy_protocol = Some(ProxyProtocol::V1);
        let check = crate::health::tests::check();
        config.cluster.health_check = Some(Arc::new(check));
        let _cluster = town.called(config, encrypted.then_some(&*server)).await;
        let mut log = town.log();
        log.sort();
        let expected = [
            "CONNECT 127.0.0.1:1 HTTP/1.1",
            // The endpoint is told of itself, not of the proxy.
            "PROXY TCP4 10.9.8.7 127.0.0.1 4000 1",
            "proxy 10.1.1.1:3128",
        ];
        // One connection for calls, one for checks.
        assert_eq!(log, expected.map(|what| [what, what]).concat());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_does_instead_is_told_and_no_call_goes_past_it() {
    let long: &'static [u8] =
        Box::leak(format!("HTTP/1.1 200 {}", "x".repeat(9000)).into_boxed_str()).as_bytes();
    for (proxy, reason) in [
        (
            Proxy::Answers(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
            "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: answered 407 Proxy Authentication Required",
        ),
        (
            Proxy::AnswersAndHangsUp(b"HTTP/1.1 503 Busy\r\ncontent-length: 3\r\n\r\nno!"),
            "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: answered 503 Busy",
        ),
        (
            Proxy::Answers(b"220 mail.example.com ESMTP\r\n"),
            "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: its answer is not HTTP/1.1: ",
        ),
        (
            Proxy::AnswersAndHangsUp(b"HTTP/1.1 200 O"),
            "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: closed the connection within its answer",
        ),
        (
            Proxy::AnswersAndHangsUp(b""),
            "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: closed the connection without an answer",
        ),
        (
            Proxy::Answers(long),
            "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: its answer is longer than 8192 bytes",
        ),
        (
            Proxy::Answers(b"HTTP/1.1 200 OK\r\nvia: "),
            "127.0.0.1:1: not connected within 5s through HTTP CONNECT proxy 10.1.1.1:3128",
        ),
        (Proxy::Stalls, "127.0.0.1:1: not connected within 5s through HTTP CONNECT proxy 10.1.1.1:3128"),
    ] {
        let (town, server, config) = behind(proxy);
        let error = call(&town.spawn(&config)).await.unwrap_err();
        assert_eq!(error.kind, AttemptErrorKind::NoEndpoint);
        assert!(error.status.message().contains(reason), "{}", error.status.message());
        assert_eq!((server.dials(), server.hits()), (0, 0));
    }
    let (town, server, config) = behind(Proxy::Tunnels);
    town.proxies.lock().unwrap().clear();
    let error = call(&town.spawn(&config)).await.unwrap_err();
    let reason = "127.0.0.1:1: HTTP CONNECT proxy 10.1.1.1:3128: connection refused";
    assert!(error.status.message().contains(reason), "{}", error.status.message());
    assert_eq!(server.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_address_of_an_endpoint_is_asked_for() {
    let (town, server, mut config) = behind(Proxy::Tunnels);
    // Nobody is at the first: the tunnel leads nowhere.
    config.endpoint(0).addresses = vec![address(9), address(1)];
    assert_eq!(call(&town.spawn(&config)).await.unwrap(), Code::Ok);
    assert_eq!(server.hits(), 1);
    let asked: Vec<_> = town.log().into_iter().filter(|what| what.starts_with("CONNECT")).collect();
    assert_eq!(asked, ["CONNECT 127.0.0.1:9 HTTP/1.1", "CONNECT 127.0.0.1:1 HTTP/1.1"]);
}

/// A connection that was made in another way is not used from then on.
#[tokio::test(start_paused = true)]
async fn another_way_holds_for_calls_at_once() {
    let other: SocketAddr = "10.2.2.2:3128".parse().unwrap();
    let (mut town, server, mut config) = behind(Proxy::Tunnels);
    town.proxies.lock().unwrap().insert(other, Proxy::Tunnels);
    let proxied = std::mem::take(&mut config.cluster.http_connect);
    let cluster = town.spawn(&config);
    // The cluster does not ask for the proxy that the endpoint has.
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(town.log(), ["server 127.0.0.1:1"]);

    let mut then = async |change: &dyn Fn(&mut Config), expected: &[&str]| {
        town.then(&cluster, &mut config, change, expected).await;
    };
    let asked = "CONNECT 127.0.0.1:1 HTTP/1.1";
    then(&|config| config.cluster.http_connect = proxied, &["proxy 10.1.1.1:3128", asked]).await;
    then(&|config| config.endpoint(0).proxy = Some(other), &["proxy 10.2.2.2:3128", asked]).await;
    let default = Some(HttpConnect { default_proxy: Some(proxy_address()) });
    // The endpoint's own goes before.
    then(&|config| config.cluster.http_connect = default, &[]).await;
    then(&|config| config.endpoint(0).proxy = None, &["proxy 10.1.1.1:3128", asked]).await;
    then(&|config| config.cluster.connection.connect_timeout = Duration::from_secs(1), &[]).await;
    then(&|config| config.cluster.http_connect = None, &["server 127.0.0.1:1"]).await;
    assert_eq!(server.dials(), 5);

    town.announced = true;
    config.cluster.proxy_protocol = Some(V2());
    let cluster = town.spawn(&config);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    config.cluster.proxy_protocol = Some(ProxyProtocol::V1);
    cluster.update(config.build());
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let expected = ["server 127.0.0.1:1", "20 0 []", "server 127.0.0.1:1", "PROXY UNKNOWN"];
    assert_eq!(town.log(), expected);
}
