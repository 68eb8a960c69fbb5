//! Google's identity tokens for calls (gRFC A83).

pub(super) mod wire;

use std::num::NonZeroU64;

/// `envoy.extensions.filters.http.gcp_authn.v3.GcpAuthnFilterConfig`. Audiences stand in the metadata of
/// clusters, under the filter's instance name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcpAuthn {
    /// Tokens that are kept. Default 10.
    pub cache_size: NonZeroU64,
}
