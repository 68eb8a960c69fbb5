//! The closed set of resource types, their type URLs, and the two kinds of resource names.

mod xdstp;

use std::{fmt, sync::Arc};
pub(crate) use xdstp::is_collection;
pub(crate) use xdstp::{PREFIX as XDSTP, encode_path};
pub use xdstp::{authority, canonical};

/// What is subscribed to instead of a name for all resources of a type ([`ResourceType::has_wildcard`]). No resource is
/// called so.
pub const WILDCARD: &str = "*";

/// Name of a resource. Opaque, unless it begins with `xdstp:` ([`canonical`]); compared byte by byte.
pub type Name = Arc<str>;

/// A resource type that this crate parses and serves, in make-before-break order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    ClusterLoadAssignment,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfiguration,
}

impl ResourceType {
    /// Every type, in the order in which additions must be published (gRFC A74; Envoy's ADS ordering).
    pub const ALL: [Self; Self::COUNT] =
        [Self::Cluster, Self::ClusterLoadAssignment, Self::Secret, Self::Listener, Self::RouteConfiguration];

    /// How many there are.
    pub(crate) const COUNT: usize = 5;

    /// The URL that names the type in a discovery request.
    pub const fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type that a URL names, if it is one of ours.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// The type as `xdstp:` names spell it: the URL without `type.googleapis.com/`.
    pub fn message(self) -> &'static str {
        self.url().rsplit('/').next().unwrap_or_default()
    }

    /// The types whose resources name resources of this type, or name others that do. That clusters name clusters
    /// (aggregates) is left out: one that is rejected and goes would keep itself.
    pub(crate) const fn users(self) -> &'static [Self] {
        match self {
            Self::ClusterLoadAssignment | Self::Secret => {
                &[Self::Cluster, Self::Listener, Self::RouteConfiguration]
            }
            Self::Cluster => &[Self::Listener, Self::RouteConfiguration],
            Self::RouteConfiguration => &[Self::Listener],
            Self::Listener => &[],
        }
    }

    /// Whether a state-of-the-world response lists every subscribed resource, so that absence of one
    /// that was there means deletion (LDS and CDS).
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Listener | Self::Cluster)
    }

    /// Whether [`WILDCARD`] subscribes to all resources of the type: Envoy's xDS protocol has that for LDS and CDS.
    pub const fn has_wildcard(self) -> bool {
        matches!(self, Self::Listener | Self::Cluster)
    }

    /// Whether a resource may be shown to people and written to disk. A secret may not; not even what is public
    /// of it, so that nobody has to know which part that is.
    pub const fn is_public(self) -> bool {
        !matches!(self, Self::Secret)
    }

    /// Envoy's abbreviation: `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
    pub const fn abbreviation(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::ClusterLoadAssignment => "EDS",
            Self::Secret => "SDS",
            Self::Listener => "LDS",
            Self::RouteConfiguration => "RDS",
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::ClusterLoadAssignment => "ClusterLoadAssignment",
            Self::Secret => "Secret",
            Self::Listener => "Listener",
            Self::RouteConfiguration => "RouteConfiguration",
        })
    }
}
