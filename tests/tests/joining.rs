//! Programs that join a mesh, against a real control plane: the README's promises.

use mesh_client::{
    Mesh, MeshError, MeshServer, OutboundTrafficPolicy,
    registration::{RegistrationState, RegistrationStatus},
};
use mesh_examples::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use mesh_server::{
    App, Running, Settings,
    join::{Join, Security},
};
use mesh_xds::bootstrap::ServerConfig;
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tower_layer::Layer;

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: greeter
spec:
  selector: {app: greeter}
  ports:
  - {name: grpc, port: 50051}
";

struct Named(&'static str);

#[tonic::async_trait]
impl Greeter for Named {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: self.0.into() }))
    }
}

/// A development control plane at `xds`, over a directory with one service.
pub(crate) async fn control_plane(dir: &Path, xds: SocketAddr) -> Running {
    std::fs::write(dir.join("greeter.yaml"), SERVICE).unwrap();
    let mut settings = Settings::dev(dir.to_owned(), "cluster.local".parse().unwrap());
    settings.xds_plaintext = Some(xds);
    settings.http = None;
    App::start(settings).await.unwrap()
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn mesh(control_plane: SocketAddr, workload: &str, app: &str) -> Mesh {
    mesh_of(&[control_plane.to_string()], workload, app)
}

/// One whose bootstrap lists these control planes, the first of which it prefers.
fn mesh_of(control_planes: &[String], workload: &str, app: &str) -> Mesh {
    let mut join = Join::new(control_planes[0].as_str(), workload, Security::Development);
    join.labels.insert("app".into(), app.into());
    let mut bootstrap = join.bootstrap().unwrap();
    let first = bootstrap.servers[0].clone();
    let listed =
        control_planes.iter().map(|address| ServerConfig { address: address.clone(), ..first.clone() });
    bootstrap.servers = listed.collect();
    Mesh::builder().bootstrap(bootstrap).build().unwrap()
}

fn is_registered(state: &RegistrationState, drains: bool) -> bool {
    matches!(state, RegistrationState::Registered { draining, .. } if *draining == drains)
}

/// Serves a greeter in the mesh, registered when this returns.
async fn serve(mesh: &Mesh, name: &'static str) -> MeshServer {
    let server = mesh.server(loopback()).await.unwrap();
    let router = Server::builder().layer(server.layer()).add_service(GreeterServer::new(Named(name)));
    tokio::spawn(router.serve_with_incoming_shutdown(server.incoming(), server.drained()));
    server.registered().await.unwrap();
    server
}

/// A greeter outside any mesh.
async fn serve_outside(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::builder().add_service(GreeterServer::new(Named(name)));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) fn hello() -> HelloRequest {
    HelloRequest { name: "mesh".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_a_client_join_a_development_mesh() {
    let dir = TempDir::new().unwrap();
    let running = control_plane(dir.path(), loopback()).await;
    let xds = running.addresses().xds_plaintext.unwrap();
    let (server, client) = (mesh(xds, "greeter", "greeter"), mesh(xds, "caller", "caller"));
    serve(&server, "from the mesh").await;

    let channel = client.channel("xds:///greeter:50051").unwrap();
    // Inside a spawned task: the channel, its futures and its errors are all `Send`.
    let reply = tokio::spawn(async move { GreeterClient::new(channel).say_hello(hello()).await });
    assert_eq!(reply.await.unwrap().unwrap().into_inner().message, "from the mesh");
    running.shutdown().await;
}

/// Control planes do not know of each other's registrations: servers register with all of them.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_falls_back_to_another_control_plane_finds_the_servers_there() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = control_plane(dirs[0].path(), loopback()).await;
    let second = control_plane(dirs[1].path(), loopback()).await;
    let both = [&first, &second].map(|running| running.addresses().xds_plaintext.unwrap().to_string());
    let member = mesh_of(&both, "greeter", "greeter");
    let server = serve(&member, "still here").await;
    let told = |server: &MeshServer| {
        let registrations = server.status().registrations;
        let is_registered =
            |one: &RegistrationStatus| matches!(one.state, RegistrationState::Registered { .. });
        assert_eq!(registrations.iter().map(|one| &*one.control_plane).collect::<Vec<_>>(), both);
        registrations.iter().all(is_registered)
    };
    while !told(&server) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It has its certificate from the first control plane's authority, as the server has.
    let caller = mesh_of(&both, "caller", "caller");
    let mut early = GreeterClient::new(caller.channel("greeter:50051").unwrap());
    assert_eq!(early.say_hello(hello()).await.unwrap().into_inner().message, "still here");
    first.shutdown().await;
    // Nothing is known of this name: the second is asked, for everything.
    let mut late = GreeterClient::new(caller.channel("greeter.default:50051").unwrap());
    for client in [&mut late, &mut early] {
        assert_eq!(client.say_hello(hello()).await.unwrap().into_inner().message, "still here");
    }
    second.shutdown().await;
}

/// However often and by whatever names the bootstrap lists it.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_listed_more_than_once_has_one_endpoint_for_as_long_as_it_lives() {
    let dir = TempDir::new().unwrap();
    let running = control_plane(dir.path(), loopback()).await;
    let xds = running.addresses().xds_plaintext.unwrap();
    let (one, other) = (xds.to_string(), format!("localhost:{}", xds.port()));
    let member = mesh_of(&[one.clone(), one.clone(), other.clone()], "greeter", "greeter");
    let server = serve(&member, "once").await;
    let states = || -> Vec<_> {
        server
            .status()
            .registrations
            .iter()
            .map(|one| (one.control_plane.to_string(), one.state.clone()))
            .collect()
    };
    while !states().iter().all(|(_, state)| is_registered(state, false)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(states().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [one, other]);
    let workloads = || running.publisher().current().model.workloads.len();
    assert_eq!(workloads(), 1);
    let caller = mesh(xds, "caller", "caller");
    let mut client = GreeterClient::new(caller.channel("greeter:50051").unwrap());
    assert_eq!(client.say_hello(hello()).await.unwrap().into_inner().message, "once");

    server.drain().await;
    assert!(states().iter().all(|(_, state)| is_registered(state, true)), "{:?}", states());
    drop((server, member));
    while workloads() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mtls_holds_in_a_development_mesh_too() {
    let dir = TempDir::new().unwrap();
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n";
    std::fs::write(dir.path().join("strict.yaml"), strict).unwrap();
    let running = control_plane(dir.path(), loopback()).await;
    let xds = running.addresses().xds_plaintext.unwrap();
    let (server, client) = (mesh(xds, "greeter", "greeter"), mesh(xds, "caller", "caller"));
    serve(&server, "over mTLS").await;
    let mut greeter = GreeterClient::new(client.channel("greeter:50051").unwrap());
    assert_eq!(greeter.say_hello(hello()).await.unwrap().into_inner().message, "over mTLS");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_channel_is_the_way_to_a_host_that_the_mesh_does_not_know() {
    let dir = TempDir::new().unwrap();
    let running = control_plane(dir.path(), loopback()).await;
    let xds = running.addresses().xds_plaintext.unwrap();
    let outside = serve_outside("from outside").await;
    let channel = tonic::transport::Endpoint::new(format!("http://{outside}")).unwrap().connect_lazy();

    let member = mesh(xds, "caller", "caller");
    let known = mesh(xds, "greeter", "greeter");
    serve(&known, "from the mesh").await;
    for (target, expected) in [("elsewhere:50051", "from outside"), ("greeter:50051", "from the mesh")] {
        let mut client = GreeterClient::new(member.layer(target).unwrap().layer(channel.clone()));
        assert_eq!(client.say_hello(hello()).await.unwrap().into_inner().message, expected, "{target}");
    }

    let join = Join::new(xds.to_string(), "strict", Security::Development);
    let strict = Mesh::builder()
        .bootstrap(join.bootstrap().unwrap())
        .outbound_traffic_policy(OutboundTrafficPolicy::RegistryOnly)
        .build()
        .unwrap();
    let mut client = GreeterClient::new(strict.layer("elsewhere:50051").unwrap().layer(channel));
    let refused = client.say_hello(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("elsewhere:50051"), "{refused}");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_away_is_named_at_once_and_found_when_it_comes() {
    let xds = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let client = mesh(xds, "caller", "caller");
    let mut greeter = GreeterClient::new(client.channel("xds:///greeter:50051").unwrap());
    let begun = Instant::now();
    let error = greeter.say_hello(hello()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains(&xds.to_string()), "{error}");
    assert!(error.message().contains("refused"), "{error}");
    // Far below every timer of the protocol (15 s and more): it did not wait for one.
    assert!(begun.elapsed() < Duration::from_secs(10));

    let dir = TempDir::new().unwrap();
    let running = control_plane(dir.path(), xds).await;
    serve(&mesh(xds, "greeter", "greeter"), "back").await;
    let mut tries = 0;
    let reply = loop {
        match greeter.say_hello(hello()).await {
            Ok(reply) => break reply,
            Err(error) => {
                tries += 1;
                assert!(tries < 1000, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    assert_eq!(reply.into_inner().message, "back");
    running.shutdown().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(loopback()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let member = mesh(nobody, "greeter", "greeter");
    let error = member.server(address).await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}

#[test]
fn a_mesh_without_a_runtime_says_what_it_needs() {
    let join = Join::new("127.0.0.1:15010", "caller", Security::Development);
    let error = Mesh::builder().bootstrap(join.bootstrap().unwrap()).build().unwrap_err();
    assert!(matches!(error, MeshError::NoRuntime), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_rule_that_asks_for_tls_never_lets_a_call_out_in_plaintext() {
    let outside = serve_outside("in plaintext").await;
    let dir = TempDir::new().unwrap();
    let service = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  \
         hosts: [api.example.com]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 443, name: grpc, protocol: GRPC}}]\n  \
         endpoints: [{{address: 127.0.0.1, ports: {{grpc: {}}}}}]\n",
        outside.port()
    );
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: api}\nspec:\n  \
                host: api.example.com\n  trafficPolicy: {tls: {mode: SIMPLE, credentialName: roots}}\n";
    std::fs::write(dir.path().join("api.yaml"), service).unwrap();
    let file = dir.path().join("rule.yaml");
    std::fs::write(&file, rule).unwrap();
    let running = control_plane(dir.path(), loopback()).await;
    let client = mesh(running.addresses().xds_plaintext.unwrap(), "caller", "caller");
    let mut greeter = GreeterClient::new(client.channel("xds:///api.example.com:443").unwrap());

    let refused = greeter.say_hello(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    for told in ["DestinationRule default/api", "rule.yaml:6:", "credentialName"] {
        assert!(refused.message().contains(told), "{told}: {refused}");
    }
    // Without a rule plaintext is what is asked for; with it again, calls fail again.
    for (text, allowed) in [("", true), (rule, false)] {
        std::fs::write(&file, text).unwrap();
        let mut tries = 0;
        while greeter.say_hello(hello()).await.is_ok() != allowed {
            tries += 1;
            assert!(tries < 1000, "calls are{} let through", if allowed { " not" } else { "" });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    running.shutdown().await;
}

/// What cannot be had says why, with the line of the YAML, and comes when that is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_what_is_not_there_says_what_is_wrong_and_where() {
    let outside = serve_outside("outside").await;
    let dir = TempDir::new().unwrap();
    let routes = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: greeter}\nspec:\n  \
                  hosts: [greeter]\n  http: [{route: [{destination: {host: greeter, subset: v9}}]}]\n---\n\
                  apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: greeter}\nspec:\n  \
                  host: greeter\n  subsets: [{name: v1}]\n";
    std::fs::write(dir.path().join("routes.yaml"), routes).unwrap();
    // Each of the two clients breaks and mends its own.
    let entry = |name: &str, resolution: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [{name}.example.com]\n  location: MESH_EXTERNAL\n  resolution: {resolution}\n  \
             ports: [{{number: 443, name: grpc, protocol: GRPC}}]\n  \
             endpoints: [{{address: 127.0.0.1, ports: {{grpc: {}}}}}]\n",
            outside.port()
        );
        std::fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
    };
    let clients = [("whole", false), ("steps", true)];
    clients.iter().for_each(|(name, _)| entry(name, "STATICK"));
    let running = control_plane(dir.path(), loopback()).await;
    for (name, delta) in clients {
        let xds = running.addresses().xds_plaintext.unwrap();
        let mut bootstrap = Join::new(xds.to_string(), name, Security::Development).bootstrap().unwrap();
        bootstrap.servers[0].features.delta = delta;
        let client = Mesh::builder().bootstrap(bootstrap).build().unwrap();
        let greeter = |target: &str| GreeterClient::new(client.channel(target).unwrap());
        let broken = format!("xds:///{name}.example.com:443");
        let refused = format!("ServiceEntry default/{name} is refused: {name}.yaml:7:15: ");
        for (target, told) in [
            ("xds:///greeter:1", "Service default/greeter (greeter.yaml:4:9) has no port 1; it has: 50051"),
            ("xds:///greter:50051", "has the host greter.default.svc.cluster.local or greter"),
            (
                "xds:///greeter:50051",
                "DestinationRule default/greeter (routes.yaml:10:18) has no subset `v9`; it has: v1",
            ),
            (&broken, &refused),
        ] {
            let status = greeter(target).say_hello(hello()).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains(told), "{target}: {status}");
        }
        entry(name, "STATIC");
        let mut mended = greeter(&broken);
        let mut tries = 0;
        while mended.say_hello(hello()).await.is_err() {
            tries += 1;
            assert!(tries < 1000, "it does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    running.shutdown().await;
}
