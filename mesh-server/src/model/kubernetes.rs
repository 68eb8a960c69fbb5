//! Kubernetes' Service and EndpointSlice, as far as they describe where calls go.
//!
//! A slice stands for the pods behind it, which a directory of files does not have: the labels of
//! the slice itself (without Kubernetes' own) are the labels of its endpoints, so that subsets work.

use std::sync::Arc;

use super::distribution::TrafficDistribution;
use super::node::{Node, Value};
use super::object::{Metadata, Origin, spec};
use super::read::{self, Map, Report};
use super::schema::{self, Shape};
use super::service::{EndpointSource, Location, Resolution, Service, ServicePort, TargetPort};
use super::session::PersistentSession;
use super::value::{ExportTo, Labels, Locality, Protocol, is_dns_label};
use super::workload::{Address, Health};
use crate::analysis::Code;

/// A Kubernetes Service.
#[derive(Clone, Debug)]
pub struct KubernetesService {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// The service it defines.
    pub service: Arc<Service>,
}

/// A Kubernetes EndpointSlice.
#[derive(Clone, Debug)]
pub struct EndpointSlice {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// `metadata.name` of the Service it belongs to.
    pub service: String,
    /// Port numbers by the service port's name.
    pub ports: Vec<(String, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Labels of all of them.
    pub labels: Labels,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Where it listens.
    pub address: Address,
    /// From its conditions.
    pub health: Health,
    /// Its zone, and the slice's region if that is labelled.
    pub locality: Locality,
    /// The node that it runs on.
    pub node: Option<String>,
}

const SERVICE: &[(&str, Shape)] = &[
    ("allocateLoadBalancerNodePorts", Shape::Bool),
    ("clusterIP", Shape::Text),
    ("clusterIPs", Shape::List(&Shape::Text)),
    ("externalIPs", Shape::List(&Shape::Text)),
    ("externalName", Shape::Text),
    ("externalTrafficPolicy", Shape::Text),
    ("healthCheckNodePort", Shape::Number),
    ("internalTrafficPolicy", Shape::Text),
    ("ipFamilies", Shape::List(&Shape::Text)),
    ("ipFamilyPolicy", Shape::Text),
    ("loadBalancerClass", Shape::Text),
    ("loadBalancerIP", Shape::Text),
    ("loadBalancerSourceRanges", Shape::List(&Shape::Text)),
    ("ports", Shape::Any),
    ("publishNotReadyAddresses", Shape::Bool),
    ("selector", Shape::Any),
    ("sessionAffinity", Shape::Text),
    ("sessionAffinityConfig", Shape::Any),
    ("trafficDistribution", Shape::Text),
    ("type", Shape::Text),
];

impl KubernetesService {
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        let names: Vec<&str> = SERVICE.iter().map(|(name, _)| *name).collect();
        let map = spec(node, report, &names)?;
        for (name, shape) in SERVICE {
            if let Some(node) = map.get(name) {
                schema::check(node, name, shape, report);
            }
        }
        let origin = metadata.origin;
        if map.get("type").and_then(Node::as_text) == Some("ExternalName") {
            report.unsupported(map.key_at("type"), "`type: ExternalName` (use a ServiceEntry with DNS)");
        }
        if map.get("sessionAffinity").and_then(Node::as_text) == Some("ClientIP") {
            report.ignored(map.key_at("sessionAffinity"), "`sessionAffinity`");
        }
        let distribution = map.get("trafficDistribution").and_then(Node::as_text);
        let distribution = distribution.map(|word| (word, map.key_at("trafficDistribution")));
        let distribution =
            TrafficDistribution::of(distribution, &metadata.annotations, origin.position, report);
        let selector = map.one("selector", report, read::labels).filter(|selector| !selector.is_empty());
        let addresses =
            map.get("clusterIP").and_then(|node| node.as_text()?.parse().ok()).into_iter().collect();
        let namespace = origin.id.namespace.clone();
        let service = Service {
            hostname: format!("{}.{namespace}.svc.{}", origin.id.name, report.settings.domain),
            ports: ports(&map, &origin, report),
            endpoints: EndpointSource::Kubernetes { name: origin.id.name.clone(), selector },
            resolution: Resolution::Static,
            location: Location::Internal,
            export_to: export_to(&metadata.annotations, &namespace),
            subject_alt_names: Vec::new(),
            session: PersistentSession::of(&metadata.labels, origin.position, report),
            distribution,
            addresses,
            namespace,
            origin: origin.clone(),
        };
        Some(Self { origin, service: Arc::new(service) })
    }
}

/// The annotation `networking.istio.io/exportTo`: a list with commas.
fn export_to(annotations: &Labels, own: &str) -> ExportTo {
    let Some(text) = annotations.get("networking.istio.io/exportTo") else { return ExportTo::All };
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words.is_empty() || words.contains(&"*") {
        ExportTo::All
    } else if words.contains(&"~") {
        ExportTo::Nobody
    } else {
        let name = |word: &&str| if *word == "." { own.to_owned() } else { (*word).to_owned() };
        ExportTo::Namespaces(words.iter().map(name).collect())
    }
}

fn ports(map: &Map<'_>, origin: &Origin, report: &mut Report) -> Vec<ServicePort> {
    const FIELDS: &[&str] = &["name", "port", "protocol", "targetPort", "appProtocol", "nodePort"];
    const TRANSPORTS: [(&str, bool); 3] = [("TCP", false), ("UDP", true), ("SCTP", true)];
    let mut ports: Vec<ServicePort> = Vec::new();
    let mut unnamed = 0_usize;
    map.many("ports", report, |node, report| {
        let map = report.map(node, "a port", FIELDS)?;
        let number = map.required("port", "a port", report, read::port);
        let name = map.one("name", report, read::dns_label).unwrap_or_default();
        let udp = map.one("protocol", report, read::word("protocol", &TRANSPORTS)).unwrap_or(false);
        let app = map.one("appProtocol", report, read::text);
        map.one("nodePort", report, read::count);
        let target = map.one("targetPort", report, target_port);
        let number = number?;
        let protocol = match app.as_deref().map(|app| app.rsplit('/').next().unwrap_or(app)) {
            _ if udp => Protocol::Udp,
            Some("h2c") => Protocol::Http2,
            Some(app) => Protocol::from_name(app),
            None => Protocol::from_name(&name),
        };
        unnamed += usize::from(name.is_empty());
        if ports.iter().any(|port| port.number == number && (port.protocol == Protocol::Udp) == udp) {
            report.error(map.key_at("port"), format!("port {number} is defined twice"));
        }
        if !name.is_empty() && ports.iter().any(|port| port.name == name) {
            report.error(map.key_at("name"), format!("port name `{name}` is used twice"));
        }
        ports.push(ServicePort {
            name,
            number,
            protocol,
            target: target.unwrap_or(TargetPort::Number(number)),
        });
        Some(())
    });
    if ports.len() > 1 && unnamed > 0 {
        report.error(map.key_at("ports"), "a service with several ports must name each of them");
    } else if ports.is_empty() && !map.has("ports") {
        report.warn(Code::SchemaWarning, origin.position, "a Service without ports cannot be called");
    }
    ports
}

fn target_port(node: &Node, report: &mut Report) -> Option<TargetPort> {
    match &node.value {
        Value::Text(name) if is_dns_label(name) => Some(TargetPort::Name(name.clone())),
        _ => read::port(node, report).map(TargetPort::Number),
    }
}

#[derive(Clone, Copy)]
enum AddressType {
    Ip,
    Fqdn,
}

const ADDRESS_TYPES: [(&str, AddressType); 3] =
    [("IPv4", AddressType::Ip), ("IPv6", AddressType::Ip), ("FQDN", AddressType::Fqdn)];

impl EndpointSlice {
    pub(crate) fn read(map: Map<'_>, metadata: Metadata, report: &mut Report) -> Option<Self> {
        const SERVICE_NAME: &str = "kubernetes.io/service-name";
        let at = metadata.at;
        let origin = metadata.origin;
        let mut labels = metadata.labels;
        let service = labels.remove(SERVICE_NAME);
        if service.is_none() {
            report.error(origin.position, format!("an EndpointSlice needs the label `{SERVICE_NAME}`"));
        }
        let region = labels.get("topology.kubernetes.io/region").cloned().unwrap_or_default();
        labels.retain(|key, _| !key.starts_with("endpointslice.kubernetes.io/"));
        let kind = map.required("addressType", "an EndpointSlice", report, |node, report| {
            read::word("address type", &ADDRESS_TYPES)(node, report)
        });
        let ports = map.many("ports", report, |node, report| {
            let map = report.map(node, "a port", &["name", "port", "protocol", "appProtocol"])?;
            let name = map.one("name", report, read::text).unwrap_or_default();
            for key in ["protocol", "appProtocol"] {
                map.one(key, report, read::text);
            }
            Some((name, map.required("port", "a port", report, read::port)?))
        });
        if !map.has("ports") {
            report.warn(Code::SchemaWarning, at, "an EndpointSlice without ports has no endpoints");
        }
        let endpoints = map.many("endpoints", report, |node, report| endpoint(node, kind?, &region, report));
        Some(Self { origin, service: service?, ports, endpoints: endpoints.concat(), labels })
    }
}

fn endpoint(node: &Node, kind: AddressType, region: &str, report: &mut Report) -> Option<Vec<SliceEndpoint>> {
    const FIELDS: &[&str] = &[
        "addresses",
        "conditions",
        "deprecatedTopology",
        "hints",
        "hostname",
        "nodeName",
        "targetRef",
        "zone",
    ];
    let map = report.map(node, "an endpoint", FIELDS)?;
    let health = map.one("conditions", report, |node, report| {
        let map = report.map(node, "conditions", &["ready", "serving", "terminating"])?;
        let ready = map.one("ready", report, read::boolean).unwrap_or(true);
        let serving = map.one("serving", report, read::boolean).unwrap_or(ready);
        let terminating = map.one("terminating", report, read::boolean).unwrap_or(false);
        Some(match (ready, serving, terminating) {
            (_, true, true) => Health::Draining,
            (true, _, false) => Health::Healthy,
            _ => Health::Unhealthy,
        })
    });
    let zone = map.one("zone", report, read::text).unwrap_or_default();
    let node_name = map.one("nodeName", report, read::text).filter(|name| !name.is_empty());
    let locality = Locality { region: region.to_owned(), zone, sub_zone: String::new() };
    // Kubernetes says that all addresses of an endpoint are the same backend: the first is used.
    let addresses = map.many("addresses", report, |node, report| {
        let text = read::some_text(node, report)?;
        match (kind, text.parse()) {
            (AddressType::Ip, Ok(ip)) => Some(Address::Ip(ip)),
            (AddressType::Ip, Err(_)) => report.fail(node.at, format!("{text:?} is not an IP address")),
            (AddressType::Fqdn, _) => {
                report.unsupported(node.at, "`addressType: FQDN`");
                None
            }
        }
    });
    if !map.has("addresses") {
        report.error(node.at, "an endpoint needs `addresses`");
    }
    let health = health.unwrap_or_default();
    Some(
        addresses
            .into_iter()
            .take(1)
            .map(|address| SliceEndpoint {
                address,
                health,
                locality: locality.clone(),
                node: node_name.clone(),
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests;
