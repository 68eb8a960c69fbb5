//! An authorization service is asked about each call (gRFC A92, A102).

pub(super) mod grpc_service;
pub(super) mod wire;

pub use grpc_service::{Credentials, GrpcService};

use crate::matcher::{Fraction, FullRegex, StringMatcher};

/// `envoy.extensions.filters.http.ext_authz.v3.ExtAuthz`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: GrpcService,
    /// Share of the calls that are asked about. Default all.
    pub enabled: Fraction,
    /// What becomes of the others.
    pub deny_at_disable: bool,
    /// A call goes on when the service cannot be asked.
    pub failure_mode_allow: bool,
    /// Such a call gets the header `x-envoy-auth-failure-mode-allowed: true`.
    pub failure_mode_allow_header: bool,
    /// HTTP status of a call that fails because the service cannot be asked, mapped to a gRPC one. Default 403.
    pub status_on_error: u16,
    /// Headers that are told to the service; empty: all.
    pub allowed_headers: Vec<StringMatcher>,
    /// Headers that are not, whatever [`Self::allowed_headers`] says.
    pub disallowed_headers: Vec<StringMatcher>,
    /// What the service may change.
    pub mutation_rules: MutationRules,
    /// The certificate of the caller is told to the service.
    pub include_peer_certificate: bool,
}

/// `HeaderMutationRules`: which headers may be changed. Pseudo headers and `host` never.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MutationRules {
    /// None may, but for [`Self::allow`].
    pub disallow_all: bool,
    /// These may in any case, unless disallowed.
    pub allow: Option<FullRegex>,
    /// These may not.
    pub disallow: Option<FullRegex>,
    /// A change that is not allowed fails the call instead of being left out.
    pub disallow_is_error: bool,
}
