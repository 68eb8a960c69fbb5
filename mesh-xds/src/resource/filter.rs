//! HTTP filters and their overrides (gRFC A39).
//!
//! An unknown required filter is a fault; an unknown optional one is skipped when parsed. One that the data path
//! does not have ([`Feature`](super::Feature)) is as good as unknown.

pub(super) mod registry;
pub(super) mod wire;

use super::{
    composite::{Composite, CompositeAction},
    ext_authz::ExtAuthz,
    fault::Fault,
    gcp_authn::GcpAuthn,
    jwt::JwtAuthn,
    local_rate_limit::LocalRateLimit,
    rate_limit_quota::{QuotaOverride, RateLimitQuota},
    rbac::Rbac,
    stateful_session::StatefulSession,
};
use crate::matcher::MatcherTree;
use std::{collections::BTreeMap, sync::Arc};

/// One entry of `http_filters`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpFilter {
    /// Instance name, unique in its connection manager; key of the overrides.
    pub name: Arc<str>,
    /// What it does.
    pub config: FilterConfig,
    /// Off unless an override turns it on.
    pub disabled: bool,
}

/// The filters that this crate knows.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterConfig {
    /// `envoy.extensions.filters.http.router.v3.Router`: terminal.
    Router,
    /// `envoy.extensions.filters.http.fault.v3.HTTPFault` (gRFC A33).
    Fault(Arc<Fault>),
    /// `envoy.extensions.filters.http.rbac.v3.RBAC` (gRFC A41).
    Rbac(Arc<Rbac>),
    /// `envoy.extensions.filters.http.stateful_session.v3.StatefulSession` (gRFC A55).
    StatefulSession(Arc<StatefulSession>),
    /// `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication`.
    JwtAuthn(Arc<JwtAuthn>),
    /// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.extensions.filters.http.ext_authz.v3.ExtAuthz` (gRFC A92).
    ExtAuthz(Arc<ExtAuthz>),
    /// `envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig` (gRFC A77).
    RateLimitQuota(Arc<RateLimitQuota>),
    /// `envoy.extensions.filters.http.gcp_authn.v3.GcpAuthnFilterConfig` (gRFC A83).
    GcpAuthn(Arc<GcpAuthn>),
    /// `envoy.extensions.common.matching.v3.ExtensionWithMatcher` around a Composite (gRFC A103).
    Composite(Arc<Composite>),
}

/// What replaces a filter's configuration at a more specific level; never merged.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterOverride {
    /// Off.
    Disabled,
    /// This instead.
    Config(FilterConfig),
    /// Of a JWT filter: this entry of its requirement map, instead of its rules.
    JwtRequirement(Arc<str>),
    /// Of an external authorization filter: sent along as `context_extensions`.
    CheckSettings(BTreeMap<Arc<str>, Arc<str>>),
    /// Of a rate limit quota filter.
    RateLimitQuota(Arc<QuotaOverride>),
    /// Of a composite filter: this matcher instead.
    Composite(Arc<MatcherTree<CompositeAction>>),
}

/// `typed_per_filter_config`, by filter instance name. Precedence: weighted cluster, route, virtual host.
pub type FilterOverrides = BTreeMap<Arc<str>, FilterOverride>;
