//! Who owns a host (IST0109), and whether the hosts, subsets and ports that routes name exist
//! (IST0101, IST0112).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Code, Finding, Severity};
use crate::model::{ClientScope, Destination, ExportTo, Host, Kind, Model, Origin, Service, VirtualService};

pub(super) fn analyze(model: &Model, findings: &mut Vec<Finding>) {
    owners(model, findings);
    services(model, findings);
    for object in model.config.virtual_services() {
        for route in &object.http {
            for destination in route.leads_to() {
                resolve(model, object, destination, findings);
            }
        }
    }
}

/// Two VirtualServices for one host: for mesh clients nothing is merged, one of them wins.
fn owners(model: &Model, findings: &mut Vec<Finding>) {
    let mut by_host: BTreeMap<&Host, Vec<&Arc<VirtualService>>> = BTreeMap::new();
    for object in model.config.virtual_services().iter().filter(|object| object.for_mesh) {
        for host in &object.hosts {
            by_host.entry(&host.value).or_default().push(object);
        }
    }
    for (host, objects) in by_host {
        for (index, later) in objects.iter().enumerate() {
            let rival = objects[..index].iter().find(|earlier| share_clients(earlier, later));
            let Some(earlier) = rival else { continue };
            let own = |object: &VirtualService| object.export_to.is_private_to(&object.origin.id.namespace);
            // A private rule beats a public one in its namespace, whatever their ages.
            let (winner, loser) =
                if own(later) && !own(earlier) { (later, earlier) } else { (earlier, later) };
            let winner_place = place_of(winner, host);
            let loser_place = place_of(loser, host);
            findings.push(
                Finding::new(
                    Code::ConflictingMeshGatewayVirtualServiceHosts,
                    Severity::Error,
                    format!(
                        "two owners of host `{host}`: {} ({winner_place}) wins, {} ({loser_place}) has no effect for it",
                        winner.origin.id, loser.origin.id
                    ),
                )
                .at(loser_place)
                .about(&loser.origin.id)
                .with_related(winner_place, "this one wins")
                .with_help("put all routes of a host into one VirtualService, or limit them with `exportTo`"),
            );
        }
    }
}

fn place_of(object: &VirtualService, host: &Host) -> super::Place {
    let position = object.hosts.iter().find(|own| own.value == *host).map(|own| own.at);
    object.origin.at(position.unwrap_or(object.origin.position))
}

/// True when some namespace sees both.
fn share_clients(a: &VirtualService, b: &VirtualService) -> bool {
    match (&a.export_to, &b.export_to) {
        (ExportTo::Nobody, _) | (_, ExportTo::Nobody) => false,
        (ExportTo::All, _) | (_, ExportTo::All) => true,
        (ExportTo::Namespaces(a), ExportTo::Namespaces(b)) => !a.is_disjoint(b),
    }
}

/// Two definitions of one host in one namespace: the first is used.
fn services(model: &Model, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<(&str, &str), &Arc<Service>> = BTreeMap::new();
    for service in model.config.services() {
        if service.origin.id.kind != Kind::ServiceEntry {
            continue;
        }
        match seen.get(&(service.namespace.as_str(), service.hostname.as_str())) {
            Some(first) => findings.push(
                Finding::new(
                    Code::DuplicateObject,
                    Severity::Warning,
                    format!(
                        "{} already defines host `{}`: this definition is not used",
                        first.origin.id, service.hostname
                    ),
                )
                .at(service.origin.place())
                .about(&service.origin.id)
                .with_related(first.origin.place(), "first defined here"),
            ),
            None => drop(seen.insert((&service.namespace, &service.hostname), service)),
        }
    }
}

fn resolve(model: &Model, object: &VirtualService, destination: &Destination, findings: &mut Vec<Finding>) {
    let origin = &object.origin;
    let namespace = origin.id.namespace.as_str();
    let host = &destination.host;
    let Some(service) = model.config.service(namespace, &host.value) else {
        let known: Vec<&str> = model.config.services().map(|service| service.hostname.as_str()).collect();
        let mut finding =
            missing(origin, format!("no service `{}` is known", host.value)).at(origin.at(host.at));
        finding.help = closest(&host.value, &known);
        return findings.push(finding);
    };
    if let Some(subset) = &destination.subset {
        subset_exists(model, object, service, subset, findings);
    }
    match &destination.port {
        Some(port) if service.port(port.value).is_none() => {
            let numbers: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
            findings.push(
                missing(origin, format!("`{}` has no port {}", service.hostname, port.value))
                    .at(origin.at(port.at))
                    .with_help(format!("it has: {}", numbers.join(", "))),
            );
        }
        None if service.ports.len() > 1 => findings.push(
            Finding::new(
                Code::VirtualServiceDestinationPortSelectorRequired,
                Severity::Warning,
                format!(
                    "`{}` has several ports: without `port` a call goes to the port that the client addressed",
                    service.hostname
                ),
            )
            .at(origin.at(host.at))
            .about(&origin.id),
        ),
        _ => {}
    }
}

fn subset_exists(
    model: &Model,
    object: &VirtualService,
    service: &Service,
    subset: &crate::model::Located<String>,
    findings: &mut Vec<Finding>,
) {
    let origin = &object.origin;
    let client = ClientScope { namespace: origin.id.namespace.clone(), ..ClientScope::default() };
    let rule = model.config.destination_rule_for(&client, service);
    if rule.is_some_and(|rule| rule.subset(&subset.value).is_some()) {
        return;
    }
    let finding = missing(origin, format!("`{}` has no subset `{}`", service.hostname, subset.value))
        .at(origin.at(subset.at));
    findings.push(match rule {
        Some(rule) => {
            let names: Vec<&str> = rule.subsets.iter().map(|subset| subset.name.value.as_str()).collect();
            let help = closest(&subset.value, &names).unwrap_or_else(|| match names.as_slice() {
                [] => format!("{} defines none", rule.origin.id),
                names => format!("{} defines: {}", rule.origin.id, names.join(", ")),
            });
            finding.with_related(rule.origin.place(), "the rule that applies").with_help(help)
        }
        None => finding.with_help("no DestinationRule defines subsets of it: calls sent there would fail"),
    });
}

fn missing(origin: &Origin, message: String) -> Finding {
    Finding::new(Code::ReferencedResourceNotFound, Severity::Error, message).about(&origin.id)
}

/// `did you mean`, when something is close.
fn closest(word: &str, known: &[&str]) -> Option<String> {
    let (distance, name) = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance > 0 && distance <= 3.min(word.len().div_ceil(2))).then(|| format!("did you mean `{name}`?"))
}
