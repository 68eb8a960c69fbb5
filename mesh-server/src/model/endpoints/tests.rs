//! Endpoints: where they come from, their ports, labels and identities.

use std::net::IpAddr;

use super::*;
use crate::model::fixture::model;

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: grpc, port: 9080, targetPort: 8080}, {name: admin, port: 81, targetPort: mgmt}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, namespace: shop, labels: {kubernetes.io/service-name: reviews, version: v1}}
addressType: IPv4
ports: [{name: grpc, port: 7000}]
endpoints:
- {addresses: [10.0.0.1], zone: z1}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec:
  address: 10.0.0.2
  labels: {app: reviews, version: v2}
  ports: {grpc: 7001, mgmt: 7002}
  serviceAccount: vm
  locality: eu/z2
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: other}
spec: {address: 10.0.0.9, labels: {app: reviews}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: shop}
spec:
  hosts: [api.test]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8443}]
  resolution: DNS
";

fn registered(name: &str, ports: &[(&str, u16)]) -> RegisteredWorkload {
    RegisteredWorkload {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: "reviews".to_owned(),
        address: IpAddr::from([10, 0, 1, 1]),
        ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
        labels: [("app", "reviews"), ("version", "v3"), ("security.istio.io/tlsMode", "istio")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        locality: Locality::default(),
        weight: 0,
        health: Health::Draining,
        group: None,
    }
}

fn with(workload: RegisteredWorkload) -> Model {
    let model = model(MESH);
    Model { workloads: Arc::new(model.workloads.with(workload)), ..model }
}

fn shown(model: &Model, host: &str, port: u16, subset: &Labels) -> Vec<String> {
    let service = model.config.service("shop", host).expect("service").clone();
    let port = service.port(port).expect("port").clone();
    let endpoints = model.endpoints(&service, &port, subset);
    endpoints.iter().map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port)).collect()
}

const REVIEWS: &str = "reviews.shop.svc.cluster.local";

#[test]
fn a_service_has_the_endpoints_of_slices_entries_and_registered_workloads() {
    let model = with(registered("a", &[("", 50_051)]));
    assert_eq!(
        shown(&model, REVIEWS, 9080, &Labels::new()),
        ["10.0.0.1:7000", "10.0.0.2:7001", "10.0.1.1:50051"]
    );
}

#[test]
fn a_workloads_own_ports_beat_the_target_port_which_beats_the_port() {
    let port_of = |ports: &[(&str, u16)], port| {
        let shown = shown(&with(registered("a", ports)), REVIEWS, port, &Labels::new());
        shown.into_iter().find(|endpoint| endpoint.starts_with("10.0.1.1")).expect("the registered one")
    };
    assert_eq!(port_of(&[("grpc", 1), ("", 2)], 9080), "10.0.1.1:1");
    assert_eq!(port_of(&[("", 2)], 9080), "10.0.1.1:2");
    assert_eq!(port_of(&[], 9080), "10.0.1.1:8080");
    assert_eq!(port_of(&[("mgmt", 3)], 81), "10.0.1.1:3", "a named target port is the workload's name");
    assert_eq!(port_of(&[], 81), "10.0.1.1:81");
}

#[test]
fn subsets_select_by_labels_and_by_place() {
    let model = with(registered("a", &[]));
    let subset = |key: &str, value: &str| {
        shown(&model, REVIEWS, 9080, &Labels::from([(key.to_owned(), value.to_owned())]))
    };
    assert_eq!(subset("version", "v1"), ["10.0.0.1:7000"], "a slice's labels are its endpoints'");
    assert_eq!(subset("version", "v3"), ["10.0.1.1:8080"]);
    assert_eq!(subset("topology.kubernetes.io/zone", "z2"), ["10.0.0.2:7001"]);
    assert!(subset("version", "v9").is_empty());
}

#[test]
fn an_endpoint_carries_identity_health_and_mtls() {
    let model = with(registered("a", &[]));
    let service = model.config.service("shop", REVIEWS).expect("service");
    let endpoints = model.endpoints(service, &service.ports[0], &Labels::new());
    let [slice, entry, registered] = endpoints.as_slice() else { panic!("{endpoints:#?}") };
    assert_eq!((slice.tls, slice.service_account.clone()), (false, None));
    assert_eq!(entry.locality.to_string(), "eu/z2");
    assert_eq!((registered.tls, registered.health, registered.weight), (true, Health::Draining, 1));
    let accounts: Vec<_> = model.service_accounts(service).into_iter().map(|account| account.name).collect();
    assert_eq!(accounts, ["reviews", "vm"]);
}

#[test]
fn one_address_and_port_is_one_endpoint_and_the_workload_itself_is_believed() {
    let mut workload = registered("a", &[("", 7000)]);
    workload.address = IpAddr::from([10, 0, 0, 1]);
    let model = with(workload);
    let service = model.config.service("shop", REVIEWS).expect("service");
    let endpoints = model.endpoints(service, &service.ports[0], &Labels::new());
    let same: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.port == 7000).collect();
    assert_eq!(same.len(), 1);
    assert_eq!(same[0].health, Health::Draining);
}

#[test]
fn a_dns_service_without_endpoints_is_its_own_endpoint() {
    assert_eq!(shown(&model(MESH), "api.test", 80, &Labels::new()), ["api.test:8443"]);
}

#[test]
fn a_change_of_a_workload_reaches_exactly_the_services_that_select_it() {
    let model = model(MESH);
    let names = |namespace: &str| {
        let labels = Labels::from([("app".to_owned(), "reviews".to_owned())]);
        model
            .services_selecting(namespace, &labels)
            .map(|service| service.hostname.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("shop"), [REVIEWS]);
    assert!(names("other").is_empty());
}
