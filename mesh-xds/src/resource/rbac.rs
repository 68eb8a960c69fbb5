//! Role-based access control (gRFC A41). What cannot be expressed here is a fault of the resource.

mod engine;
pub(super) mod wire;

pub use engine::{Decision, RbacRequest};

use crate::matcher::{HeaderMatcher, StringMatcher};
use ipnet::IpNet;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

/// `envoy.extensions.filters.http.rbac.v3.RBAC`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rbac {
    /// Absent: the filter does nothing.
    pub rules: Option<Rules>,
}

/// `envoy.config.rbac.v3.RBAC` with action ALLOW or DENY. (LOG becomes no rules when parsed.)
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// What a match means. ALLOW without a match denies; so ALLOW without policies denies everything.
    pub action: RbacAction,
    /// By name, for the audit.
    pub policies: BTreeMap<Arc<str>, Policy>,
    /// Which decisions are logged; absent: none (gRFC A59).
    pub audit: Option<Audit>,
}

/// `AuditLoggingOptions` with at least one logger and a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Denials are logged.
    pub denied: bool,
    /// Permissions are logged.
    pub allowed: bool,
    /// Where to; at least one.
    pub loggers: Vec<AuditLogger>,
}

/// An audit logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditLogger {
    /// A line of JSON on standard output (`envoy.extensions.rbac.audit_loggers.stream.v3.StdoutAuditLog`).
    Stdout,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacAction {
    /// Allowed, and nothing else is.
    Allow,
    /// Denied.
    Deny,
}

/// Matches when one permission and one principal match.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// At least one.
    pub permissions: Vec<Permission>,
    /// At least one.
    pub principals: Vec<Principal>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Permission {
    /// Anything.
    Any,
    /// A header; `:method` is POST, `:path` the full method; `host` is `:authority`.
    Header(HeaderMatcher),
    /// The path without query.
    UrlPath(StringMatcher),
    /// Local address.
    DestinationIp(IpNet),
    /// Local port.
    DestinationPort(RangeInclusive<u16>),
    /// Server name of the TLS handshake; always empty in gRPC.
    RequestedServerName(StringMatcher),
    /// Dynamic metadata: never matches, unless inverted.
    Metadata {
        /// The answer.
        invert: bool,
    },
    /// Negation.
    Not(Box<Permission>),
    /// All.
    And(Vec<Permission>),
    /// One.
    Or(Vec<Permission>),
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Principal {
    /// Anyone.
    Any,
    /// A peer with a verified certificate; with a matcher, one of its names: URI SANs, else DNS SANs, else
    /// the subject. A peer without certificate has the empty name.
    Authenticated(Option<StringMatcher>),
    /// Peer address (`direct_remote_ip`, `remote_ip`, `source_ip`).
    RemoteIp(IpNet),
    /// A header.
    Header(HeaderMatcher),
    /// The path without query.
    UrlPath(StringMatcher),
    /// Dynamic metadata: never matches, unless inverted.
    Metadata {
        /// The answer.
        invert: bool,
    },
    /// Negation.
    Not(Box<Principal>),
    /// All.
    And(Vec<Principal>),
    /// One.
    Or(Vec<Principal>),
}
