//! What the resolution of a target reads: resources as they are known at this moment.

use super::XdsError;
use crate::{
    client::Known,
    name::{Name, ResourceType},
    resource::{AnyResource, ClusterLoadAssignment, RouteConfiguration, endpoint::LocalityEndpoints},
};
use std::sync::Arc;

/// The new value, with the old one's `Arc`s for all that is equal in both: the data path compares pointers to
/// see what it has to rebuild.
pub(crate) fn sharing(new: AnyResource, old: &AnyResource) -> AnyResource {
    match (new, old) {
        (AnyResource::RouteConfiguration(new), AnyResource::RouteConfiguration(old)) => {
            AnyResource::RouteConfiguration(share_routes(new, old))
        }
        (AnyResource::ClusterLoadAssignment(new), AnyResource::ClusterLoadAssignment(old)) => {
            AnyResource::ClusterLoadAssignment(share_endpoints(new, old))
        }
        (new, old) if new == *old => old.clone(),
        (new, _) => new,
    }
}

/// How many endpoints further an equal one is looked for where the old and the new assignment part.
const REACH: usize = 16;

/// Endpoints mostly keep their order: both assignments are walked in step, and each pair compared once.
fn share_endpoints(
    mut new: Arc<ClusterLoadAssignment>,
    old: &Arc<ClusterLoadAssignment>,
) -> Arc<ClusterLoadAssignment> {
    fn all(assignment: &ClusterLoadAssignment) -> impl Iterator<Item = &LocalityEndpoints> {
        assignment.priorities.iter().flat_map(|priority| &priority.localities)
    }
    let shared = Arc::make_mut(&mut new);
    let localities = shared.priorities.iter_mut().flat_map(|priority| &mut priority.localities);
    let mut before = all(old);
    for locality in localities {
        // Localities mostly keep their order, too.
        let same_place = before.next().filter(|old| old.locality == locality.locality);
        let Some(old) = same_place.or_else(|| all(old).find(|old| old.locality == locality.locality)) else {
            continue;
        };
        let mut at = 0;
        for endpoint in &mut locality.endpoints {
            let ahead = old.endpoints.get(at..).unwrap_or_default().iter().take(REACH);
            let found = ahead.clone().position(|old| old.address() == endpoint.address());
            if let Some((distance, old)) = found.zip(found.and_then(|found| ahead.clone().nth(found))) {
                at += distance + 1;
                if old == endpoint {
                    *endpoint = Arc::clone(old);
                }
            }
        }
    }
    // Comparing is comparing pointers now.
    if *new == **old { old.clone() } else { new }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{
        Locality,
        endpoint::{Endpoint, Priority},
    };
    use std::{collections::BTreeSet, num::NonZeroU32};

    fn locality(zone: &str, ports: impl IntoIterator<Item = u16>) -> LocalityEndpoints {
        let endpoint = |port: u16| Arc::new(Endpoint::new(vec![([10, 0, 0, 1], port).into()]));
        LocalityEndpoints {
            locality: Locality { zone: zone.into(), ..Locality::default() },
            weight: NonZeroU32::MIN,
            endpoints: ports.into_iter().map(endpoint).collect(),
        }
    }

    fn assignment(localities: Vec<LocalityEndpoints>) -> Arc<ClusterLoadAssignment> {
        let priorities = vec![Priority { localities }];
        Arc::new(ClusterLoadAssignment { priorities, ..ClusterLoadAssignment::new("c") })
    }

    /// As if it had come again: equal, and nothing shared.
    fn anew(assignment: &ClusterLoadAssignment) -> Arc<ClusterLoadAssignment> {
        let mut anew = assignment.clone();
        for locality in anew.priorities.iter_mut().flat_map(|priority| &mut priority.localities) {
            locality.endpoints.iter_mut().for_each(|endpoint| *endpoint = Arc::new((**endpoint).clone()));
        }
        Arc::new(anew)
    }

    fn shared(one: &ClusterLoadAssignment, other: &ClusterLoadAssignment) -> usize {
        let pointers = |assignment: &ClusterLoadAssignment| -> BTreeSet<*const Endpoint> {
            let localities = assignment.priorities.iter().flat_map(|priority| &priority.localities);
            localities.flat_map(|locality| locality.endpoints.iter().map(Arc::as_ptr)).collect()
        };
        pointers(one).intersection(&pointers(other)).count()
    }

    #[test]
    fn an_assignment_shares_every_endpoint_that_stayed_as_it_was() {
        let old = assignment(vec![locality("a", 1..=100), locality("b", 101..=200)]);
        assert!(Arc::ptr_eq(&share_endpoints(anew(&old), &old), &old), "nothing changed");

        let mut new = anew(&old);
        let localities = &mut Arc::get_mut(&mut new).unwrap().priorities[0].localities;
        Arc::make_mut(&mut localities[0].endpoints[3]).weight = NonZeroU32::new(2).unwrap();
        localities[0].endpoints.remove(50);
        localities[0].endpoints.insert(20, Arc::new(Endpoint::new(vec![([10, 0, 0, 2], 1).into()])));
        let again = share_endpoints(anew(&new), &old);
        assert_eq!((*again == *new, shared(&again, &old)), (true, 198));

        // Localities in another order, one gone, one new.
        let new = assignment(vec![locality("c", 300..=310), locality("b", 101..=200)]);
        let again = share_endpoints(anew(&new), &old);
        assert_eq!((*again == *new, shared(&again, &old)), (true, 100));
    }

    #[test]
    fn whatever_is_shared_the_value_is_the_new_one() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut held = assignment(vec![locality("a", 1..=30)]);
        for _ in 0..500 {
            let mut new = anew(&held);
            let endpoints = &mut Arc::get_mut(&mut new).unwrap().priorities[0].localities[0].endpoints;
            for _ in 0..rng.usize(0..4) {
                let at = rng.usize(0..endpoints.len());
                match rng.u32(0..4) {
                    0 => rng.shuffle(endpoints),
                    1 => Arc::make_mut(&mut endpoints[at]).weight = NonZeroU32::new(rng.u32(1..4)).unwrap(),
                    2 => endpoints.rotate_left(at),
                    _ => {
                        let moved = endpoints.remove(at);
                        endpoints.push(moved);
                    }
                }
            }
            let again = share_endpoints(anew(&new), &held);
            assert_eq!(again, new);
            held = again;
        }
    }
}
