//! Nearness: Istio's `localityLbSetting` and `zoneAwareLbSetting` for one client.

use crate::{
    compile::client::Client,
    model::{Endpoint, FailoverLabel, Labels, LocalityLb},
};
use mesh_xds::resource::{Locality, endpoint::Priority};
use std::num::NonZeroU32;

/// The fixed shares that apply to a client, if any do.
pub(super) fn shares(preference: &LocalityLb, client: &Locality) -> Option<Vec<(String, u32)>> {
    if !preference.enabled || client == &Locality::default() {
        return None;
    }
    let found = preference.distribute.iter().find(|rule| covers(&rule.from, client))?;
    Some(found.to.clone())
}

/// Gives each locality its share; those that no share covers get no traffic. A share of several
/// localities is split by the weights they had.
pub(super) fn distribute<A: Clone>(priority: &mut Priority<A>, shares: &[(String, u32)]) {
    let before = priority.localities.clone();
    let mut weights = vec![0_u64; before.len()];
    for (pattern, percent) in shares {
        let covered: Vec<usize> = (0..before.len())
            .filter(|i| weights[*i] == 0 && before.get(*i).is_some_and(|one| covers(pattern, &one.locality)))
            .collect();
        let sum: u64 =
            covered.iter().filter_map(|i| before.get(*i)).map(|one| u64::from(one.weight.get())).sum();
        for i in covered {
            let Some(one) = before.get(i) else { continue };
            weights[i] = (u64::from(one.weight.get()) * u64::from(*percent)).div_ceil(sum.max(1));
        }
    }
    priority.localities = before
        .into_iter()
        .zip(weights)
        .filter_map(|(mut one, weight)| {
            one.weight = NonZeroU32::new(u32::try_from(weight).ok()?)?;
            Some(one)
        })
        .collect();
}

/// The priority of an endpoint, not yet compacted: 0 is nearest.
pub(super) fn priority(preference: &LocalityLb, client: &Client, endpoint: &Endpoint) -> u32 {
    if !preference.enabled {
        return 0;
    }
    let by_labels = &preference.failover_priority;
    let by_place = |base: u32| base * 5 + distance(preference, &client.locality, endpoint);
    // By regions always, within which the client chooses.
    if preference.zone_aware.is_some() {
        return by_place(mismatches(by_labels, client, endpoint));
    }
    match (by_labels.is_empty(), preference.failover.is_empty()) {
        (true, _) => by_place(0),
        (false, true) => mismatches(by_labels, client, endpoint),
        (false, false) => by_place(mismatches(by_labels, client, endpoint)),
    }
}

/// How far: sub-zone, zone, region, elsewhere; 4 for a region that `failover` does not lead to.
fn distance(preference: &LocalityLb, client: &Locality, endpoint: &Endpoint) -> u32 {
    let place = &endpoint.locality;
    if client == &Locality::default() {
        // A client that does not say where it is prefers nothing.
        return 0;
    }
    if *client.region != *place.region {
        let mut rules = preference.failover.iter().filter(|(from, _)| **from == *client.region).peekable();
        let elsewhere = rules.peek().is_some() && !rules.any(|(_, to)| *to == place.region);
        return if elsewhere { 4 } else { 3 };
    }
    if preference.zone_aware.is_some() {
        return 0;
    }
    if *client.zone != *place.zone {
        return 2;
    }
    u32::from(*client.sub_zone != *place.sub_zone)
}

/// How many labels lie behind the longest prefix of the list on which client and endpoint agree.
fn mismatches(wanted: &[FailoverLabel], client: &Client, endpoint: &Endpoint) -> u32 {
    let own = topology(client);
    let agree = wanted
        .iter()
        .take_while(|label| {
            let wanted = label.value.as_ref().or_else(|| own.get(&label.key));
            wanted == endpoint.labels.get(&label.key)
        })
        .count();
    u32::try_from(wanted.len() - agree).unwrap_or(u32::MAX / 5 - 4)
}

/// The labels of a client, with those that say where it is.
fn topology(client: &Client) -> Labels {
    let mut labels = client.scope.labels.clone();
    let place = &client.locality;
    for (key, value) in [
        ("topology.kubernetes.io/region", &place.region),
        ("topology.kubernetes.io/zone", &place.zone),
        ("topology.istio.io/subzone", &place.sub_zone),
    ] {
        if !value.is_empty() {
            labels.entry(key.to_owned()).or_insert_with(|| value.as_ref().to_owned());
        }
    }
    labels
}

/// Whether a pattern (`region/zone/*`, trailing parts optional) covers a locality.
fn covers(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    pattern.split('/').zip(parts).all(|(wanted, part)| wanted == "*" || *wanted == **part)
}
