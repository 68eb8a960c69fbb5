//! The types of HTTP filters that are known (gRFC A39). To add one: a `KIND` in the `wire` of its file, an entry
//! in [`KINDS`], its variant in [`FilterConfig`](super::FilterConfig) and in `encode` below.

use super::{FilterConfig, FilterOverride};
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext, composite, ext_authz, fault, gcp_authn, jwt, local_rate_limit,
        rate_limit_quota, rbac, stateful_session, wire,
    },
};
use envoy_types::pb::{envoy::extensions::filters::http::router::v3::Router, google::protobuf::Any};

/// Which side a connection manager is on. A filter of the other side would be configured and never run, so
/// it is as good as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resource) enum Side {
    Client,
    Server,
}

/// What reading a filter depends on.
#[derive(Clone, Copy)]
pub(in crate::resource) struct Scope<'a> {
    pub(in crate::resource) context: &'a ParseContext,
    /// Of an override, the side is not known.
    pub(in crate::resource) side: Option<Side>,
    /// Filters that may still stand inside this one.
    pub(in crate::resource) depth: u8,
}

impl Scope<'_> {
    /// A filter that is not inside another. gRFC A103: at most 8 inside one another.
    pub(in crate::resource) fn new(context: &ParseContext, side: Option<Side>) -> Scope<'_> {
        Scope { context, side, depth: 8 }
    }
}

/// Reads a message.
pub(in crate::resource) type Read<T> = fn(&Any, &Scope<'_>, &Path<'_>, &mut Faults) -> Option<T>;

/// One type of filter.
pub(in crate::resource) struct Kind {
    /// Full name of its message.
    pub(in crate::resource) message: &'static str,
    /// Where it runs.
    pub(in crate::resource) sides: &'static [Side],
    /// What the data path must have; as good as unknown without.
    pub(in crate::resource) feature: Option<Feature>,
    /// Its configuration.
    pub(in crate::resource) read: Read<FilterConfig>,
    /// Full name of the message of its overrides, and how they are read.
    pub(in crate::resource) per_route: Option<(&'static str, Read<FilterOverride>)>,
}

pub(in crate::resource) const BOTH: &[Side] = &[Side::Client, Side::Server];
pub(in crate::resource) const CLIENT: &[Side] = &[Side::Client];
pub(in crate::resource) const SERVER: &[Side] = &[Side::Server];

static ROUTER: Kind = Kind {
    message: "envoy.extensions.filters.http.router.v3.Router",
    sides: BOTH,
    feature: None,
    read: |any, _, at, faults| wire::unpack::<Router>(any, at, faults).map(|_| FilterConfig::Router),
    per_route: None,
};

/// Every one.
pub(in crate::resource) static KINDS: &[&Kind] = &[
    &ROUTER,
    &fault::wire::KIND,
    &rbac::wire::KIND,
    &stateful_session::wire::KIND,
    &jwt::wire::KIND,
    &local_rate_limit::wire::KIND,
    &ext_authz::wire::KIND,
    &rate_limit_quota::wire::KIND,
    &gcp_authn::wire::KIND,
    &composite::wire::KIND,
];

impl Kind {
    /// Whether the data path that is read for can run it.
    pub(in crate::resource) fn runs(&self, scope: &Scope<'_>) -> bool {
        scope.side.is_none_or(|side| self.sides.contains(&side))
            && self.feature.is_none_or(|feature| scope.context.support.has(feature))
    }
}

/// Full name of the message in an `Any`.
pub(in crate::resource) fn message(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// The type of a filter by its message.
pub(in crate::resource) fn kind(type_url: &str) -> Option<&'static Kind> {
    let message = message(type_url);
    KINDS.iter().copied().find(|kind| kind.message == message)
}

/// The type of a filter by the message of its overrides, and how that is read.
pub(in crate::resource) fn per_route(type_url: &str) -> Option<(&'static Kind, Read<FilterOverride>)> {
    let message = message(type_url);
    KINDS.iter().copied().find_map(|kind| match kind.per_route {
        Some((name, read)) if name == message => Some((kind, read)),
        _ => None,
    })
}

/// A configuration, in its message.
pub(in crate::resource) fn encode(config: &FilterConfig) -> Any {
    match config {
        FilterConfig::Router => wire::any(&Router::default()),
        FilterConfig::Fault(fault) => wire::any(&fault::wire::encode(fault)),
        FilterConfig::Rbac(rbac) => rbac::wire::encode_any(rbac),
        FilterConfig::StatefulSession(session) => wire::any(&stateful_session::wire::encode(session)),
        FilterConfig::JwtAuthn(jwt) => jwt::wire::encode(jwt),
        FilterConfig::LocalRateLimit(limit) => wire::any(&local_rate_limit::wire::encode(limit)),
        FilterConfig::ExtAuthz(authz) => wire::any(&ext_authz::wire::encode(authz)),
        FilterConfig::RateLimitQuota(quota) => rate_limit_quota::wire::encode(quota),
        FilterConfig::GcpAuthn(gcp) => wire::any(&gcp_authn::wire::encode(gcp)),
        FilterConfig::Composite(composite) => composite::wire::encode(composite),
    }
}
