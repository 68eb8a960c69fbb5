//! `proxyProtocol` of a DestinationRule: from the YAML to the bytes that a server reads first.

use mesh_client::Mesh;
use mesh_examples::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use mesh_server::{
    App, Settings,
    join::{Join, Security},
};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: "hello".into() }))
    }
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A greeter behind what reads the header of every connection; who calls, as the headers have it and as it is.
struct Front {
    address: SocketAddr,
    told: Arc<Mutex<Vec<(String, SocketAddr)>>>,
}

impl Front {
    async fn start() -> Self {
        let (listener, greeter) = bind().await;
        let router = Server::builder().add_service(GreeterServer::new(Hello));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let (listener, address) = bind().await;
        let told = Arc::<Mutex<Vec<_>>>::default();
        let tells = told.clone();
        tokio::spawn(async move {
            while let Ok((mut tcp, from)) = listener.accept().await {
                let tells = tells.clone();
                tokio::spawn(async move {
                    let Some(source) = read(&mut tcp).await else { return };
                    tells.lock().unwrap().push((source, from));
                    let mut greeter = TcpStream::connect(greeter).await.unwrap();
                    // Either end may go first.
                    let _ = copy_bidirectional(&mut tcp, &mut greeter).await;
                });
            }
        });
        Self { address, told }
    }

    fn told(&self) -> Vec<(String, SocketAddr)> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// The version and the source; none: what comes is no header.
async fn read(tcp: &mut TcpStream) -> Option<String> {
    let mut header = vec![0; 12];
    tcp.read_exact(&mut header).await.ok()?;
    if header == b"\r\n\r\n\0\r\nQUIT\n" {
        let mut rest = [0; 16];
        tcp.read_exact(&mut rest).await.ok()?;
        // PROXY, TCP over IPv4, 12 bytes of addresses.
        let [0x21, 0x11, 0, 12, a, b, c, d, _, _, _, _, high, low, ..] = rest else { return None };
        return Some(format!("V2 {a}.{b}.{c}.{d}:{}", u16::from_be_bytes([high, low])));
    }
    while !header.ends_with(b"\r\n") && header.len() < 107 {
        header.push(tcp.read_u8().await.ok()?);
    }
    let line = String::from_utf8(header).ok()?;
    let words: Vec<_> = line.trim_end().split(' ').collect();
    let ["PROXY", "TCP4", ip, _, port, _] = words[..] else { return None };
    Some(format!("V1 {ip}:{port}"))
}

fn entry(front: SocketAddr) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  \
         hosts: [api.example.com]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: grpc, protocol: GRPC}}]\n  \
         endpoints: [{{address: 127.0.0.1, ports: {{grpc: {}}}}}]\n",
        front.port()
    )
}

fn rule(dir: &Path, version: &str) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\nspec:\n  \
         host: api.example.com\n  trafficPolicy: {{proxyProtocol: {{version: {version}}}}}\n"
    );
    std::fs::write(dir.join("rule.yaml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rules_proxy_protocol_is_what_servers_read_first_and_a_change_holds_at_once() {
    let front = Front::start().await;
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("api.yaml"), entry(front.address)).unwrap();
    rule(dir.path(), "V1");
    let mut settings = Settings::dev(dir.path().to_owned(), "cluster.local".parse().unwrap());
    settings.xds_plaintext = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    settings.http = None;
    let running = App::start(settings).await.unwrap();
    let xds = running.addresses().xds_plaintext.unwrap();
    let join = Join::new(xds.to_string(), "caller", Security::Development);
    let client = Mesh::builder().bootstrap(join.bootstrap().unwrap()).build().unwrap();
    let channel = client.channel("xds:///api.example.com:80").unwrap();
    let mut greeter = GreeterClient::new(channel.clone());
    let hello = || HelloRequest { name: "mesh".into() };
    let is = |version: &str, (source, from): &(String, SocketAddr)| *source == format!("{version} {from}");

    assert_eq!(greeter.say_hello(hello()).await.unwrap().into_inner().message, "hello");
    let told = front.told();
    assert!(told.len() == 1 && is("V1", &told[0]), "{told:?}");
    let head = http::Request::builder().uri("/a.B/C").body(()).unwrap().into_parts().0;
    let explanation = channel.explain(&head).await.to_string();
    assert!(explanation.contains("V1: connections begin with its header"), "{explanation}");
    assert!(explanation.contains("rule.yaml:6:19"), "{explanation}");

    rule(dir.path(), "V2");
    let mut tries = 0;
    let told = loop {
        assert_eq!(greeter.say_hello(hello()).await.unwrap().into_inner().message, "hello");
        let told = front.told();
        if !told.is_empty() {
            break told;
        }
        tries += 1;
        assert!(tries < 1000, "the change does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(told.iter().all(|one| is("V2", one)), "{told:?}");

    // Without the header such a server is of no use: the error names it.
    std::fs::remove_file(dir.path().join("rule.yaml")).unwrap();
    let mut tries = 0;
    let status = loop {
        match greeter.say_hello(hello()).await {
            Ok(_) => tries += 1,
            Err(status) => break status,
        }
        assert!(tries < 1000, "the change does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&front.address.to_string()), "{status}");
    running.shutdown().await;
}
