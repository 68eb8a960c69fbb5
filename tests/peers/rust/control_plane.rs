//! Our ADS server with resources made by hand, for what no kind of Istio's says.
//!
//! Each order is a shape and the ports of `reviews` replicas; the answer is `serving REVISION`. What clients make
//! of it is printed as it comes: `acknowledged NODE REVISION`, `rejected NODE: TEXT`.
//!
//! ```text
//! aggregate PRIMARY SECONDARY   an aggregate cluster of two
//! ring-hash PORT ...            one cluster, by the hash of the header `x-key`
//! outliers PORT ...             one cluster, whose failing endpoints are ejected
//! ```

use crate::Outcome;
use mesh_xds::{
    matcher::{DomainPattern, PathMatcher},
    name::{Name, ResourceType},
    resource::{
        Cluster, ClusterLoadAssignment, Listener, Locality, Resource, RouteConfiguration,
        cluster::{
            Discovery, FailurePercentage, LbOptions, LbPolicy, LocalityLb, OutlierDetection, RingHash,
        },
        endpoint::{Endpoint, LocalityEndpoints, Priority},
        filter::{FilterConfig, HttpFilter},
        listener::{HttpConnectionManager, ListenerKind, RouteSource},
        route::{
            Destination, Forward, HashKey, HashPolicy, HeaderMutations, HeaderName, Route, RouteAction,
            RouteMatch, VirtualHost,
        },
    },
    server::{AdsService, AdsSettings, Encoded, Node, StreamEvent, View, Views},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast::error::RecvError, watch},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, transport::Server};

const HOST: &str = "reviews:9080";
const TOP: &str = "top";

/// The header that the ring hashes.
const KEY: &str = "x-key";

#[derive(Default)]
struct Shelf {
    revision: u64,
    resources: BTreeMap<(ResourceType, Name), Arc<Encoded>>,
}

impl View for Shelf {
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

impl Shelf {
    fn put(&mut self, resource: &impl Resource) {
        let kind = kind_of(resource);
        let encoded = Encoded {
            name: resource.name().clone(),
            version: self.revision.to_string().into(),
            body: resource.to_proto(),
        };
        self.resources.insert((kind, resource.name().clone()), Arc::new(encoded));
    }
}

fn kind_of<R: Resource>(_: &R) -> ResourceType {
    R::TYPE
}

/// The same for everybody.
struct All {
    shelf: Mutex<Arc<Shelf>>,
    changes: watch::Sender<u64>,
}

impl Views for All {
    type Peer = ();

    fn authenticate(&self, _: &http::Extensions, _: &tonic::metadata::MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn view(&self, (): &(), _: &Node) -> Result<Arc<dyn View>, Status> {
        let shelf = self.shelf.lock().map_err(|_| Status::internal("the shelf is broken"))?;
        Ok(shelf.clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Serves until standard input ends.
pub(super) async fn run(address: &str) -> Outcome {
    let all = Arc::new(All { shelf: Mutex::default(), changes: watch::Sender::new(0) });
    let ads = AdsService::new(all.clone(), AdsSettings::default());
    let mut events = ads.events();
    let incoming = TcpListenerStream::new(TcpListener::bind(address).await?);
    let serving = Server::builder().add_service(ads.service()).serve_with_incoming(incoming);
    let mut serving = std::pin::pin!(serving);
    println!("ready");
    let mut orders = crate::orders();
    loop {
        tokio::select! {
            served = &mut serving => return Ok(served?),
            event = events.recv() => match event {
                Ok(StreamEvent::Acked { node, revision, .. }) => println!("acknowledged {node} {revision}"),
                Ok(StreamEvent::Rejected { node, text, .. }) => {
                    println!("rejected {node}: {}", text.replace('\n', " "));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            order = orders.recv() => {
                let Some(order) = order else { return Ok(()) };
                let next = {
                    let mut shelf = all.shelf.lock().map_err(|_| "the shelf is broken")?;
                    *shelf = Arc::new(resources(&order, shelf.revision + 1)?);
                    shelf.revision
                };
                all.changes.send_replace(next);
                println!("serving {next}");
            }
        }
    }
}

fn resources(order: &str, revision: u64) -> Outcome<Shelf> {
    let mut words = order.split(' ');
    let shape = words.next().unwrap_or_default();
    let ports = words.map(str::parse).collect::<Result<Vec<u16>, _>>()?;
    let mut shelf = Shelf { revision, ..Shelf::default() };
    let mut hash = Vec::new();
    match (shape, ports.as_slice()) {
        ("aggregate", [primary, secondary]) => {
            let names = vec![Name::from("primary"), Name::from("secondary")];
            shelf.put(&Cluster::new(TOP, Discovery::Aggregate(names)));
            for (name, port) in [("primary", primary), ("secondary", secondary)] {
                shelf.put(&Cluster::eds(name));
                shelf.put(&assignment(name, &[*port]));
            }
        }
        ("ring-hash", ports) => {
            let key = HashKey::Header { name: HeaderName::try_from(KEY)?, rewrite: None };
            hash.push(HashPolicy { key, terminal: false });
            // A ring holds all localities: gRPC has no other.
            let lb_options = LbOptions { localities: LocalityLb::Flat, ..LbOptions::default() };
            let lb = LbPolicy::RingHash(RingHash::default());
            shelf.put(&Cluster { lb, lb_options, ..Cluster::eds(TOP) });
            shelf.put(&assignment(TOP, ports));
        }
        ("outliers", ports) => {
            let failing =
                FailurePercentage { threshold: 50, enforcing: 100, minimum_hosts: 2, request_volume: 5 };
            let outliers = OutlierDetection {
                interval: Duration::from_secs(1),
                max_ejection_percent: 50,
                failure_percentage: Some(failing),
                ..OutlierDetection::default()
            };
            shelf.put(&Cluster { outlier_detection: Some(outliers), ..Cluster::eds(TOP) });
            shelf.put(&assignment(TOP, ports));
        }
        _ => return Err(format!("{order:?} is no order").into()),
    }
    let routes = routes(hash)?;
    let router = HttpFilter {
        name: "envoy.filters.http.router".into(),
        config: FilterConfig::Router,
        disabled: false,
    };
    let http = HttpConnectionManager {
        routes: RouteSource::Rds(routes.name.clone()),
        filters: vec![router],
        max_stream_duration: None,
    };
    shelf.put(&Listener { name: HOST.into(), kind: ListenerKind::Api(http) });
    shelf.put(&routes);
    Ok(shelf)
}

fn routes(hash: Vec<HashPolicy>) -> Outcome<RouteConfiguration> {
    let forward = Forward {
        destination: Destination::Cluster(TOP.into()),
        timeout: None,
        max_stream_duration: None,
        grpc_timeout_header_max: None,
        retry: None,
        hedge: None,
        hash,
        authority: None,
        auto_host_rewrite: false,
        priority: Default::default(),
        path_rewrite: None,
        mirrors: Vec::new(),
    };
    let everything = RouteMatch {
        path: PathMatcher::Prefix { value: "".into(), ignore_case: false },
        headers: Vec::new(),
        query: Vec::new(),
        fraction: None,
    };
    let route = Route {
        name: "all".into(),
        matches: everything,
        action: RouteAction::Forward(Box::new(forward)),
        overrides: BTreeMap::new(),
        headers: HeaderMutations::default(),
        origin: None,
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec![DomainPattern::parse("*")?],
        routes: vec![Arc::new(route)],
        retry: None,
        hedge: None,
        overrides: BTreeMap::new(),
        headers: HeaderMutations::default(),
    };
    Ok(RouteConfiguration::new("routes".into(), vec![Arc::new(host)]))
}

fn assignment(name: &str, ports: &[u16]) -> ClusterLoadAssignment {
    let endpoint = |port: &u16| Arc::new(Endpoint::new(vec![SocketAddr::from(([127, 0, 0, 1], *port))]));
    let locality = LocalityEndpoints {
        locality: Locality::default(),
        weight: NonZeroU32::MIN,
        endpoints: ports.iter().map(endpoint).collect(),
    };
    let mut assignment = ClusterLoadAssignment::new(name);
    assignment.priorities = vec![Priority { localities: vec![locality] }];
    assignment
}
