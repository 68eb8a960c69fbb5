//! AuthorizationPolicy: who may call what.
//!
//! <https://istio.io/latest/docs/reference/config/security/authorization-policy/>. An object that
//! asks for anything this version cannot decide is refused, and a refused one without a last good
//! version denies everything in its scope.

use ipnet::IpNet;

use super::object::Origin;
use super::value::Labels;
use super::workload::ServiceAccount;

mod read;

/// An AuthorizationPolicy.
#[derive(Clone, Debug)]
pub struct AuthorizationPolicy {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// The workloads it is for; the whole namespace (or mesh) when empty.
    pub selector: Labels,
    /// What happens to a request that a rule matches.
    pub action: Action,
    /// Must not be enforced (annotation `istio.io/dry-run`).
    pub dry_run: bool,
    /// A request matches when any of these does; none match when there is none.
    pub rules: Vec<Rule>,
}

/// What happens to a request that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It may pass, unless a DENY policy matches; what no ALLOW policy of a workload matches may not.
    Allow,
    /// It may not pass.
    Deny,
}

/// Any of the sources (when there are some), any of the operations (likewise), all conditions.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// From whom.
    pub sources: Vec<Source>,
    /// What.
    pub operations: Vec<Operation>,
    /// Under which circumstances.
    pub conditions: Vec<Condition>,
}

/// Any of `any` (when there are some) and none of `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms<T> {
    /// The field as named.
    pub any: Vec<T>,
    /// Its `not` twin.
    pub none: Vec<T>,
}

impl<T> Default for Terms<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

impl<T> Terms<T> {
    /// True when nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// Who calls: all fields must hold. A plaintext caller has no identity: it matches no positive and
/// every negative identity field.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `<trust domain>/ns/<namespace>/sa/<service account>`
    pub principals: Terms<TextPattern>,
    /// Namespaces of the caller's identity.
    pub namespaces: Terms<TextPattern>,
    /// Service accounts of the caller's identity.
    pub service_accounts: Terms<ServiceAccount>,
    /// Trust domains of the caller's identity.
    pub trust_domains: Terms<TextPattern>,
    /// The direct peer's address.
    pub ip_blocks: Terms<IpNet>,
    /// The original caller's address.
    pub remote_ip_blocks: Terms<IpNet>,
}

/// What is called: all fields must hold. For gRPC the method is POST and the path `/package.Service/Method`.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// Authorities, whatever their case.
    pub hosts: Terms<TextPattern>,
    /// The workload's own ports.
    pub ports: Terms<u16>,
    /// HTTP methods.
    pub methods: Terms<TextPattern>,
    /// Paths.
    pub paths: Terms<PathPattern>,
}

/// One circumstance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// `request.headers[name]`, the name in lower case.
    Header(String, Terms<TextPattern>),
    /// `source.ip`
    SourceIp(Terms<IpNet>),
    /// `remote.ip`
    RemoteIp(Terms<IpNet>),
    /// `source.namespace`
    SourceNamespace(Terms<TextPattern>),
    /// `source.principal`
    SourcePrincipal(Terms<TextPattern>),
    /// `source.serviceAccount`
    SourceServiceAccount(Terms<ServiceAccount>),
    /// `source.trustDomain`
    SourceTrustDomain(Terms<TextPattern>),
    /// `destination.ip`
    DestinationIp(Terms<IpNet>),
    /// `destination.port`
    DestinationPort(Terms<u16>),
    /// `connection.sni`
    Sni(Terms<TextPattern>),
}

/// Istio's matching of texts in policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextPattern {
    /// `abc`
    Exact(String),
    /// `abc*`
    Prefix(String),
    /// `*abc`
    Suffix(String),
    /// `*`: present and not empty.
    Present,
}

impl TextPattern {
    /// Reads a pattern; a `*` anywhere but at an end stands for itself.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Present
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }
}

/// A path, or a template of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// A text pattern.
    Text(TextPattern),
    /// `/a/{*}/b/{**}`: `{*}` is one segment, `{**}` (last) any number of them.
    Template(String),
}

impl AuthorizationPolicy {
    /// What a refused object leaves behind: nothing in its scope may be called.
    pub(crate) fn deny_all(origin: Origin, selector: Labels) -> Self {
        let rules = vec![Rule::default()];
        Self { origin, selector, action: Action::Deny, dry_run: false, rules }
    }
}

#[cfg(test)]
mod tests;
