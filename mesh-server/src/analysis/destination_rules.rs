//! DestinationRules for hosts that do not exist (IST0174) and subsets without endpoints (IST0173).

use super::{Code, Finding, Severity};
use crate::model::{DestinationRule, Labels, Model, Service, selects};

pub(super) fn analyze(model: &Model, findings: &mut Vec<Finding>) {
    for rule in model.config.destination_rules().iter().filter(|rule| rule.refused.is_none()) {
        let mut services =
            model.config.services().filter(|service| rule.host.value.matches(&service.hostname)).peekable();
        if services.peek().is_none() {
            findings.push(
                Finding::new(
                    Code::UnknownDestinationRuleHost,
                    Severity::Warning,
                    format!("no service `{}` is known: the rule has no effect", rule.host.value),
                )
                .at(rule.origin.at(rule.host.at))
                .about(&rule.origin.id),
            );
        }
        let named = rule.host.value.exact();
        let service = named.and_then(|name| model.config.service(&rule.origin.id.namespace, name));
        if let Some(service) = service {
            subsets(model, rule, service, findings);
        }
    }
}

/// A subset that selects nothing, of a service that is known to have something. Workloads come and
/// go: where none is known at all, nothing can be said.
fn subsets(model: &Model, rule: &DestinationRule, service: &Service, findings: &mut Vec<Finding>) {
    let candidates = candidates(model, service);
    if candidates.is_empty() {
        return;
    }
    for subset in &rule.subsets {
        if !candidates.iter().any(|labels| selects(&subset.labels, labels)) {
            findings.push(
                Finding::new(
                    Code::DestinationRuleSubsetNotSelectPods,
                    Severity::Warning,
                    format!(
                        "subset `{}` selects none of the {} known workloads of `{}`",
                        subset.name.value,
                        candidates.len(),
                        service.hostname
                    ),
                )
                .at(rule.origin.at(subset.name.at))
                .about(&rule.origin.id)
                .with_help("calls to it fail until a workload with its labels appears"),
            );
        }
    }
}

/// The labels of what answers for a service, or will once it registers.
fn candidates(model: &Model, service: &Service) -> Vec<Labels> {
    let endpoints = service.ports.first().map(|port| model.endpoints(service, port, &Labels::new()));
    let mut labels: Vec<Labels> =
        endpoints.unwrap_or_default().into_iter().map(|endpoint| endpoint.labels).collect();
    if let Some(selector) = service.selector() {
        let groups = model.config.workload_groups();
        labels.extend(
            groups
                .filter(|group| group.origin.id.namespace == service.namespace)
                .filter(|group| selects(selector, &group.labels))
                .map(|group| group.labels.clone()),
        );
    }
    labels
}
