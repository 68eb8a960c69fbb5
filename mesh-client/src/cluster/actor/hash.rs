//! Consistent hashing in the actor: the tables of the priorities, and the states of their endpoints.
//!
//! Promises: a table is made anew only when endpoints, keys, weights or the policy's settings change, not when
//! connectivity does. Weights multiply a locality's share by the endpoint's share in it (gRFC A42, A113).

use crate::{
    cluster::locality::View,
    lb::{
        hashed::{Algorithm, Hashed, Member, Share, State, Table},
        ring::RingSize,
    },
};
use mesh_xds::resource::{
    cluster::LbPolicy,
    endpoint::{Endpoint, LocalityEndpoints, Priority},
};
use std::{net::SocketAddr, sync::Arc};

/// How a cluster hashes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashing {
    pub(super) algorithm: Algorithm,
    /// An endpoint's hostname stands for it.
    use_hostname: bool,
}

impl Hashing {
    /// What a policy asks for, if it hashes; no ring is larger than `cap`.
    pub(super) fn of(lb: &LbPolicy, cap: u32) -> Option<Self> {
        match lb {
            LbPolicy::RingHash(ring) => {
                let size =
                    RingSize { min: ring.min_size.min(cap).into(), max: ring.max_size.min(cap).into() };
                Some(Self { algorithm: Algorithm::Ring(size), use_hostname: ring.use_hostname })
            }
            LbPolicy::Maglev(table) => Some(Self {
                algorithm: Algorithm::Maglev(table.table_size),
                use_hostname: table.use_hostname,
            }),
            LbPolicy::RoundRobin
            | LbPolicy::LeastRequest { .. }
            | LbPolicy::Random
            | LbPolicy::PickFirst { .. }
            | LbPolicy::ClientSideWeightedRoundRobin(_) => None,
        }
    }

    /// What stands for an endpoint in a table.
    fn key(self, endpoint: &Endpoint) -> Arc<str> {
        let hostname = endpoint.hostname.as_ref().filter(|_| self.use_hostname);
        match endpoint.hash_key.as_ref().or(hostname) {
            Some(key) => Arc::clone(key),
            None => endpoint.address().to_string().into(),
        }
    }
}

/// The tables in use; two for a priority: of endpoints that are not degraded, and of those that are.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<[Option<Arc<Table>>; 2]>);

impl Tables {
    /// There are so many priorities.
    pub(super) fn resize(&mut self, priorities: usize) {
        self.0.resize(priorities, [None, None]);
    }

    /// The picker's part of a priority; none if it has no endpoint that may be hashed to.
    pub(super) fn hashed(
        &mut self,
        index: usize,
        view: &View<'_>,
        hashing: Hashing,
        degraded: bool,
    ) -> Option<Hashed> {
        let (shares, members) = members(view, hashing, degraded);
        let algorithm = hashing.algorithm;
        if members.is_empty() {
            return None;
        }
        let place = self.0.get_mut(index)?.get_mut(usize::from(degraded))?;
        let table = match place {
            Some(table) if table.is_of(algorithm, &shares) => Arc::clone(table),
            _ => {
                let table = Arc::new(Table::new(algorithm, shares));
                *place = Some(Arc::clone(&table));
                table
            }
        };
        Some(Hashed::new(table, members))
    }
}

/// The endpoints that stand in a table, and their parts of it, in the order of their keys: the same for every
/// client, whatever order they were told of.
fn members(view: &View<'_>, hashing: Hashing, degraded: bool) -> (Vec<Share>, Vec<Member>) {
    let stands = |endpoint: &&Endpoint| view.is_usable(endpoint) && view.is_degraded(endpoint) == degraded;
    let mut entries: Vec<(Share, Member)> = Vec::new();
    let weight_sum = sum(view.priority, |locality| locality.endpoints.iter().any(|e| stands(&e)));
    for locality in &view.priority.localities {
        let standing = || locality.endpoints.iter().filter(stands);
        let in_locality: f64 = standing().map(|endpoint| f64::from(endpoint.weight.get())).sum();
        for endpoint in standing() {
            let Some(slot) = view.slots.get(&endpoint.address()) else { continue };
            let weight = f64::from(locality.weight.get()) / weight_sum
                * (f64::from(endpoint.weight.get()) / in_locality);
            let state = if view.is_ejected(endpoint) { State::Failed } else { State::of(&slot.state()) };
            entries.push((
                Share { key: hashing.key(endpoint), weight },
                Member { endpoint: Arc::clone(slot.endpoint()), state },
            ));
        }
    }
    // Keys need not be unique; the address then decides.
    entries.sort_by(|(a, one), (b, other)| {
        a.key.cmp(&b.key).then_with(|| one.endpoint.address.cmp(&other.endpoint.address))
    });
    entries.into_iter().unzip()
}

fn sum(priority: &Priority, counts: impl Fn(&LocalityEndpoints) -> bool) -> f64 {
    let counting = priority.localities.iter().filter(|locality| counts(locality));
    counting.map(|locality| f64::from(locality.weight.get())).sum()
}

/// The states of the endpoints that stand in a priority's table, with their addresses.
pub(super) fn states(view: &View<'_>, hashing: Hashing) -> Vec<(SocketAddr, State)> {
    let better = members(view, hashing, false).1;
    let members = if better.is_empty() { members(view, hashing, true).1 } else { better };
    members.iter().map(|member| (member.endpoint.address, member.state)).collect()
}
