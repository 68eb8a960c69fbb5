//! Deciding: is this request allowed? (gRFC A41)
//!
//! What cannot be decided never opens a door: it is no match for ALLOW and a match for DENY, however the
//! question is nested.

use super::{Permission, Policy, Principal, RbacAction, Rules};
use crate::matcher::{
    HeaderMatch, HeaderMatcher, HeaderOrPseudo, Headers, StringMatcher, StringPattern, joined, joined_values,
};
use ipnet::IpNet;
use std::{net::SocketAddr, ops::Not, sync::Arc};

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
        let needed = match self.action {
            RbacAction::Allow => Answer::Yes,
            RbacAction::Deny => Answer::Unknown,
        };
        let matched = self.policies.iter().find(|(_, policy)| policy.answer(request) >= needed);
        let allowed = matched.is_some() == (self.action == RbacAction::Allow);
        Decision { allowed, policy: matched.map(|(name, _)| name.clone()) }
    }
}

/// In order: "and" is the least of its parts, "or" the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    No,
    Unknown,
    Yes,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Not for Answer {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

fn all(mut answers: impl Iterator<Item = Answer>) -> Answer {
    let least = answers.try_fold(Answer::Yes, |held, one| Some(held.min(one)).filter(|a| *a != Answer::No));
    least.unwrap_or(Answer::No)
}

fn any(mut answers: impl Iterator<Item = Answer>) -> Answer {
    let most = answers.try_fold(Answer::No, |held, one| Some(held.max(one)).filter(|a| *a != Answer::Yes));
    most.unwrap_or(Answer::Yes)
}

impl Policy {
    fn answer(&self, request: &RbacRequest<'_>) -> Answer {
        match any(self.permissions.iter().map(|permission| permission.answer(request))) {
            Answer::No => Answer::No,
            asked => asked.min(any(self.principals.iter().map(|principal| principal.answer(request)))),
        }
    }
}

impl Permission {
    fn answer(&self, request: &RbacRequest<'_>) -> Answer {
        match self {
            Self::Any => Answer::Yes,
            Self::Header(matcher) => header(matcher, request),
            Self::UrlPath(path) => path.matches(request.headers.path).into(),
            Self::DestinationIp(net) => contains(net, request.local),
            Self::DestinationPort(ports) => ports.contains(&request.local.port()).into(),
            // gRPC knows no server name of the connection.
            Self::RequestedServerName(name) => name.matches("").into(),
            Self::Metadata { invert } => (*invert).into(),
            Self::Not(permission) => !permission.answer(request),
            Self::And(permissions) => all(permissions.iter().map(|permission| permission.answer(request))),
            Self::Or(permissions) => any(permissions.iter().map(|permission| permission.answer(request))),
        }
    }
}

impl Principal {
    fn answer(&self, request: &RbacRequest<'_>) -> Answer {
        match self {
            Self::Any => Answer::Yes,
            Self::Authenticated(name) => authenticated(name.as_ref(), request),
            Self::RemoteIp(net) => contains(net, request.peer),
            Self::Header(matcher) => header(matcher, request),
            Self::UrlPath(path) => path.matches(request.headers.path).into(),
            Self::Metadata { invert } => (*invert).into(),
            Self::Not(principal) => !principal.answer(request),
            Self::And(principals) => all(principals.iter().map(|principal| principal.answer(request))),
            Self::Or(principals) => any(principals.iter().map(|principal| principal.answer(request))),
        }
    }
}

/// An IPv4 address that arrived on an IPv6 socket is still an IPv4 address.
fn contains(net: &IpNet, address: SocketAddr) -> Answer {
    net.contains(&address.ip().to_canonical()).into()
}

/// Only the first source of names that is not empty counts. A peer without certificate has the empty name,
/// and is not `authenticated` at all.
fn authenticated(name: Option<&StringMatcher>, request: &RbacRequest<'_>) -> Answer {
    let Some(name) = name else { return request.authenticated.into() };
    if !request.authenticated {
        return name.matches("").into();
    }
    let any = |names: &[Arc<str>]| names.iter().any(|san| name.matches(san));
    let found = if !request.uri_sans.is_empty() {
        any(request.uri_sans)
    } else if !request.dns_sans.is_empty() {
        any(request.dns_sans)
    } else {
        name.matches(request.subject)
    };
    found.into()
}

/// The header view of A41: `te` is never seen, `content-type` is what was sent; the rest is as in routing.
fn header(matcher: &HeaderMatcher, request: &RbacRequest<'_>) -> Answer {
    let value = match &matcher.name {
        HeaderOrPseudo::Header(name) if *name == http::header::TE => None,
        HeaderOrPseudo::Header(name) if *name == http::header::CONTENT_TYPE => {
            joined_values(request.headers.map, name)
        }
        name => joined(name, &request.headers),
    };
    let value = value.as_deref();
    // An expression is about characters; bytes that are none can be neither match nor mismatch.
    let expression = matches!(&matcher.kind, HeaderMatch::String(string) if matches!(string.pattern, StringPattern::Regex(_)));
    if expression && value.is_some_and(|value| std::str::from_utf8(value).is_err()) {
        return Answer::Unknown;
    }
    matcher.matches_value(value).into()
}

#[cfg(test)]
mod tests;
