//! How a cluster hashes: which table, what stands for an endpoint in it, and how large its part is.
//!
//! Promises: a locality's share times the endpoint's share in it (gRFC A42, A113); the same shares in the same order for
//! every client, whatever order endpoints were told in.

use super::{
    ring::RingSize,
    table::{Algorithm, Share},
};
use crate::resource::{cluster::LbPolicy, endpoint::Endpoint};
use std::{num::NonZeroU32, sync::Arc};

/// No ring is larger, unless the program says so (gRFC A42 has this as the default of its cap).
pub const RING_SIZE_CAP: u32 = 4096;

/// How a cluster hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// Which table.
    pub algorithm: Algorithm,
    /// An endpoint's hostname stands for it.
    use_hostname: bool,
}

impl Hashing {
    /// What a policy asks for, if it hashes; no ring is larger than `cap`.
    pub fn of(lb: &LbPolicy, cap: u32) -> Option<Self> {
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

    /// The shares of a priority's endpoints in the order of a table, each with what came with its endpoint. Localities
    /// come with their weights, and with those of their endpoints that stand in the table.
    pub fn shares<'e, T, L>(
        self,
        localities: impl IntoIterator<Item = (NonZeroU32, L)>,
    ) -> (Vec<Share>, Vec<T>)
    where
        L: Iterator<Item = (&'e Endpoint, T)>,
    {
        let localities: Vec<(f64, Vec<_>)> = localities
            .into_iter()
            .map(|(weight, endpoints)| (f64::from(weight.get()), endpoints.collect::<Vec<_>>()))
            .filter(|(_, endpoints)| !endpoints.is_empty())
            .collect();
        let sum: f64 = localities.iter().map(|(weight, _)| weight).sum();
        let mut entries = Vec::new();
        for (weight, endpoints) in localities {
            let weight_of = |endpoint: &Endpoint| f64::from(endpoint.weight.get());
            let in_locality: f64 = endpoints.iter().map(|(endpoint, _)| weight_of(endpoint)).sum();
            for (endpoint, with) in endpoints {
                let weight = weight / sum * (weight_of(endpoint) / in_locality);
                entries.push((Share { key: self.key(endpoint), weight }, endpoint.address(), with));
            }
        }
        // Keys need not be unique; the address then decides.
        entries.sort_by(|(a, one, _), (b, other, _)| a.key.cmp(&b.key).then_with(|| one.cmp(other)));
        entries.into_iter().map(|(share, _, with)| (share, with)).unzip()
    }
}
