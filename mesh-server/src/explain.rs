//! Why a call would go where it goes, from configuration alone: what `meshctl explain` asks offline.
//!
//! The resources that the control plane would send to that client are compiled, encoded, parsed and resolved as
//! that client does it; [`mesh_xds::explain`] then asks the questions that a call asks.

use crate::{
    compile::{
        Compiler, Mesh,
        client::{Client, ClientKind},
        names::Target,
    },
    model::{ClientScope, Config, Labels, Model},
};
use mesh_xds::{
    client::Known,
    config::{self, ClientTarget, Lookup, XdsError, XdsErrorCause},
    explain::{self, Explanation},
    matcher::Headers,
    name::{Name, ResourceType},
    resource::{AnyResource, Locality, ParseContext, Support},
};
use std::{collections::BTreeMap, sync::Arc};

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
}

/// Where a configuration comes from, for the explanation's head.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `directory mesh/`
    pub name: &'a str,
    /// Its revision.
    pub revision: &'a str,
}

/// Explains a call of `caller` to `request.authority`.
pub fn explain(
    model: &Model,
    mesh: &Mesh,
    caller: &Caller,
    request: &Headers<'_>,
    query: Option<&str>,
    source: Source<'_>,
) -> Explanation {
    let client = Client {
        kind: ClientKind::Mesh,
        scope: ClientScope { namespace: caller.namespace.clone(), labels: caller.labels.clone() },
        service_account: None,
        workload: None,
        group: None,
        domain: model.config.settings().domain.clone(),
        locality: caller.locality.clone(),
    };
    let compiled = Served {
        compiler: Compiler::new(model, mesh, &client),
        // What is not supported by the client in use is for that client to say: here it is explained.
        context: ParseContext {
            certificate_providers: [Arc::from("default")].into(),
            trusted: true,
            support: Support::all(),
            ..ParseContext::default()
        },
        source,
    };
    let target = ClientTarget::new(request.authority.into(), request.authority.into()).resolve(&compiled);
    let config = match &target.publish {
        Some(Ok(config)) => Ok(&**config),
        Some(Err(error)) => Err(error.cause.to_string()),
        // Nothing is ever pending here.
        None => Err("the configuration is not complete".to_owned()),
    };
    let mut explanation = explain::explain(config.clone(), request, query, source.name);
    if let Ok(config) = config {
        explanation.lead(config, request, query);
    }
    for cluster in &mut explanation.clusters {
        let is_empty = cluster.endpoints.is_empty() && cluster.leaves.is_empty();
        if is_empty && cluster.failure.is_none() && cluster.note.is_none() {
            let why = "no endpoint is written down; servers that register themselves, and the names that they \
                       prove to have, are known to a running mesh-server only";
            cluster.note = Some(why.into());
        }
    }
    explanation
}

/// A control plane of one moment, asked directly.
struct Served<'m> {
    compiler: Compiler<'m>,
    context: ParseContext,
    source: Source<'m>,
}

impl Served<'_> {
    fn error(&self, kind: ResourceType, name: &str, cause: XdsErrorCause) -> XdsError {
        XdsError {
            resource_type: kind,
            name: name.into(),
            cause,
            server: self.source.name.into(),
            node: "offline".into(),
        }
    }
}

impl Lookup for Served<'_> {
    fn known(&self, kind: ResourceType, name: &str) -> Known<AnyResource> {
        let Some(compiled) = self.compiler.resource(kind, name) else {
            let why = "nothing that this client can see defines it";
            return Known::Bad(self.error(kind, name, XdsErrorCause::DoesNotExist(why.into())));
        };
        match AnyResource::parse(kind, &compiled.encode(), &self.context) {
            Ok(resource) => Known::Good { resource, note: None },
            Err(error) => {
                let cause = XdsErrorCause::Rejected(error.rejected.to_string().into());
                Known::Bad(self.error(kind, name, cause))
            }
        }
    }

    fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError {
        self.error(kind, name, XdsErrorCause::Failed(why.into()))
    }

    fn version(&self, _: ResourceType, _: &str) -> Arc<str> {
        self.source.revision.into()
    }

    fn source(&self, _: ResourceType, _: &str) -> config::Source {
        config::Source { authority: 0, server: 0, stored: false }
    }

    fn is_current(&self, _: config::Source) -> bool {
        true
    }

    fn drops_data(&self, _: config::Source) -> bool {
        false
    }
}

/// The names by which a caller can be found in the configuration, with what is known of it, by `namespace/name`:
/// WorkloadEntries, else WorkloadGroups, else the labels that a service selects its workloads by.
pub fn callers(config: &Config) -> BTreeMap<String, Caller> {
    let mut callers = BTreeMap::new();
    let mut add = |namespace: &str, name: &str, labels: &Labels, locality: &crate::model::Locality| {
        let caller = Caller {
            namespace: namespace.to_owned(),
            labels: labels.clone(),
            locality: Locality {
                region: locality.region.as_str().into(),
                zone: locality.zone.as_str().into(),
                sub_zone: locality.sub_zone.as_str().into(),
            },
        };
        callers.entry(format!("{namespace}/{name}")).or_insert(caller);
    };
    for entry in config.objects().iter().filter_map(|object| match object {
        crate::model::Object::WorkloadEntry(entry) => Some(entry),
        _ => None,
    }) {
        let id = &entry.origin.id;
        add(&id.namespace, &id.name, &entry.spec.labels, &entry.spec.locality);
    }
    for group in config.workload_groups() {
        let id = &group.origin.id;
        add(&id.namespace, &id.name, &group.labels, &group.locality);
    }
    for service in config.services() {
        if let Some(selector) = service.selector() {
            let id = &service.origin.id;
            add(&id.namespace, &id.name, selector, &crate::model::Locality::default());
        }
    }
    callers
}

/// Why nothing is known of a target, and what may have been meant; none when it is a service of the mesh.
pub fn unknown_target(config: &Config, namespace: &str, target: &str) -> Option<String> {
    let Some(parsed) = Target::parse(target) else {
        return Some(format!("{target:?} is not a target: write host:port, as in reviews:9080"));
    };
    let candidates = parsed.candidates(namespace, &config.settings().domain);
    let found = candidates.iter().find_map(|host| config.service(namespace, host));
    let Some(service) = found else {
        let hosts: Vec<&str> = config
            .services()
            .filter(|service| service.export_to.reaches(namespace))
            .map(|service| service.hostname.as_str())
            .collect();
        let full = candidates.first().map_or(parsed.host, String::as_str);
        return Some(format!(
            "there is no service {:?} for namespace {namespace}: {}",
            parsed.host,
            closest(full, &hosts)
        ));
    };
    let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    match parsed.port {
        Some(port) if service.port(port).is_some() => None,
        None if ports.len() == 1 => None,
        Some(port) => {
            Some(format!("service {} has no port {port}: it has {}", service.hostname, ports.join(", ")))
        }
        None => {
            Some(format!("service {} has several ports, say which: {}", service.hostname, ports.join(", ")))
        }
    }
}

/// `did you mean …`, or what there is.
pub fn closest(word: &str, known: &[&str]) -> String {
    const LISTED: usize = 20;
    let near = known.iter().map(|name| (strsim::jaro_winkler(word, name), *name));
    let best = near.max_by(|one, other| one.0.total_cmp(&other.0));
    let mut listed: Vec<&str> = known.iter().copied().take(LISTED).collect();
    if known.len() > LISTED {
        listed.push("…");
    }
    match best {
        _ if known.is_empty() => "none is defined".to_owned(),
        Some((likeness, name)) if likeness > 0.85 => {
            format!("did you mean {name}? There are {}", listed.join(", "))
        }
        _ => format!("there are {}", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests;
