//! GcpAuthnFilterConfig, to and from protobuf.

use super::GcpAuthn;
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature,
        filter::{
            FilterConfig,
            registry::{CLIENT, Kind},
        },
        wire,
    },
};
use envoy_types::pb::{
    envoy::extensions::filters::http::gcp_authn::v3::{self as proto, TokenCacheConfig},
    google::protobuf::UInt64Value,
};
use std::{num::NonZeroU64, sync::Arc};

/// gRFC A83.
const DEFAULT_CACHE_SIZE: u64 = 10;

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.filters.http.gcp_authn.v3.GcpAuthnFilterConfig",
    sides: CLIENT,
    feature: Some(Feature::GcpAuthn),
    read: |any, _, at, faults| {
        let gcp = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterConfig::GcpAuthn(Arc::new(gcp)))
    },
    per_route: None,
};

fn parse(proto: &proto::GcpAuthnFilterConfig, at: &Path<'_>, faults: &mut Faults) -> Option<GcpAuthn> {
    let size = proto.cache_config.as_ref().and_then(|cache| cache.cache_size.as_ref());
    let size = size.map_or(DEFAULT_CACHE_SIZE, |size| size.value);
    let fits = i64::try_from(size).is_ok();
    match NonZeroU64::new(size).filter(|_| fits) {
        Some(cache_size) => Some(GcpAuthn { cache_size }),
        None => {
            let at = at.field("cache_config");
            faults
                .reject(&at.field("cache_size"), format_args!("{size} is not within 1..=9223372036854775807"))
        }
    }
}

pub(in crate::resource) fn encode(gcp: &GcpAuthn) -> proto::GcpAuthnFilterConfig {
    let cache_size = Some(UInt64Value { value: gcp.cache_size.get() });
    proto::GcpAuthnFilterConfig { cache_config: Some(TokenCacheConfig { cache_size }), ..Default::default() }
}
