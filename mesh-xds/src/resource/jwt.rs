//! JSON Web Tokens of requests (Envoy's JWT filter, which Istio's RequestAuthentication becomes).

pub(super) mod wire;

use super::route::{HeaderName, RouteMatch};
use crate::matcher::StringMatcher;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication`.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtAuthn {
    /// Who issues tokens, by name.
    pub providers: BTreeMap<Arc<str>, Arc<JwtProvider>>,
    /// The first that matches a request says what it must bring; without one it need not bring anything.
    pub rules: Vec<JwtRule>,
    /// For [`FilterOverride::JwtRequirement`](super::filter::FilterOverride).
    pub requirements: BTreeMap<Arc<str>, JwtRequirement>,
}

/// One issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtProvider {
    /// What `iss` must be; absent: anything.
    pub issuer: Option<Arc<str>>,
    /// `aud` must hold one of these; empty: anything.
    pub audiences: Vec<Arc<str>>,
    /// What `sub` must be.
    pub subjects: Option<StringMatcher>,
    /// A token without `exp` is refused.
    pub require_expiration: bool,
    /// Longest time between `iat` and `exp`.
    pub max_lifetime: Option<Duration>,
    /// How far clocks may differ. Default 60 s.
    pub clock_skew: Duration,
    /// Its keys.
    pub keys: Jwks,
    /// The token stays in the request.
    pub forward: bool,
    /// Headers to look in; with the query parameters and cookies empty as well: `Authorization: Bearer …` and the
    /// query parameter `access_token`.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters to look in.
    pub from_params: Vec<Arc<str>>,
    /// Cookies to look in.
    pub from_cookies: Vec<Arc<str>>,
    /// Header that the payload (base64url) is handed on in.
    pub payload_header: Option<HeaderName>,
    /// That payload is padded.
    pub pad_payload_header: bool,
    /// Metadata key that the payload is handed on under, to filters behind.
    pub payload_in_metadata: Option<Arc<str>>,
    /// Claims whose text becomes a list, split at spaces, in that metadata.
    pub space_delimited_claims: Vec<Arc<str>>,
    /// Headers that claims are handed on in.
    pub claims: Vec<ClaimToHeader>,
}

/// Keys of an issuer.
#[derive(Clone, Debug, PartialEq)]
pub enum Jwks {
    /// A JSON Web Key Set, as text: an object with the list `keys`.
    Local(Arc<str>),
    /// Fetched.
    Remote(RemoteJwks),
}

/// Keys that are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteJwks {
    /// Where.
    pub uri: http::Uri,
    /// The cluster that is asked.
    pub cluster: crate::name::Name,
    /// Bound of a fetch.
    pub timeout: Duration,
    /// How long they are good. Default 10 min.
    pub cache_duration: Duration,
    /// Fetched before the first request that needs them.
    pub prefetch: Option<Prefetch>,
}

/// `JwksAsyncFetch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// The listener does not wait for them.
    pub fast_listener: bool,
    /// Wait after a fetch that failed. Default 1 s.
    pub failed_refetch: Duration,
}

/// A header that may hold a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtHeader {
    /// Its name.
    pub name: HeaderName,
    /// What stands before the token, `Bearer ` for example; may be empty.
    pub prefix: Arc<str>,
}

/// A claim that is handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimToHeader {
    /// In this header.
    pub header: HeaderName,
    /// The way to the claim.
    pub claim: Claim,
}

/// The way to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Names that are separated by `.`.
    Name(Arc<str>),
    /// Names one by one, which may hold a `.`; at least one.
    Path(Vec<Arc<str>>),
}

/// What some requests must bring.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtRule {
    /// Which.
    pub matches: RouteMatch,
    /// What; absent: nothing.
    pub requires: Option<JwtRequirement>,
}

/// What a request must bring.
#[derive(Clone, Debug, PartialEq)]
pub enum JwtRequirement {
    /// A valid token of a provider.
    Provider {
        /// One of [`JwtAuthn::providers`].
        name: Arc<str>,
        /// Instead of the provider's.
        audiences: Option<Vec<Arc<str>>>,
    },
    /// One of these; at least two.
    Any(Vec<JwtRequirement>),
    /// All of these; at least two.
    All(Vec<JwtRequirement>),
    /// Nothing; but a token that is there must be valid.
    AllowMissing,
    /// Nothing.
    AllowMissingOrFailed,
}
