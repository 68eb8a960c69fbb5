//! Both tasks over a loopback connection: the real client against the real service.

use super::*;
use crate::{
    bootstrap::{ChannelCredentials, Node as BootstrapNode, ServerFeatures},
    client::XdsClient,
    config::{XdsErrorCause, testing::*},
    csds::{ClientStatusDiscoveryServiceClient, ClientStatusRequest, StreamsStatus},
    name::{Name, ResourceType},
    resource::AnyResource,
    server::{AdsService, AdsSettings, Encoded, Node, StreamEvent, View, Views},
};
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};

mod all;
mod flow;
mod load;
mod peer;

/// A revision of real resources.
struct Published {
    revision: u64,
    resources: BTreeMap<(ResourceType, Name), Arc<Encoded>>,
}

impl View for Published {
    fn revision(&self) -> Arc<str> {
        self.revision.to_string().into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.resources.get(&(kind, name.into())).cloned()
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.resources.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.clone()).collect()
    }
}

/// What a control plane publishes; `None`: nobody may see anything.
struct Source {
    view: Mutex<Option<Arc<Published>>>,
    changes: watch::Sender<u64>,
}

impl Source {
    fn new(resources: &[AnyResource]) -> Arc<Self> {
        let source = Self { view: Mutex::new(None), changes: watch::Sender::new(0) };
        source.publish(resources);
        Arc::new(source)
    }

    fn publish(&self, resources: &[AnyResource]) {
        let revision = *self.changes.borrow() + 1;
        let encode = |resource: &AnyResource| {
            let (name, body) = (resource.name().clone(), resource.to_proto());
            let version = format!("{:?}", body).into();
            ((resource.resource_type(), name.clone()), Arc::new(Encoded { name, version, body }))
        };
        let resources = resources.iter().map(encode).collect();
        *lock(&self.view) = Some(Arc::new(Published { revision, resources }));
        self.changes.send_replace(revision);
    }

    fn forbid(&self) {
        *lock(&self.view) = None;
        self.changes.send_modify(|revision| *revision += 1);
    }
}

impl Views for Source {
    type Peer = ();

    fn authenticate(&self, _: &http::Extensions, _: &tonic::metadata::MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn view(&self, (): &(), node: &Node) -> Result<Arc<dyn View>, Status> {
        assert_eq!(&*node.user_agent, "mesh-client");
        match lock(&self.view).clone() {
            Some(view) => Ok(view),
            None => Err(Status::permission_denied("this node may not be here")),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A control plane that serves until it is dropped.
struct Plane {
    ads: AdsService<Source>,
    events: broadcast::Receiver<StreamEvent>,
    server: JoinHandle<()>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.ads.close();
        self.server.abort();
    }
}

impl Plane {
    fn serve(listener: TcpListener, source: &Arc<Source>, settings: AdsSettings) -> Self {
        let ads = AdsService::new(source.clone(), settings);
        let events = ads.events();
        let serve = Server::builder()
            .add_service(ads.service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serve.await.unwrap() });
        Self { ads, events, server }
    }

    async fn until<T>(&mut self, mut found: impl FnMut(&StreamEvent) -> Option<T>) -> T {
        loop {
            let event = self.events.recv().await.unwrap();
            if let Some(found) = found(&event) {
                return found;
            }
        }
    }
}

struct Plain;

impl Connector for Plain {
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String> {
        let endpoint =
            Endpoint::from_shared(format!("http://{server}")).map_err(|error| error.to_string())?;
        Ok(endpoint.connect_lazy())
    }
}

fn client(address: SocketAddr, variant: Variant) -> XdsClient {
    let features = ServerFeatures { delta: variant == Variant::Delta, ..Default::default() };
    let mut server = ServerConfig::new(&address.to_string(), ChannelCredentials::Insecure).unwrap();
    server.features = features;
    let bootstrap = Bootstrap::new(server, BootstrapNode { id: "me".into(), ..Default::default() });
    let backoff = BackoffSettings { initial: Duration::from_millis(20), max: Duration::from_millis(50) };
    let settings = ClientSettings { backoff, ..ClientSettings::default() };
    XdsClient::spawn_with(&bootstrap, Arc::new(Plain), settings)
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn mesh(port: u16) -> [AnyResource; 4] {
    [listener("t", "r"), routes("r", &[("t", &["a"])]), cluster("a"), endpoints("a", port)]
}

const BOTH: [Variant; 2] = [Variant::Sotw, Variant::Delta];

#[tokio::test]
async fn a_target_resolves_follows_changes_and_is_let_go() {
    for variant in BOTH {
        let (socket, address) = bind().await;
        let source = Source::new(&mesh(1));
        let mut plane = Plane::serve(socket, &source, AdsSettings::default());
        let client = client(address, variant);
        let mut watch = client.config("t", "t");
        let before = watch.known().await.unwrap().unwrap();
        source.publish(&mesh(2));
        watch.changed().await.unwrap();
        let after = watch.borrow_and_update().clone().unwrap().unwrap();
        assert!(Arc::ptr_eq(&before.routes, &after.routes), "{variant:?}");
        let a = after.clusters["a"].as_ref().unwrap();
        assert_eq!(a.endpoints.priorities[0].localities[0].endpoints[0].address().port(), 2);

        // The receipt, and what both sides say of it.
        let acked = |event: &StreamEvent| match event {
            StreamEvent::Acked { revision, node, .. } if &**revision == "2" => Some(node.clone()),
            _ => None,
        };
        assert_eq!(&*plane.until(acked).await, "me");
        let [status] = plane.ads.streams().try_into().unwrap();
        assert_eq!((status.variant, status.acked_revision.as_deref()), (variant, Some("2")));
        assert_eq!(
            status.types.iter().map(|kind| kind.kind).collect::<Vec<_>>(),
            ["CDS", "EDS", "LDS", "RDS"]
        );
        let mine = client.status();
        assert!(mine.connected && mine.unreachable.is_none());
        assert_eq!(mine.resources.len(), 4);
        assert!(serde_json::to_string(&(mine, status)).unwrap().contains(r#""state":"ACKED""#));

        // Who asks for the same shares it; the last one ends it.
        let second = client.config("t", "t");
        assert!(second.borrow().is_some());
        drop((client, watch, second));
        assert!(
            plane.until(|event| matches!(event, StreamEvent::Gone { last: true, .. }).then_some(true)).await
        );
        assert!(plane.ads.streams().is_empty());
    }
}

#[tokio::test]
async fn an_unreachable_control_plane_is_reported_at_once_and_recovered_from() {
    for variant in BOTH {
        let (socket, address) = bind().await;
        drop(socket);
        let client = client(address, variant);
        let mut watch = client.config("t", "t");
        let error = watch.known().await.unwrap().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error.cause, XdsErrorCause::Unreachable(_)), "{text}");
        assert!(text.contains(&format!("control plane unreachable: {address}: ")), "{text}");
        assert!(text.to_lowercase().contains("connection refused"), "{text}");

        let source = Source::new(&mesh(1));
        let socket = TcpListener::bind(address).await.unwrap();
        let plane = Plane::serve(socket, &source, AdsSettings::default());
        let config = loop {
            watch.changed().await.unwrap();
            if let Some(Ok(config)) = watch.borrow_and_update().clone() {
                break config;
            }
        };

        // It goes away: what is known stays, and says so.
        drop(plane);
        loop {
            watch.changed().await.unwrap();
            let now = watch.borrow_and_update().clone().unwrap().unwrap();
            assert!(Arc::ptr_eq(&now.listener, &config.listener));
            let a = now.clusters["a"].as_ref().unwrap();
            assert_eq!(a.endpoints.priorities.len(), 1);
            if a.note.as_ref().is_some_and(|note| note.contains("control plane unreachable")) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_does_not_exist_is_known_at_once() {
    for variant in BOTH {
        let (socket, address) = bind().await;
        let source = Source::new(&[]);
        let _plane = Plane::serve(socket, &source, AdsSettings::default());
        let client = client(address, variant);
        let error = client.config("t", "t").known().await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("Listener t does not exist: the control plane"), "{error}");
        let error = client.server_config("s").known().await.unwrap().unwrap_err();
        assert!(matches!(error.cause, XdsErrorCause::DoesNotExist(_)));
    }
}

#[tokio::test]
async fn a_server_gets_its_listener_and_a_rejection_is_seen_on_both_sides() {
    let (socket, address) = bind().await;
    let good = [server_listener("s", &["x"]), routes("x", &[("*", &[])])];
    let source = Source::new(&good);
    let mut plane = Plane::serve(socket, &source, AdsSettings::default());
    let client = client(address, Variant::Delta);
    let mut watch = client.server_config("s");
    let config = watch.known().await.unwrap().unwrap();
    assert!(config.routes["x"].is_ok());
    // A cluster under the name of a listener is no listener.
    let wrong =
        Arc::new(Encoded { name: "s".into(), version: "w".into(), body: b"\xff\xff".as_slice().into() });
    let broken = Published { revision: 9, resources: [((ResourceType::Listener, "s".into()), wrong)].into() };
    *lock(&source.view) = Some(Arc::new(broken));
    source.changes.send_modify(|revision| *revision += 1);
    let rejected = |event: &StreamEvent| match event {
        StreamEvent::Rejected { kind, text, .. } => Some((*kind, text.clone())),
        _ => None,
    };
    let (kind, text) = plane.until(rejected).await;
    assert_eq!(kind, ResourceType::Listener);
    assert!(text.starts_with("Listener s: "), "{text}");
    let [status] = plane.ads.streams().try_into().unwrap();
    let listeners = status.types.iter().find(|kind| kind.kind == "LDS").unwrap();
    assert_eq!(listeners.rejected, [Arc::from("s")]);
    assert!(Arc::ptr_eq(&watch.borrow().clone().unwrap().unwrap().listener, &config.listener), "kept");
    let status = client.status().resources.into_iter().find(|resource| resource.kind == "LDS").unwrap();
    assert!(status.error.unwrap().text.starts_with("was rejected"));
}

#[tokio::test]
async fn a_node_that_is_not_allowed_is_told_why() {
    let (socket, address) = bind().await;
    let source = Source::new(&[]);
    source.forbid();
    let _plane = Plane::serve(socket, &source, AdsSettings::default());
    let client = client(address, Variant::Sotw);
    let error = client.config("t", "t").known().await.unwrap().unwrap_err().to_string();
    assert!(error.contains("PermissionDenied: this node may not be here"), "{error}");
}

#[tokio::test]
async fn a_stream_of_age_is_ended_and_its_client_notices_nothing() {
    let (socket, address) = bind().await;
    let source = Source::new(&mesh(1));
    let settings = AdsSettings { max_age: Some(Duration::from_millis(60)), ..AdsSettings::default() };
    let mut plane = Plane::serve(socket, &source, settings);
    let client = client(address, Variant::Delta);
    let mut watch = client.config("t", "t");
    watch.known().await.unwrap().unwrap();
    let mut streams = Vec::new();
    while streams.len() < 3 {
        let connected = |event: &StreamEvent| match event {
            StreamEvent::Connected { stream, .. } => Some(*stream),
            _ => None,
        };
        streams.push(plane.until(connected).await);
    }
    assert!(!watch.has_changed(), "not a word");
}

#[tokio::test]
async fn a_first_request_without_a_node_is_refused() {
    let (socket, address) = bind().await;
    let source = Source::new(&[]);
    let _plane = Plane::serve(socket, &source, AdsSettings::default());
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let request = crate::proto::DiscoveryRequest::default();
    let mut responses = AggregatedDiscoveryServiceClient::new(channel)
        .stream_aggregated_resources(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

/// Serves these clients' status until it is dropped.
async fn csds<C: crate::csds::Clients>(
    service: crate::csds::CsdsServer<C>,
) -> (ClientStatusDiscoveryServiceClient<Channel>, AbortOnDrop) {
    let (socket, address) = bind().await;
    let serve = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(socket));
    let server = AbortOnDrop(tokio::spawn(async move { serve.await.unwrap() }));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    (ClientStatusDiscoveryServiceClient::new(channel), server)
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn the_status_of_a_client_is_served_and_does_not_keep_it_alive() {
    let (socket, address) = bind().await;
    let source = Source::new(&mesh(1));
    let mut plane = Plane::serve(socket, &source, AdsSettings::default());
    let client = client(address, Variant::Delta);
    let mut watch = client.config("t", "t");
    watch.known().await.unwrap().unwrap();
    let (mut status, _server) = csds(client.csds()).await;
    let told = status.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    let [config] = told.config.try_into().unwrap();
    assert_eq!(config.client_scope, "");
    let node = config.node.unwrap();
    assert_eq!((node.id.as_str(), node.user_agent_name.as_str()), ("me", "mesh-client"));
    assert_eq!(
        node.client_features,
        [
            "envoy.lb.does_not_support_overprovisioning",
            "xds.config.resource-in-sotw",
            "xds.config.supports-resource-ttl"
        ]
    );
    let shown: Vec<_> =
        config.generic_xds_configs.iter().map(|one| (one.name.as_str(), one.client_status)).collect();
    assert_eq!(shown, [("a", 3), ("a", 3), ("t", 3), ("r", 3)], "CDS, EDS, LDS, RDS: ACKED");
    for shown in &config.generic_xds_configs {
        let kind = ResourceType::from_url(&shown.type_url).unwrap();
        let published = lock(&source.view).clone().unwrap().resource(kind, &shown.name).unwrap();
        assert_eq!(shown.xds_config.as_ref().unwrap().value, published.body.to_vec(), "all is understood");
        assert_eq!(shown.version_info, *published.version);
        assert!(shown.last_updated.is_some() && shown.error_state.is_none());
    }

    // A stream has an answer for each request, without the contents if it asks so.
    let (requests, receiver) = mpsc::channel(2);
    let bare = ClientStatusRequest { exclude_resource_contents: true, ..Default::default() };
    let refused = ClientStatusRequest { node_matchers: vec![Default::default()], ..Default::default() };
    requests.send(bare).await.unwrap();
    requests.send(refused).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = status.stream_client_status(requests).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(first.config[0].generic_xds_configs.iter().all(|one| one.xds_config.is_none()));
    assert_eq!(answers.message().await.unwrap_err().code(), tonic::Code::InvalidArgument);

    drop((client, watch));
    plane.until(|event| matches!(event, StreamEvent::Gone { .. }).then_some(())).await;
    let told = status.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    assert!(told.config.is_empty());
}

#[tokio::test]
async fn a_control_plane_tells_of_the_clients_that_are_connected() {
    let (socket, address) = bind().await;
    let source = Source::new(&mesh(1));
    let mut plane = Plane::serve(socket, &source, AdsSettings::default());
    let client = client(address, Variant::Sotw);
    let mut watch = client.config("t", "t");
    watch.known().await.unwrap().unwrap();
    plane.until(|event| matches!(event, StreamEvent::Acked { .. }).then_some(())).await;
    let ads = plane.ads.clone();
    let streams = move |is_wanted: &dyn Fn(&Node) -> bool, room: &mut usize| ads.select(is_wanted, room);
    let (mut status, _server) = csds(crate::csds::serve(StreamsStatus::new(streams, |_| Ok(())))).await;
    let told = status.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    let [config] = told.config.try_into().unwrap();
    assert_eq!(config.node.unwrap().id, "me");
    let synced = config.generic_xds_configs.iter().filter(|one| one.config_status == 1).count();
    assert_eq!((synced, config.generic_xds_configs.len()), (8, 8), "four types, and a resource of each");
    let view = lock(&source.view).clone().unwrap();
    for row in config.generic_xds_configs.iter().filter(|row| !row.name.is_empty()) {
        let kind = ResourceType::from_url(&row.type_url).unwrap();
        assert_eq!(row.version_info, *view.resource(kind, &row.name).unwrap().version);
        assert_eq!(row.client_status, 3, "ACKED");
    }
    // Those that there is no room for are not told by halves.
    let mut room = 7;
    let [first] = plane.ads.select(|_| true, &mut room).try_into().unwrap();
    assert_eq!((first.types.iter().map(|kind| kind.resources.len()).sum::<usize>(), room), (4, 3));
    let [second] = plane.ads.select(|_| true, &mut room).try_into().unwrap();
    assert_eq!((second.types.iter().map(|kind| kind.resources.len()).sum::<usize>(), room), (0, 0));
    assert!(plane.ads.select(|node| &*node.id != "me", &mut 9).is_empty());
}
