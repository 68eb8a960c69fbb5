//! Delegates that lead nowhere (IST0101), and routes of delegates that no root hands a request (IST0130).

use super::{Code, Finding, Severity};
use crate::model::{Model, Problem, Unresolved, VirtualService};

pub(super) fn analyze(model: &Model, findings: &mut Vec<Finding>) {
    for root in model.config.virtual_services() {
        let (_, problems) = model.config.resolve(root);
        findings.extend(problems.iter().map(|problem| finding(root, problem)));
    }
}

fn finding(root: &VirtualService, unresolved: &Unresolved) -> Finding {
    let Unresolved { delegate, found, problem } = unresolved;
    let name = format!("{}/{}", delegate.value.namespace, delegate.value.name);
    let here = root.origin.at(delegate.at);
    let nowhere = |message: String| {
        Finding::new(Code::ReferencedResourceNotFound, Severity::Error, message)
            .at(here.clone())
            .about(&root.origin.id)
    };
    let there = found.as_ref().map(|found| &found.origin);
    match problem {
        Problem::Missing => nowhere(format!("there is no VirtualService {name} to delegate to"))
            .with_help("requests that match this route are treated as if it were not there"),
        Problem::HasHosts => {
            let finding =
                nowhere(format!("VirtualService {name} has `hosts`: nothing can be delegated to it"));
            there.into_iter().fold(finding, |finding, there| finding.with_related(there.place(), "this one"))
        }
        Problem::NotExported => {
            let namespace = &root.origin.id.namespace;
            let finding = nowhere(format!("VirtualService {name} is not exported to namespace {namespace}"));
            let finding = finding.with_help(format!("add `{namespace}` to its `exportTo`"));
            there.into_iter().fold(finding, |finding, there| finding.with_related(there.place(), "this one"))
        }
        Problem::OutsideRoot(at) => {
            let message = format!(
                "no request of {} reaches this route: its matches are not within those that are delegated",
                root.origin.id
            );
            let finding = Finding::new(Code::VirtualServiceUnreachableRule, Severity::Warning, message)
                .with_related(here, "delegated here");
            match there {
                Some(there) => finding.at(there.at(*at)).about(&there.id),
                None => finding,
            }
        }
    }
}
