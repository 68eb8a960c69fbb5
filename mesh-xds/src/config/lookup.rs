//! What the resolution of a target reads: resources as they are known at this moment.

use super::XdsError;
use crate::{
    client::Known,
    name::{Name, ResourceType},
    resource::{AnyResource, RouteConfiguration},
};
use std::sync::Arc;

/// The new value, with the old one's `Arc`s for all that is equal in both: the data path compares pointers to
/// see what it has to rebuild.
pub(crate) fn sharing(new: AnyResource, old: &AnyResource) -> AnyResource {
    match (new, old) {
        (AnyResource::RouteConfiguration(new), AnyResource::RouteConfiguration(old)) => {
            AnyResource::RouteConfiguration(share_routes(new, old))
        }
        (new, old) if new == *old => old.clone(),
        (new, _) => new,
    }
}

fn share_routes(new: Arc<RouteConfiguration>, old: &Arc<RouteConfiguration>) -> Arc<RouteConfiguration> {
    if new == *old {
        return old.clone();
    }
    let mut shared = RouteConfiguration::clone(&new);
    for host in &mut shared.virtual_hosts {
        let Some(before) = old.virtual_hosts.iter().find(|before| before.name == host.name) else { continue };
        if before == host {
            *host = before.clone();
            continue;
        }
        let mut mixed = (**host).clone();
        // Routes mostly keep their place; where one is inserted, the rest is found further down.
        for (i, route) in mixed.routes.iter_mut().enumerate() {
            let same_place = before.routes.get(i).filter(|old| *old == route);
            if let Some(old) = same_place.or_else(|| before.routes.iter().find(|old| *old == route)) {
                *route = old.clone();
            }
        }
        *host = Arc::new(mixed);
    }
    Arc::new(shared)
}

/// Which control plane speaks for an authority at this moment (gRFC A47, A71).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Of which authority.
    pub authority: u32,
    /// Which of all control planes.
    pub server: u32,
    /// It is none: what it said last, from disk.
    pub stored: bool,
}

/// Where resources are looked up.
pub trait Lookup {
    /// What is known of a resource. `name` is canonical.
    fn known(&self, kind: ResourceType, name: &str) -> Known<AnyResource>;

    /// An error about a resource that is there but does not fit its use.
    fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError;

    /// Version of the last response that was accepted from the control plane of this resource.
    fn version(&self, kind: ResourceType, name: &str) -> Arc<str>;

    /// Who speaks for a resource.
    fn source(&self, kind: ResourceType, name: &str) -> Source;

    /// Whether it still does.
    fn is_current(&self, source: Source) -> bool;

    /// Whether its deletions and rejections are to be followed at once (gRFC A88, `fail_on_data_errors`).
    fn drops_data(&self, source: Source) -> bool;
}
