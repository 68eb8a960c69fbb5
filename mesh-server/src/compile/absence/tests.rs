//! What is said of each thing that is not there.

use super::*;
use crate::{
    compile::fixture::{MESH, World, world},
    model::{Config, fixture::parsed},
};
use std::sync::Arc;

const MORE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1}, {name: v2}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: private, namespace: other}
spec:
  hosts: [private.example.com]
  exportTo: [.]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 443, name: grpc, protocol: GRPC}]
";

fn said(world: &World, kind: ResourceType, name: &str) -> (Code, String) {
    assert!(world.compiler().resource(kind, name).is_none(), "{name} is there");
    let absence = world.compiler().absence(kind, name).unwrap();
    (absence.code, absence.message.to_string())
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    use ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration, Secret};
    let world = world(MESH, MORE);
    let cases: &[(ResourceType, &str, &str)] = &[
        (Listener, "reviews:80", "Service default/reviews (mesh.yaml:4:18) has no port 80; it has: 9080"),
        (
            Listener,
            "ratings.other",
            "name one of the ports of Service other/ratings (mesh.yaml:11:18): 9080, 9090",
        ),
        (
            Listener,
            "revews:9080",
            "no Service and no ServiceEntry has the host revews.default.svc.cluster.local or revews",
        ),
        (Listener, "reviews:grpc", "\"reviews:grpc\" is no target: HOST:PORT is one"),
        (
            Listener,
            "private.example.com:443",
            "ServiceEntry other/private (mesh.yaml:26:18) is not exported to namespace default: see its `exportTo`",
        ),
        (
            Listener,
            "xds.istio.io/grpc/lds/inbound/reviews:9080",
            "a server is called xds.istio.io/grpc/lds/inbound/ADDRESS:PORT, with an IP address",
        ),
        (
            RouteConfiguration,
            "outbound|80||reviews.default.svc.cluster.local",
            "Service default/reviews (mesh.yaml:4:18) has no port 80; it has: 9080",
        ),
        (
            Cluster,
            "outbound|9080|v3|reviews.default.svc.cluster.local",
            "DestinationRule default/reviews (mesh.yaml:19:18) has no subset `v3`; it has: v1, v2",
        ),
        (
            ClusterLoadAssignment,
            "outbound|9080|v3|ratings.other.svc.cluster.local",
            "no DestinationRule of ratings.other.svc.cluster.local defines subset `v3`",
        ),
        (
            Cluster,
            "outbound|443||gone.example.com",
            "no Service and no ServiceEntry has the host gone.example.com",
        ),
        (
            Secret,
            "default",
            "this control plane has no secrets; certificates come from the certificate_providers of the bootstrap",
        ),
    ];
    for (kind, name, expected) in cases {
        assert_eq!(said(&world, *kind, name), (Code::NotFound, (*expected).to_owned()), "{name}");
    }
    // Of what others made up there is nothing to say.
    assert_eq!(world.compiler().absence(Cluster, "their cluster"), None);
}

#[test]
fn what_is_refused_is_told_as_refused() {
    let mut world = world(MESH, "");
    let refused = parsed(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [API.example.com]
  resolution: DSN
---
apiVersion: v1
kind: Service
metadata: {name: broken}
spec:
  ports: [{name: grpc}]
",
    )
    .refused;
    let hosts =
        refused.iter().flat_map(|one| one.hosts.iter().map(|host| (host.clone(), one.reason.clone())));
    let config = Config::new(Arc::default(), world.model.config.objects().iter().cloned());
    world.model.config = Arc::new(config.with_unserved(hosts));
    for (name, told) in [
        ("api.example.com:443", "ServiceEntry default/api is refused: mesh.yaml:7:"),
        ("broken:80", "Service default/broken is refused: mesh.yaml:13:"),
    ] {
        let (code, text) = said(&world, ResourceType::Listener, name);
        assert_eq!(code, Code::InvalidArgument, "{text}");
        assert!(text.starts_with(told), "{text}");
    }
}
