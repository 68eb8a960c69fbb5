//! Where endpoints come from and how one is picked, in words.

use crate::resource::cluster::{
    ClientSideWeightedRoundRobin, Discovery, LbOptions, LbPolicy, LocalityLb, Maglev, OverrideHostStatus,
    RingHash, SlowStart, SubsetScope, Subsetting, ZoneAware,
};

/// None for EDS, which is the usual case.
pub(super) fn discovery(discovery: &Discovery) -> Option<String> {
    Some(match discovery {
        Discovery::Eds(_) => return None,
        Discovery::Static(_) => "endpoints stand in the cluster itself (STATIC)".to_owned(),
        Discovery::StrictDns(dns) => {
            let hosts: Vec<String> = dns.hosts().map(ToString::to_string).collect();
            format!("every address of {} (STRICT_DNS)", hosts.join(", "))
        }
        Discovery::LogicalDns(dns) => {
            format!("one endpoint, found as {} (LOGICAL_DNS)", dns.endpoint.addresses)
        }
        Discovery::Aggregate(clusters) => format!("the first usable one of {}", clusters.join(", ")),
    })
}

pub(super) fn policy(policy: &LbPolicy) -> (&'static str, String) {
    const SIMPLE: &str = "loadBalancer.simple";
    const CONSISTENT: &str = "loadBalancer.consistentHash";
    let by = |use_hostname: bool| if use_hostname { "hostname" } else { "address" };
    match policy {
        LbPolicy::RoundRobin => (SIMPLE, "ROUND_ROBIN: in turn, by weight".to_owned()),
        LbPolicy::LeastRequest { choices, active_request_bias } => {
            let bias = match active_request_bias {
                1.0 => String::new(),
                bias => format!(", calls in flight to the power of {bias}"),
            };
            (SIMPLE, format!("LEAST_REQUEST: the least loaded of {choices}{bias}"))
        }
        LbPolicy::Random => (SIMPLE, "RANDOM: any, by weight".to_owned()),
        LbPolicy::PickFirst { shuffle } => {
            let order = if *shuffle { "in random order" } else { "in order" };
            (SIMPLE, format!("PICK_FIRST: one, until it fails, {order}"))
        }
        LbPolicy::RingHash(RingHash { min_size, max_size, use_hostname }) => {
            let by = by(*use_hostname);
            (CONSISTENT, format!("RING_HASH: a ring of {min_size} to {max_size} entries, endpoints by {by}"))
        }
        LbPolicy::Maglev(Maglev { table_size, use_hostname }) => (
            CONSISTENT,
            format!("MAGLEV: a table of {table_size} entries, endpoints by {}", by(*use_hostname)),
        ),
        LbPolicy::ClientSideWeightedRoundRobin(policy) => (SIMPLE, weighted(policy)),
    }
}

fn weighted(policy: &ClientSideWeightedRoundRobin) -> String {
    let ClientSideWeightedRoundRobin {
        out_of_band,
        blackout_period,
        weight_expiration_period,
        weight_update_period,
        error_utilization_penalty,
        utilization,
    } = policy;
    let metrics: Vec<String> = utilization.iter().map(ToString::to_string).collect();
    let metrics =
        if metrics.is_empty() { "application or CPU utilization".to_owned() } else { metrics.join(" or ") };
    let reports = match out_of_band {
        Some(period) => format!("reported every {period:?}"),
        None => "reported with each response".to_owned(),
    };
    format!(
        "CLIENT_SIDE_WEIGHTED_ROUND_ROBIN: by {metrics}, {reports}; weights every {weight_update_period:?}, \
         after {blackout_period:?} of reports, for {weight_expiration_period:?}; errors count \
         {error_utilization_penalty} times"
    )
}

pub(super) fn options(options: &LbOptions, say: &mut impl FnMut(&'static str, String)) {
    let LbOptions { localities, subsetting, slow_start, override_host_status } = options;
    match localities {
        LocalityLb::Weighted => {}
        LocalityLb::Flat => say("localities", "not looked at: the endpoints are one list".to_owned()),
        LocalityLb::ZoneAware(ZoneAware { routing_enabled, min_cluster_size, fail_traffic_on_panic }) => {
            let panic = if *fail_traffic_on_panic { "; in panic, calls fail" } else { "" };
            let value = format!(
                "the own zone first, for {routing_enabled} of the calls, from {min_cluster_size} endpoints on{panic}"
            );
            say("zone_aware", value);
        }
    }
    if let Some(Subsetting { size, scope }) = subsetting {
        let of = match scope {
            SubsetScope::Priority => "priority",
            SubsetScope::Locality => "locality",
        };
        say("random_subsetting", format!("{size} endpoints of each {of} are used"));
    }
    if let Some(SlowStart { window, aggression, min_weight }) = slow_start {
        let value = format!(
            "new endpoints get their share within {window:?}, from {min_weight} on, aggression {aggression}"
        );
        say("loadBalancer.warmup", value);
    }
    if *override_host_status != OverrideHostStatus::default() {
        say(
            "override_host_status",
            format!("sessions may stay with endpoints that are {override_host_status:?}"),
        );
    }
}
