//! One service, whether Kubernetes or a ServiceEntry defined it.

use std::net::IpAddr;

use super::distribution::TrafficDistribution;
use super::object::Origin;
use super::session::PersistentSession;
use super::value::{ExportTo, Labels, Protocol};
use super::workload::WorkloadSpec;

/// A service that clients may call by its host name.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// Fully qualified, lower case.
    pub hostname: String,
    /// The namespace it belongs to.
    pub namespace: String,
    /// Its ports, in the order they were written.
    pub ports: Vec<ServicePort>,
    /// Where its endpoints come from.
    pub endpoints: EndpointSource,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether it takes part in the mesh's mTLS.
    pub location: Location,
    /// Who may call it.
    pub export_to: ExportTo,
    /// Further identities its servers may have.
    pub subject_alt_names: Vec<String>,
    /// Whether calls stay with an endpoint, and how callers say with which.
    pub session: Option<PersistentSession>,
    /// Which of its endpoints callers prefer, unless a DestinationRule says so.
    pub distribution: TrafficDistribution,
    /// Virtual addresses, also names for it; ranges are left out.
    pub addresses: Vec<IpAddr>,
}

impl Service {
    /// A port by its number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The labels that select its workloads, when any do.
    pub fn selector(&self) -> Option<&Labels> {
        match &self.endpoints {
            EndpointSource::Kubernetes { selector, .. } => selector.as_ref(),
            EndpointSource::Selector(selector) => Some(selector),
            EndpointSource::Fixed(_) => None,
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty when it is the only one.
    pub name: String,
    /// The number clients use.
    pub number: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The port of the workload.
    pub target: TargetPort,
}

/// The port of the workload behind a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// A name among the workload's own ports.
    Name(String),
}

/// Where a service's endpoints come from.
#[derive(Clone, Debug)]
pub enum EndpointSource {
    /// A Kubernetes Service: its EndpointSlices, and the workloads it selects.
    Kubernetes {
        /// `metadata.name` of the Service, as EndpointSlices refer to it.
        name: String,
        /// Which workloads; none without a selector.
        selector: Option<Labels>,
    },
    /// The workloads of its namespace with these labels.
    Selector(Labels),
    /// These.
    Fixed(Vec<WorkloadSpec>),
}

/// How the endpoints of a service are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The address the client chose: nothing a client without a proxy could use.
    None,
    /// Addresses are given.
    Static,
    /// By DNS, all addresses used.
    Dns,
    /// By DNS, one address at a time.
    DnsRoundRobin,
}

/// Whether a service takes part in the mesh's mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// It does not.
    External,
    /// It does.
    Internal,
}
