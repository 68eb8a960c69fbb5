//! ServiceEntry: validation, and the services it defines.

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_refused, lines, object, parsed};

const PORTS: &str = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]";

#[test]
fn each_host_becomes_a_service_and_none_is_expanded() {
    let spec = format!(
        "hosts: [hello-vm, api.example.com]\naddresses: [10.0.0.1]\n{PORTS}\nlocation: MESH_INTERNAL\n\
         resolution: STATIC\nsubjectAltNames: [spiffe://x/y]\nexportTo: ['~']\n\
         endpoints: [{{address: 10.1.1.1, ports: {{http: 9}}, weight: 3, locality: eu/a/r1, serviceAccount: vm}}]"
    );
    let parsed = parsed(&object("ServiceEntry", &spec));
    let [Object::ServiceEntry(entry)] = parsed.objects.as_slice() else { panic!("{:#?}", lines(&parsed)) };
    let hosts: Vec<_> = entry.services.iter().map(|service| service.hostname.as_str()).collect();
    assert_eq!(hosts, ["hello-vm", "api.example.com"]);
    let service = &entry.services[0];
    assert_eq!((service.location, service.resolution), (Location::Internal, Resolution::Static));
    assert_eq!(service.ports[0].target, TargetPort::Number(8080));
    assert_eq!(service.export_to, ExportTo::Nobody);
    let EndpointSource::Fixed(endpoints) = &service.endpoints else { panic!("fixed endpoints") };
    assert_eq!((endpoints[0].weight, endpoints[0].ports["http"]), (3, 9));
    assert_eq!(endpoints[0].locality.to_string(), "eu/a/r1");
}

#[test]
fn invalid_objects_are_refused_where_they_are_wrong() {
    let with = |fields: &str| format!("hosts: [a.b]\n{PORTS}\nresolution: STATIC\n{fields}");
    let cases = [
        (PORTS.to_owned(), "3:18 a ServiceEntry needs `hosts`"),
        (format!("hosts: ['*']\n{PORTS}"), "5:11 a ServiceEntry cannot be for every host"),
        (format!("hosts: [a.b, a.b]\n{PORTS}"), "5:16 host `a.b` is named twice"),
        ("hosts: [a.b]\nports: [{number: 0, name: a}]".to_owned(), "6:20 0 is not a port"),
        ("hosts: [a.b]\nports: [{number: 1}]".to_owned(), "6:11 a port needs `name`"),
        (
            "hosts: [a.b]\nports: [{number: 1, name: a, protocol: GRCP}]".to_owned(),
            "6:42 `GRCP` is not a protocol",
        ),
        (
            "hosts: [a.b]\nports: [{number: 1, name: a}, {number: 1, name: b}]".to_owned(),
            "6:34 port 1 is defined twice",
        ),
        (
            "hosts: [a.b]\nports: [{number: 1, name: a}, {number: 2, name: a}]".to_owned(),
            "6:45 port name `a` is used twice",
        ),
        (
            "hosts: [a.b, c.d]\nports: [{number: 1, name: a, protocol: TCP}]\nresolution: DNS".to_owned(),
            "5:3 several hosts need ports of HTTP or TLS",
        ),
        (with("addresses: [10.0.0.0/40]"), "8:15 \"10.0.0.0/40\" is neither an IP address nor a range"),
        (
            with("endpoints: [{address: a.b}]"),
            "8:15 `resolution: STATIC` needs IP addresses, `a.b` is a name",
        ),
        (
            with("endpoints: [{address: 1.1.1.1, ports: {x: 1}}]"),
            "8:15 the endpoint's port `x` is not a port of the service",
        ),
        (with("endpoints: [{}]"), "8:15 a workload entry needs `address`"),
        (with("endpoints: [{address: 1.1.1.1, locaility: x}]"), "8:34 unknown field `locaility`"),
        (
            with("endpoints: [{address: 1.1.1.1}]\nworkloadSelector: {labels: {a: b}}"),
            "8:3 `endpoints` excludes `workloadSelector`",
        ),
        (
            format!("hosts: [a.b]\n{PORTS}\nendpoints: [{{address: 1.1.1.1}}]"),
            "7:3 `resolution: NONE` must not have endpoints",
        ),
        (
            format!(
                "hosts: [a.b]\n{PORTS}\nresolution: DNS_ROUND_ROBIN\nendpoints: [{{address: a}}, {{address: b}}]"
            ),
            "8:3 `resolution: DNS_ROUND_ROBIN` takes at most one endpoint",
        ),
        (format!("hosts: [a.b]\n{PORTS}\nexportTo: ['~', a]"), "7:14 `~` must stand alone"),
    ];
    let cases: Vec<_> = cases.iter().map(|(spec, expected)| (spec.as_str(), *expected)).collect();
    assert_refused("ServiceEntry", &cases);
}

#[test]
fn unix_sockets_and_dynamic_dns_are_refused_for_now() {
    for (fields, expected) in [
        (
            "resolution: STATIC\nendpoints: [{address: 'unix:///a'}]",
            "8:25 not supported by this version: Unix socket",
        ),
        ("resolution: DYNAMIC_DNS", "7:3 not supported by this version: `resolution: DYNAMIC_DNS`"),
    ] {
        let parsed = parsed(&object("ServiceEntry", &format!("hosts: [a.b]\n{PORTS}\n{fields}")));
        let found = lines(&parsed);
        assert!(
            found.iter().any(|line| line.starts_with(&format!("MESH0001 error {expected}"))),
            "{found:#?}"
        );
    }
}

#[test]
fn names_are_resolved_by_the_client_and_what_others_lack_is_told() {
    for fields in [
        "resolution: DNS",
        "resolution: DNS\nendpoints: [{address: 1.1.1.1}]",
        "resolution: DNS_ROUND_ROBIN\nendpoints: [{address: c.d}]",
    ] {
        let parsed = parsed(&object("ServiceEntry", &format!("hosts: [a.b]\n{PORTS}\n{fields}")));
        assert_eq!(lines(&parsed), <Vec<String>>::new(), "{fields}");
        assert_eq!(parsed.objects.len(), 1);
    }
    let two = "resolution: DNS\nendpoints: [{address: 1.1.1.1}, {address: c.d}]";
    let parsed = parsed(&object("ServiceEntry", &format!("hosts: [a.b]\n{PORTS}\n{two}")));
    let found = lines(&parsed);
    let expected = "MESH0001 info 8:3 not supported by this version: several names under `resolution: DNS`";
    assert!(matches!(&found[..], [line] if line.starts_with(expected)), "{found:#?}");
}
