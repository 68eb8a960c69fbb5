//! A thousand virtual hosts before the one that is called. Our control plane sends a client no hosts that it does not
//! ask for, so here is another one: it serves a listener with all of them, and one cluster.

use crate::Outcome;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster},
            core::v3::{Address, SocketAddress, address, socket_address},
            endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
            listener::v3::{ApiListener, Listener},
            route::v3::{
                Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
                route_match,
            },
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
            },
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use mesh_client::Mesh;
use mesh_xds::{
    bootstrap::{Bootstrap, ChannelCredentials, Node as BootstrapNode, ServerConfig},
    name::{Name, ResourceType},
    server::{AdsService, AdsSettings, Encoded, Node, View, Views},
};
use prost::Message;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::{
    Status,
    metadata::MetadataMap,
    transport::{Server, server::TcpIncoming},
};

/// What is called.
pub const TARGET: &str = "xds:///hosts:9080";
const LISTENER: &str = "hosts:9080";
const OTHERS: usize = 1000;

/// The control plane, and a process that has joined by it.
#[derive(Debug)]
pub struct Hosts {
    /// The member.
    pub mesh: Mesh,
    _serving: JoinSet<Result<(), tonic::transport::Error>>,
}

impl Hosts {
    /// Starts the control plane on the current runtime; this server is behind the host that is called.
    pub async fn start(server: SocketAddr) -> Outcome<Self> {
        let incoming = TcpListener::bind("127.0.0.1:0").await?;
        let address = incoming.local_addr()?.to_string();
        let resources = Resources {
            all: [
                encoded(ResourceType::Listener, LISTENER, &listener()),
                encoded(ResourceType::Cluster, "hosts", &cluster(server)),
            ]
            .into(),
            changes: watch::Sender::new(0),
        };
        let ads = AdsService::new(Arc::new(Served(Arc::new(resources))), AdsSettings::default());
        let mut serving = JoinSet::new();
        let router = Server::builder().add_service(ads.service());
        serving.spawn(router.serve_with_incoming(TcpIncoming::from(incoming)));
        let control_plane = ServerConfig::new(&address, ChannelCredentials::Insecure)?;
        let node = BootstrapNode { id: "bench".into(), ..BootstrapNode::default() };
        let mesh = Mesh::builder().bootstrap(Bootstrap::new(control_plane, node)).build()?;
        Ok(Self { mesh, _serving: serving })
    }
}

struct Served(Arc<Resources>);

struct Resources {
    all: BTreeMap<(ResourceType, Name), Arc<Encoded>>,
    changes: watch::Sender<u64>,
}

impl View for Resources {
    fn revision(&self) -> Arc<str> {
        "1".into()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.all.get(&(kind, name.into())).cloned()
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.all.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }
}

impl Views for Served {
    type Peer = ();

    fn authenticate(&self, _: &http::Extensions, _: &MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn view(&self, (): &(), _: &Node) -> Result<Arc<dyn View>, Status> {
        Ok(self.0.clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

fn encoded(kind: ResourceType, name: &str, message: &impl Message) -> ((ResourceType, Name), Arc<Encoded>) {
    let name = Name::from(name);
    let body = message.encode_to_vec().into();
    ((kind, name.clone()), Arc::new(Encoded { name, version: "1".into(), body }))
}

fn any<M: Message + prost::Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

fn listener() -> Listener {
    let others = (0..OTHERS).map(|index| host(&format!("other-{index}"), &[format!("other-{index}:9080")]));
    let called = host("called", &[LISTENER.to_owned()]);
    let routes = RouteConfiguration {
        name: "hosts".to_owned(),
        virtual_hosts: others.chain([called]).collect(),
        ..RouteConfiguration::default()
    };
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    };
    let http = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![router],
        ..HttpConnectionManager::default()
    };
    Listener {
        name: LISTENER.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(any(&http)) }),
        ..Listener::default()
    }
}

fn host(name: &str, domains: &[String]) -> VirtualHost {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster("hosts".to_owned())),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    };
    VirtualHost {
        name: name.to_owned(),
        domains: domains.to_vec(),
        routes: vec![route],
        ..VirtualHost::default()
    }
}

fn cluster(server: SocketAddr) -> Cluster {
    let address = SocketAddress {
        address: server.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(server.port().into())),
        ..SocketAddress::default()
    };
    let endpoint = Endpoint {
        address: Some(Address { address: Some(address::Address::SocketAddress(address)) }),
        ..Endpoint::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    };
    let locality = LocalityLbEndpoints {
        locality: Some(Default::default()),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        lb_endpoints: vec![endpoint],
        ..LocalityLbEndpoints::default()
    };
    Cluster {
        name: "hosts".to_owned(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(
            cluster::DiscoveryType::Static as i32,
        )),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: "hosts".to_owned(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    }
}
