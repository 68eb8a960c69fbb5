//! The typed resources, and the one place where bytes become them.
//!
//! A value of these types is valid by construction: there is no `validate`. [`Resource::parse`] finds
//! every fault, each with its path; `parse(to_proto(x)) == x`, and equal values have equal bytes.

mod canonical;
pub mod cluster;
pub mod composite;
pub mod endpoint;
pub mod ext_authz;
pub mod fault;
pub mod fields;
pub mod filter;
pub mod gcp_authn;
pub mod jwt;
pub mod listener;
pub mod local_rate_limit;
pub mod origin;
pub mod rate_limit_quota;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod secret;
pub mod stateful_session;
mod support;
#[cfg(test)]
pub(crate) mod tests;
pub mod tls;
mod wire;

pub use cluster::Cluster;
pub use endpoint::ClusterLoadAssignment;
pub use listener::Listener;
pub use origin::Origin;
pub use route::RouteConfiguration;
pub use secret::Secret;
pub use support::{Feature, Support};
pub(crate) use wire::read_string_matcher;

use crate::{
    error::{Invalid, Rejected},
    field_path::{Faults, Path},
    name::{Name, ResourceType},
};
use bytes::Bytes;
use prost::Message;
use std::{collections::BTreeSet, fmt, sync::Arc};

/// What parsing needs to know besides the bytes.
#[derive(Clone, Debug)]
pub struct ParseContext {
    /// Certificate provider instances of the bootstrap. A TLS context that names another is rejected
    /// (gRFC A29).
    pub certificate_providers: BTreeSet<Arc<str>>,
    /// The control plane has `trusted_xds_server`: it may rewrite `:authority` (gRFC A81).
    pub trusted: bool,
    /// What the data path can do: a resource that needs more is rejected.
    pub support: Support,
    /// Nobody on the way could read it: otherwise a private key in it is none, and is rejected.
    pub private: bool,
    /// Whether the data path can use a secret that is otherwise sound.
    pub secrets: secret::SecretCheck,
    /// Longer resources are rejected unread.
    pub max_size: usize,
}

impl Default for ParseContext {
    /// No certificate provider, not trusted, nothing beyond the core, in private, secrets unchecked, at most 16 MiB.
    fn default() -> Self {
        Self {
            certificate_providers: BTreeSet::new(),
            trusted: false,
            support: Support::NONE,
            private: true,
            secrets: |_| Ok(()),
            max_size: 16 << 20,
        }
    }
}

/// A resource that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{rejected}", name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default())]
pub struct ParseError {
    /// Its name, when at least that could be read: the fault is then its alone (gRFC A46).
    pub name: Option<Name>,
    /// All that is wrong with it.
    pub rejected: Rejected,
}

mod sealed {
    use super::{Faults, Name, Origin, ParseContext, Path};

    /// How one type is made from its message.
    pub trait Parse: Sized {
        /// The message of `envoy-types`.
        type Proto: prost::Message + Default;

        #[doc(hidden)]
        fn proto_name(proto: &Self::Proto) -> &str;

        /// Where it was written, for what is wrong with it as a whole.
        #[doc(hidden)]
        fn origin(_: &Self::Proto) -> Option<Origin> {
            None
        }

        /// Leaves nothing in memory that must not stay there.
        #[doc(hidden)]
        fn wipe(_: &mut Self::Proto) {}

        #[doc(hidden)]
        fn from_message(
            proto: &Self::Proto,
            name: Name,
            context: &ParseContext,
            at: &Path<'_>,
            faults: &mut Faults,
        ) -> Option<Self>;
    }
}

/// Field 1 of each of the messages.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// The name, though the rest may be anything: a fault is then this resource's alone (gRFC A46).
pub(crate) fn name_of(bytes: &[u8]) -> Option<Name> {
    let named = Named::decode(bytes).ok()?;
    (!named.name.is_empty()).then(|| named.name.into())
}

/// One of the resource types. Sealed.
pub trait Resource: sealed::Parse + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Which.
    const TYPE: ResourceType;

    /// The value, or everything that is wrong with the bytes.
    fn parse(bytes: &[u8], context: &ParseContext) -> Result<Self, ParseError> {
        let whole = |name, reason: String| ParseError {
            name,
            rejected: Rejected { faults: vec![Invalid { path: String::new(), reason }] },
        };
        if bytes.len() > context.max_size {
            let reason = format!("{} bytes are more than the limit of {}", bytes.len(), context.max_size);
            return Err(whole(name_of(bytes), reason));
        }
        let mut proto = Self::Proto::decode(bytes)
            .map_err(|error| whole(name_of(bytes), format!("not a {}: {error}", Self::TYPE)))?;
        let name: Name = Self::proto_name(&proto).into();
        if name.is_empty() {
            return Err(whole(None, format!("a {} without a name", Self::TYPE)));
        }
        let mut faults = Faults::default();
        let resource = Self::from_message(&proto, name.clone(), context, &Path::ROOT, &mut faults);
        Self::wipe(&mut proto);
        match resource {
            Some(resource) if faults.is_empty() => Ok(resource),
            _ => {
                faults.written_at(0, Self::origin(&proto).as_deref());
                Err(ParseError { name: Some(name), rejected: faults.into_rejected() })
            }
        }
    }

    /// The encoded message. Equal values have equal bytes.
    fn to_proto(&self) -> Bytes;

    /// Its name.
    fn name(&self) -> &Name;

    /// The resources that must be there for this one to be used.
    fn references(&self) -> Vec<(ResourceType, Name)>;
}

/// A resource of any type. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyResource {
    /// A listener.
    Listener(Arc<Listener>),
    /// A route configuration.
    RouteConfiguration(Arc<RouteConfiguration>),
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// A cluster's endpoints.
    ClusterLoadAssignment(Arc<ClusterLoadAssignment>),
    /// A secret.
    Secret(Arc<Secret>),
}

impl AnyResource {
    /// Parses a message of the given type.
    pub fn parse(kind: ResourceType, bytes: &[u8], context: &ParseContext) -> Result<Self, ParseError> {
        Ok(match kind {
            ResourceType::Listener => Self::Listener(Arc::new(Listener::parse(bytes, context)?)),
            ResourceType::RouteConfiguration => {
                Self::RouteConfiguration(Arc::new(RouteConfiguration::parse(bytes, context)?))
            }
            ResourceType::Cluster => Self::Cluster(Arc::new(Cluster::parse(bytes, context)?)),
            ResourceType::ClusterLoadAssignment => {
                Self::ClusterLoadAssignment(Arc::new(ClusterLoadAssignment::parse(bytes, context)?))
            }
            ResourceType::Secret => Self::Secret(Arc::new(Secret::parse(bytes, context)?)),
        })
    }

    /// Its type.
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Listener(_) => ResourceType::Listener,
            Self::RouteConfiguration(_) => ResourceType::RouteConfiguration,
            Self::Cluster(_) => ResourceType::Cluster,
            Self::ClusterLoadAssignment(_) => ResourceType::ClusterLoadAssignment,
            Self::Secret(_) => ResourceType::Secret,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        match self {
            Self::Listener(resource) => resource.name(),
            Self::RouteConfiguration(resource) => resource.name(),
            Self::Cluster(resource) => resource.name(),
            Self::ClusterLoadAssignment(resource) => resource.name(),
            Self::Secret(resource) => resource.name(),
        }
    }

    /// The encoded message, of a secret with its key.
    pub fn to_proto(&self) -> Bytes {
        match self {
            Self::Listener(resource) => resource.to_proto(),
            Self::RouteConfiguration(resource) => resource.to_proto(),
            Self::Cluster(resource) => resource.to_proto(),
            Self::ClusterLoadAssignment(resource) => resource.to_proto(),
            Self::Secret(resource) => resource.to_proto(),
        }
    }

    /// The resources that must be there for this one to be used.
    pub fn references(&self) -> Vec<(ResourceType, Name)> {
        match self {
            Self::Listener(resource) => resource.references(),
            Self::RouteConfiguration(resource) => resource.references(),
            Self::Cluster(resource) => resource.references(),
            Self::ClusterLoadAssignment(resource) => resource.references(),
            Self::Secret(resource) => resource.references(),
        }
    }
}

/// Which parts of a mesh a node belongs to; used for locality-aware balancing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Largest part: a cloud region.
    pub region: Arc<str>,
    /// Part of a region.
    pub zone: Arc<str>,
    /// Part of a zone: a rack.
    pub sub_zone: Arc<str>,
}

/// `region/zone/sub-zone`, without what is empty at the end.
impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: [&str; 3] = [&self.region, &self.zone, &self.sub_zone];
        let known = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        for (index, part) in parts.iter().take(known).enumerate() {
            write!(f, "{}{part}", if index > 0 { "/" } else { "" })?;
        }
        Ok(())
    }
}
