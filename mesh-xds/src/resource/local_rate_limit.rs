//! Token buckets in the process (Envoy's local rate limit filter).

pub(super) mod wire;

use super::route::HeaderAddition;
use crate::matcher::Fraction;
use std::{num::NonZeroU32, time::Duration};

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalRateLimit {
    /// Absent: the filter does nothing.
    pub bucket: Option<TokenBucket>,
    /// Share of the requests that are counted. Default none.
    pub enabled: Fraction,
    /// Share of those over the limit that are refused. Default none.
    pub enforced: Fraction,
    /// HTTP status of a refusal, mapped to a gRPC one. Default 429.
    pub status: u16,
    /// A refusal is RESOURCE_EXHAUSTED, whatever [`Self::status`] maps to.
    pub resource_exhausted: bool,
    /// To the request when it is over the limit and not refused.
    pub request_headers: Vec<HeaderAddition>,
    /// To the response when it is over the limit.
    pub response_headers: Vec<HeaderAddition>,
    /// Each connection has a bucket of its own.
    pub per_connection: bool,
}

/// `envoy.type.v3.TokenBucket`: full at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Tokens that it holds.
    pub max_tokens: NonZeroU32,
    /// Tokens that are added each time. Default 1.
    pub tokens_per_fill: NonZeroU32,
    /// Time between; not zero.
    pub fill_interval: Duration,
}
