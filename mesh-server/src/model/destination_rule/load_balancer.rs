//! `loadBalancer` from YAML: the algorithm, consistent hashing, warming up and what localities mean.

use super::{
    Algorithm, ConsistentHash, Distribute, FailoverLabel, HashKey, HashTable, LoadBalancer, LocalityLb,
    Warmup, ZoneAware,
};
use crate::analysis::Code;
use crate::model::node::Node;
use crate::model::read::{self, Map, Report};
use crate::model::value;
use http::HeaderName;

pub(super) fn read(node: &Node, report: &mut Report) -> Option<LoadBalancer> {
    const FIELDS: &[&str] = &[
        "consistentHash",
        "localityLbSetting",
        "simple",
        "warmup",
        "warmupDurationSecs",
        "zoneAwareLbSetting",
    ];
    #[derive(Clone, Copy)]
    enum Simple {
        Unspecified,
        Known(Algorithm),
        Passthrough,
    }
    const SIMPLE: [(&str, Simple); 6] = [
        ("UNSPECIFIED", Simple::Unspecified),
        ("ROUND_ROBIN", Simple::Known(Algorithm::RoundRobin)),
        ("LEAST_REQUEST", Simple::Known(Algorithm::LeastRequest)),
        ("LEAST_CONN", Simple::Known(Algorithm::LeastRequest)),
        ("RANDOM", Simple::Known(Algorithm::Random)),
        ("PASSTHROUGH", Simple::Passthrough),
    ];
    let map = report.map(node, "loadBalancer", FIELDS)?;
    map.exclusive(&["simple", "consistentHash"], report);
    map.exclusive(&["zoneAwareLbSetting", "localityLbSetting"], report);
    if let Some(simple) = map.get("simple").filter(|node| node.as_text() == Some("LEAST_CONN")) {
        report.warn(Code::Deprecated, simple.at, "`LEAST_CONN` is deprecated: write `LEAST_REQUEST`");
    }
    let algorithm = match map.one("simple", report, read::word("load balancer", &SIMPLE)) {
        Some(Simple::Known(algorithm)) => Some(algorithm),
        Some(Simple::Passthrough) => {
            report.ignored(
                map.key_at("simple"),
                "`PASSTHROUGH` (there is no original destination without a proxy)",
            );
            None
        }
        Some(Simple::Unspecified) | None => None,
    };
    let consistent_hash = map.one("consistentHash", report, consistent_hash);
    let warmup = warmup(&map, report);
    if warmup.is_some() && (consistent_hash.is_some() || algorithm == Some(Algorithm::Random)) {
        let key = if map.has("warmup") { "warmup" } else { "warmupDurationSecs" };
        report.ignored(
            map.key_at(key),
            "warming up, with an algorithm that is neither ROUND_ROBIN nor LEAST_REQUEST,",
        );
    }
    let zones = map.one("zoneAwareLbSetting", report, zone_aware).flatten();
    if zones.is_some() && consistent_hash.is_some() {
        let what = "`zoneAwareLbSetting` with `consistentHash`: a key goes to any zone of the region";
        report.partly(map.key_at("zoneAwareLbSetting"), what);
    } else if zones.is_some() {
        let what = "`zoneAwareLbSetting`: only clients that know which cluster they belong to (`MeshBuilder::local_cluster`, \
                    Envoy's `local_cluster_name`) prefer their zone, the others their region";
        report.partly(map.key_at("zoneAwareLbSetting"), what);
    }
    let locality = map.one("localityLbSetting", report, locality).or(zones);
    Some(LoadBalancer { algorithm, consistent_hash, warmup, locality })
}

fn consistent_hash(node: &Node, report: &mut Report) -> Option<ConsistentHash> {
    const KEYS: [&str; 4] = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    const TABLES: [&str; 3] = ["ringHash", "maglev", "minimumRingSize"];
    let map = report.map(node, "consistentHash", &[&KEYS[..], &TABLES[..]].concat())?;
    map.exclusive(&KEYS, report);
    map.exclusive(&TABLES, report);
    let key = if map.has("httpHeaderName") {
        map.one("httpHeaderName", report, header).map(HashKey::Header)
    } else if map.has("httpCookie") {
        map.one("httpCookie", report, cookie)
    } else if map.has("httpQueryParameterName") {
        map.one("httpQueryParameterName", report, read::some_text).map(HashKey::QueryParameter)
    } else if map.one("useSourceIp", report, read::boolean) == Some(true) {
        Some(HashKey::SourceIp)
    } else {
        report.error(node.at, "consistentHash needs a key to hash").help =
            Some(format!("one of: {}", KEYS.join(", ")));
        None
    };
    for key in ["httpCookie", "httpQueryParameterName"] {
        if map.has(key) {
            let what = format!("`{key}`: gRPC clients that are not of the mesh send such calls anywhere");
            report.partly(map.key_at(key), &what);
        }
    }
    let table = if let Some(maglev) = map.get("maglev") {
        report.partly(
            map.key_at("maglev"),
            "`maglev`: gRPC clients that are not of the mesh use a ring instead",
        );
        let map = report.map(maglev, "maglev", &["tableSize"])?;
        HashTable::Maglev { size: map.required("tableSize", "maglev", report, table_size)? }
    } else if let Some(ring) = map.get("ringHash") {
        let map = report.map(ring, "ringHash", &["minimumRingSize"])?;
        HashTable::Ring { minimum: map.one("minimumRingSize", report, ring_size) }
    } else {
        if map.has("minimumRingSize") {
            let at = map.key_at("minimumRingSize");
            report.warn(
                Code::Deprecated,
                at,
                "`minimumRingSize` is deprecated: write `ringHash.minimumRingSize`",
            );
        }
        HashTable::Ring { minimum: map.one("minimumRingSize", report, ring_size) }
    };
    Some(ConsistentHash { key: key?, table })
}

fn header(node: &Node, report: &mut Report) -> Option<String> {
    let name = read::some_text(node, report)?.to_ascii_lowercase();
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) if name.ends_with("-bin") => {
            report.fail(node.at, format!("`{name}`: binary headers (`-bin`) are never hashed (gRFC A42)"))
        }
        Ok(_) => Some(name),
        Err(_) => report.fail(node.at, format!("`{name}` is not the name of a header")),
    }
}

fn cookie(node: &Node, report: &mut Report) -> Option<HashKey> {
    let map = report.map(node, "httpCookie", &["name", "path", "ttl", "attributes"])?;
    let name = map.required("name", "httpCookie", report, read::some_text);
    let path = map.one("path", report, read::text).unwrap_or_default();
    let ttl = map.one("ttl", report, read::duration_or_zero);
    let mut attributes: Vec<(String, String)> = Vec::new();
    map.many("attributes", report, |node, report| {
        let map = report.map(node, "a cookie's attribute", &["name", "value"])?;
        let name = map.required("name", "a cookie's attribute", report, read::some_text)?;
        let value = map.one("value", report, read::text).unwrap_or_default();
        if attributes.iter().any(|(other, _)| *other == name) {
            return report.fail(map.key_at("name"), format!("attribute `{name}` is given twice"));
        }
        attributes.push((name, value));
        Some(())
    });
    Some(HashKey::Cookie { name: name?, path, ttl, attributes })
}

/// Istio's limit is 64 bits; a larger ring than Envoy's is never built.
fn ring_size(node: &Node, report: &mut Report) -> Option<u32> {
    read::integer::<u32>(0..=8_388_608)(node, report).filter(|size| *size > 0)
}

fn table_size(node: &Node, report: &mut Report) -> Option<u32> {
    let size = read::integer::<u32>(2..=5_000_011)(node, report)?;
    let is_prime =
        (2..).take_while(|factor| factor * factor <= size).all(|factor| !size.is_multiple_of(factor));
    if is_prime {
        return Some(size);
    }
    report.fail(node.at, format!("{size} is not a prime number, which Maglev's table needs"))
}

/// `warmup`, or the older `warmupDurationSecs`.
fn warmup(map: &Map<'_>, report: &mut Report) -> Option<Warmup> {
    map.exclusive(&["warmup", "warmupDurationSecs"], report);
    if map.has("warmupDurationSecs") {
        let at = map.key_at("warmupDurationSecs");
        report.warn(Code::Deprecated, at, "`warmupDurationSecs` is deprecated: write `warmup.duration`");
        let duration = map.one("warmupDurationSecs", report, read::duration)?;
        return Some(Warmup { duration, ..Warmup::default() });
    }
    map.one("warmup", report, |node, report| {
        let map = report.map(node, "warmup", &["duration", "minimumPercent", "aggression"])?;
        let duration = map.required("duration", "warmup", report, read::duration);
        let percent = map.one("minimumPercent", report, read::percent_value);
        let aggression = map.one("aggression", report, |node, report| {
            let aggression = read::number(node, report)?;
            if aggression > 0.0 && aggression.is_finite() {
                return Some(aggression);
            }
            report.fail(node.at, format!("{aggression} is not greater than 0"))
        });
        let default = Warmup::default();
        Some(Warmup {
            duration: duration?,
            minimum_percent: percent.unwrap_or(default.minimum_percent),
            aggression: aggression.unwrap_or(default.aggression),
        })
    })
}

fn locality(node: &Node, report: &mut Report) -> Option<LocalityLb> {
    let map =
        report.map(node, "localityLbSetting", &["distribute", "enabled", "failover", "failoverPriority"])?;
    map.exclusive(&["distribute", "failover"], report);
    map.exclusive(&["distribute", "failoverPriority"], report);
    let distribute = map.many("distribute", report, distribute);
    for (index, entry) in distribute.iter().enumerate() {
        if distribute[..index].iter().any(|earlier| localities_overlap(&earlier.from, &entry.from)) {
            report.error(
                map.key_at("distribute"),
                format!("locality `{}` is covered twice in `from`", entry.from),
            );
        }
    }
    let (failover, failover_priority) = failovers(&map, report);
    let enabled = map.one("enabled", report, read::boolean).unwrap_or(true);
    Some(LocalityLb { enabled, distribute, failover, failover_priority, zone_aware: None })
}

/// `Some(None)` when it is switched off, which says nothing of localities.
fn zone_aware(node: &Node, report: &mut Report) -> Option<Option<LocalityLb>> {
    const FIELDS: &[&str] = &["enabled", "failover", "failoverPriority", "minClusterSize"];
    let map = report.map(node, "zoneAwareLbSetting", FIELDS)?;
    let (failover, failover_priority) = failovers(&map, report);
    // Zero is "not said", as protobuf cannot tell them apart.
    let size = map.one("minClusterSize", report, read::count).filter(|size| *size > 0);
    let enabled = map.one("enabled", report, read::boolean).unwrap_or(true);
    Some(enabled.then(|| LocalityLb {
        enabled,
        distribute: Vec::new(),
        failover,
        failover_priority,
        zone_aware: Some(ZoneAware { min_cluster_size: size.unwrap_or(6) }),
    }))
}

/// `failover` and `failoverPriority`.
fn failovers(map: &Map<'_>, report: &mut Report) -> (Vec<(String, String)>, Vec<FailoverLabel>) {
    let failover = map.many("failover", report, |node, report| {
        let map = report.map(node, "failover", &["from", "to"])?;
        let from = map.required("from", "failover", report, read::some_text);
        let to = map.required("to", "failover", report, read::some_text);
        for (key, region) in [("from", &from), ("to", &to)] {
            if region.as_ref().is_some_and(|region| region.contains(['/', '*'])) {
                report.error(map.key_at(key), "failover is between regions: no `/` and no `*`");
            }
        }
        let pair = (from?, to?);
        if pair.0 == pair.1 {
            report.error(node.at, format!("region `{}` fails over to itself", pair.0));
        }
        Some(pair)
    });
    let failover_priority = map.many("failoverPriority", report, |node, report| {
        let text = read::some_text(node, report)?;
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        if !value::is_label_key(key) || value.as_deref().is_some_and(|value| !value::is_label_value(value)) {
            return report.fail(node.at, format!("{text:?} is neither a label key nor key=value"));
        }
        Some(FailoverLabel { key: key.to_owned(), value })
    });
    let by_locality = |label: &FailoverLabel| {
        ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"]
            .contains(&label.key.as_str())
    };
    if !failover.is_empty() && failover_priority.iter().any(by_locality) {
        let message = "`failoverPriority` by region, zone or subzone excludes `failover`";
        report.error(map.key_at("failoverPriority"), message);
    }
    (failover, failover_priority)
}

fn distribute(node: &Node, report: &mut Report) -> Option<Distribute> {
    let map = report.map(node, "distribute", &["from", "to"])?;
    let from = map.required("from", "distribute", report, locality_pattern);
    let to = map.required("to", "distribute", report, |node, report| {
        let mut to: Vec<(String, u32)> = Vec::new();
        for entry in report.entries(node, "distribute.to")? {
            if let Err(reason) = check_locality(&entry.key) {
                report.error(entry.key_at, reason);
            }
            if to.iter().any(|(earlier, _)| localities_overlap(earlier, &entry.key)) {
                report.error(entry.key_at, format!("locality `{}` is covered twice", entry.key));
            }
            if let Some(weight) = read::integer::<u32>(1..=100)(&entry.node, report) {
                to.push((entry.key.clone(), weight));
            }
        }
        let sum: u32 = to.iter().map(|(_, weight)| weight).sum();
        if sum != 100 {
            report.error(node.at, format!("the weights of a distribution must sum to 100, not {sum}"));
        }
        Some(to)
    });
    Some(Distribute { from: from?, to: to? })
}

fn locality_pattern(node: &Node, report: &mut Report) -> Option<String> {
    let text = read::some_text(node, report)?;
    match check_locality(&text) {
        Ok(()) => Some(text),
        Err(reason) => report.fail(node.at, reason),
    }
}

/// `region/zone/subzone`, `*` only as the last part.
fn check_locality(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let stars_last = parts.iter().rev().skip(1).all(|part| !part.contains('*'));
    let last_ok = parts.last().is_none_or(|part| *part == "*" || !part.contains('*'));
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        Err(format!("{text:?} is not a locality: region/zone/subzone"))
    } else if !stars_last || !last_ok {
        Err(format!("locality {text:?}: `*` may stand only for the last part"))
    } else {
        Ok(())
    }
}

fn localities_overlap(a: &str, b: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        text.split('/').filter(|part| *part != "*").map(str::to_owned).collect()
    };
    let (a, b) = (parts(a), parts(b));
    a.iter().zip(&b).all(|(a, b)| a == b)
}
