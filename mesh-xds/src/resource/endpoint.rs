//! Endpoints of a cluster (gRFC A27, A56, A61, A76, A86).

pub(super) mod wire;

use super::{Locality, cluster::Tlv};
use crate::{matcher::Fraction, name::Name};
use std::{net::SocketAddr, num::NonZeroU32, sync::Arc};

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterLoadAssignment {
    /// `cluster_name`: the resource name.
    pub name: Name,
    /// By priority, contiguous from 0. Empty: the cluster has no endpoints.
    pub priorities: Vec<Priority>,
    /// Share of calls dropped, category by category, in order.
    pub drops: Vec<DropOverload>,
    /// In percent: how much of a priority may be lost before its traffic spills over. gRPC, which moves traffic
    /// only as a whole (A56), does not look at it. Default 140.
    pub overprovisioning_factor: NonZeroU32,
}

impl ClusterLoadAssignment {
    /// `overprovisioning_factor` when nothing is said.
    #[allow(clippy::unwrap_used, reason = "evaluated by the compiler")]
    pub const OVERPROVISIONING: NonZeroU32 = NonZeroU32::new(140).unwrap();

    /// Without endpoints.
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            priorities: Vec::new(),
            drops: Vec::new(),
            overprovisioning_factor: Self::OVERPROVISIONING,
        }
    }
}

/// The localities of one priority; none twice, weights sum to at most `u32::MAX`.
#[derive(Clone, Debug, PartialEq)]
pub struct Priority<A = Vec<SocketAddr>> {
    /// At least one.
    pub localities: Vec<LocalityEndpoints<A>>,
}

/// The endpoints of a locality.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpoints<A = Vec<SocketAddr>> {
    /// Where.
    pub locality: Locality,
    /// Share of the priority's traffic.
    pub weight: NonZeroU32,
    /// Endpoint weights sum to at most `u32::MAX`; may be empty. Assignments that follow one another share those
    /// that are equal, so that comparing them is comparing pointers.
    pub endpoints: Vec<Arc<Endpoint<A>>>,
}

/// An endpoint. `A` is how it is addressed: by addresses, or by a name of which they are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<A = Vec<SocketAddr>> {
    /// Of addresses at least one, none twice in the assignment. The first identifies the endpoint.
    pub addresses: A,
    /// Share of the locality's traffic.
    pub weight: NonZeroU32,
    /// What the control plane knows.
    pub health: HealthStatus,
    /// For `auto_host_rewrite` and SNI.
    pub hostname: Option<Arc<str>>,
    /// Its key in consistent hashing; absent: its address.
    /// `filter_metadata["envoy.lb"].hash_key` (gRFC A76).
    pub hash_key: Option<Arc<str>>,
    /// `filter_metadata["envoy.transport_socket_match"].tlsMode == "istio"`: it speaks mesh mTLS.
    pub mesh_tls: bool,
    /// HTTP CONNECT proxy in front of it, its own or its locality's; used by clusters that ask for it (A86).
    pub proxy: Option<SocketAddr>,
    /// What its header of the PROXY protocol says of it alone, if its cluster asks for one of version 2; otherwise without
    /// effect. Goes before what the cluster adds of the same kind. Not empty, together at most [`Tlv::MOST`] bytes.
    /// `typed_filter_metadata["envoy.transport_sockets.proxy_protocol"].added_tlvs` (Envoy's `PerHostConfig`).
    pub tlvs: Option<Arc<[Tlv]>>,
    /// How it is checked, where that differs from the cluster's health check.
    pub health_check: Option<Arc<EndpointHealthCheck>>,
}

impl<A> Endpoint<A> {
    /// Of weight 1, with nothing else said.
    pub const fn new(addresses: A) -> Self {
        Self {
            addresses,
            weight: NonZeroU32::MIN,
            health: HealthStatus::Unknown,
            hostname: None,
            hash_key: None,
            mesh_tls: false,
            proxy: None,
            tlvs: None,
            health_check: None,
        }
    }

    /// The same, addressed in another way.
    pub(super) fn at<B>(&self, addresses: B) -> Endpoint<B> {
        Endpoint {
            addresses,
            weight: self.weight,
            health: self.health,
            hostname: self.hostname.clone(),
            hash_key: self.hash_key.clone(),
            mesh_tls: self.mesh_tls,
            proxy: self.proxy,
            tlvs: self.tlvs.clone(),
            health_check: self.health_check.clone(),
        }
    }
}

impl Endpoint {
    /// The address that identifies it.
    pub fn address(&self) -> SocketAddr {
        // Never empty by construction; the fallback cannot be dialled.
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

/// An endpoint's own settings of active health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealthCheck {
    /// It is not checked, and counts as healthy.
    pub disabled: bool,
    /// Asked instead of the endpoint's own port.
    pub port: Option<u16>,
    /// Asked instead of the endpoint's own address.
    pub address: Option<SocketAddr>,
    /// `:authority` of the check.
    pub hostname: Option<Arc<str>>,
}

/// `HealthStatus`; gRPC uses the first two for new calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthStatus {
    /// Not said; usable.
    #[default]
    Unknown,
    /// Usable.
    Healthy,
    /// Usable when nothing better is.
    Degraded,
    /// Finishes what it has.
    Draining,
    /// Not usable (UNHEALTHY, TIMEOUT).
    Unhealthy,
}

impl HealthStatus {
    pub(super) const ALL: [Self; 5] =
        [Self::Unknown, Self::Healthy, Self::Degraded, Self::Draining, Self::Unhealthy];

    /// Whether new calls may go there.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy | Self::Degraded)
    }
}

/// `drop_overloads[]`: each category draws for itself; the first hit fails the call UNAVAILABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropOverload {
    /// Name, for load reports.
    pub category: Arc<str>,
    /// How often.
    pub fraction: Fraction,
}
