//! VirtualService: how requests to a host are routed.
//!
//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/>. What a value of
//! these types holds has passed Istio's validation; parts that this version does not act on are
//! either reported and absent, or the object was refused.

use std::sync::Arc;
use std::time::Duration;

use super::object::Origin;
use super::value::{ExportTo, Host, Labels, Located, PerMillion, StringMatch};
use crate::analysis::Position;

mod answer;
mod delegate;
mod http;
mod matching;
mod read;
mod retry;

pub(crate) use delegate::{Problem, Unresolved, resolve};

/// A VirtualService.
#[derive(Clone, Debug)]
pub struct VirtualService {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// The hosts it routes, fully qualified. Empty for a delegate, which routes nothing by itself.
    pub hosts: Vec<Located<Host>>,
    /// The gateways it is bound to, in their `namespace/name` form; `mesh` is not among them.
    pub gateways: Vec<Located<String>>,
    /// True when it routes the mesh's own clients (the reserved gateway `mesh`, or none named).
    pub for_mesh: bool,
    /// Who may use it.
    pub export_to: ExportTo,
    /// The routes, in order: the first that matches wins.
    pub http: Vec<HttpRoute>,
}

/// One route and the requests it takes.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// Its name, for logs.
    pub name: Option<String>,
    /// Where it was written.
    pub at: Position,
    /// The object it was written in, when that is a delegate and this is the route as its root has it.
    pub written_in: Option<Arc<Origin>>,
    /// The requests it takes: any of these; all requests when empty.
    pub matches: Vec<HttpMatch>,
    /// What becomes of them.
    pub action: HttpAction,
    /// What is rewritten before they go.
    pub rewrite: Option<Rewrite>,
    /// Bounds the whole call, retries included; absent or zero means no bound.
    pub timeout: Option<Duration>,
    /// Absent: the mesh's default policy. `attempts: 0` switches retries off.
    pub retries: Option<Retries>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Header changes for all destinations.
    pub headers: HeaderChanges,
    /// Where its settings were written ([`mesh_xds::resource::origin::ROUTE_SETTINGS`]).
    pub written: super::Written,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum HttpAction {
    /// It is sent to one of these; never empty, and the weights of several sum to more than zero.
    Route(Vec<RouteDestination>),
    /// It is answered here: go elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    DirectResponse(DirectResponse),
    /// The routes of another VirtualService decide.
    Delegate(Located<Delegate>),
}

/// Names a VirtualService without hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; the root's when not given.
    pub namespace: String,
}

/// Sends the caller elsewhere; at least one part differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// The path becomes this, or the matched prefix does.
    pub path: Option<RedirectPath>,
    /// The authority becomes this.
    pub authority: Option<String>,
    /// The port becomes this.
    pub port: Option<RedirectPort>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// The path of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// All of it.
    Whole(String),
    /// The prefix that matched.
    Prefix(String),
}

/// The port of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The scheme's.
    ProtocolDefault,
    /// The one that the request came to.
    OfRequest,
}

/// An answer without a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// An HTTP status; a gRPC caller sees what gRPC makes of it.
    pub status: u16,
    /// The body; empty when not given.
    pub body: Vec<u8>,
}

/// Which requests: all conditions must hold.
#[derive(Clone, Debug)]
pub struct HttpMatch {
    /// Its name, for logs.
    pub name: Option<String>,
    /// Where it was written.
    pub at: Position,
    /// `/package.Service/Method`
    pub uri: Option<StringMatch>,
    /// True when `uri` ignores case (exact and prefix only).
    pub ignore_uri_case: bool,
    /// `:scheme`: requests of a mesh are `http`, whatever carries them.
    pub scheme: Option<StringMatch>,
    /// Always POST for gRPC.
    pub method: Option<StringMatch>,
    /// `:authority`
    pub authority: Option<StringMatch>,
    /// Headers that must match, by lower-case name.
    pub headers: Vec<(String, StringMatch)>,
    /// Headers that must not.
    pub without_headers: Vec<(String, StringMatch)>,
    /// Query parameters that must match.
    pub query_params: Vec<(String, StringMatch)>,
    /// The port the client addressed.
    pub port: Option<u16>,
    /// Labels the client must have; decided when configuration is made, not per request.
    pub source_labels: Labels,
    /// The namespace the client must be in; decided when configuration is made.
    pub source_namespace: Option<String>,
    /// `None`: the gateways of the VirtualService. Otherwise whether `mesh` is among its own, in
    /// which case Istio ignores `source_labels` and `source_namespace`.
    pub for_mesh: Option<bool>,
}

/// A destination and its share.
#[derive(Clone, Debug)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Its weight among the route's destinations; the only destination takes everything.
    pub weight: u32,
    /// Header changes for this destination, after the route's.
    pub headers: HeaderChanges,
}

/// A service, perhaps a subset and a port of it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The service's host, fully qualified.
    pub host: Located<String>,
    /// A subset that a DestinationRule defines.
    pub subset: Option<Located<String>>,
    /// The service port; the only one when absent, else the one the client addressed.
    pub port: Option<Located<u16>>,
}

/// What is rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// What the path becomes.
    pub uri: Option<UriRewrite>,
    /// Replaces `:authority`.
    pub authority: Option<String>,
}

/// How the path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UriRewrite {
    /// Replaces the path, or the prefix that `match.uri.prefix` matched.
    Prefix(String),
    /// Replaces what matches a regular expression (RE2, `\\1` is the first group).
    Regex {
        /// The expression; not anchored.
        pattern: String,
        /// What each match becomes.
        substitution: String,
    },
}

/// When and how often a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first; zero is none.
    pub attempts: u32,
    /// Bounds each attempt.
    pub per_try_timeout: Option<Duration>,
    /// After which failures; empty means the mesh's default.
    pub on: Vec<RetryOn>,
    /// Whether an attempt avoids endpoints that already failed; absent means the mesh's default.
    pub ignore_previous_hosts: Option<bool>,
    /// Whether a retry goes to a locality that the call has not tried.
    pub remote_localities: bool,
    /// The base of the exponential backoff (25 ms when absent).
    pub backoff: Option<Duration>,
}

/// A failure that is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// One of Envoy's words: `unavailable`, `reset`, `connect-failure` …
    Condition(&'static str),
    /// An HTTP status.
    Status(u16),
}

/// Faults to inject; the draws are independent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// Waits before the call.
    pub delay: Option<Delay>,
    /// Fails instead of the call.
    pub abort: Option<Abort>,
}

/// Waits before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub fixed: Duration,
    /// How often; nothing said is never.
    pub share: PerMillion,
}

/// Fails instead of the call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Abort {
    /// With what.
    pub status: AbortStatus,
    /// How often; nothing said is never.
    pub share: PerMillion,
}

/// With what a call is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status; a gRPC caller sees what gRPC makes of it.
    Http(u16),
    /// A gRPC status.
    Grpc(tonic::Code),
}

/// Where copies of requests go.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// How many of them.
    pub share: PerMillion,
}

/// Header changes for a request and its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// On the way there.
    pub request: HeaderOps,
    /// On the way back.
    pub response: HeaderOps,
    /// What `:authority` (or `host`) of the request becomes.
    pub authority: Option<String>,
}

/// Changes to one set of headers, by lower-case name, in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Overwrites, or adds.
    pub set: Vec<(String, String)>,
    /// Appends, or adds.
    pub add: Vec<(String, String)>,
    /// Removes.
    pub remove: Vec<String>,
}

impl HeaderOps {
    /// True when there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl HttpRoute {
    /// Where its requests go; empty when they are answered without going anywhere.
    pub fn destinations(&self) -> &[RouteDestination] {
        match &self.action {
            HttpAction::Route(destinations) => destinations,
            HttpAction::Redirect(_) | HttpAction::DirectResponse(_) | HttpAction::Delegate(_) => &[],
        }
    }

    /// Where calls or copies of them go.
    pub fn leads_to(&self) -> impl Iterator<Item = &Destination> {
        let destinations = self.destinations().iter().map(|route| &route.destination);
        destinations.chain(self.mirrors.iter().map(|mirror| &mirror.destination))
    }
}

impl HttpMatch {
    /// True when it takes every request that the route sees: nothing is asked of the request
    /// itself (what is asked of the client is decided before).
    pub fn is_catch_all(&self) -> bool {
        let any_uri = match &self.uri {
            None => true,
            Some(StringMatch::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
            Some(StringMatch::Regex(regex)) => matches!(regex.as_str(), ".*" | "*"),
            Some(_) => false,
        };
        any_uri
            && self.scheme.is_none()
            && self.method.is_none()
            && self.authority.is_none()
            && self.headers.is_empty()
            && self.without_headers.is_empty()
            && self.query_params.is_empty()
            && self.port.is_none()
    }

    /// True when this match is for a client of the mesh at all (Istio's config-time selectors).
    pub fn applies_to(&self, namespace: &str, labels: &Labels) -> bool {
        match self.for_mesh {
            Some(for_mesh) => for_mesh,
            None => {
                self.source_namespace.as_deref().is_none_or(|wanted| wanted == namespace)
                    && super::value::selects(&self.source_labels, labels)
            }
        }
    }
}

#[cfg(test)]
mod tests;
