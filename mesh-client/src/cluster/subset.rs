//! Random subsetting (gRFC A68): each client uses only some of the endpoints.
//!
//! Rendezvous hashing: those with the smallest XXH64 of their first address, seeded by the client. Different
//! clients use different subsets, evenly over all; when an endpoint comes or goes, a subset changes by one at
//! most.

use mesh_xds::resource::{
    cluster::{SubsetScope, Subsetting},
    endpoint::{ClusterLoadAssignment, LocalityEndpoints},
};
use std::{collections::HashSet, net::SocketAddr};
use twox_hash::XxHash64;

/// The assignment with the endpoints that are used.
pub(crate) fn of(all: &ClusterLoadAssignment, subsetting: Subsetting, seed: u64) -> ClusterLoadAssignment {
    let size = usize::try_from(subsetting.size.get()).unwrap_or(usize::MAX);
    let mut subset = all.clone();
    for priority in &mut subset.priorities {
        match subsetting.scope {
            SubsetScope::Priority => keep(&mut priority.localities, size, seed),
            SubsetScope::Locality => {
                for locality in &mut priority.localities {
                    keep(std::slice::from_mut(locality), size, seed);
                }
            }
        }
    }
    subset
}

fn keep(localities: &mut [LocalityEndpoints], size: usize, seed: u64) {
    let rank = |address: SocketAddr| (XxHash64::oneshot(seed, address.to_string().as_bytes()), address);
    let endpoints = localities.iter().flat_map(|locality| &locality.endpoints);
    let mut ranks: Vec<_> = endpoints.map(|endpoint| rank(endpoint.address())).collect();
    ranks.sort_unstable();
    ranks.truncate(size);
    let kept: HashSet<SocketAddr> = ranks.into_iter().map(|(_, address)| address).collect();
    for locality in localities {
        locality.endpoints.retain(|endpoint| kept.contains(&endpoint.address()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::resource::{
        Locality,
        endpoint::{Endpoint, Priority},
    };
    use std::{num::NonZeroU32, sync::Arc};

    fn assignment(localities: &[&[u16]]) -> ClusterLoadAssignment {
        let endpoint = |port: &u16| Arc::new(Endpoint::new(vec![SocketAddr::from(([127, 0, 0, 1], *port))]));
        let localities = localities.iter().map(|ports| LocalityEndpoints {
            locality: Locality::default(),
            weight: NonZeroU32::MIN,
            endpoints: ports.iter().map(endpoint).collect(),
        });
        let priorities = vec![Priority { localities: localities.collect() }];
        ClusterLoadAssignment { priorities, ..ClusterLoadAssignment::new("c") }
    }

    fn ports(localities: &[&[u16]], size: u32, scope: SubsetScope, seed: u64) -> Vec<Vec<u16>> {
        let subsetting = Subsetting { size: NonZeroU32::new(size).unwrap(), scope };
        let subset = of(&assignment(localities), subsetting, seed);
        let locality = |locality: &LocalityEndpoints| {
            locality.endpoints.iter().map(|endpoint| endpoint.address().port()).collect()
        };
        subset.priorities[0].localities.iter().map(locality).collect()
    }

    const TEN: &[u16] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    #[test]
    fn clients_use_subsets_that_together_are_even() {
        let mut counts = [0_u32; 10];
        for seed in 0..1000 {
            let subset = &ports(&[TEN], 3, SubsetScope::Priority, seed)[0];
            assert_eq!(subset.len(), 3);
            for port in subset {
                counts[usize::from(*port) - 1] += 1;
            }
        }
        // 300 each; chi-square below its critical value for 9 degrees of freedom at p = 0.001.
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 300.0).powi(2) / 300.0).sum();
        assert!(chi < 27.88, "{counts:?}");
    }

    #[test]
    fn an_endpoint_that_comes_or_goes_changes_a_subset_by_one_at_most() {
        for seed in 0..100 {
            let whole = &ports(&[TEN], 4, SubsetScope::Priority, seed)[0];
            let less = &ports(&[&TEN[1..]], 4, SubsetScope::Priority, seed)[0];
            let stayed = whole.iter().filter(|port| less.contains(port)).count();
            assert_eq!(stayed, if whole.contains(&1) { 3 } else { 4 });
        }
    }

    #[test]
    fn a_subset_is_of_the_priority_or_of_each_locality() {
        let two: &[&[u16]] = &[&TEN[..5], &TEN[5..]];
        let of_each = ports(two, 2, SubsetScope::Locality, 1);
        assert_eq!((of_each[0].len(), of_each[1].len()), (2, 2));
        let of_all = ports(two, 4, SubsetScope::Priority, 1);
        assert_eq!(of_all[0].len() + of_all[1].len(), 4);
        assert_eq!(ports(two, 99, SubsetScope::Priority, 1), two);
    }
}
