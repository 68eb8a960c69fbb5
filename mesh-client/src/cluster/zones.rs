//! Zone-aware routing (Envoy's `zone_aware_lb_config`): how calls are shared between the localities of the first
//! priority, so that they stay in the own one as far as its endpoints are enough for its callers.
//!
//! Promises: with the share of all endpoints that a locality has, and the share of all callers: the own locality gets
//! every call if its share of endpoints is at least that of callers; otherwise it gets as much as the one is of the
//! other, and the rest goes to localities that have a greater share of endpoints than of callers, by what they have
//! more. Callers are the endpoints of the cluster that this process belongs to (Envoy's `local_cluster_name`). Where
//! that makes no sense, all endpoints are one list, and why is told.

use mesh_xds::{
    client::ClusterWatch,
    config::ClusterConfig,
    resource::{Locality, cluster::ZoneAware},
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::watch;

/// The endpoints of the cluster that this process belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Callers {
    own: Locality,
    /// Healthy ones.
    counts: HashMap<Locality, u64>,
    total: u64,
}

/// The callers, or why they are not known.
pub(crate) type Known = Result<Arc<Callers>, Arc<str>>;

/// Where callers are told of. `None`: the program has not said which cluster it belongs to.
pub(crate) type Watched = Option<watch::Receiver<Known>>;

/// Shares of localities, in millionths, and of all endpoints as one list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order of the localities.
    pub(crate) localities: Vec<u32>,
    pub(crate) all: u32,
}

impl Plan {
    /// Of these localities.
    pub(crate) fn describe(&self, endpoints: &[(&Locality, u64)]) -> String {
        let percent = |share: &u32| f64::from(*share) / 10_000.0;
        let localities = endpoints.iter().zip(&self.localities).filter(|(_, share)| **share > 0);
        let mut parts: Vec<String> = localities
            .map(|((locality, _), share)| format!("{:.2} % to {locality}", percent(share)))
            .collect();
        if self.all > 0 {
            parts.push(format!("{:.2} % to any (routing_enabled)", percent(&self.all)));
        }
        parts.join(", ")
    }
}

impl Callers {
    /// By the health that the control plane gives, as Envoy counts its local cluster.
    pub(crate) fn of(own: &Locality, config: &ClusterConfig) -> Known {
        let name = &config.cluster.name;
        if *own == Locality::default() {
            return Err("the node of the bootstrap has no locality".into());
        }
        let mut counts = HashMap::new();
        let (mut total, mut all) = (0, 0);
        for locality in config.endpoints.priorities.first().iter().flat_map(|first| &first.localities) {
            let healthy =
                locality.endpoints.iter().filter(|endpoint| endpoint.health.is_usable()).count() as u64;
            *counts.entry(locality.locality.clone()).or_default() += healthy;
            total += healthy;
            all += locality.endpoints.len() as u64;
        }
        if total == 0 {
            return Err(format!("the local cluster `{name}` has no healthy endpoints").into());
        }
        let threshold = config.cluster.panic_threshold.map_or(0, |threshold| u64::from(threshold.parts()));
        if total * 1_000_000 < threshold * all {
            return Err(format!(
                "of the local cluster `{name}` fewer endpoints are healthy than its panic threshold"
            )
            .into());
        }
        Ok(Arc::new(Self { own: own.clone(), counts, total }))
    }

    /// In ten-thousandths, as in Envoy.
    fn share(&self, locality: &Locality) -> u64 {
        self.counts.get(locality).map_or(0, |count| count * 10_000 / self.total)
    }
}

/// Tells what the watch of the local cluster says. Ends when nobody listens.
pub(crate) async fn follow(own: Locality, mut local: ClusterWatch, told: watch::Sender<Known>) {
    loop {
        let news = match &*local.borrow_and_update() {
            None => None,
            Some(Ok(config)) => Some(Callers::of(&own, config)),
            Some(Err(error)) => Some(Err(error.to_string().into())),
        };
        if let Some(news) = news {
            told.send_if_modified(|known| {
                let changed = *known != news;
                *known = news;
                changed
            });
        }
        tokio::select! {
            () = told.closed() => return,
            changed = local.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// How calls are shared between these localities, by how many of their endpoints are ready. An error says why they are
/// not.
pub(crate) fn plan(
    settings: &ZoneAware,
    callers: Option<&Known>,
    endpoints: &[(&Locality, u64)],
) -> Result<Plan, Arc<str>> {
    let callers = match callers {
        None => {
            return Err(
                "the program has not said which cluster it belongs to (MeshBuilder::local_cluster)".into()
            );
        }
        Some(known) => known.clone()?,
    };
    let total: u64 = endpoints.iter().map(|(_, ready)| ready).sum();
    if endpoints.len() < 2 {
        return Err("all endpoints are in one locality".into());
    }
    if total == 0 || total < settings.min_cluster_size {
        return Err(format!(
            "{total} endpoints are ready, fewer than min_cluster_size {}",
            settings.min_cluster_size
        )
        .into());
    }
    let mut rest = 10_000;
    let mut spare = Vec::with_capacity(endpoints.len());
    let mut own = None;
    for (index, (locality, ready)) in endpoints.iter().enumerate() {
        let (here, calling) = (ready * 10_000 / total, callers.share(locality));
        if **locality != callers.own {
            spare.push(here.saturating_sub(calling));
            continue;
        }
        spare.push(0);
        own = Some(index);
        rest -= if here >= calling { 10_000 } else { here * 10_000 / calling };
    }
    let spared: u64 = spare.iter().sum();
    // Rounding alone may leave nobody anything to spare: then by size.
    let (spare, spared) = match spared {
        0 => (endpoints.iter().map(|(_, ready)| *ready).collect(), total),
        _ => (spare, spared),
    };
    let enabled = u64::from(settings.routing_enabled.parts());
    let share = |(index, spare): (usize, u64)| {
        let kept = if own == Some(index) { 10_000 - rest } else { 0 };
        let share = (kept * spared + rest * spare) * enabled / (10_000 * spared);
        u32::try_from(share).unwrap_or(u32::MAX)
    };
    let localities = spare.into_iter().enumerate().map(share).collect();
    Ok(Plan { localities, all: 1_000_000 - settings.routing_enabled.parts() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mesh_xds::matcher::Fraction;

    pub(crate) fn locality(zone: &str) -> Locality {
        Locality { zone: zone.into(), ..Locality::default() }
    }

    /// Callers in `a` (where this one is), `b`, and so on.
    pub(crate) fn callers(counts: &[u64]) -> Known {
        let counts: HashMap<_, _> =
            ["a", "b", "c"].into_iter().zip(counts).map(|(zone, count)| (locality(zone), *count)).collect();
        let total = counts.values().sum();
        Ok(Arc::new(Callers { own: locality("a"), counts, total }))
    }

    fn shares(callers: &[u64], endpoints: &[u64]) -> Vec<u32> {
        let zones = ["a", "b", "c"].map(locality);
        let endpoints: Vec<_> = zones.iter().zip(endpoints.iter().copied()).collect();
        let settings = ZoneAware { min_cluster_size: 1, ..ZoneAware::default() };
        let plan = plan(&settings, Some(&self::callers(callers)), &endpoints).unwrap();
        assert_eq!(plan.all, 0);
        plan.localities
    }

    #[test]
    fn calls_stay_as_far_as_the_own_endpoints_are_enough() {
        for (callers, endpoints, expected) in [
            // As many as callers, or more: all stay.
            (&[1, 1, 1][..], &[2, 2, 2][..], [1_000_000, 0, 0]),
            (&[1, 2], &[5, 5], [1_000_000, 0, 0]),
            // Half of the callers, a quarter of the endpoints: half of the calls stay.
            (&[2, 1, 1], &[1, 2, 1], [500_000, 500_000, 0]),
            (&[2, 1, 1], &[2, 3, 3], [500_000, 250_000, 250_000]),
            // No endpoint here, and no caller there.
            (&[1, 0, 0], &[0, 1, 3], [0, 250_000, 750_000]),
            // No endpoint here, some elsewhere.
            (&[3333, 3333, 3334], &[0, 0, 1], [0, 0, 1_000_000]),
        ] {
            let shares = shares(callers, endpoints);
            assert_eq!(shares, expected[..shares.len()], "{callers:?} {endpoints:?}");
        }
    }

    #[test]
    fn shares_sum_to_all_but_for_rounding_whatever_the_counts() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..10_000 {
            let callers = [rng.u64(1..50), rng.u64(0..50), rng.u64(0..50)];
            let endpoints = [rng.u64(0..50), rng.u64(0..50), rng.u64(1..50)];
            let shares = shares(&callers, &endpoints);
            let sum: u32 = shares.iter().sum();
            assert!((999_990..=1_000_000).contains(&sum), "{callers:?} {endpoints:?}: {shares:?}");
            for (zone, share) in shares.iter().enumerate().skip(1).filter(|(_, share)| **share > 0) {
                assert!(
                    endpoints[zone] > 0,
                    "{callers:?} {endpoints:?}: {share} to zone {zone} without endpoints"
                );
            }
        }
    }

    #[test]
    fn a_part_of_the_calls_may_go_anywhere() {
        let zones = ["a", "b"].map(locality);
        let endpoints = [(&zones[0], 3), (&zones[1], 3)];
        let settings = ZoneAware {
            routing_enabled: Fraction::per_million(250_000),
            min_cluster_size: 6,
            ..ZoneAware::default()
        };
        let plan = plan(&settings, Some(&callers(&[1, 1])), &endpoints).unwrap();
        assert_eq!(plan, Plan { localities: vec![250_000, 0], all: 750_000 });
    }

    #[test]
    fn where_it_makes_no_sense_the_reason_is_told() {
        let zones = ["a", "b"].map(locality);
        let endpoints = [(&zones[0], 2), (&zones[1], 3)];
        let settings = ZoneAware::default();
        let known = callers(&[1, 1]);
        for (callers, endpoints, reason) in [
            (None, &endpoints[..], "(MeshBuilder::local_cluster)"),
            (Some(&Err("it is gone".into())), &endpoints, "it is gone"),
            (Some(&known), &endpoints[..1], "all endpoints are in one locality"),
            (Some(&known), &endpoints, "5 endpoints are ready, fewer than min_cluster_size 6"),
        ] {
            let error = plan(&settings, callers, endpoints).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
