//! Why a client has no resource of a name: what is wrong, where it is configured, and what to do.
//!
//! Most of it is NOT_FOUND, with the words. What is written down and refused is INVALID_ARGUMENT: it is there and cannot
//! be served, and clients that have an earlier version stay with it (gRFC A88). That a service is not exported to a
//! client is told: `exportTo` keeps configuration small, and is no secret.

use super::{
    Compiler,
    names::{INBOUND_PREFIX, Outbound, Target},
};
use crate::model::Origin;
use mesh_xds::{name::ResourceType, server::Absence};
use std::fmt::{self, Display};
use tonic::Code;

impl Compiler<'_> {
    /// Why this client has no resource of that name; asked of names that [`Compiler::resource`] has none of.
    pub fn absence(&self, kind: ResourceType, name: &str) -> Option<Absence> {
        match kind {
            ResourceType::Secret => not_found(
                "this control plane has no secrets; certificates come from the certificate_providers of the bootstrap",
            ),
            ResourceType::Listener if name.starts_with(INBOUND_PREFIX) => {
                not_found(format!("a server is called {INBOUND_PREFIX}ADDRESS:PORT, with an IP address"))
            }
            ResourceType::Listener => self.no_target(name),
            ResourceType::RouteConfiguration
            | ResourceType::Cluster
            | ResourceType::ClusterLoadAssignment => self.no_outbound(name),
        }
    }

    fn no_target(&self, name: &str) -> Option<Absence> {
        let Some(target) = Target::parse(name) else {
            return not_found(format!("{name:?} is no target: HOST:PORT is one"));
        };
        let candidates = target.candidates(&self.client.scope.namespace, &self.client.domain);
        candidates
            .iter()
            .find_map(|host| self.no_port(host, target.port))
            .or_else(|| self.no_service(&candidates))
    }

    fn no_outbound(&self, name: &str) -> Option<Absence> {
        // Names that others made up mean nothing here.
        let outbound = Outbound::parse(name)?;
        let Some(service) = self.service(outbound.host) else { return self.no_service(&[outbound.host]) };
        if service.port(outbound.port).is_none() {
            return self.no_port(outbound.host, Some(outbound.port));
        }
        let subset = outbound.subset;
        if subset.is_empty() {
            return None;
        }
        not_found(match self.model.config.destination_rule_for(&self.client.scope, service) {
            None => format!("no DestinationRule of {} defines subset `{subset}`", service.hostname),
            Some(rule) => format!(
                "{} has no subset `{subset}`; it has: {}",
                described(&rule.origin),
                List(rule.subsets.iter().map(|subset| subset.name.value.as_str()))
            ),
        })
    }

    /// A service that is there, without such a port; `None`: it is not there.
    fn no_port(&self, host: &str, port: Option<u16>) -> Option<Absence> {
        let service = self.service(host)?;
        let ports = List(service.ports.iter().map(|port| port.number));
        not_found(match port {
            Some(port) => format!("{} has no port {port}; it has: {ports}", described(&service.origin)),
            None => format!("name one of the ports of {}: {ports}", described(&service.origin)),
        })
    }

    fn no_service(&self, hosts: &[impl AsRef<str> + Display]) -> Option<Absence> {
        let namespace = &self.client.scope.namespace;
        for host in hosts {
            if let Some(hidden) = self.model.config.services_named(host.as_ref()).first() {
                return not_found(format!(
                    "{} is not exported to namespace {namespace}: see its `exportTo`",
                    described(&hidden.origin)
                ));
            }
            if let Some(reason) = self.model.config.unserved(host.as_ref()) {
                return Some(Absence { code: Code::InvalidArgument, message: reason.clone() });
            }
        }
        not_found(format!("no Service and no ServiceEntry has the host {}", Either(hosts)))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as it is used")]
fn not_found(message: impl AsRef<str>) -> Option<Absence> {
    Some(Absence { code: Code::NotFound, message: message.as_ref().into() })
}

/// Which object it is, and where.
fn described(origin: &Origin) -> String {
    format!("{} ({})", origin.id, origin.place())
}

/// `a, b`, or `none`.
struct List<I>(I);

impl<I: Iterator<Item = T> + Clone, T: Display> Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for one in self.0.clone() {
            write!(f, "{before}{one}")?;
            before = ", ";
        }
        if before.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// `a or b`.
struct Either<'a, T>(&'a [T]);

impl<T: Display> Display for Either<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, one) in self.0.iter().enumerate() {
            write!(f, "{}{one}", if i == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
