//! What is implemented of each gRFC that concerns xDS, by side.

use crate::resource::Feature;

/// How far it is implemented on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// All that the text asks.
    Whole,
    /// With the gaps of the remark.
    Part,
    /// Not at all.
    None,
    /// That side has nothing to do.
    NotConcerned,
    /// Parsed here; carried out by a data path with the feature.
    Needs(Feature),
}

/// One text.
#[derive(Clone, Copy, Debug)]
pub struct Grfc {
    /// `A27`.
    pub name: &'static str,
    /// Its subject.
    pub about: &'static str,
    /// On channels.
    pub client: Reach,
    /// On servers.
    pub server: Reach,
    /// In the control plane.
    pub control_plane: Reach,
    /// Gaps and choices.
    pub remark: &'static str,
}

const fn grfc(
    name: &'static str,
    about: &'static str,
    [client, server, control_plane]: [Reach; 3],
    remark: &'static str,
) -> Grfc {
    Grfc { name, about, client, server, control_plane, remark }
}

use Reach::{Needs, None as No, NotConcerned as Na, Part, Whole as Yes};

/// In the order of their numbers.
pub static GRFCS: &[Grfc] = &[
    grfc(
        "A6",
        "retries and hedging",
        [Needs(Feature::Hedging), Na, Na],
        "by retry_policy and hedge_policy; what service configs would say, by the program: retry_throttling, hedging; \
         the retry budget bounds all of it",
    ),
    grfc(
        "A8",
        "keepalive of connections",
        [Yes, Na, No],
        "by Envoy's connection_keepalive; Istio has no setting for it",
    ),
    grfc(
        "A17",
        "client-side health checking",
        [Yes, Na, Na],
        "by `MeshBuilder::client_health_checking`, as there is no service config; `pick_first` does not look at it",
    ),
    grfc("A24", "choice of a load-balancing policy", [Part, Na, Na], "from xDS; there is no service config"),
    grfc(
        "A27",
        "LDS, RDS, CDS, EDS, LRS; localities, priorities, drops",
        [Yes, Na, Yes],
        "a data path asks by name; a program may ask for everything of LDS and CDS, by the wildcard `*` of Envoy's xDS \
         protocol (`XdsClient::all_clusters`, `all_listeners`), and `mesh-server` serves it",
    ),
    grfc(
        "A28",
        "traffic splitting and routing",
        [Yes, Yes, Yes],
        "query parameters are evaluated instead of passed over",
    ),
    grfc("A29", "TLS", [Yes, Yes, Yes], ""),
    grfc("A30", "xDS v3", [Yes, Yes, Yes], ""),
    grfc("A31", "timeouts, config selector", [Yes, Na, Yes], ""),
    grfc("A32", "circuit breaking", [Yes, Na, Yes], ""),
    grfc("A33", "fault injection", [Yes, Na, Yes], ""),
    grfc("A36", "servers", [Na, Yes, Yes], ""),
    grfc(
        "A37",
        "aggregate clusters and logical DNS",
        [Needs(Feature::AggregateCluster), Na, Part],
        "logical DNS for ServiceEntries; no aggregate clusters are made",
    ),
    grfc("A38", "admin interface", [Part, Part, Na], "client status (A40); there is no channelz"),
    grfc("A39", "HTTP filters", [Yes, Yes, Yes], ""),
    grfc("A40", "client status discovery (CSDS)", [Yes, Yes, Yes], ""),
    grfc("A41", "RBAC", [Na, Yes, Yes], ""),
    grfc("A42", "ring hash", [Needs(Feature::RingHash), Na, Yes], ""),
    grfc("A43", "authorization without xDS", [Na, No, Na], ""),
    grfc("A44", "retry policy", [Yes, Na, Yes], "and Envoy's further fields"),
    grfc("A46", "better NACKs", [Yes, Yes, Yes], "all faults of all resources of a response are reported"),
    grfc(
        "A47",
        "federation",
        [Yes, Yes, No],
        "by name; a collection (`xdstp:` glob) is an error at once; the wildcard is of names without an authority",
    ),
    grfc("A48", "least request", [Yes, Na, Yes], ""),
    grfc("A50", "outlier detection", [Yes, Na, Yes], ""),
    grfc(
        "A51",
        "ORCA",
        [Needs(Feature::ClientSideWeightedRoundRobin), Yes, Na],
        "servers: `mesh_client::orca`, with responses and out of band",
    ),
    grfc("A52", "custom load balancing", [Part, Na, Yes], "the policies below; a program cannot add its own"),
    grfc("A53", "ignore_resource_deletion", [Yes, Yes, Na], "superseded by A88"),
    grfc("A54", "status codes of control planes", [Yes, Na, Na], ""),
    grfc(
        "A55",
        "stateful sessions",
        [Needs(Feature::StatefulSession), Na, Yes],
        "retries leave the session and ejection ends it, as in Envoy; one address of an endpoint is told (A75 tells all)",
    ),
    grfc("A56", "priorities", [Yes, Na, Na], ""),
    grfc(
        "A57",
        "failure modes of the xDS client",
        [Yes, Yes, Na],
        "unlike gRPC's: a response that cannot be read is a failure, whatever was read before it; the 15 s of a \
         resource go on over streams that end well; a new stream says a version only if all that it names is held",
    ),
    grfc(
        "A58",
        "client-side weighted round robin",
        [Needs(Feature::ClientSideWeightedRoundRobin), Yes, No],
        "",
    ),
    grfc("A59", "audit logging", [Na, Needs(Feature::AuditLogging), No], "the logger to standard output"),
    grfc("A60", "stateful sessions and weighted clusters", [Needs(Feature::StatefulSession), Na, Yes], ""),
    grfc("A61", "several addresses of an endpoint", [Yes, Na, Yes], ""),
    grfc("A62", "pick first", [Yes, Na, No], ""),
    grfc("A63", "string matchers", [Yes, Yes, Yes], ""),
    grfc(
        "A64",
        "metrics in load reports",
        [Needs(Feature::LoadReporting), Na, Part],
        "summed up as reported; no configuration asks for them",
    ),
    grfc("A65", "mTLS to the control plane", [Yes, Yes, Yes], ""),
    grfc("A66", "metrics", [No, No, Na], ""),
    grfc("A68", "random subsetting", [Needs(Feature::RandomSubsetting), Na, No], ""),
    grfc("A69", "certificate revocation lists", [No, No, Na], ""),
    grfc(
        "A71",
        "fallback between control planes",
        [Yes, Yes, Na],
        "a view is of one of them, never of two, on disk neither; load reports follow",
    ),
    grfc("A72", "traces", [No, No, Na], ""),
    grfc("A74", "coherent configuration", [Yes, Yes, Na], ""),
    grfc(
        "A75",
        "aggregate clusters, once more",
        [Needs(Feature::AggregateCluster), Na, No],
        "sessions are looked for in every priority of the leaf in use",
    ),
    grfc("A76", "ring hash, improved", [Needs(Feature::RingHash), Na, No], ""),
    grfc("A77", "rate limit quotas (draft)", [Na, Needs(Feature::RateLimitQuota), No], ""),
    grfc("A78", "metrics of balancing and of the xDS client", [No, No, Na], ""),
    grfc(
        "A79",
        "metrics of what is not a call",
        [No, No, Na],
        "no plugins; what is counted is in `Mesh::status()`",
    ),
    grfc("A81", "rewriting of the authority", [Yes, Na, Yes], ""),
    grfc(
        "A82",
        "the system's root certificates",
        [Yes, Na, Yes],
        "read once by a process; a context that does not name the server is rejected",
    ),
    grfc("A83", "Google's identity tokens", [Needs(Feature::GcpAuthn), Na, No], ""),
    grfc(
        "A85",
        "metrics in load reports, changed",
        [Needs(Feature::LoadReporting), Na, Part],
        "summed up as reported; no configuration asks for them",
    ),
    grfc(
        "A86",
        "HTTP CONNECT",
        [Needs(Feature::HttpConnect), Na, No],
        "also Envoy's `default_proxy_address`; no configuration asks for it",
    ),
    grfc("A87", "SPIFFE bundle maps", [Yes, Yes, Na], "own certificates included"),
    grfc(
        "A88",
        "errors of data",
        [Yes, Yes, Yes],
        "`mesh-server` says why something is not there, with the line of the YAML",
    ),
    grfc("A89", "metrics by backend service", [No, Na, Na], ""),
    grfc("A91", "metrics of outlier detection", [No, Na, Na], ""),
    grfc(
        "A92",
        "external authorization (draft)",
        [Needs(Feature::ExtAuthz), Needs(Feature::ExtAuthz), No],
        "",
    ),
    grfc("A93", "external processing (draft)", [No, No, No], ""),
    grfc("A94", "metrics of subchannels", [No, Na, Na], ""),
    grfc("A95", "collections of endpoints", [Part, Na, No], "fallback_on_reachability_only"),
    grfc("A96", "metrics of call credentials", [No, Na, Na], ""),
    grfc("A97", "tokens to the control plane", [Yes, Yes, No], ""),
    grfc(
        "A100",
        "slow start of weighted round robin (draft)",
        [Needs(Feature::SlowStart), Na, Part],
        "`warmup` is sent for round robin and least request; no configuration asks for the policy of A58",
    ),
    grfc("A101", "server names in TLS", [Yes, Na, Yes], ""),
    grfc(
        "A102",
        "services that filters call (draft)",
        [Needs(Feature::ExtAuthz), Needs(Feature::ExtAuthz), No],
        "",
    ),
    grfc(
        "A103",
        "composite filter",
        [Needs(Feature::CompositeFilter), Needs(Feature::CompositeFilter), No],
        "",
    ),
    grfc("A104", "filters by discovery (draft)", [No, No, No], ""),
    grfc("A105", "several connections to an endpoint", [Yes, Na, No], ""),
    grfc(
        "A106",
        "matcher trees and CEL (draft)",
        [Part, Part, No],
        "matcher trees over headers, for the filters that hold them; CEL is refused",
    ),
    grfc("A107", "TLS private keys elsewhere", [No, No, Na], ""),
    grfc("A108", "metrics of pick first", [No, Na, Na], ""),
    grfc("A109", "a filter of metrics (draft)", [No, Na, Na], ""),
    grfc("A111", "host_rewrite_literal (draft)", [Yes, Na, Yes], ""),
    grfc("A113", "weighted shuffling of pick first", [Yes, Na, Na], ""),
    grfc(
        "A114",
        "weighted round robin by custom metrics",
        [Needs(Feature::ClientSideWeightedRoundRobin), Na, No],
        "",
    ),
    grfc("A115", "priorities without a cache", [Yes, Na, Na], ""),
    grfc("A117", "ring hash from a random place (draft)", [Needs(Feature::RingHash), Na, No], ""),
    grfc("A118", "metrics of TLS", [No, No, Na], ""),
];
