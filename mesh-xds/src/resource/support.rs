//! What the data path behind a parser can do, beyond the core that every data path here has.
//!
//! Everything in this crate's vocabulary is parsed. Whether it may be *used* is for the owner of the data path
//! to say: a resource that needs a [`Feature`] which is not in its [`Support`] is rejected with the field that
//! needs it (or, where a gRFC says so, skipped), never taken and ignored.

use crate::field_path::{Faults, Path};

macro_rules! features {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// One capability of a data path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Feature {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As it stands in node metadata and in `docs/xds-support.md`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

features! {
    /// Clusters of clusters (gRFC A37, A75).
    AggregateCluster = "aggregate-cluster",
    /// Clusters whose endpoints stand in the cluster itself.
    StaticCluster = "static-cluster",
    /// One endpoint behind a name (gRFC A37).
    LogicalDns = "logical-dns",
    /// An endpoint for each address of a name.
    StrictDns = "strict-dns",
    /// Consistent hashing over a ring (gRFC A42, A76).
    RingHash = "ring-hash",
    /// Consistent hashing by Maglev's table.
    Maglev = "maglev",
    /// Weights from the load that endpoints report (gRFC A58, A51).
    ClientSideWeightedRoundRobin = "client-side-weighted-round-robin",
    /// A subset of the endpoints, chosen by each client for itself (gRFC A68).
    RandomSubsetting = "random-subsetting",
    /// New endpoints warm up (Envoy's `slow_start_config`).
    SlowStart = "slow-start",
    /// Calls in flight weigh against an endpoint's weight (Envoy's `active_request_bias`).
    LeastRequestBias = "least-request-bias",
    /// Zone-aware routing (Envoy's `zone_aware_lb_config`).
    ZoneAware = "zone-aware",
    /// Active health checks by `grpc.health.v1` (Envoy's `health_checks`).
    HealthChecks = "health-checks",
    /// Outlier detection counts failures made here in its statistics, and adds jitter to ejections (Envoy).
    LocalOriginOutliers = "local-origin-outliers",
    /// Outlier detection is told which HTTP codes are errors (Envoy's `error_matcher`).
    OutlierErrorCodes = "outlier-error-codes",
    /// Certificates and roots of clients from the control plane (Envoy's SDS, over ADS).
    Sds = "sds",
    /// Certificates, roots and revocation lists of clients from files that contexts name (Envoy's `filename`).
    CertificateFiles = "certificate-files",
    /// Connections through an HTTP CONNECT proxy (gRFC A86).
    HttpConnect = "http-connect",
    /// Connections that begin with a header of the PROXY protocol (Envoy's `ProxyProtocolUpstreamTransport`).
    ProxyProtocol = "proxy-protocol",
    /// Load reports to the control plane (LRS; gRFC A27, A64, A85).
    LoadReporting = "load-reporting",
    /// Hashing of cookies, query parameters and the peer's address (Envoy's `hash_policy`).
    HashPolicies = "hash-policies",
    /// Redirects, reported as the status they map to.
    Redirect = "redirect",
    /// Answers without an endpoint.
    DirectResponse = "direct-response",
    /// The cluster is named by a request header.
    ClusterHeader = "cluster-header",
    /// Calls of priority HIGH, for which circuit breakers have limits of their own (Envoy).
    HighPriority = "high-priority",
    /// Hedged attempts (gRFC A6).
    Hedging = "hedging",
    /// Session affinity (gRFC A55, A60): filter and override-host balancing.
    StatefulSession = "stateful-session",
    /// JSON Web Tokens (`envoy.filters.http.jwt_authn`).
    JwtAuthn = "jwt-authn",
    /// Token buckets in the process (`envoy.filters.http.local_ratelimit`).
    LocalRateLimit = "local-rate-limit",
    /// An authorization service is asked (gRFC A92).
    ExtAuthz = "ext-authz",
    /// Quotas from a rate limit service (gRFC A77).
    RateLimitQuota = "rate-limit-quota",
    /// Google's identity tokens (gRFC A83).
    GcpAuthn = "gcp-authn",
    /// Filters chosen by the request (gRFC A103).
    CompositeFilter = "composite-filter",
    /// Audit loggers of RBAC (gRFC A59).
    AuditLogging = "audit-logging",
}

/// A set of features. The default is the empty one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Support(u64);

impl Support {
    /// Nothing beyond the core.
    pub const NONE: Self = Self(0);

    /// Everything in the vocabulary: for tools that read configuration and do not carry it out.
    pub const fn all() -> Self {
        Self::of(Feature::ALL)
    }

    /// These.
    pub const fn of(features: &[Feature]) -> Self {
        let (mut bits, mut rest) = (0, features);
        while let [first, others @ ..] = rest {
            bits |= 1 << *first as u32;
            rest = others;
        }
        Self(bits)
    }

    /// Whether it is one of them.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |feature| self.has(*feature))
    }

    /// Rejects what stands at `at` unless the feature is there.
    pub(crate) fn require(self, feature: Feature, at: &Path<'_>, faults: &mut Faults) -> Option<()> {
        if self.has(feature) {
            return Some(());
        }
        faults.reject(at, format_args!("this client does not have {} ({feature:?})", feature.name()))
    }
}

impl std::fmt::Debug for Support {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

const _: () = assert!(Feature::ALL.len() <= 64, "a Support has 64 bits");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_has_what_it_was_made_of_and_nothing_else() {
        let set = Support::of(&[Feature::RingHash, Feature::AuditLogging]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Feature::RingHash, Feature::AuditLogging]);
        assert!(!set.has(Feature::Maglev));
        assert_eq!(Support::all().iter().count(), Feature::ALL.len());
        assert_eq!(Support::NONE.iter().count(), 0);
    }

    #[test]
    fn every_name_is_used_once() {
        let names: BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        assert_eq!(names.len(), Feature::ALL.len());
    }
}
