//! ServiceEntry: a service that Kubernetes does not know.
//!
//! <https://istio.io/latest/docs/reference/config/networking/service-entry/>. Its hosts are taken
//! as written: unlike everywhere else in Istio, short names are not expanded.

use std::sync::Arc;

use ipnet::IpNet;

use super::distribution::TrafficDistribution;
use super::node::Node;
use super::object::{Metadata, Origin, spec};
use super::read::{self, Map, Report, located};
use super::service::{EndpointSource, Location, Resolution, Service, ServicePort, TargetPort};
use super::session::PersistentSession;
use super::value::{ExportTo, Host, Located, Protocol};
use super::workload::{Address, WorkloadSpec};
use crate::analysis::Code;

/// A ServiceEntry object: one service for each of its hosts.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// Its hosts, as services.
    pub services: Vec<Arc<Service>>,
}

const FIELDS: &[&str] = &[
    "addresses",
    "endpoints",
    "exportTo",
    "hosts",
    "location",
    "ports",
    "resolution",
    "subjectAltNames",
    "workloadSelector",
];

#[derive(Clone, Copy)]
enum Resolve {
    As(Resolution),
    DynamicDns,
}

const RESOLUTIONS: [(&str, Resolve); 5] = [
    ("NONE", Resolve::As(Resolution::None)),
    ("STATIC", Resolve::As(Resolution::Static)),
    ("DNS", Resolve::As(Resolution::Dns)),
    ("DNS_ROUND_ROBIN", Resolve::As(Resolution::DnsRoundRobin)),
    ("DYNAMIC_DNS", Resolve::DynamicDns),
];

const LOCATIONS: [(&str, Location); 2] =
    [("MESH_EXTERNAL", Location::External), ("MESH_INTERNAL", Location::Internal)];

impl ServiceEntry {
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        let map = spec(node, report, FIELDS)?;
        let origin = metadata.origin;
        let hosts = map.many("hosts", report, located(read::host));
        if !map.has("hosts") {
            report.error(origin.position, "a ServiceEntry needs `hosts`");
        } else if hosts.len() > 256 {
            report.error(map.key_at("hosts"), "a ServiceEntry may have at most 256 hosts");
        }
        let ports = ports(&map, report);
        let resolution = match map.one("resolution", report, read::word("resolution", &RESOLUTIONS)) {
            Some(Resolve::As(resolution)) => resolution,
            Some(Resolve::DynamicDns) => {
                report.unsupported(map.key_at("resolution"), "`resolution: DYNAMIC_DNS`");
                Resolution::None
            }
            None => Resolution::None,
        };
        let addresses = addresses(&map, resolution, report);
        let endpoints = endpoints(&map, resolution, &ports, report);
        let location =
            map.one("location", report, read::word("location", &LOCATIONS)).unwrap_or(Location::External);
        let export_to = map.one("exportTo", report, read::export_to(true)).unwrap_or(ExportTo::All);
        let subject_alt_names = map.many("subjectAltNames", report, read::some_text);
        let opaque = ports.iter().any(|port| !port.protocol.is_http() && port.protocol != Protocol::Tls);
        if hosts.len() > 1 && opaque && resolution != Resolution::None {
            let message = "several hosts need ports of HTTP or TLS: bytes do not say which host is meant";
            report.error(map.key_at("hosts"), message);
        }
        if resolution == Resolution::None && !map.has("endpoints") {
            report.ignored(
                if map.has("resolution") { map.key_at("resolution") } else { origin.position },
                "`resolution: NONE` (a client without a proxy has no original address)",
            );
        }
        let session = PersistentSession::of(&metadata.labels, origin.position, report);
        let distribution = TrafficDistribution::of(None, &metadata.annotations, origin.position, report);
        let names = named(&hosts, report);
        let services = names
            .into_iter()
            .map(|hostname| {
                Arc::new(Service {
                    origin: origin.clone(),
                    hostname,
                    namespace: origin.id.namespace.clone(),
                    ports: ports.clone(),
                    endpoints: endpoints.clone(),
                    resolution,
                    location,
                    export_to: export_to.clone(),
                    subject_alt_names: subject_alt_names.clone(),
                    session: session.clone(),
                    distribution,
                    addresses: addresses.clone(),
                })
            })
            .collect();
        Some(Self { origin, services })
    }
}

/// The hosts that can be called by name.
fn named(hosts: &[Located<Host>], report: &mut Report) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for host in hosts {
        match &host.value {
            Host::Wildcard(suffix) if suffix.is_empty() => {
                report.error(host.at, "a ServiceEntry cannot be for every host (`*`)");
            }
            Host::Wildcard(_) => report.ignored(host.at, "a wildcard host of a ServiceEntry"),
            Host::Exact(name) if names.contains(name) => {
                report.error(host.at, format!("host `{name}` is named twice"));
            }
            Host::Exact(name) => names.push(name.clone()),
        }
    }
    names
}

fn ports(map: &Map<'_>, report: &mut Report) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    map.many("ports", report, |node, report| {
        let map = report.map(node, "a port", &["number", "name", "protocol", "targetPort"])?;
        let number = map.required("number", "a port", report, read::port);
        let name = map.required("name", "a port", report, read::dns_label);
        let protocol = map.one("protocol", report, protocol).unwrap_or(Protocol::Unknown);
        let target = map.one("targetPort", report, read::port);
        let (number, name) = (number?, name?);
        if ports.iter().any(|port| port.number == number) {
            report.error(map.key_at("number"), format!("port {number} is defined twice"));
        }
        if ports.iter().any(|port| port.name == name) {
            report.error(map.key_at("name"), format!("port name `{name}` is used twice"));
        }
        ports.push(ServicePort {
            name,
            number,
            protocol,
            target: TargetPort::Number(target.unwrap_or(number)),
        });
        Some(())
    });
    ports
}

fn protocol(node: &Node, report: &mut Report) -> Option<Protocol> {
    let text = read::text(node, report)?;
    match Protocol::from_name(&text) {
        Protocol::Unknown if !text.is_empty() => {
            report.error(node.at, format!("`{text}` is not a protocol")).help =
                Some("one of: GRPC, GRPC-WEB, HTTP, HTTP2, HTTPS, MONGO, TCP, TLS".to_owned());
            None
        }
        protocol => Some(protocol),
    }
}

fn addresses(map: &Map<'_>, resolution: Resolution, report: &mut Report) -> Vec<std::net::IpAddr> {
    let addresses = map.many("addresses", report, |node, report| {
        let text = read::some_text(node, report)?;
        if let Ok(ip) = text.parse() {
            return Some(Some(ip));
        }
        match text.parse::<IpNet>() {
            Ok(_) if matches!(resolution, Resolution::None | Resolution::Static) => Some(None),
            Ok(_) => report.fail(node.at, "an address range needs `resolution: NONE` or STATIC"),
            Err(_) => report.fail(node.at, format!("{text:?} is neither an IP address nor a range of them")),
        }
    });
    addresses.into_iter().flatten().collect()
}

fn endpoints(
    map: &Map<'_>,
    resolution: Resolution,
    ports: &[ServicePort],
    report: &mut Report,
) -> EndpointSource {
    map.exclusive(&["workloadSelector", "endpoints"], report);
    let entries = map.many("endpoints", report, |node, report| {
        let entry = WorkloadSpec::read(node, report)?;
        for name in entry.ports.keys() {
            if !ports.iter().any(|port| port.name == *name) {
                report.error(node.at, format!("the endpoint's port `{name}` is not a port of the service"));
            }
        }
        if resolution == Resolution::Static && matches!(entry.address, Address::Name(_)) {
            let message = format!("`resolution: STATIC` needs IP addresses, `{}` is a name", entry.address);
            report.error(node.at, message).help = Some("write its IP address".to_owned());
        }
        Some(entry)
    });
    let at = map.key_at("endpoints");
    match resolution {
        Resolution::None if !entries.is_empty() => {
            report.error(at, "`resolution: NONE` must not have endpoints").help =
                Some("use `resolution: STATIC`".to_owned());
        }
        Resolution::Dns if entries.len() > 1 => {
            let what = "several names under `resolution: DNS`: gRPC clients that are not of the mesh have no such cluster and";
            report.partly(at, &format!("{what} get the IP addresses among them only"));
        }
        Resolution::DnsRoundRobin if entries.len() > 1 => {
            report.error(at, "`resolution: DNS_ROUND_ROBIN` takes at most one endpoint");
        }
        Resolution::Static if entries.is_empty() && !map.has("workloadSelector") => {
            report.warn(
                Code::SchemaWarning,
                map.at,
                "`resolution: STATIC` without endpoints: nothing answers",
            );
        }
        _ => {}
    }
    match map.one("workloadSelector", report, |node, report| {
        report.map(node, "workloadSelector", &["labels"])?.one("labels", report, read::labels)
    }) {
        Some(selector) => EndpointSource::Selector(selector),
        None => EndpointSource::Fixed(entries),
    }
}

#[cfg(test)]
mod tests;
