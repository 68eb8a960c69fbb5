//! The asking side of ADS: one stream to each control plane, any number of targets served from them.
//!
//! [`Machine`] is the protocol of one stream, without IO; which control plane speaks for what is decided above it
//! (gRFC A47, A71), also without IO; [`XdsClient`] is the handle of the task that does the IO. A target's
//! configuration arrives complete ([`crate::config`]); the last good one survives rejections and
//! the loss of the control plane, and a control plane that cannot be reached is reported at once.

mod authority;
pub(crate) mod backoff;
mod cache;
mod core;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handle;
mod listing;
mod machine;
mod noting;
mod outbox;
mod slot;
mod speakers;
mod store;
mod task;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

use crate::{
    config::sharing,
    name::{Name, ResourceType},
    resource::{AnyResource, ParseContext},
};
use bytes::Bytes;
use twox_hash::XxHash64;

pub use backoff::BackoffSettings;
pub use cache::{ErrorStatus, Known, ResourceState, ResourceStatus};
pub use handle::{
    ClientStatus, ClusterWatch, ConfigWatch, ServerConfigWatch, ServerStatus, Watching, WeakClient, XdsClient,
};
pub use listing::{Listed, ResourceSet, SetChanges};
pub use machine::{Input, Key, Machine, Outputs, Parse, Settings, Unparsable};
#[cfg(test)]
pub(crate) use outbox::Outbox;
pub use slot::Current;
pub use speakers::Speakers;
pub use store::CacheSettings;
pub use task::{ClientSettings, Connector};
pub use wire::{Request, Response};

/// The parser of the real resources.
struct Resources {
    context: ParseContext,
}

impl Parse for Resources {
    type Resource = AnyResource;

    fn parse(&self, kind: ResourceType, body: &Bytes) -> Result<(Name, AnyResource), Unparsable> {
        match AnyResource::parse(kind, body, &self.context) {
            Ok(resource) => Ok((resource.name().clone(), resource)),
            Err(error) => Err(Unparsable { name: error.name, why: error.rejected.to_string() }),
        }
    }

    fn name_of(&self, body: &Bytes) -> Option<Name> {
        crate::resource::name_of(body)
    }

    /// Bytes do not stay in memory beside what was made of them: a key may be in those of any type, since what a
    /// parser ignores may hold one.
    fn mark(&self, _: ResourceType, body: &Bytes) -> Bytes {
        let half = |seed| XxHash64::oneshot(seed, body).to_be_bytes();
        [half(0), half(1)].concat().into()
    }

    /// Only what was understood: in the rest there may be keys and passwords, such as a certificate with its key beside
    /// the name of a provider, which gRPC ignores (gRFC A29), or the configuration of a filter that is optional.
    fn show(&self, resource: &AnyResource, _: &Bytes) -> Bytes {
        match resource {
            AnyResource::Secret(secret) => secret.redacted(),
            _ => resource.to_proto(),
        }
    }

    /// Only what was understood, as [`Self::show`].
    fn keep(&self, resource: &AnyResource, _: &Bytes) -> Bytes {
        resource.to_proto()
    }

    fn share(&self, new: AnyResource, old: &AnyResource) -> AnyResource {
        sharing(new, old)
    }
}
