//! Routes (gRFC A27, A28, A31, A36, A42, A44 and the fields of Envoy that Istio uses).

mod matching;
mod mutation;
mod redirect;
mod rewrite;
pub(super) mod wire;

use super::{
    Origin,
    filter::FilterOverrides,
    retry::{HedgePolicy, RetryPolicy},
};
use crate::{
    matcher::{DomainPattern, Fraction, HeaderMatcher, PathMatcher, StringMatcher},
    name::Name,
};
use bytes::Bytes;
pub use http::{HeaderName, HeaderValue};
pub use matching::Miss;
pub use redirect::{Redirect, RedirectPath};
pub use rewrite::RegexRewrite;
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// `envoy.config.route.v3.RouteConfiguration`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfiguration {
    /// Resource name.
    pub name: Name,
    /// In order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Applied after the virtual host's.
    pub headers: HeaderMutations,
    /// `most_specific_header_mutations_wins`: header changes are applied from the least specific level to the
    /// most specific one, instead of the other way round.
    pub most_specific_headers_last: bool,
    /// `ignore_port_in_host_matching`.
    pub ignore_port: bool,
    /// Longest body of a direct response, in bytes; absent: 4096.
    pub max_direct_response_body: Option<u32>,
}

/// The routes of some domains.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    /// For logs and explanations.
    pub name: Arc<str>,
    /// At least one; unique over the whole RouteConfiguration.
    pub domains: Vec<DomainPattern>,
    /// The first that matches wins.
    pub routes: Vec<Arc<Route>>,
    /// For routes without their own.
    pub retry: Option<Arc<RetryPolicy>>,
    /// For routes without their own.
    pub hedge: Option<HedgePolicy>,
    /// Filter overrides.
    pub overrides: FilterOverrides,
    /// Applied after the route's.
    pub headers: HeaderMutations,
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// For logs and explanations; may be empty.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What happens to them.
    pub action: RouteAction,
    /// Filter overrides.
    pub overrides: FilterOverrides,
    /// Applied after the weighted cluster's.
    pub headers: HeaderMutations,
    /// Where it was written: `reviews.yaml:12:5 VirtualService default/reviews`. From
    /// `metadata.filter_metadata["io.mesh"].origin`.
    pub origin: Option<Origin>,
}

/// Which requests a route is for: all of these hold.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatcher,
    /// Every one.
    pub headers: Vec<HeaderMatcher>,
    /// Every one. gRPC clients skip such a route (A28); this one evaluates it.
    pub query: Vec<QueryMatcher>,
    /// Share of the requests that match otherwise.
    pub fraction: Option<Fraction>,
}

/// A predicate over one query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatcher {
    /// Parameter name.
    pub name: Arc<str>,
    /// Asked of its value; absent: it only has to be there.
    pub value: Option<StringMatcher>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction {
    /// Sent to a cluster.
    Forward(Box<Forward>),
    /// Served here (a server's route).
    NonForwarding,
    /// Answered here ([`Feature::DirectResponse`](super::Feature)).
    DirectResponse(Arc<DirectResponse>),
    /// Sent elsewhere ([`Feature::Redirect`](super::Feature)).
    Redirect(Arc<Redirect>),
    /// An action that the data path does not have (`redirect`, `direct_response`, …): the call fails
    /// UNAVAILABLE and says so (gRFC A28). Holds the field's name.
    Unsupported(&'static str),
}

/// An answer without an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// HTTP status, 200..=599.
    pub status: u16,
    /// At most [`RouteConfiguration::max_direct_response_body`] bytes.
    pub body: Bytes,
}

/// Where to and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Which cluster.
    pub destination: Destination,
    /// Envoy's `timeout`. gRPC clients ignore it (A31), and so does ours; Envoys need it.
    pub timeout: Option<Duration>,
    /// Bound of the whole call; zero is none. Masked by `grpc_timeout_header_max`.
    pub max_stream_duration: Option<Duration>,
    /// Bound of the whole call; zero is none.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Which circuit breakers its calls count against.
    pub priority: RoutingPriority,
    /// Replaces the virtual host's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Replaces the virtual host's.
    pub hedge: Option<HedgePolicy>,
    /// For consistent hashing.
    pub hash: Vec<HashPolicy>,
    /// `host_rewrite_literal`: sent as `:authority`.
    pub authority: Option<HeaderValue>,
    /// `:authority` becomes the endpoint's hostname.
    pub auto_host_rewrite: bool,
    /// The path sent.
    pub path_rewrite: Option<PathRewrite>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
}

/// Which of a cluster's limits calls count against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingPriority {
    /// Those of all calls that nothing is said of.
    #[default]
    Default,
    /// Those of priority HIGH ([`Feature::HighPriority`](super::Feature)).
    High,
}

/// Which cluster a request goes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// This one.
    Cluster(Name),
    /// One of these, by weight; the sum of the weights fits a `u32`; at least one entry.
    Weighted(Vec<WeightedCluster>),
    /// The one that this request header names ([`Feature::ClusterHeader`](super::Feature)).
    Header(HeaderName),
}

/// One choice of a weighted destination.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    /// Cluster name.
    pub cluster: Name,
    /// Share: weight over the sum. (Entries of weight 0 are dropped when parsed.)
    pub weight: NonZeroU32,
    /// Applied first.
    pub headers: HeaderMutations,
    /// Filter overrides, most specific.
    pub overrides: FilterOverrides,
    /// `:authority` for this choice only.
    pub authority: Option<HeaderValue>,
}

/// `hash_policy`, evaluated in order and combined (gRFC A42).
#[derive(Clone, Debug, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub key: HashKey,
    /// Stop here when a hash exists.
    pub terminal: bool,
}

/// What a [`HashPolicy`] hashes.
#[derive(Clone, Debug, PartialEq)]
pub enum HashKey {
    /// A request header, rewritten first if asked.
    Header {
        /// Its name.
        name: HeaderName,
        /// Applied to the joined value.
        rewrite: Option<RegexRewrite>,
    },
    /// A random value fixed for each channel (`filter_state` `io.grpc.channel_id`).
    ChannelId,
    /// A cookie of the request ([`Feature::HashPolicies`](super::Feature)).
    Cookie(HashCookie),
    /// The address of the caller ([`Feature::HashPolicies`](super::Feature)).
    SourceIp,
    /// A query parameter ([`Feature::HashPolicies`](super::Feature)).
    QueryParameter(Arc<str>),
}

/// A cookie that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Absent: a request without it yields no hash. Otherwise such a request is given one that lives so long;
    /// zero: as long as the caller.
    pub ttl: Option<Duration>,
    /// Path of a cookie that is given; may be empty.
    pub path: Arc<str>,
    /// Further attributes of a cookie that is given.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

/// How the path is rewritten.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// The matched prefix (or exact path) becomes this.
    Prefix(Arc<str>),
    /// Every match of the expression is replaced.
    Regex(RegexRewrite),
}

/// A copy sent elsewhere; its answer is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Cluster name.
    pub cluster: Name,
    /// How often.
    pub fraction: Fraction,
    /// `-shadow` is appended to the host name of the copy.
    pub shadow_host: bool,
}

/// Header changes of one level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderMutations {
    /// To the request.
    pub request: HeaderMutation,
    /// To the response.
    pub response: HeaderMutation,
}

/// First additions in order, then removals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderMutation {
    /// Additions.
    pub add: Vec<HeaderAddition>,
    /// Removals.
    pub remove: Vec<HeaderName>,
}

/// One addition. Never a pseudo header, `host`, nor a header of the gRPC transport.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderAddition {
    /// Header name.
    pub name: HeaderName,
    /// Literal value.
    pub value: HeaderValue,
    /// What happens to a value that is there.
    pub action: AppendAction,
}

/// `HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    /// One more value.
    AppendIfExistsOrAdd,
    /// Only when it is absent.
    AddIfAbsent,
    /// Replaces.
    OverwriteIfExistsOrAdd,
    /// Only when it is there.
    OverwriteIfExists,
}

impl RouteConfiguration {
    /// Virtual hosts, and nothing for all of them.
    pub fn new(name: Name, virtual_hosts: Vec<Arc<VirtualHost>>) -> Self {
        Self {
            name,
            virtual_hosts,
            headers: HeaderMutations::default(),
            most_specific_headers_last: false,
            ignore_port: false,
            max_direct_response_body: None,
        }
    }

    /// The virtual host for an authority: exact before suffix before prefix before `*`, the longest pattern
    /// inside a class, the first of equals. ASCII case is ignored.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let authority = self.compared(authority);
        let mut best: Option<((u8, usize), &Arc<VirtualHost>)> = None;
        for host in &self.virtual_hosts {
            let rank = host.domains.iter().filter_map(|domain| domain.rank(authority)).max();
            if let Some(rank) = rank
                && best.is_none_or(|(other, _)| rank > other)
            {
                best = Some((rank, host));
            }
        }
        best.map(|(_, host)| host)
    }
}

impl RouteConfiguration {
    /// What of an authority domains are compared with.
    pub fn compared<'a>(&self, authority: &'a str) -> &'a str {
        match authority.rsplit_once(':') {
            Some((host, port))
                if self.ignore_port && !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) =>
            {
                host
            }
            _ => authority,
        }
    }
}

impl VirtualHost {
    /// Every cluster that its routes name, mirrors included; a name may come more than once.
    pub fn clusters(&self) -> impl Iterator<Item = &Name> {
        self.routes.iter().flat_map(|route| {
            let forward = match &route.action {
                RouteAction::Forward(forward) => Some(forward),
                RouteAction::NonForwarding
                | RouteAction::DirectResponse(_)
                | RouteAction::Redirect(_)
                | RouteAction::Unsupported(_) => None,
            };
            forward.into_iter().flat_map(|forward| {
                let destinations: Vec<&Name> = match &forward.destination {
                    Destination::Cluster(name) => vec![name],
                    Destination::Weighted(clusters) => clusters.iter().map(|c| &c.cluster).collect(),
                    Destination::Header(_) => Vec::new(),
                };
                destinations.into_iter().chain(forward.mirrors.iter().map(|mirror| &mirror.cluster))
            })
        })
    }
}

impl QueryMatcher {
    /// Whether a query string (`a=1&b`) satisfies it: any value of the parameter counts. Nothing is decoded.
    pub fn matches(&self, query: &str) -> bool {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(name, _)| *name == &*self.name).map(|(_, value)| value);
        match &self.value {
            Some(matcher) => values.any(|value| matcher.matches(value)),
            None => values.next().is_some(),
        }
    }
}
