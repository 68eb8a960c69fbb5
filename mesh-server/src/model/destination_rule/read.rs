//! DestinationRule from YAML: the object, its subsets, and policies by port.

use std::collections::BTreeMap;

use super::traffic::{Level, blocks, retry_budget};
use super::{DestinationRule, Subset, TrafficPolicy};
use crate::model::node::Node;
use crate::model::object::{Metadata, Origin, spec};
use crate::model::read::{self, Report, located};
use crate::model::schema;
use crate::model::value::ExportTo;

impl DestinationRule {
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        const FIELDS: &[&str] = &["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"];
        let map = spec(node, report, FIELDS)?;
        let origin = metadata.origin;
        let host = map.required("host", "a DestinationRule", report, located(read::short_host));
        let export_to = map.one("exportTo", report, read::export_to(false)).unwrap_or(ExportTo::All);
        let selector = map.one("workloadSelector", report, read::selector("matchLabels"));
        if selector.is_some() && map.has("exportTo") && !export_to.is_private_to(&origin.id.namespace) {
            let message = "a rule with `workloadSelector` can be exported only to its own namespace";
            report.error(map.key_at("exportTo"), message);
        }
        let policy = map.one("trafficPolicy", report, traffic_policy);
        let mut subsets: Vec<Subset> = Vec::new();
        for subset in map.many("subsets", report, |node, report| subset(node, &origin, report)) {
            if subsets.iter().any(|earlier| earlier.name.value == subset.name.value) {
                report.error(subset.name.at, format!("subset `{}` is defined twice", subset.name.value));
            }
            subsets.push(subset);
        }
        Some(Self { origin, host: host?, policy, subsets, export_to, selector, refused: None })
    }
}

fn subset(node: &Node, origin: &Origin, report: &mut Report) -> Option<Subset> {
    let map = report.map(node, "a subset", &["name", "labels", "trafficPolicy"])?;
    let name = map.required("name", "a subset", report, located(read::dns_label));
    let labels = map.one("labels", report, read::labels).unwrap_or_default();
    let policy = map.one("trafficPolicy", report, traffic_policy);
    Some(Subset { name: name?, origin: origin.clone(), labels, policy })
}

fn traffic_policy(node: &Node, report: &mut Report) -> Option<TrafficPolicy> {
    const FIELDS: &[&str] = &[
        "connectionPool",
        "loadBalancer",
        "outlierDetection",
        "portLevelSettings",
        "proxyProtocol",
        "retryBudget",
        "tls",
        "tunnel",
    ];
    let map = report.map(node, "trafficPolicy", FIELDS)?;
    if !FIELDS.iter().any(|key| map.has(key)) {
        report.error(node.at, "trafficPolicy must say something");
    }
    map.exclusive(&["tunnel", "proxyProtocol"], report);
    if let Some(block) = map.get("tunnel") {
        schema::check(block, "tunnel", &schema::TUNNEL, report);
        let what = "`tunnel`: Istio has it for TCP and TLS routes only, and routes of gRPC are HTTP: remove it; with \
                    `mesh-client`, `MeshBuilder::connector` opens connections as the program wants";
        map.unsupported("tunnel", report, what);
    }
    let mut ports = BTreeMap::new();
    map.many("portLevelSettings", report, |node, report| {
        const FIELDS: &[&str] = &["port", "loadBalancer", "connectionPool", "outlierDetection", "tls"];
        let map = report.map(node, "portLevelSettings", FIELDS)?;
        let port = map.required("port", "portLevelSettings", report, read::port_selector);
        let blocks = blocks(&map, Level::Port, report);
        if ports.insert(port?, blocks).is_some() {
            report.error(map.key_at("port"), format!("port {} has two portLevelSettings", port?));
        }
        Some(())
    });
    if map.has("proxyProtocol") && !ports.is_empty() {
        let what = "`proxyProtocol`, on ports that `portLevelSettings` names (their settings replace it, as in Istio),";
        report.ignored(map.key_at("proxyProtocol"), what);
    }
    Some(TrafficPolicy {
        blocks: blocks(&map, Level::Destination, report),
        ports,
        retry_budget: map.one("retryBudget", report, retry_budget),
    })
}
