//! LocalRateLimit and RateLimitQuotaFilterConfig.

use super::{authz::service, *};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, RuntimeFractionalPercent},
        extensions::filters::http::rate_limit_quota::v3::{
            RateLimitQuotaBucketSettings as Settings, RateLimitQuotaFilterConfig as Quota,
            RateLimitQuotaOverride,
            rate_limit_quota_bucket_settings::{
                BucketIdBuilder, DenyResponseSettings, ExpiredAssignmentBehavior, NoAssignmentBehavior,
                bucket_id_builder::{ValueBuilder, value_builder::ValueSpecifier},
                expired_assignment_behavior::ExpiredAssignmentBehavior as Expired,
                no_assignment_behavior::NoAssignmentBehavior as NoAssignment,
            },
        },
        r#type::{
            matcher::v3::HttpRequestHeaderMatchInput,
            v3::{
                FractionalPercent, RateLimitStrategy,
                rate_limit_strategy::{RequestsPerTimeUnit, Strategy},
            },
        },
    },
    google::{
        protobuf::{Duration, UInt32Value},
        rpc::Status,
    },
};

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn second() -> Option<Duration> {
    Some(Duration { seconds: 1, nanos: 0 })
}

fn to_path() -> HeaderValueOption {
    let header = HeaderValue { key: ":path".into(), value: "/".into(), ..Default::default() };
    HeaderValueOption { header: Some(header), ..Default::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn of_seven() -> Option<RuntimeFractionalPercent> {
    let default_value = Some(FractionalPercent { numerator: 1, denominator: 7 });
    Some(RuntimeFractionalPercent { default_value, ..Default::default() })
}

#[test]
fn a_faulty_local_limit_is_refused_with_the_place() {
    fn bucket(message: &mut local::LocalRateLimit) -> &mut TokenBucket {
        message.token_bucket.as_mut().unwrap()
    }
    const CASES: &[Case<local::LocalRateLimit>] = &[
        (|m| bucket(m).max_tokens = 0, ".token_bucket.max_tokens", "must not be 0"),
        (
            |m| bucket(m).tokens_per_fill = Some(UInt32Value { value: 0 }),
            ".token_bucket.tokens_per_fill",
            "must not be 0",
        ),
        (|m| bucket(m).fill_interval = None, ".token_bucket.fill_interval", "is required"),
        (
            |m| bucket(m).fill_interval = Some(Duration::default()),
            ".token_bucket.fill_interval",
            "greater than zero",
        ),
        (
            |m| m.filter_enabled = Some(RuntimeFractionalPercent::default()),
            ".filter_enabled.default_value",
            "is required",
        ),
        (|m| m.filter_enforced = of_seven(), ".filter_enforced.default_value", "denominator 7 is unknown"),
        (
            |m| m.request_headers_to_add_when_not_enforced.push(to_path()),
            ".request_headers_to_add_when_not_enforced[0].header.key",
            "belongs to the transport",
        ),
        (
            |m| m.response_headers_to_add.push(to_path()),
            ".response_headers_to_add[0].header.key",
            "belongs to the transport",
        ),
        (|m| m.status = Some(HttpStatus { code: 600 }), ".status.code", "600 is not within 200..=599"),
    ];
    let token_bucket = Some(TokenBucket { max_tokens: 1, fill_interval: second(), ..Default::default() });
    let good = local::LocalRateLimit { token_bucket, ..Default::default() };
    refuses_filter(&good, true, CASES);
    refuses_override(&good, CASES);
}

fn leading_to(settings: &impl MessageName) -> Option<Matcher> {
    let action = envoy_types::pb::xds::core::v3::TypedExtensionConfig {
        name: "a".into(),
        typed_config: Some(any(settings)),
    };
    let on_match = Some(on_match::OnMatch::Action(action));
    let on_no_match = Some(Box::new(OnMatch { on_match, keep_matching: false }));
    Some(Matcher { on_no_match, ..Default::default() })
}

fn good() -> Quota {
    let settings = Settings { reporting_interval: second(), ..Default::default() };
    Quota {
        rlqs_server: Some(service()),
        domain: "d".into(),
        bucket_matchers: leading_to(&settings),
        ..Default::default()
    }
}

fn bucket(message: &mut Quota, change: impl FnOnce(&mut Settings)) {
    let mut settings = Settings { reporting_interval: second(), ..Default::default() };
    change(&mut settings);
    message.bucket_matchers = leading_to(&settings);
}

fn known_by(message: &mut Quota, value_specifier: Option<ValueSpecifier>) {
    bucket(message, |settings| {
        let builder = [("k".to_owned(), ValueBuilder { value_specifier })].into();
        settings.bucket_id_builder = Some(BucketIdBuilder { bucket_id_builder: builder });
    });
}

fn falling_back(message: &mut Quota, strategy: Option<Strategy>) {
    bucket(message, |settings| {
        let fallback = NoAssignment::FallbackRateLimit(RateLimitStrategy { strategy });
        settings.no_assignment_behavior =
            Some(NoAssignmentBehavior { no_assignment_behavior: Some(fallback) });
    });
}

fn expired(message: &mut Quota, behavior: ExpiredAssignmentBehavior) {
    bucket(message, |settings| settings.expired_assignment_behavior = Some(behavior));
}

fn denying(message: &mut Quota, settings: DenyResponseSettings) {
    bucket(message, |bucket| bucket.deny_response_settings = Some(settings));
}

#[test]
fn a_faulty_quota_is_refused_with_the_place() {
    const BUCKET: &str = ".bucket_matchers.on_no_match.action.typed_config";
    let at = |rest: &str| -> &'static str { format!("{BUCKET}{rest}").leak() };
    refuses_filter(
        &good(),
        true,
        &[
            (|m| m.rlqs_server = None, ".rlqs_server", "is required"),
            (|m| m.rlqs_server = Some(Default::default()), ".rlqs_server.google_grpc", "is required"),
            (|m| m.domain.clear(), ".domain", "is required"),
            (|m| m.bucket_matchers = None, ".bucket_matchers", "is required"),
            (|m| m.filter_enabled = of_seven(), ".filter_enabled.default_value", "7 is unknown"),
            (|m| m.filter_enforced = of_seven(), ".filter_enforced.default_value", "7 is unknown"),
            (
                |m| m.request_headers_to_add_when_not_enforced.push(to_path()),
                ".request_headers_to_add_when_not_enforced[0].header.key",
                "belongs to the transport",
            ),
            (
                |m| bucket(m, |b| b.bucket_id_builder = Some(Default::default())),
                at(".bucket_id_builder.bucket_id_builder"),
                "must not be empty",
            ),
            (
                |m| known_by(m, None),
                at(".bucket_id_builder.bucket_id_builder[\"k\"]"),
                "string_value or custom_value is required",
            ),
            (
                |m| known_by(m, Some(ValueSpecifier::CustomValue(Default::default()))),
                at(".bucket_id_builder.bucket_id_builder[\"k\"].custom_value.typed_config"),
                "is required",
            ),
            (
                |m| {
                    let other = extension("i", &Quota::default()).unwrap();
                    known_by(m, Some(ValueSpecifier::CustomValue(other)));
                },
                at(".bucket_id_builder.bucket_id_builder[\"k\"].custom_value.typed_config"),
                "envoy.type.matcher.v3.HttpRequestHeaderMatchInput, found",
            ),
            (
                |m| {
                    let input = HttpRequestHeaderMatchInput { header_name: "a b".into() };
                    known_by(m, Some(ValueSpecifier::CustomValue(extension("i", &input).unwrap())));
                },
                at(".bucket_id_builder.bucket_id_builder[\"k\"].custom_value.typed_config.header_name"),
                "header name",
            ),
            (
                |m| m.bucket_matchers = leading_to(&Quota::default()),
                BUCKET,
                "RateLimitQuotaBucketSettings, found",
            ),
            (|m| bucket(m, |b| b.reporting_interval = None), at(".reporting_interval"), "is required"),
            (
                |m| {
                    let short = Some(Duration { seconds: 0, nanos: 99_999_999 });
                    bucket(m, |b| b.reporting_interval = short);
                },
                at(".reporting_interval"),
                "is less than 100 ms",
            ),
            (
                |m| {
                    let wrong = Some(Duration { seconds: -1, nanos: 0 });
                    bucket(m, |b| b.reporting_interval = wrong);
                },
                at(".reporting_interval"),
                "not a valid duration",
            ),
            (|m| falling_back(m, None), at(".no_assignment_behavior.fallback_rate_limit"), "says nothing"),
            (
                |m| falling_back(m, Some(Strategy::BlanketRule(7))),
                at(".no_assignment_behavior.fallback_rate_limit.blanket_rule"),
                "7 is unknown",
            ),
            (
                |m| {
                    let rate = RequestsPerTimeUnit { requests_per_time_unit: 1, time_unit: 0 };
                    falling_back(m, Some(Strategy::RequestsPerTimeUnit(rate)));
                },
                at(".no_assignment_behavior.fallback_rate_limit.requests_per_time_unit.time_unit"),
                "must be SECOND, MINUTE, HOUR or DAY",
            ),
            (
                |m| falling_back(m, Some(Strategy::TokenBucket(Default::default()))),
                at(".no_assignment_behavior.fallback_rate_limit.token_bucket.max_tokens"),
                "must not be 0",
            ),
            (
                |m| expired(m, Default::default()),
                at(".expired_assignment_behavior"),
                "fallback_rate_limit or reuse_last_assignment is required",
            ),
            (
                |m| {
                    let timeout = Some(Duration::default());
                    expired(
                        m,
                        ExpiredAssignmentBehavior {
                            expired_assignment_behavior_timeout: timeout,
                            ..Default::default()
                        },
                    );
                },
                at(".expired_assignment_behavior.expired_assignment_behavior_timeout"),
                "greater than zero",
            ),
            (
                |m| {
                    let fallback = Expired::FallbackRateLimit(Default::default());
                    expired(
                        m,
                        ExpiredAssignmentBehavior {
                            expired_assignment_behavior: Some(fallback),
                            ..Default::default()
                        },
                    );
                },
                at(".expired_assignment_behavior.fallback_rate_limit"),
                "says nothing",
            ),
            (
                |m| {
                    let grpc_status = Some(Status::default());
                    denying(m, DenyResponseSettings { grpc_status, ..Default::default() });
                },
                at(".deny_response_settings.grpc_status"),
                "0 is not the code of an error",
            ),
            (
                |m| {
                    let grpc_status = Some(Status { code: 17, ..Default::default() });
                    denying(m, DenyResponseSettings { grpc_status, ..Default::default() });
                },
                at(".deny_response_settings.grpc_status"),
                "17 is not the code of an error",
            ),
            (
                |m| {
                    let response_headers_to_add = vec![to_path()];
                    denying(m, DenyResponseSettings { response_headers_to_add, ..Default::default() });
                },
                at(".deny_response_settings.response_headers_to_add[0].header.key"),
                "belongs to the transport",
            ),
        ],
    );
    let good = RateLimitQuotaOverride { bucket_matchers: good().bucket_matchers, ..Default::default() };
    refuses_override(
        &good,
        &[
            (|m| m.bucket_matchers = Some(Matcher::default()), ".bucket_matchers", "matches nothing"),
            (
                |m| m.bucket_matchers = leading_to(&Settings::default()),
                at(".reporting_interval"),
                "is required",
            ),
        ],
    );
}
