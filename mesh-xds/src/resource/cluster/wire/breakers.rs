//! Circuit breakers, to and from protobuf.
//!
//! Thresholds of priority HIGH are left out, as gRPC does (A32), unless the data path has calls of that priority.

use super::{has, percent, percent_proto};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    resource::{
        Feature, ParseContext,
        cluster::{self as model, CircuitBreakers, RetryBudget},
        route, wire,
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

pub(super) fn parse(
    proto: &proto::Cluster,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<CircuitBreakers> {
    let Some(breakers) = &proto.circuit_breakers else { return Some(CircuitBreakers::default()) };
    let at = at.field("circuit_breakers");
    let first = |all: &[Thresholds], priority: RoutingPriority| {
        all.iter().find(|thresholds| thresholds.priority == i32::from(priority)).cloned()
    };
    let mut parsed = CircuitBreakers::default();
    // Only the first one of a priority counts (gRFC A32).
    if let Some(thresholds) = &first(&breakers.thresholds, RoutingPriority::Default) {
        let model::Thresholds { max_requests, max_pending_requests, max_retries, retry_budget } =
            limits(thresholds, &at, faults)?;
        let max_connections = value(&thresholds.max_connections);
        parsed = CircuitBreakers {
            max_requests,
            max_pending_requests,
            max_connections,
            max_retries,
            retry_budget,
            ..parsed
        };
    }
    if has(context, Feature::HighPriority)
        && let Some(thresholds) = &first(&breakers.thresholds, RoutingPriority::High)
    {
        parsed.high = limits(thresholds, &at, faults)?;
    }
    let at = at.field("per_host_thresholds");
    if let Some(thresholds) = &first(&breakers.per_host_thresholds, RoutingPriority::Default) {
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

fn value(limit: &Option<UInt32Value>) -> Option<u32> {
    limit.as_ref().map(|limit| limit.value)
}

fn limits(thresholds: &Thresholds, at: &Path<'_>, faults: &mut Faults) -> Option<model::Thresholds> {
    let retry_budget = match &thresholds.retry_budget {
        None => None,
        Some(budget) => {
            let at = at.field("thresholds.retry_budget");
            if budget.budget_interval.as_ref().is_some_and(|interval| *interval != Default::default()) {
                let reason = "is not supported: the budget is a share of what is in flight";
                faults.reject::<()>(&at.field("budget_interval"), reason);
            }
            let share = match &budget.budget_percent {
                Some(share) => percent(share, &at.field("budget_percent"), faults)?,
                None => Fraction::per_million(200_000),
            };
            Some(RetryBudget {
                budget: share,
                min_retry_concurrency: value(&budget.min_retry_concurrency).unwrap_or(3),
            })
        }
    };
    Some(model::Thresholds {
        max_requests: value(&thresholds.max_requests)
            .unwrap_or_else(|| model::Thresholds::default().max_requests),
        max_pending_requests: value(&thresholds.max_pending_requests),
        max_retries: value(&thresholds.max_retries),
        retry_budget,
    })
}

pub(super) fn encode(breakers: &CircuitBreakers) -> proto::CircuitBreakers {
    proto::CircuitBreakers {
        thresholds: thresholds_protos(breakers),
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

/// Those of priority HIGH are left out where they are the default ones.
fn thresholds_protos(breakers: &CircuitBreakers) -> Vec<Thresholds> {
    let default = Thresholds {
        max_connections: breakers.max_connections.and_then(wire::u32_value),
        ..thresholds_proto(breakers.of(route::RoutingPriority::Default), RoutingPriority::Default)
    };
    let high = thresholds_proto(breakers.high, RoutingPriority::High);
    let is_said = breakers.high != model::Thresholds::default();
    std::iter::once(default).chain(is_said.then_some(high)).collect()
}

fn thresholds_proto(limits: model::Thresholds, priority: RoutingPriority) -> Thresholds {
    let value = |limit: Option<u32>| limit.and_then(wire::u32_value);
    Thresholds {
        priority: priority.into(),
        max_requests: wire::u32_value(limits.max_requests),
        max_pending_requests: value(limits.max_pending_requests),
        max_retries: value(limits.max_retries),
        retry_budget: limits.retry_budget.map(|budget| proto::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(percent_proto(budget.budget)),
            min_retry_concurrency: wire::u32_value(budget.min_retry_concurrency),
            ..Default::default()
        }),
        ..Default::default()
    }
}
