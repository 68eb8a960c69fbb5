//! Quotas of a rate limit service (gRFC A77).

pub(super) mod wire;

use super::{ext_authz::GrpcService, local_rate_limit::TokenBucket, route::HeaderAddition};
use crate::matcher::{Fraction, HeaderOrPseudo, MatcherTree};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// `envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitQuota {
    /// Who gives quotas.
    pub service: GrpcService,
    /// Whose quotas.
    pub domain: Arc<str>,
    /// Into which bucket a request falls; into none: it goes on.
    pub buckets: MatcherTree<Bucket>,
    /// Share of the requests that are counted. Default all.
    pub enabled: Fraction,
    /// Share of those over their quota that are refused. Default all.
    pub enforced: Fraction,
    /// To a request that is over its quota and not refused.
    pub request_headers: Vec<HeaderAddition>,
}

/// `RateLimitQuotaOverride`; what is absent stays.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaOverride {
    /// Whose quotas.
    pub domain: Option<Arc<str>>,
    /// Into which bucket a request falls.
    pub buckets: Option<MatcherTree<Bucket>>,
}

/// `RateLimitQuotaBucketSettings`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Which one: empty, requests are refused or let through as [`Self::no_assignment`] says.
    pub id: BTreeMap<Arc<str>, IdValue>,
    /// How often use is reported; at least 100 ms.
    pub reporting_interval: Duration,
    /// Until the service has answered. Default: all go on.
    pub no_assignment: QuotaLimit,
    /// When an answer has expired. Absent: as if there had been none.
    pub expired: Option<ExpiredQuota>,
    /// Of a refusal.
    pub deny: DenyResponse,
}

/// A part of what identifies a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdValue {
    /// This.
    Text(Arc<str>),
    /// The value of a request header.
    Header(HeaderOrPseudo),
}

/// `RateLimitStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaLimit {
    /// Everything goes on.
    AllowAll,
    /// Nothing does.
    DenyAll,
    /// So many.
    PerTime {
        /// Requests.
        requests: u64,
        /// Within: a second, minute, hour or day.
        per: Duration,
    },
    /// By a bucket.
    TokenBucket(TokenBucket),
}

/// What holds after an answer has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredQuota {
    /// For so long; absent: until the next answer.
    pub timeout: Option<Duration>,
    /// The limit; absent: the one that has expired.
    pub limit: Option<QuotaLimit>,
}

/// The status of a refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct DenyResponse {
    /// gRPC status code, 1..=16. Default 14, UNAVAILABLE.
    pub code: u32,
    /// Status message; may be empty.
    pub message: Arc<str>,
    /// Sent along.
    pub headers: Vec<HeaderAddition>,
}
