//! Deciding: is this request allowed? (gRFC A41)

use super::{Permission, Policy, Principal, RbacAction, Rules};
use crate::matcher::{HeaderMatcher, HeaderOrPseudo, Headers, StringMatcher};
use std::{net::SocketAddr, sync::Arc};

/// What a decision is made of. The peer's names come from a verified certificate, never from the request.
#[derive(Clone, Copy, Debug)]
pub struct RbacRequest<'a> {
    /// Headers, `:authority`, and the path without query.
    pub headers: Headers<'a>,
    /// The peer has a verified certificate.
    pub authenticated: bool,
    /// Its URI SANs.
    pub uri_sans: &'a [Arc<str>],
    /// Its DNS SANs.
    pub dns_sans: &'a [Arc<str>],
    /// Its subject, RFC 2253.
    pub subject: &'a str,
    /// Its address.
    pub peer: SocketAddr,
    /// The address that it reached.
    pub local: SocketAddr,
}

/// A decision, and the policy that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The request may go on.
    pub allowed: bool,
    /// The policy that matched; none: no policy did.
    pub policy: Option<Arc<str>>,
}

impl Rules {
    /// Decides a request.
    pub fn decide(&self, request: &RbacRequest<'_>) -> Decision {
        let matched = self.policies.iter().find(|(_, policy)| policy.matches(request));
        let allowed = matched.is_some() == (self.action == RbacAction::Allow);
        Decision { allowed, policy: matched.map(|(name, _)| name.clone()) }
    }
}

impl Policy {
    fn matches(&self, request: &RbacRequest<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.matches(request))
            && self.principals.iter().any(|principal| principal.matches(request))
    }
}

impl Permission {
    fn matches(&self, request: &RbacRequest<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Header(matcher) => header(matcher, request),
            Self::UrlPath(path) => path.matches(request.headers.path),
            Self::DestinationIp(net) => net.contains(&request.local.ip().to_canonical()),
            Self::DestinationPort(ports) => ports.contains(&request.local.port()),
            // gRPC knows no server name of the connection.
            Self::RequestedServerName(name) => name.matches(""),
            Self::Metadata { invert } => *invert,
            Self::Not(permission) => !permission.matches(request),
            Self::And(permissions) => permissions.iter().all(|permission| permission.matches(request)),
            Self::Or(permissions) => permissions.iter().any(|permission| permission.matches(request)),
        }
    }
}

impl Principal {
    fn matches(&self, request: &RbacRequest<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Authenticated(name) => authenticated(name.as_ref(), request),
            Self::RemoteIp(net) => net.contains(&request.peer.ip().to_canonical()),
            Self::Header(matcher) => header(matcher, request),
            Self::UrlPath(path) => path.matches(request.headers.path),
            Self::Metadata { invert } => *invert,
            Self::Not(principal) => !principal.matches(request),
            Self::And(principals) => principals.iter().all(|principal| principal.matches(request)),
            Self::Or(principals) => principals.iter().any(|principal| principal.matches(request)),
        }
    }
}

/// Only the first source of names that is not empty counts. A peer without certificate has the empty name,
/// and is not `authenticated` at all.
fn authenticated(name: Option<&StringMatcher>, request: &RbacRequest<'_>) -> bool {
    let Some(name) = name else { return request.authenticated };
    if !request.authenticated {
        return name.matches("");
    }
    let any = |names: &[Arc<str>]| names.iter().any(|san| name.matches(san));
    if !request.uri_sans.is_empty() {
        any(request.uri_sans)
    } else if !request.dns_sans.is_empty() {
        any(request.dns_sans)
    } else {
        name.matches(request.subject)
    }
}

/// `te` is hop by hop: never seen.
fn header(matcher: &HeaderMatcher, request: &RbacRequest<'_>) -> bool {
    if matches!(&matcher.name, HeaderOrPseudo::Header(name) if name == http::header::TE) {
        return matcher.matches(&Headers { map: &http::HeaderMap::new(), ..request.headers });
    }
    matcher.matches(&request.headers)
}

#[cfg(test)]
mod tests;
