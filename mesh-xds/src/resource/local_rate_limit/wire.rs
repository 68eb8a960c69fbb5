//! LocalRateLimit, to and from protobuf.

use super::{LocalRateLimit, TokenBucket};
use crate::{
    field_path::{Faults, Path},
    matcher::Fraction,
    resource::{
        Feature,
        filter::{
            FilterConfig, FilterOverride,
            registry::{Kind, SERVER},
        },
        route::wire::headers,
        wire,
    },
};
use envoy_types::pb::envoy::{
    config::core::v3::RuntimeFractionalPercent,
    extensions::filters::http::local_ratelimit::v3 as proto,
    r#type::v3::{self as kinds, HttpStatus},
};
use std::{num::NonZeroU32, sync::Arc};

const MESSAGE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const TOO_MANY_REQUESTS: u16 = 429;

pub(in crate::resource) static KIND: Kind = Kind {
    message: MESSAGE,
    sides: SERVER,
    feature: Some(Feature::LocalRateLimit),
    read: |any, _, at, faults| {
        let limit = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterConfig::LocalRateLimit(Arc::new(limit)))
    },
    per_route: Some((MESSAGE, |any, _, at, faults| {
        let limit = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterOverride::Config(FilterConfig::LocalRateLimit(Arc::new(limit))))
    })),
};

fn parse(proto: &proto::LocalRateLimit, at: &Path<'_>, faults: &mut Faults) -> Option<LocalRateLimit> {
    for (unsupported, field) in [
        (!proto.descriptors.is_empty(), "descriptors"),
        (!proto.rate_limits.is_empty(), "rate_limits"),
        (proto.local_cluster_rate_limit.is_some(), "local_cluster_rate_limit"),
        (proto.enable_x_ratelimit_headers != 0, "enable_x_ratelimit_headers"),
        (proto.enable_retry_after_header, "enable_retry_after_header"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let bucket = match &proto.token_bucket {
        Some(bucket) => token_bucket(bucket, &at.field("token_bucket"), faults).map(Some),
        None => Some(None),
    };
    let enabled = share(&proto.filter_enabled, &at.field("filter_enabled"), faults);
    let enforced = share(&proto.filter_enforced, &at.field("filter_enforced"), faults);
    let request_headers = headers::additions(
        &proto.request_headers_to_add_when_not_enforced,
        &at.field("request_headers_to_add_when_not_enforced"),
        faults,
    );
    let response_headers =
        headers::additions(&proto.response_headers_to_add, &at.field("response_headers_to_add"), faults);
    Some(LocalRateLimit {
        bucket: bucket?,
        enabled: enabled?,
        enforced: enforced?,
        // Envoy: a status below 400 is 429.
        status: wire::http_status(&proto.status, &at.field("status"), faults)?
            .filter(|status| *status >= 400)
            .unwrap_or(TOO_MANY_REQUESTS),
        resource_exhausted: proto.rate_limited_as_resource_exhausted,
        request_headers: request_headers?,
        response_headers: response_headers?,
        per_connection: proto.local_rate_limit_per_downstream_connection,
    })
}

/// Absent: none, as in Envoy.
fn share(proto: &Option<RuntimeFractionalPercent>, at: &Path<'_>, faults: &mut Faults) -> Option<Fraction> {
    match proto {
        Some(fraction) => wire::runtime_fraction(fraction, at, faults),
        None => Some(Fraction::ZERO),
    }
}

pub(in crate::resource) fn token_bucket(
    proto: &kinds::TokenBucket,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<TokenBucket> {
    let positive = |value: u32, field: &str, faults: &mut Faults| match NonZeroU32::new(value) {
        None => faults.reject(&at.field(field), "must not be 0"),
        some => some,
    };
    let max_tokens = positive(proto.max_tokens, "max_tokens", faults);
    let per_fill = proto.tokens_per_fill.as_ref().map_or(1, |tokens| tokens.value);
    let tokens_per_fill = positive(per_fill, "tokens_per_fill", faults);
    let interval_at = at.field("fill_interval");
    faults.required(&interval_at, &proto.fill_interval)?;
    let fill_interval = wire::positive_duration(&proto.fill_interval, &interval_at, faults);
    Some(TokenBucket {
        max_tokens: max_tokens?,
        tokens_per_fill: tokens_per_fill?,
        fill_interval: fill_interval?,
    })
}

pub(in crate::resource) fn token_bucket_proto(bucket: &TokenBucket) -> kinds::TokenBucket {
    kinds::TokenBucket {
        max_tokens: bucket.max_tokens.get(),
        tokens_per_fill: wire::u32_value(bucket.tokens_per_fill.get()),
        fill_interval: Some(wire::duration_proto(bucket.fill_interval)),
    }
}

pub(in crate::resource) fn encode(limit: &LocalRateLimit) -> proto::LocalRateLimit {
    proto::LocalRateLimit {
        // Envoy demands one.
        stat_prefix: "local_rate_limit".into(),
        status: Some(HttpStatus { code: limit.status.into() }),
        token_bucket: limit.bucket.as_ref().map(token_bucket_proto),
        filter_enabled: Some(wire::runtime_fraction_proto(limit.enabled)),
        filter_enforced: Some(wire::runtime_fraction_proto(limit.enforced)),
        request_headers_to_add_when_not_enforced: headers::encode_additions(&limit.request_headers),
        response_headers_to_add: headers::encode_additions(&limit.response_headers),
        local_rate_limit_per_downstream_connection: limit.per_connection,
        rate_limited_as_resource_exhausted: limit.resource_exhausted,
        ..Default::default()
    }
}
