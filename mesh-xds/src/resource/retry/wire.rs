//! Retry policy, to and from protobuf.

use super::{BackOff, HedgePolicy, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    resource::{Feature, ParseContext, route::HeaderName, wire},
};
use envoy_types::pb::{
    envoy::{
        config::route::v3::{
            self as proto,
            retry_policy::{
                RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
                RetryPriority, retry_host_predicate, retry_priority,
            },
        },
        extensions::retry::{
            host::previous_hosts::v3::PreviousHostsPredicate,
            priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
    },
    google::protobuf::UInt32Value,
};
use std::{num::NonZeroU32, time::Duration};

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
const PREVIOUS_PRIORITIES: &str = "envoy.retry_priorities.previous_priorities";
const DEFAULT_BASE: Duration = Duration::from_millis(25);
const SHORTEST: Duration = Duration::from_millis(1);
const DEFAULT_RATE_LIMITED_MAX: Duration = Duration::from_secs(300);

/// Every token of `retry_on`, and the field that it sets.
macro_rules! tokens {
    ($($token:literal => $field:ident,)*) => {
        impl RetryOn {
            /// Reads a comma-separated list; unknown tokens are ignored (gRFC A44).
            pub fn parse(list: &str) -> Self {
                let mut on = Self::default();
                for token in list.split(',').map(str::trim) {
                    match token {
                        $($token => on.$field = true,)*
                        _ => {}
                    }
                }
                on
            }

            /// The list.
            pub fn tokens(&self) -> Vec<&'static str> {
                let mut tokens = Vec::new();
                $(if self.$field { tokens.push($token); })*
                tokens
            }
        }
    };
}

tokens! {
    "cancelled" => cancelled,
    "deadline-exceeded" => deadline_exceeded,
    "internal" => internal,
    "resource-exhausted" => resource_exhausted,
    "unavailable" => unavailable,
    "5xx" => server_error,
    "gateway-error" => gateway_error,
    "reset" => reset,
    "reset-before-request" => reset_before_request,
    "connect-failure" => connect_failure,
    "refused-stream" => refused_stream,
    "retriable-4xx" => retriable_4xx,
    "retriable-status-codes" => retriable_status_codes,
    "retriable-headers" => retriable_headers,
    "envoy-ratelimited" => envoy_ratelimited,
}

pub(in crate::resource) fn parse(
    proto: &proto::RetryPolicy,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<RetryPolicy> {
    let num_retries = match proto.num_retries {
        None => 1,
        Some(UInt32Value { value: 0 }) => return faults.reject(&at.field("num_retries"), "must not be 0"),
        Some(UInt32Value { value }) => value,
    };
    let back_off = match &proto.retry_back_off {
        None => Some(BackOff { base: DEFAULT_BASE, max: DEFAULT_BASE * 10 }),
        Some(proto) => back_off(proto, &at.field("retry_back_off"), faults),
    };
    let codes = wire::every(
        &proto.retriable_status_codes,
        &at.field("retriable_status_codes"),
        faults,
        |code, at, faults| {
            faults.take(at, u16::try_from(*code).map_err(|_| format!("{code} is no HTTP status")))
        },
    );
    let headers =
        wire::every(&proto.retriable_headers, &at.field("retriable_headers"), faults, wire::header_matcher);
    let request_headers = wire::every(
        &proto.retriable_request_headers,
        &at.field("retriable_request_headers"),
        faults,
        wire::header_matcher,
    );
    let previous_priorities = match &proto.retry_priority {
        None => Some(None),
        Some(proto) => previous_priorities(proto, &at.field("retry_priority"), faults),
    };
    let rate_limited = match &proto.rate_limited_retry_back_off {
        None => Some(None),
        Some(proto) => rate_limited(proto, &at.field("rate_limited_retry_back_off"), faults).map(Some),
    };
    Some(RetryPolicy {
        on: RetryOn::parse(&proto.retry_on),
        num_retries,
        per_try_timeout: positive(&proto.per_try_timeout, &at.field("per_try_timeout"), faults),
        per_try_idle_timeout: positive(
            &proto.per_try_idle_timeout,
            &at.field("per_try_idle_timeout"),
            faults,
        ),
        back_off: back_off?,
        // Other predicates, and other `retry_priority`, are advice about hosts, which gRPC ignores (A44).
        avoid_previous_hosts: proto.retry_host_predicate.iter().any(|host| host.name == PREVIOUS_HOSTS),
        host_selection_attempts: u32::try_from(proto.host_selection_retry_max_attempts.max(1))
            .unwrap_or(u32::MAX),
        previous_priorities: previous_priorities?,
        retriable_status_codes: codes?,
        retriable_headers: headers?,
        retriable_request_headers: request_headers?,
        rate_limited: rate_limited?,
    })
}

/// In Envoy, a timeout of zero is none.
fn positive(
    proto: &Option<envoy_types::pb::google::protobuf::Duration>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Duration> {
    wire::optional_duration(proto, at, faults).filter(|timeout| !timeout.is_zero())
}

fn back_off(proto: &RetryBackOff, at: &Path<'_>, faults: &mut Faults) -> Option<BackOff> {
    faults.required(&at.field("base_interval"), &proto.base_interval)?;
    let base = wire::positive_duration(&proto.base_interval, &at.field("base_interval"), faults);
    let max = match &proto.max_interval {
        None => base.map(|base| base * 10),
        Some(_) => wire::positive_duration(&proto.max_interval, &at.field("max_interval"), faults),
    };
    let (base, max) = (base?, max?);
    if max < base {
        return faults.reject(&at.field("max_interval"), "is less than base_interval");
    }
    Some(BackOff { base: base.max(SHORTEST), max: max.max(SHORTEST) })
}

/// `Some(None)`: it is another one, which gRPC passes over.
fn previous_priorities(
    proto: &RetryPriority,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<NonZeroU32>> {
    if proto.name != PREVIOUS_PRIORITIES {
        return Some(None);
    }
    let at = at.field("typed_config");
    let retry_priority::ConfigType::TypedConfig(config) = faults.required(&at, &proto.config_type)?;
    let config: PreviousPrioritiesConfig = wire::unpack(config, &at, faults)?;
    let frequency = u32::try_from(config.update_frequency).ok().and_then(NonZeroU32::new);
    match frequency {
        None => faults.reject(&at.field("update_frequency"), "must be more than 0"),
        frequency => Some(frequency),
    }
}

fn rate_limited(
    proto: &RateLimitedRetryBackOff,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<RateLimitedBackOff> {
    let headers =
        wire::every(&proto.reset_headers, &at.field("reset_headers"), faults, |header, at, faults| {
            let name = HeaderName::try_from(header.name.as_str());
            let name = faults
                .take(&at.field("name"), name.map_err(|_| format!("`{}` is no header", header.name)))?;
            match ResetHeaderFormat::try_from(header.format) {
                Ok(ResetHeaderFormat::Seconds) => Some((name, ResetFormat::Seconds)),
                Ok(ResetHeaderFormat::UnixTimestamp) => Some((name, ResetFormat::UnixTimestamp)),
                Err(_) => faults.reject(&at.field("format"), format_args!("{} is unknown", header.format)),
            }
        })?;
    if headers.is_empty() {
        return faults.reject(&at.field("reset_headers"), "must not be empty");
    }
    let max = match &proto.max_interval {
        None => DEFAULT_RATE_LIMITED_MAX,
        Some(_) => wire::positive_duration(&proto.max_interval, &at.field("max_interval"), faults)?,
    };
    Some(RateLimitedBackOff { headers, max })
}

/// `Some(None)`: it asks for nothing, or is not there.
pub(in crate::resource) fn hedge(
    proto: &Option<proto::HedgePolicy>,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<HedgePolicy>> {
    let at = at.field("hedge_policy");
    let Some(proto) = proto else { return Some(None) };
    let initial = proto.initial_requests.as_ref().map_or(1, |initial| initial.value);
    let initial_at = at.field("initial_requests");
    let initial = faults.take(&initial_at, NonZeroU32::new(initial).ok_or("must not be 0"));
    let chance_at = at.field("additional_request_chance");
    let chance = wire::optional_fraction(&proto.additional_request_chance, &chance_at, faults);
    let policy = HedgePolicy {
        initial_requests: initial?,
        additional_request_chance: chance?,
        on_per_try_timeout: proto.hedge_on_per_try_timeout,
    };
    if policy.initial_requests == NonZeroU32::MIN
        && policy.additional_request_chance == Fraction::ZERO
        && !policy.on_per_try_timeout
    {
        return Some(None);
    }
    context.support.require(Feature::Hedging, &at, faults)?;
    Some(Some(policy))
}

pub(in crate::resource) fn encode_hedge(policy: &HedgePolicy) -> proto::HedgePolicy {
    proto::HedgePolicy {
        initial_requests: wire::u32_value(policy.initial_requests.get()),
        additional_request_chance: Some(wire::fraction_proto(policy.additional_request_chance)),
        hedge_on_per_try_timeout: policy.on_per_try_timeout,
    }
}

pub(in crate::resource) fn encode(policy: &RetryPolicy) -> proto::RetryPolicy {
    let previous_hosts = || RetryHostPredicate {
        name: PREVIOUS_HOSTS.into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(wire::any(
            &PreviousHostsPredicate {},
        ))),
    };
    let previous_priorities = |frequency: NonZeroU32| RetryPriority {
        name: PREVIOUS_PRIORITIES.into(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(wire::any(&PreviousPrioritiesConfig {
            update_frequency: i32::try_from(frequency.get()).unwrap_or(i32::MAX),
        }))),
    };
    proto::RetryPolicy {
        retry_on: policy.on.tokens().join(","),
        num_retries: wire::u32_value(policy.num_retries),
        per_try_timeout: policy.per_try_timeout.map(wire::duration_proto),
        per_try_idle_timeout: policy.per_try_idle_timeout.map(wire::duration_proto),
        retry_host_predicate: policy.avoid_previous_hosts.then(previous_hosts).into_iter().collect(),
        retry_priority: policy.previous_priorities.map(previous_priorities),
        host_selection_retry_max_attempts: policy.host_selection_attempts.into(),
        retriable_status_codes: policy.retriable_status_codes.iter().copied().map(u32::from).collect(),
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(wire::duration_proto(policy.back_off.base)),
            max_interval: Some(wire::duration_proto(policy.back_off.max)),
        }),
        retriable_headers: policy.retriable_headers.iter().map(wire::header_matcher_proto).collect(),
        retriable_request_headers: policy
            .retriable_request_headers
            .iter()
            .map(wire::header_matcher_proto)
            .collect(),
        rate_limited_retry_back_off: policy.rate_limited.as_ref().map(|limited| RateLimitedRetryBackOff {
            reset_headers: limited
                .headers
                .iter()
                .map(|(name, format)| ResetHeader {
                    name: name.to_string(),
                    format: match format {
                        ResetFormat::Seconds => ResetHeaderFormat::Seconds,
                        ResetFormat::UnixTimestamp => ResetHeaderFormat::UnixTimestamp,
                    }
                    .into(),
                })
                .collect(),
            max_interval: Some(wire::duration_proto(limited.max)),
        }),
        ..Default::default()
    }
}
