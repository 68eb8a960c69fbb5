//! Where endpoints come from, to and from protobuf (gRFC A27, A37, A75; Envoy's DNS clusters).

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use crate::{
    field_path::{Faults, Path},
    name::Name,
    resource::{
        ClusterLoadAssignment, Feature, ParseContext,
        cluster::{
            Cluster, Discovery, DnsLookupFamily, DnsRefresh, DnsResolution, HostPort, LogicalDns, StrictDns,
        },
        endpoint::{
            LocalityEndpoints, Priority,
            wire::{Assignment, Place, assignment, assignment_proto},
        },
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::cluster::v3::{
            self as proto,
            cluster::{
                ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily as Family,
                EdsClusterConfig, RefreshRate,
            },
        },
        extensions::clusters::{
            aggregate::v3::ClusterConfig as AggregateConfig,
            common::dns::v3::DnsLookupFamily as NewFamily,
            dns::v3::{DnsCluster, dns_cluster::RefreshRate as NewRefreshRate},
        },
    },
    google::protobuf as pb,
};
use prost::Name as _;
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// The names of cluster extensions. Go looks at the name, others at the type (gRFC A75): both are sent, and
/// either is enough.
const AGGREGATE: &str = "envoy.clusters.aggregate";

pub(super) fn parse(
    proto: &proto::Cluster,
    name: &Name,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Discovery> {
    let here = at.field("type");
    let kind = match &proto.cluster_discovery_type {
        // STATIC is the default of protobuf.
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => match DiscoveryType::try_from(*kind) {
            Ok(kind) => kind,
            Err(_) => return faults.reject(&here, format_args!("{kind} is unknown")),
        },
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return extension(custom, proto, name, context, at, faults);
        }
    };
    match kind {
        DiscoveryType::Eds => eds(proto, name, at, faults),
        DiscoveryType::Static => {
            context.support.require(Feature::StaticCluster, &here, faults)?;
            let Assignment { priorities, drops, overprovisioning_factor } = inline(proto, at, faults)?;
            let name = name.clone();
            let assignment = ClusterLoadAssignment { name, priorities, drops, overprovisioning_factor };
            Some(Discovery::Static(Arc::new(assignment)))
        }
        DiscoveryType::StrictDns => {
            context.support.require(Feature::StrictDns, &here, faults)?;
            strict_dns(proto, old_resolution(proto, at, faults), at, faults)
        }
        DiscoveryType::LogicalDns => {
            context.support.require(Feature::LogicalDns, &here, faults)?;
            logical_dns(proto, old_resolution(proto, at, faults), at, faults)
        }
        DiscoveryType::OriginalDst => faults.reject(
            &here,
            "ORIGINAL_DST is not supported: a call has no destination but the one its route gives it",
        ),
    }
}

fn eds(proto: &proto::Cluster, name: &Name, at: &Path<'_>, faults: &mut Faults) -> Option<Discovery> {
    let at = at.field("eds_cluster_config");
    let eds = faults.required(&at, &proto.eds_cluster_config)?;
    wire::require_ads(&eds.eds_config, &at.field("eds_config"), faults)?;
    if eds.service_name.is_empty() {
        if name.starts_with("xdstp:") {
            return faults.reject(&at.field("service_name"), "is required when the cluster's name is xdstp:");
        }
        return Some(Discovery::Eds(name.clone()));
    }
    Some(Discovery::Eds(eds.service_name.as_str().into()))
}

fn extension(
    custom: &CustomClusterType,
    proto: &proto::Cluster,
    name: &Name,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Discovery> {
    let here = at.field("cluster_type");
    let config_at = here.field("typed_config");
    let config = custom.typed_config.as_ref();
    let is = |url: String| config.is_some_and(|config| config.type_url == url);
    if is(AggregateConfig::type_url()) || custom.name == AGGREGATE {
        context.support.require(Feature::AggregateCluster, &here, faults)?;
        let config: AggregateConfig =
            wire::unpack(faults.required(&config_at, &custom.typed_config)?, &config_at, faults)?;
        let list = config_at.field("clusters");
        if config.clusters.is_empty() {
            return faults.reject(&list, "must name at least one cluster");
        }
        let clusters = wire::every(&config.clusters, &list, faults, |cluster, at, faults| {
            if cluster.is_empty() {
                faults.reject(at, "must not be empty")
            } else {
                Some(cluster.as_str().into())
            }
        });
        return clusters.map(Discovery::Aggregate);
    }
    if is(DnsCluster::type_url()) {
        let config: DnsCluster =
            wire::unpack(faults.required(&config_at, &custom.typed_config)?, &config_at, faults)?;
        let resolution = new_resolution(&config, &config_at, faults);
        return if config.all_addresses_in_single_endpoint {
            context.support.require(Feature::LogicalDns, &here, faults)?;
            logical_dns(proto, resolution, at, faults)
        } else {
            context.support.require(Feature::StrictDns, &here, faults)?;
            strict_dns(proto, resolution, at, faults)
        };
    }
    let kind = config.map_or(custom.name.as_str(), |config| config.type_url.as_str());
    faults.reject(&here, format_args!("cluster type {kind} is not supported (cluster {name})"))
}

fn inline<A: crate::resource::endpoint::wire::Address>(
    proto: &proto::Cluster,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Assignment<A>> {
    let at = at.field("load_assignment");
    assignment(faults.required(&at, &proto.load_assignment)?, Place::Inline, &at, faults)
}

fn strict_dns(
    proto: &proto::Cluster,
    resolution: Option<DnsResolution>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Discovery> {
    let Assignment { priorities, drops, .. } = inline::<HostPort>(proto, at, faults)?;
    Some(Discovery::StrictDns(Arc::new(StrictDns { priorities, drops, dns: resolution? })))
}

fn logical_dns(
    proto: &proto::Cluster,
    resolution: Option<DnsResolution>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Discovery> {
    let list = at.field("load_assignment.endpoints");
    let localities = proto.load_assignment.as_ref().map_or(&[][..], |assignment| &assignment.endpoints);
    match localities {
        [locality] if locality.lb_endpoints.len() == 1 => {}
        [locality] => {
            let found = locality.lb_endpoints.len();
            let at = list.index(0);
            return faults.reject(
                &at.field("lb_endpoints"),
                format_args!("LOGICAL_DNS needs exactly one endpoint, not {found}"),
            );
        }
        _ => {
            let found = localities.len();
            return faults.reject(&list, format_args!("LOGICAL_DNS needs exactly one locality, not {found}"));
        }
    }
    let Assignment { priorities, drops, .. } = inline::<HostPort>(proto, at, faults)?;
    let locality = priorities.into_iter().next().and_then(|priority| priority.localities.into_iter().next());
    let Some(LocalityEndpoints { locality, endpoints, .. }) = locality else {
        return faults.reject(&list, "the locality must not have weight 0");
    };
    let endpoint = Arc::unwrap_or_clone(endpoints.into_iter().next()?);
    Some(Discovery::LogicalDns(Arc::new(LogicalDns { locality, endpoint, drops, dns: resolution? })))
}

/// The fields of the cluster itself.
fn old_resolution(proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) -> Option<DnsResolution> {
    let resolver = proto.typed_dns_resolver_config.is_some();
    for (unsupported, field) in [
        (!proto.dns_resolvers.is_empty(), "dns_resolvers"),
        (proto.dns_resolution_config.is_some(), "dns_resolution_config"),
        (proto.use_tcp_for_dns_lookups, "use_tcp_for_dns_lookups"),
        (resolver, "typed_dns_resolver_config"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), OWN_RESOLVER);
        }
    }
    let family = match Family::try_from(proto.dns_lookup_family) {
        Ok(Family::Auto) => Some(DnsLookupFamily::Auto),
        Ok(Family::V4Only) => Some(DnsLookupFamily::V4Only),
        Ok(Family::V6Only) => Some(DnsLookupFamily::V6Only),
        Ok(Family::V4Preferred) => Some(DnsLookupFamily::V4Preferred),
        Ok(Family::All) => Some(DnsLookupFamily::All),
        Err(_) => faults
            .reject(&at.field("dns_lookup_family"), format_args!("{} is unknown", proto.dns_lookup_family)),
    };
    let failure = proto.dns_failure_refresh_rate.as_ref();
    resolution(
        Times {
            refresh: &proto.dns_refresh_rate,
            failure: failure.map(|rate| (&rate.base_interval, &rate.max_interval)),
            jitter: &proto.dns_jitter,
            floor: &None,
        },
        at,
        faults,
    )
    .and_then(|dns| Some(DnsResolution { respect_ttl: proto.respect_dns_ttl, family: family?, ..dns }))
}

const OWN_RESOLVER: &str = "is not supported: names are resolved by the resolver of the process";

/// The fields of the extension.
fn new_resolution(proto: &DnsCluster, at: &Path<'_>, faults: &mut Faults) -> Option<DnsResolution> {
    if proto.typed_dns_resolver_config.is_some() {
        faults.reject::<()>(&at.field("typed_dns_resolver_config"), OWN_RESOLVER);
    }
    let family = match NewFamily::try_from(proto.dns_lookup_family) {
        Ok(NewFamily::Unspecified | NewFamily::Auto) => Some(DnsLookupFamily::Auto),
        Ok(NewFamily::V4Only) => Some(DnsLookupFamily::V4Only),
        Ok(NewFamily::V6Only) => Some(DnsLookupFamily::V6Only),
        Ok(NewFamily::V4Preferred) => Some(DnsLookupFamily::V4Preferred),
        Ok(NewFamily::All) => Some(DnsLookupFamily::All),
        Err(_) => faults
            .reject(&at.field("dns_lookup_family"), format_args!("{} is unknown", proto.dns_lookup_family)),
    };
    let failure = proto.dns_failure_refresh_rate.as_ref();
    resolution(
        Times {
            refresh: &proto.dns_refresh_rate,
            failure: failure.map(|rate| (&rate.base_interval, &rate.max_interval)),
            jitter: &proto.dns_jitter,
            floor: &proto.dns_min_refresh_rate,
        },
        at,
        faults,
    )
    .and_then(|dns| Some(DnsResolution { respect_ttl: proto.respect_dns_ttl, family: family?, ..dns }))
}

/// The times that both forms have.
struct Times<'a> {
    refresh: &'a Option<pb::Duration>,
    failure: Option<(&'a Option<pb::Duration>, &'a Option<pb::Duration>)>,
    jitter: &'a Option<pb::Duration>,
    floor: &'a Option<pb::Duration>,
}

fn resolution(times: Times<'_>, at: &Path<'_>, faults: &mut Faults) -> Option<DnsResolution> {
    /// Envoy's least refresh rate, exclusive.
    const LEAST: Duration = Duration::from_millis(1);
    let default = DnsResolution::default();
    let mut over = |proto: &Option<pb::Duration>, name: &str, least: Duration, inclusive: bool| match proto {
        None => Some(None),
        Some(proto) => {
            let at = at.field(name);
            let value = wire::duration(proto, &at, faults)?;
            if value > least || inclusive && value == least {
                return Some(Some(value));
            }
            let bound = if inclusive { "at least" } else { "more than" };
            faults.reject(&at, format_args!("must be {bound} {least:?}"))
        }
    };
    let refresh = over(times.refresh, "dns_refresh_rate", LEAST, false);
    let floor = over(times.floor, "dns_min_refresh_rate", Duration::from_secs(1), true);
    let jitter = over(times.jitter, "dns_jitter", Duration::ZERO, true);
    let failure = match times.failure {
        None => Some(None),
        Some((base, max)) => {
            let base = over(base, "dns_failure_refresh_rate.base_interval", LEAST, false);
            let max = over(max, "dns_failure_refresh_rate.max_interval", LEAST, false);
            match (base?, max?) {
                (Some(base), max) if max.is_none_or(|max| max >= base) => {
                    // Envoy: ten times the base.
                    Some(Some(DnsRefresh { base, max: max.unwrap_or(base.saturating_mul(10)) }))
                }
                (Some(_), _) => faults.reject(
                    &at.field("dns_failure_refresh_rate.max_interval"),
                    "must not be less than base_interval",
                ),
                (None, _) => {
                    faults.reject(&at.field("dns_failure_refresh_rate.base_interval"), "is required")
                }
            }
        }
    };
    Some(DnsResolution {
        refresh_rate: refresh?.unwrap_or(default.refresh_rate),
        failure_refresh: failure?,
        min_refresh_rate: floor?,
        jitter: jitter?.unwrap_or_default(),
        ..default
    })
}

pub(super) fn encode(cluster: &Cluster, message: &mut proto::Cluster) {
    let none = ClusterLoadAssignment::OVERPROVISIONING;
    let kind = match &cluster.discovery {
        Discovery::Eds(service) => {
            let service_name = if *service == cluster.name { String::new() } else { service.to_string() };
            message.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(wire::ads()), service_name });
            ClusterDiscoveryType::Type(DiscoveryType::Eds.into())
        }
        Discovery::Static(endpoints) => {
            message.load_assignment = Some(assignment_proto(
                &cluster.name,
                &endpoints.priorities,
                &endpoints.drops,
                endpoints.overprovisioning_factor,
            ));
            ClusterDiscoveryType::Type(DiscoveryType::Static.into())
        }
        Discovery::StrictDns(strict) => {
            message.load_assignment =
                Some(assignment_proto(&cluster.name, &strict.priorities, &strict.drops, none));
            dns(&strict.dns, false, message)
        }
        Discovery::LogicalDns(logical) => {
            let locality = LocalityEndpoints {
                locality: logical.locality.clone(),
                weight: NonZeroU32::MIN,
                endpoints: vec![Arc::new(logical.endpoint.clone())],
            };
            let priorities = [Priority { localities: vec![locality] }];
            message.load_assignment =
                Some(assignment_proto(&cluster.name, &priorities, &logical.drops, none));
            dns(&logical.dns, true, message)
        }
        Discovery::Aggregate(clusters) => {
            let clusters = clusters.iter().map(|name| name.to_string()).collect();
            let config = wire::any(&AggregateConfig { clusters });
            ClusterDiscoveryType::ClusterType(CustomClusterType {
                name: AGGREGATE.into(),
                typed_config: Some(config),
            })
        }
    };
    message.cluster_discovery_type = Some(kind);
}

/// The older form, which everybody knows, unless only the newer one can say it.
fn dns(dns: &DnsResolution, logical: bool, message: &mut proto::Cluster) -> ClusterDiscoveryType {
    let time = |value: Duration| Some(wire::duration_proto(value));
    let jitter = (!dns.jitter.is_zero()).then(|| wire::duration_proto(dns.jitter));
    if let Some(floor) = dns.min_refresh_rate {
        let family = match dns.family {
            DnsLookupFamily::Auto => NewFamily::Auto,
            DnsLookupFamily::V4Only => NewFamily::V4Only,
            DnsLookupFamily::V6Only => NewFamily::V6Only,
            DnsLookupFamily::V4Preferred => NewFamily::V4Preferred,
            DnsLookupFamily::All => NewFamily::All,
        };
        let config = DnsCluster {
            dns_refresh_rate: time(dns.refresh_rate),
            dns_failure_refresh_rate: dns
                .failure_refresh
                .map(|rate| NewRefreshRate { base_interval: time(rate.base), max_interval: time(rate.max) }),
            respect_dns_ttl: dns.respect_ttl,
            dns_jitter: jitter,
            dns_lookup_family: family.into(),
            all_addresses_in_single_endpoint: logical,
            dns_min_refresh_rate: time(floor),
            ..DnsCluster::default()
        };
        return ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.cluster.dns".into(),
            typed_config: Some(wire::any(&config)),
        });
    }
    message.dns_refresh_rate = time(dns.refresh_rate);
    message.dns_failure_refresh_rate = dns
        .failure_refresh
        .map(|rate| RefreshRate { base_interval: time(rate.base), max_interval: time(rate.max) });
    message.respect_dns_ttl = dns.respect_ttl;
    message.dns_jitter = jitter;
    message.dns_lookup_family = match dns.family {
        DnsLookupFamily::Auto => Family::Auto,
        DnsLookupFamily::V4Only => Family::V4Only,
        DnsLookupFamily::V6Only => Family::V6Only,
        DnsLookupFamily::V4Preferred => Family::V4Preferred,
        DnsLookupFamily::All => Family::All,
    }
    .into();
    let kind = if logical { DiscoveryType::LogicalDns } else { DiscoveryType::StrictDns };
    ClusterDiscoveryType::Type(kind.into())
}
