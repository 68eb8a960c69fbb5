//! The typed resources, and the one place where bytes become them.
//!
//! A value of these types is valid by construction: there is no `validate`. [`Resource::parse`] finds
//! every fault, each with its path; `parse(to_proto(x)) == x`.

pub mod cluster;
pub mod endpoint;
pub mod fault;
pub mod filter;
pub mod listener;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod tls;

pub use cluster::Cluster;
pub use endpoint::ClusterLoadAssignment;
pub use listener::Listener;
pub use route::RouteConfiguration;

/// Which parts of a mesh a node belongs to; used for locality-aware balancing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Largest part: a cloud region.
    pub region: std::sync::Arc<str>,
    /// Part of a region.
    pub zone: std::sync::Arc<str>,
    /// Part of a zone: a rack.
    pub sub_zone: std::sync::Arc<str>,
}
