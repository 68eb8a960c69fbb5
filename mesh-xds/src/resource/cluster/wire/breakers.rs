//! Circuit breakers, to and from protobuf.
//!
//! Thresholds of priority HIGH are left out, as gRPC does (A32): no call here has that priority.

use super::{percent, percent_proto};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    resource::{
        cluster::{CircuitBreakers, RetryBudget},
        wire,
    },
};
use envoy_types::pb::{
    envoy::config::{
        cluster::v3::{self as proto, circuit_breakers::Thresholds},
        core::v3::RoutingPriority,
    },
    google::protobuf::UInt32Value,
};

/// gRFC A105.
const MAX_CONNECTIONS_PER_ENDPOINT: u32 = 10;

pub(super) fn parse(proto: &proto::Cluster, at: &Path<'_>, faults: &mut Faults) -> Option<CircuitBreakers> {
    let Some(breakers) = &proto.circuit_breakers else { return Some(CircuitBreakers::default()) };
    let at = at.field("circuit_breakers");
    let default = |thresholds: &&Thresholds| thresholds.priority == RoutingPriority::Default as i32;
    let value = |limit: &Option<UInt32Value>| limit.as_ref().map(|limit| limit.value);
    let mut parsed = CircuitBreakers::default();
    // Only the first one of priority DEFAULT counts (gRFC A32).
    if let Some(thresholds) = breakers.thresholds.iter().find(default) {
        parsed.max_requests = value(&thresholds.max_requests).unwrap_or(parsed.max_requests);
        parsed.max_pending_requests = value(&thresholds.max_pending_requests);
        parsed.max_connections = value(&thresholds.max_connections);
        parsed.max_retries = value(&thresholds.max_retries);
        if let Some(budget) = &thresholds.retry_budget {
            let at = at.field("thresholds.retry_budget");
            if budget.budget_interval.as_ref().is_some_and(|interval| *interval != Default::default()) {
                let reason = "is not supported: the budget is a share of what is in flight";
                faults.reject::<()>(&at.field("budget_interval"), reason);
            }
            let share = match &budget.budget_percent {
                Some(share) => percent(share, &at.field("budget_percent"), faults)?,
                None => Fraction::per_million(200_000),
            };
            parsed.retry_budget = Some(RetryBudget {
                budget: share,
                min_retry_concurrency: value(&budget.min_retry_concurrency).unwrap_or(3),
            });
        }
    }
    let at = at.field("per_host_thresholds");
    if let Some(thresholds) = breakers.per_host_thresholds.iter().find(default) {
        for (unsupported, field) in [
            (thresholds.max_requests.is_some(), "max_requests"),
            (thresholds.max_pending_requests.is_some(), "max_pending_requests"),
            (thresholds.max_retries.is_some(), "max_retries"),
            (thresholds.retry_budget.is_some(), "retry_budget"),
            (thresholds.max_connection_pools.is_some(), "max_connection_pools"),
        ] {
            if unsupported {
                faults.reject::<()>(&at.field(field), "is not supported: of a host only max_connections is");
            }
        }
        if let Some(connections) = value(&thresholds.max_connections) {
            if connections == 0 {
                return faults.reject(&at.field("max_connections"), "must not be 0");
            }
            parsed.max_connections_per_endpoint = connections.min(MAX_CONNECTIONS_PER_ENDPOINT);
        }
    }
    Some(parsed)
}

pub(super) fn encode(breakers: &CircuitBreakers) -> proto::CircuitBreakers {
    proto::CircuitBreakers {
        thresholds: vec![thresholds_proto(breakers)],
        per_host_thresholds: if breakers.max_connections_per_endpoint == 1 {
            Vec::new()
        } else {
            vec![Thresholds {
                max_connections: wire::u32_value(breakers.max_connections_per_endpoint),
                ..Default::default()
            }]
        },
    }
}

fn thresholds_proto(breakers: &CircuitBreakers) -> Thresholds {
    let value = |limit: Option<u32>| limit.and_then(wire::u32_value);
    Thresholds {
        priority: RoutingPriority::Default.into(),
        max_requests: wire::u32_value(breakers.max_requests),
        max_pending_requests: value(breakers.max_pending_requests),
        max_connections: value(breakers.max_connections),
        max_retries: value(breakers.max_retries),
        retry_budget: breakers.retry_budget.map(|budget| proto::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(percent_proto(budget.budget)),
            min_retry_concurrency: wire::u32_value(budget.min_retry_concurrency),
            ..Default::default()
        }),
        ..Default::default()
    }
}
