//! Kubernetes' Service and EndpointSlice.

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_findings, lines, parsed};

fn service(spec: &str) -> Arc<Service> {
    let parsed =
        parsed(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: reviews}}\nspec: {spec}\n"));
    match parsed.objects.as_slice() {
        [Object::Service(object)] => object.service.clone(),
        _ => panic!("refused: {:#?}", lines(&parsed)),
    }
}

#[test]
fn a_service_has_its_full_name_and_the_protocols_of_its_ports() {
    let service = service(
        "{selector: {app: reviews}, clusterIP: 10.9.8.7, ports: [{name: grpc-api, port: 9080}, \
         {name: web, port: 80, appProtocol: kubernetes.io/h2c, targetPort: 8080}, \
         {name: admin, port: 81, targetPort: named}, {name: dns, port: 53, protocol: UDP}]}",
    );
    assert_eq!(service.hostname, "reviews.default.svc.cluster.local");
    let protocols: Vec<_> = service.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(protocols, [Protocol::Grpc, Protocol::Http2, Protocol::Unknown, Protocol::Udp]);
    assert_eq!(service.ports[1].target, TargetPort::Number(8080));
    assert_eq!(service.ports[2].target, TargetPort::Name("named".to_owned()));
    assert_eq!(service.addresses, ["10.9.8.7".parse::<std::net::IpAddr>().expect("ip")]);
}

#[test]
fn invalid_services_are_refused_where_they_are_wrong() {
    let with = |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}\n");
    for (spec, expected) in [
        (
            "{ports: [{port: 1}, {port: 2}]}",
            "IST0106 error 4:8 a service with several ports must name each of them",
        ),
        ("{ports: [{prot: 1}]}", "IST0106 error 4:17 unknown field `prot` in a port"),
        ("{ports: [{port: 1, protocol: TPC}]}", "IST0106 error 4:36 `TPC` is no protocol"),
        ("{prots: []}", "IST0106 error 4:8 unknown field `prots` in Service.spec"),
        ("{clusterIP: 1}", "IST0106 error 4:19 expected a text, found the number 1"),
        (
            "{type: ExternalName, externalName: a.b}",
            "MESH0001 error 4:8 not supported by this version: `type: ExternalName`",
        ),
    ] {
        let parsed = parsed(&with(spec));
        assert!(lines(&parsed)[0].starts_with(expected), "{:#?}", lines(&parsed));
        assert!(parsed.objects.is_empty());
    }
}

const SLICE: &str = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, labels: {kubernetes.io/service-name: reviews, version: v1}}
addressType: IPv4
ports: [{name: grpc, port: 9080}]
endpoints:
";

#[test]
fn the_conditions_of_an_endpoint_are_its_health() {
    let endpoints = "- {addresses: [10.0.0.1]}
- {addresses: [10.0.0.2, 10.9.9.9], conditions: {ready: false}, zone: z}
- {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.4], conditions: {ready: false, serving: false, terminating: true}}
";
    let parsed = parsed(&format!("{SLICE}{endpoints}"));
    let [Object::EndpointSlice(slice)] = parsed.objects.as_slice() else { panic!("{:#?}", lines(&parsed)) };
    let healths: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.health).collect();
    assert_eq!(healths, [Health::Healthy, Health::Unhealthy, Health::Draining, Health::Unhealthy]);
    assert_eq!(slice.endpoints[1].locality.zone, "z");
    assert_eq!(slice.labels, Labels::from([("version".to_owned(), "v1".to_owned())]));
}

#[test]
fn a_slice_must_say_whose_it_is_and_what_its_addresses_are() {
    assert_findings(
        &format!("{}- {{addresses: [a]}}\n", SLICE.replace("kubernetes.io/service-name: reviews, ", "")),
        &[
            "IST0106 error 3:18 an EndpointSlice needs the label `kubernetes.io/service-name`",
            "IST0106 error 7:16 \"a\" is not an IP address",
        ],
    );
}
