//! Endpoints of a cluster (gRFC A27, A56, A61).

mod wire;

use super::Locality;
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
}

/// The localities of one priority; none twice, weights sum to at most `u32::MAX`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Priority {
    /// At least one.
    pub localities: Vec<LocalityEndpoints>,
}

/// The endpoints of a locality.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpoints {
    /// Where.
    pub locality: Locality,
    /// Share of the priority's traffic.
    pub weight: NonZeroU32,
    /// Endpoint weights sum to at most `u32::MAX`; may be empty.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// At least one; no address twice in the assignment. The first identifies the endpoint.
    pub addresses: Vec<SocketAddr>,
    /// Share of the locality's traffic.
    pub weight: NonZeroU32,
    /// What the control plane knows.
    pub health: HealthStatus,
    /// For `auto_host_rewrite` and SNI.
    pub hostname: Option<Arc<str>>,
    /// `filter_metadata["envoy.transport_socket_match"].tlsMode == "istio"`: it speaks mesh mTLS.
    pub mesh_tls: bool,
}

impl Endpoint {
    /// The address that identifies it.
    pub fn address(&self) -> SocketAddr {
        // Never empty by construction; the fallback cannot be dialled.
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }
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
