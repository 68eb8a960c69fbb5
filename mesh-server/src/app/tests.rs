//! The wired app over loopback, with mesh-xds's own client, mesh-ca's own sources, and bad inputs.

mod live;
mod secrets;
mod start;
mod tls;

use super::*;
use crate::{
    join::{Join, Security},
    proto::registration::{Health, RegisterRequest, RegisterResponse, Workload},
    publish::Snapshot,
};
use mesh_ca::spiffe_id::TrustDomain;
use mesh_xds::{
    bootstrap::ServerConfig as XdsServer,
    client::{BackoffSettings, ConfigWatch, Connector, XdsClient},
    config::XdsConfig,
    lrs::{LoadReporter, LoadStore},
    resource::ClusterLoadAssignment,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status as GrpcStatus, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// Nothing here takes this long unless it never happens.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: grpc, port: 9080}]
";

pub(super) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

/// A configuration directory with one file.
pub(super) fn config(yaml: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mesh.yaml"), yaml).unwrap();
    dir
}

pub(super) fn any_port() -> Option<SocketAddr> {
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Development settings on free ports.
pub(super) fn dev(config: &TempDir) -> Settings {
    Settings { xds_plaintext: any_port(), http: any_port(), ..Settings::dev(config.path(), trust_domain()) }
}

/// Production settings on free ports.
pub(super) fn run(config: &TempDir, data: &TempDir) -> Settings {
    Settings {
        xds: any_port(),
        xds_plaintext: any_port(),
        http: any_port(),
        ..Settings::run(config.path(), Some(data.path().join("data")), trust_domain())
    }
}

/// Plaintext, or whatever channel a test made.
struct Channels(Option<Channel>);

impl Connector for Channels {
    fn connect(&self, server: &XdsServer) -> Result<Channel, String> {
        match &self.0 {
            Some(channel) => Ok(channel.clone()),
            None => Ok(plaintext(&server.address)),
        }
    }
}

pub(super) fn plaintext(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// An xDS client that says it is `namespace`/`account`.
pub(super) fn client(
    address: SocketAddr,
    channel: Option<Channel>,
    namespace: &str,
    account: &str,
) -> XdsClient {
    let mut join = Join::new(address.to_string(), "tester", Security::Development);
    join.namespace = namespace.to_owned();
    join.service_account = account.to_owned();
    XdsClient::spawn(Arc::new(join.bootstrap().unwrap()), Arc::new(Channels(channel)))
}

/// Reports what a store counts.
pub(super) fn reporter(address: SocketAddr, store: &Arc<LoadStore>) -> LoadReporter {
    let bootstrap = Join::new(address.to_string(), "tester", Security::Development).bootstrap().unwrap();
    let connector = Arc::new(Channels(None));
    let client = XdsClient::spawn(Arc::new(bootstrap), connector.clone());
    LoadReporter::spawn(store.clone(), &client, connector, BackoffSettings::default())
}

/// Waits until the target's configuration is as wanted.
pub(super) async fn until(watch: &mut ConfigWatch, wanted: impl Fn(&XdsConfig) -> bool) -> Arc<XdsConfig> {
    let search = async {
        loop {
            if let Some(Ok(config)) = &*watch.borrow_and_update()
                && wanted(config)
            {
                return config.clone();
            }
            watch.changed().await.unwrap();
        }
    };
    match timeout(PATIENCE, search).await {
        Ok(config) => config,
        Err(_) => panic!("never as wanted; last: {:#?}", *watch.borrow()),
    }
}

/// Waits until what is published is as wanted.
pub(super) async fn published(publisher: &Publisher, wanted: impl Fn(&Snapshot) -> bool) {
    let mut changes = publisher.changes();
    let search = async {
        while !wanted(&publisher.current()) {
            changes.changed().await.unwrap();
        }
    };
    if timeout(PATIENCE, search).await.is_err() {
        panic!("never as wanted; last: {:#?}", publisher.current().model.workloads);
    }
}

pub(super) const CLUSTER: &str = "outbound|9080||reviews.default.svc.cluster.local";

pub(super) fn endpoints(config: &XdsConfig) -> Option<&ClusterLoadAssignment> {
    Some(&config.clusters.get(CLUSTER)?.as_ref().ok()?.endpoints)
}

/// Addresses and health of the endpoints.
pub(super) fn addresses(config: &XdsConfig) -> Vec<String> {
    let priorities = endpoints(config).into_iter().flat_map(|assignment| &assignment.priorities);
    let all = priorities.flat_map(|priority| &priority.localities).flat_map(|locality| &locality.endpoints);
    all.map(|endpoint| format!("{} {:?}", endpoint.address(), endpoint.health)).collect()
}

/// A registration stream.
pub(super) struct Registration {
    requests: mpsc::Sender<RegisterRequest>,
    answers: Streaming<RegisterResponse>,
}

impl Registration {
    pub(super) async fn open(
        channel: Channel,
        workload: Workload,
    ) -> Result<(Self, RegisterResponse), GrpcStatus> {
        Self::open_as(channel, workload, "", "").await
    }

    /// With the names of its process and its session.
    pub(super) async fn open_as(
        channel: Channel,
        workload: Workload,
        process: &str,
        session: &str,
    ) -> Result<(Self, RegisterResponse), GrpcStatus> {
        let (requests, inbox) = mpsc::channel(4);
        let request = RegisterRequest {
            workload: Some(workload),
            session: session.into(),
            process: process.into(),
            ..Default::default()
        };
        requests.send(request).await.unwrap();
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|error| GrpcStatus::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/mesh.v1.WorkloadRegistration/Register");
        let codec = tonic_prost::ProstCodec::<RegisterRequest, RegisterResponse>::default();
        let answers =
            grpc.streaming(Request::new(ReceiverStream::new(inbox)), path, codec).await?.into_inner();
        let mut registration = Self { requests, answers };
        let answer = registration.answer().await?;
        Ok((registration, answer))
    }

    async fn answer(&mut self) -> Result<RegisterResponse, GrpcStatus> {
        let answer = timeout(PATIENCE, self.answers.message()).await.unwrap()?;
        answer.ok_or_else(|| GrpcStatus::unknown("the stream ended"))
    }

    pub(super) async fn health(&mut self, health: Health) -> Result<RegisterResponse, GrpcStatus> {
        self.requests.send(RegisterRequest { health: health.into(), ..Default::default() }).await.unwrap();
        self.answer().await
    }
}

pub(super) fn workload(address: &str, port: u32) -> Workload {
    Workload {
        name: "reviews-v1".into(),
        namespace: "default".into(),
        service_account: "reviews".into(),
        address: address.into(),
        ports: [(String::new(), port)].into(),
        labels: [("app".to_owned(), "reviews".to_owned())].into(),
        ..Workload::default()
    }
}

/// One GET.
pub(super) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path}"), "").await
}

/// One request without a body, with these headers.
pub(super) async fn ask(address: SocketAddr, what: &str, headers: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{what} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
