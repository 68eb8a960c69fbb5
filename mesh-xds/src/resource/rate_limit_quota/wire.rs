//! RateLimitQuotaFilterConfig, to and from protobuf.

use super::{Bucket, DenyResponse, ExpiredQuota, IdValue, QuotaLimit, QuotaOverride, RateLimitQuota};
use crate::{
    field_path::{Faults, Path},
    matcher::{Fraction, HeaderOrPseudo, MatcherTree},
    resource::{
        Feature, ParseContext,
        canonical::{self, Inside, Shape},
        ext_authz::grpc_service,
        filter::{
            FilterConfig, FilterOverride,
            registry::{Kind, SERVER},
        },
        local_rate_limit,
        route::wire::headers,
        wire::{self, tree},
    },
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig},
        extensions::filters::http::rate_limit_quota::v3::{
            RateLimitQuotaBucketSettings as Settings, RateLimitQuotaFilterConfig as Config,
            RateLimitQuotaOverride,
            rate_limit_quota_bucket_settings::{
                BucketIdBuilder, DenyResponseSettings, ExpiredAssignmentBehavior, NoAssignmentBehavior,
                bucket_id_builder::{ValueBuilder, value_builder::ValueSpecifier},
                expired_assignment_behavior::{ExpiredAssignmentBehavior as Expired, ReuseLastAssignment},
                no_assignment_behavior::NoAssignmentBehavior as NoAssignment,
            },
        },
        r#type::{
            matcher::v3::HttpRequestHeaderMatchInput,
            v3::{
                RateLimitStrategy, RateLimitUnit,
                rate_limit_strategy::{BlanketRule, RequestsPerTimeUnit, Strategy},
            },
        },
    },
    google::{protobuf::Any, rpc::Status},
};
use prost::{Message, Name};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const UNAVAILABLE: u32 = 14;

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
    sides: SERVER,
    feature: Some(Feature::RateLimitQuota),
    read: |any, scope, at, faults| {
        let quota = parse(&wire::unpack(any, at, faults)?, scope.context, at, faults)?;
        Some(FilterConfig::RateLimitQuota(Arc::new(quota)))
    },
    per_route: Some((
        "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaOverride",
        |any, _, at, faults| {
            let proto: RateLimitQuotaOverride = wire::unpack(any, at, faults)?;
            let buckets = match &proto.bucket_matchers {
                Some(matcher) => {
                    Some(tree::parse(matcher, &bucket_any, &at.field("bucket_matchers"), faults)?)
                }
                None => None,
            };
            let quota = QuotaOverride { domain: wire::text(&proto.domain), buckets };
            Some(FilterOverride::RateLimitQuota(Arc::new(quota)))
        },
    )),
};

fn parse(
    proto: &Config,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<RateLimitQuota> {
    let service_at = at.field("rlqs_server");
    let service = faults
        .required(&service_at, &proto.rlqs_server)
        .cloned()
        .and_then(|service| grpc_service::parse(&service, context, &service_at, faults));
    if proto.domain.is_empty() {
        faults.reject::<()>(&at.field("domain"), "is required");
    }
    let matcher_at = at.field("bucket_matchers");
    let buckets = faults
        .required(&matcher_at, &proto.bucket_matchers)
        .cloned()
        .and_then(|matcher| tree::parse(&matcher, &bucket_any, &matcher_at, faults));
    let share = |proto: &Option<RuntimeFractionalPercent>, field, faults: &mut Faults| match proto {
        Some(fraction) => wire::runtime_fraction(fraction, &at.field(field), faults),
        None => Some(Fraction::ONE),
    };
    let enabled = share(&proto.filter_enabled, "filter_enabled", faults);
    let enforced = share(&proto.filter_enforced, "filter_enforced", faults);
    let request_headers = headers::additions(
        &proto.request_headers_to_add_when_not_enforced,
        &at.field("request_headers_to_add_when_not_enforced"),
        faults,
    );
    Some(RateLimitQuota {
        service: service?,
        domain: proto.domain.as_str().into(),
        buckets: buckets?,
        enabled: enabled?,
        enforced: enforced?,
        request_headers: request_headers?,
    })
}

fn bucket_any(any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Bucket> {
    bucket(&wire::unpack(any, at, faults)?, at, faults)
}

fn bucket(proto: &Settings, at: &Path<'_>, faults: &mut Faults) -> Option<Bucket> {
    let id_at = at.field("bucket_id_builder");
    let id = match &proto.bucket_id_builder {
        Some(builder) => bucket_id(builder, &id_at, faults),
        None => Some(BTreeMap::new()),
    };
    let interval_at = at.field("reporting_interval");
    faults.required(&interval_at, &proto.reporting_interval)?;
    let interval = match wire::optional_duration(&proto.reporting_interval, &interval_at, faults)? {
        interval if interval < SHORTEST_INTERVAL => faults.reject(&interval_at, "is less than 100 ms"),
        interval => Some(interval),
    };
    let no_assignment = match proto.no_assignment_behavior.as_ref().map(|b| &b.no_assignment_behavior) {
        Some(Some(NoAssignment::FallbackRateLimit(strategy))) => {
            limit(strategy, &at.field("no_assignment_behavior").field("fallback_rate_limit"), faults)
        }
        Some(None) | None => Some(QuotaLimit::AllowAll),
    };
    let expired = match &proto.expired_assignment_behavior {
        Some(behavior) => expired_quota(behavior, &at.field("expired_assignment_behavior"), faults).map(Some),
        None => Some(None),
    };
    let deny = match &proto.deny_response_settings {
        Some(settings) => deny(settings, &at.field("deny_response_settings"), faults),
        None => Some(DenyResponse { code: UNAVAILABLE, message: "".into(), headers: Vec::new() }),
    };
    Some(Bucket {
        id: id?,
        reporting_interval: interval?,
        no_assignment: no_assignment?,
        expired: expired?,
        deny: deny?,
    })
}

fn bucket_id(
    proto: &BucketIdBuilder,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<BTreeMap<Arc<str>, IdValue>> {
    let at = at.field("bucket_id_builder");
    if proto.bucket_id_builder.is_empty() {
        return faults.reject(&at, "must not be empty");
    }
    let mut id = BTreeMap::new();
    for (key, value) in proto.bucket_id_builder.iter().collect::<BTreeMap<_, _>>() {
        let at = at.key(key);
        let value = match &value.value_specifier {
            Some(ValueSpecifier::StringValue(text)) => IdValue::Text(text.as_str().into()),
            Some(ValueSpecifier::CustomValue(extension)) => {
                let at = at.field("custom_value");
                let at = at.field("typed_config");
                let config = faults.required(&at, &extension.typed_config)?;
                let input: HttpRequestHeaderMatchInput = wire::unpack(config, &at, faults)?;
                let header = HeaderOrPseudo::parse(&input.header_name);
                IdValue::Header(faults.take(&at.field("header_name"), header)?)
            }
            None => return faults.reject(&at, "string_value or custom_value is required"),
        };
        id.insert(Arc::from(key.as_str()), value);
    }
    Some(id)
}

const UNITS: [(RateLimitUnit, u64); 4] = [
    (RateLimitUnit::Second, 1),
    (RateLimitUnit::Minute, 60),
    (RateLimitUnit::Hour, 3_600),
    (RateLimitUnit::Day, 86_400),
];

fn limit(proto: &RateLimitStrategy, at: &Path<'_>, faults: &mut Faults) -> Option<QuotaLimit> {
    match &proto.strategy {
        Some(Strategy::BlanketRule(rule)) => match BlanketRule::try_from(*rule) {
            Ok(BlanketRule::AllowAll) => Some(QuotaLimit::AllowAll),
            Ok(BlanketRule::DenyAll) => Some(QuotaLimit::DenyAll),
            Err(_) => faults.reject(&at.field("blanket_rule"), format_args!("{rule} is unknown")),
        },
        Some(Strategy::RequestsPerTimeUnit(rate)) => {
            match UNITS.iter().find(|(unit, _)| i32::from(*unit) == rate.time_unit) {
                Some((_, seconds)) => Some(QuotaLimit::PerTime {
                    requests: rate.requests_per_time_unit,
                    per: Duration::from_secs(*seconds),
                }),
                None => {
                    let at = at.field("requests_per_time_unit");
                    faults.reject(&at.field("time_unit"), "must be SECOND, MINUTE, HOUR or DAY")
                }
            }
        }
        Some(Strategy::TokenBucket(bucket)) => {
            let bucket = local_rate_limit::wire::token_bucket(bucket, &at.field("token_bucket"), faults);
            bucket.map(QuotaLimit::TokenBucket)
        }
        None => faults.reject(at, "says nothing"),
    }
}

fn expired_quota(
    proto: &ExpiredAssignmentBehavior,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<ExpiredQuota> {
    let timeout_at = at.field("expired_assignment_behavior_timeout");
    let timeout = match &proto.expired_assignment_behavior_timeout {
        Some(_) => {
            Some(wire::positive_duration(&proto.expired_assignment_behavior_timeout, &timeout_at, faults)?)
        }
        None => None,
    };
    let limit = match &proto.expired_assignment_behavior {
        Some(Expired::FallbackRateLimit(strategy)) => {
            Some(limit(strategy, &at.field("fallback_rate_limit"), faults)?)
        }
        Some(Expired::ReuseLastAssignment(_)) => None,
        None => return faults.reject(at, "fallback_rate_limit or reuse_last_assignment is required"),
    };
    Some(ExpiredQuota { timeout, limit })
}

fn deny(proto: &DenyResponseSettings, at: &Path<'_>, faults: &mut Faults) -> Option<DenyResponse> {
    let (code, message) = match &proto.grpc_status {
        None => (Some(UNAVAILABLE), "".into()),
        Some(status) => {
            let code = u32::try_from(status.code).ok().filter(|code| (1..=16).contains(code));
            let reason = format!("{} is not the code of an error", status.code);
            let code = faults.take(&at.field("grpc_status"), code.ok_or(reason));
            (code, status.message.as_str().into())
        }
    };
    let headers =
        headers::additions(&proto.response_headers_to_add, &at.field("response_headers_to_add"), faults);
    Some(DenyResponse { code: code?, message, headers: headers? })
}

fn limit_proto(limit: &QuotaLimit) -> RateLimitStrategy {
    RateLimitStrategy {
        strategy: Some(match limit {
            QuotaLimit::AllowAll => Strategy::BlanketRule(BlanketRule::AllowAll.into()),
            QuotaLimit::DenyAll => Strategy::BlanketRule(BlanketRule::DenyAll.into()),
            QuotaLimit::PerTime { requests, per } => Strategy::RequestsPerTimeUnit(RequestsPerTimeUnit {
                requests_per_time_unit: *requests,
                time_unit: UNITS
                    .iter()
                    .find(|(_, seconds)| *seconds == per.as_secs())
                    .map_or(RateLimitUnit::Unknown, |(unit, _)| *unit)
                    .into(),
            }),
            QuotaLimit::TokenBucket(bucket) => {
                Strategy::TokenBucket(local_rate_limit::wire::token_bucket_proto(bucket))
            }
        }),
    }
}

fn bucket_proto(bucket: &Bucket) -> Settings {
    let value = |value: &IdValue| ValueBuilder {
        value_specifier: Some(match value {
            IdValue::Text(text) => ValueSpecifier::StringValue(text.to_string()),
            IdValue::Header(header) => {
                let input = HttpRequestHeaderMatchInput { header_name: header.as_str().into() };
                ValueSpecifier::CustomValue(TypedExtensionConfig {
                    name: "header".into(),
                    typed_config: Some(wire::any(&input)),
                })
            }
        }),
    };
    Settings {
        bucket_id_builder: (!bucket.id.is_empty()).then(|| BucketIdBuilder {
            bucket_id_builder: bucket.id.iter().map(|(key, id)| (key.to_string(), value(id))).collect(),
        }),
        reporting_interval: Some(wire::duration_proto(bucket.reporting_interval)),
        no_assignment_behavior: Some(NoAssignmentBehavior {
            no_assignment_behavior: Some(NoAssignment::FallbackRateLimit(limit_proto(&bucket.no_assignment))),
        }),
        expired_assignment_behavior: bucket.expired.as_ref().map(|expired| ExpiredAssignmentBehavior {
            expired_assignment_behavior_timeout: expired.timeout.map(wire::duration_proto),
            expired_assignment_behavior: Some(match &expired.limit {
                Some(limit) => Expired::FallbackRateLimit(limit_proto(limit)),
                None => Expired::ReuseLastAssignment(ReuseLastAssignment {}),
            }),
        }),
        deny_response_settings: Some(DenyResponseSettings {
            grpc_status: Some(Status {
                code: i32::try_from(bucket.deny.code).unwrap_or_default(),
                message: bucket.deny.message.to_string(),
                ..Default::default()
            }),
            response_headers_to_add: headers::encode_additions(&bucket.deny.headers),
            ..Default::default()
        }),
    }
}

static BUCKET_ID: Shape = Shape(&[(1, Inside::Map)]);
static BUCKET: Shape = Shape(&[(1, Inside::Message(&BUCKET_ID))]);
static CONFIG: Shape = Shape(&[(3, Inside::Message(&tree::SHAPE))]);
static OVERRIDE: Shape = Shape(&[(2, Inside::Message(&tree::SHAPE))]);

fn buckets_proto(buckets: &MatcherTree<Bucket>) -> envoy_types::pb::xds::r#type::matcher::v3::Matcher {
    tree::encode(buckets, &|bucket| Any {
        type_url: Settings::type_url(),
        value: canonical::sorted(&bucket_proto(bucket).encode_to_vec(), &BUCKET),
    })
}

pub(in crate::resource) fn encode(quota: &RateLimitQuota) -> Any {
    let message = Config {
        rlqs_server: Some(grpc_service::encode(&quota.service)),
        domain: quota.domain.to_string(),
        bucket_matchers: Some(buckets_proto(&quota.buckets)),
        filter_enabled: Some(wire::runtime_fraction_proto(quota.enabled)),
        filter_enforced: Some(wire::runtime_fraction_proto(quota.enforced)),
        request_headers_to_add_when_not_enforced: headers::encode_additions(&quota.request_headers),
    };
    Any { type_url: Config::type_url(), value: canonical::sorted(&message.encode_to_vec(), &CONFIG) }
}

pub(in crate::resource) fn encode_override(quota: &QuotaOverride) -> Any {
    let message = RateLimitQuotaOverride {
        domain: quota.domain.as_deref().unwrap_or_default().into(),
        bucket_matchers: quota.buckets.as_ref().map(buckets_proto),
    };
    let value = canonical::sorted(&message.encode_to_vec(), &OVERRIDE);
    Any { type_url: RateLimitQuotaOverride::type_url(), value }
}
