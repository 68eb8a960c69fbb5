//! A server configured over the wire: a real ADS server, a real client, the bytes between them.

use super::world::*;
use crate::{
    server::{MeshServer, ServerBuilder, ServingState, Surroundings},
    tls::Providers,
};
use mesh_ca::channel::{Target, connect};
use mesh_xds::{
    bootstrap::{Bootstrap, CertificateProvider, ChannelCredentials, FileWatcher, Node as Me, ServerConfig},
    client::{Connector, XdsClient},
    name::{Name, ResourceType},
    resource::{
        Listener, Resource, RouteConfiguration,
        listener::{ListenerKind, RouteSource, ServerListener},
        rbac::RbacAction,
    },
    server::{AdsService, AdsSettings, Encoded, Node, View, Views},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    metadata::MetadataMap,
    transport::{Channel, Server},
};

/// What the control plane serves, to everybody.
#[derive(Clone, Default)]
struct Everything {
    revision: u64,
    resources: BTreeMap<(ResourceType, Name), Arc<Encoded>>,
}

impl Everything {
    fn with<R: Resource>(mut self, resource: &R) -> Self {
        self.revision += 1;
        let name: Name = resource.name().clone();
        let version = format!("{}", self.revision).into();
        let encoded = Encoded { name: name.clone(), version, body: resource.to_proto() };
        self.resources.insert((R::TYPE, name), Arc::new(encoded));
        self
    }
}

impl View for Everything {
    fn revision(&self) -> Arc<str> {
        self.revision.to_string().into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.resources.get(&(kind, name.into())).cloned()
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.resources.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }
}

struct Published {
    now: watch::Sender<Everything>,
    count: watch::Sender<u64>,
}

impl Published {
    fn change(&self, to: impl FnOnce(Everything) -> Everything) {
        self.now.send_modify(|now| *now = to(std::mem::take(now)));
        self.count.send_modify(|count| *count += 1);
    }
}

impl Views for Published {
    type Peer = ();

    fn authenticate(&self, _: &http::Extensions, _: &MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn view(&self, _: &(), _: &Node) -> Result<Arc<dyn View>, Status> {
        Ok(Arc::new(self.now.borrow().clone()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

struct Plaintext;

impl Connector for Plaintext {
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String> {
        Ok(connect(&Target::plaintext(&server.address).map_err(|error| error.to_string())?))
    }
}

/// A control plane at the other end of a bootstrap.
async fn control_plane(tasks: &mut JoinSet<()>) -> (Arc<Published>, Arc<Bootstrap>) {
    let published = Arc::new(Published { now: watch::Sender::default(), count: watch::Sender::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = ServerConfig::new(&address, ChannelCredentials::Insecure).unwrap();
    let ads = AdsService::new(published.clone(), AdsSettings::default());
    tasks.spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        Server::builder().add_service(ads.service()).serve_with_incoming(incoming).await.unwrap();
    });
    // Only its name counts here: the identity behind it is the test's.
    let provider = CertificateProvider::FileWatcher(FileWatcher {
        identity: None,
        ca_certificate_file: Some("unused.pem".into()),
        crl_file: None,
        spiffe_trust_bundle_map_file: None,
        refresh_interval: std::time::Duration::from_secs(600),
    });
    let me = Me { id: "a test".into(), ..Me::default() };
    (published, Arc::new(Bootstrap::new(server, me).with_certificate_provider("default", provider)))
}

/// A strict listener for the server's address, with its routes beside it.
fn resources(server: &MeshServer, allowed: &[&str]) -> (Listener, RouteConfiguration) {
    let rules = rules(RbacAction::Allow, allowed.iter().map(|name| account(name)).collect());
    let mut chain = strict(vec![rules]).remove(0);
    let RouteSource::Inline(routes) = chain.http.routes.clone() else {
        panic!("the test's routes are inline")
    };
    chain.http.routes = RouteSource::Rds(routes.name.clone());
    let kind = ListenerKind::Server(ServerListener {
        address: server.local_addr().ip(),
        port: server.local_addr().port(),
        filter_chains: vec![chain],
        default_filter_chain: None,
    });
    (Listener { name: server.status().listener, kind }, (*routes).clone())
}

#[tokio::test]
async fn a_server_follows_its_control_plane() {
    let mut tasks = JoinSet::new();
    let (plane, bootstrap) = control_plane(&mut tasks).await;
    let authority = authority();
    let providers = Providers::new([("default".into(), identity(&authority, "reviews").await)]);
    let xds = XdsClient::spawn(bootstrap.clone(), Arc::new(Plaintext));
    let surroundings = Surroundings::new(bootstrap, xds, Arc::new(providers), Vec::new(), Default::default());
    let server = ServerBuilder::new(surroundings, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert_eq!(*server.status().listener, *format!("xds.istio.io/grpc/lds/inbound/{}", server.local_addr()));
    let world = World::around(authority, server);

    let mut served = world.server.owner.shared.watch_serving();
    let (listener, routes) = resources(&world.server, &["productpage"]);
    plane.change(|all| all.with(&listener).with(&routes));
    world.server.serving().await;
    let (productpage, ratings) = (world.client("productpage").await, world.client("ratings").await);
    assert_eq!(say(&productpage).await.unwrap(), id("productpage"));
    assert_eq!(code(say(&ratings).await), tonic::Code::PermissionDenied);
    assert!(say(&world.plaintext()).await.is_err());

    served.mark_unchanged();
    let (listener, _) = resources(&world.server, &["ratings"]);
    plane.change(|all| all.with(&listener));
    served.changed().await.unwrap();
    assert_eq!(code(say(&productpage).await), tonic::Code::PermissionDenied);
    assert!(say(&ratings).await.is_ok());

    // Without its control plane it goes on.
    tasks.shutdown().await;
    assert!(say(&world.client("ratings").await).await.is_ok());
    assert_eq!(world.status().serving, ServingState::Serving);
}

#[tokio::test]
async fn a_listener_that_the_control_plane_does_not_have_is_not_served() {
    let mut tasks = JoinSet::new();
    let (_plane, bootstrap) = control_plane(&mut tasks).await;
    let xds = XdsClient::spawn(bootstrap.clone(), Arc::new(Plaintext));
    let providers = Arc::new(Providers::new([]));
    let surroundings = Surroundings::new(bootstrap, xds, providers, Vec::new(), Default::default());
    let server = ServerBuilder::new(surroundings, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut status = server.owner.shared.status.subscribe();
    let decided = status.wait_for(|status| status.serving != ServingState::Waiting).await.unwrap();
    let ServingState::NotServing(why) = &decided.serving else { panic!("{decided:?}") };
    assert!(why.contains("does not exist") && why.contains("a test"), "{why}");
}
