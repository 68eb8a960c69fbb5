//! Security policies that select nothing (IST0127) or cannot have an effect (IST0167).

use super::{Code, Finding, Severity};
use crate::model::{Labels, Model, Object, Origin, selects};

pub(super) fn analyze(model: &Model, findings: &mut Vec<Finding>) {
    let root = model.config.settings().root_namespace.as_str();
    for object in model.config.objects() {
        match object {
            Object::AuthorizationPolicy(policy) => {
                selects_something(model, &policy.origin, &policy.selector, findings);
            }
            Object::PeerAuthentication(policy) if !policy.selector.is_empty() => {
                if policy.origin.id.namespace == root {
                    let message = "a PeerAuthentication of the root namespace with a selector is ignored";
                    findings.push(ineffective(&policy.origin, message));
                } else {
                    selects_something(model, &policy.origin, &policy.selector, findings);
                }
            }
            Object::PeerAuthentication(policy) => {
                let of_namespace = model.config.peer_authentications(&policy.origin.id.namespace);
                let first = of_namespace.iter().find(|other| other.selector.is_empty());
                if let Some(first) = first.filter(|first| first.origin.id != policy.origin.id) {
                    let message = format!(
                        "{} already says it for the whole namespace: this object is ignored",
                        first.origin.id
                    );
                    findings.push(
                        ineffective(&policy.origin, &message)
                            .with_related(first.origin.place(), "this one is used"),
                    );
                }
            }
            _ => {}
        }
    }
}

fn ineffective(origin: &Origin, message: &str) -> Finding {
    Finding::new(Code::IneffectivePolicy, Severity::Warning, message).at(origin.place()).about(&origin.id)
}

/// Says when a selector fits none of the workloads that the configuration knows of. The selector of
/// a Service stands for workloads that nobody has written down: it fits unless a label differs.
fn selects_something(model: &Model, origin: &Origin, selector: &Labels, findings: &mut Vec<Finding>) {
    let root = model.config.settings().root_namespace.as_str();
    let in_scope = |namespace: &str| origin.id.namespace == root || origin.id.namespace == namespace;
    if selector.is_empty() {
        return;
    }
    let mut known = 0_usize;
    let mut fits = false;
    for object in model.config.objects() {
        let labels = match object {
            Object::WorkloadEntry(entry) => &entry.spec.labels,
            Object::WorkloadGroup(group) => &group.labels,
            _ => continue,
        };
        if in_scope(&object.origin().id.namespace) {
            known += 1;
            fits |= selects(selector, labels);
        }
    }
    for workload in model.workloads.iter().filter(|workload| in_scope(&workload.namespace)) {
        known += 1;
        fits |= selects(selector, &workload.labels);
    }
    for service in model.config.services().filter(|service| in_scope(&service.namespace)) {
        if let Some(labels) = service.selector() {
            known += 1;
            fits |= selector.iter().all(|(key, value)| labels.get(key).is_none_or(|other| other == value))
                && selector.keys().any(|key| labels.contains_key(key));
        }
    }
    if known > 0 && !fits {
        let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        findings.push(
            Finding::new(
                Code::NoMatchingWorkloadsFound,
                Severity::Warning,
                format!("no known workload has the labels {}", pairs.join(", ")),
            )
            .at(origin.place())
            .about(&origin.id)
            .with_help("the policy protects nothing until such a workload appears"),
        );
    }
}
