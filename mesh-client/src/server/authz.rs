//! Role-based access control (gRFC A41): whether a filter lets a request pass.
//!
//! What a policy sees is what the connection proved and what [`super::request`] read. A peer without
//! certificate has the empty name: a positive rule about names never admits it, a negated one does.

use super::http::Call;
use mesh_xds::{
    matcher::StringMatcher,
    resource::rbac::{Permission, Principal, Rbac, RbacAction},
};
use std::sync::Arc;

/// The policy that said no; none when no policy said yes.
pub(super) type Denial = Option<Arc<str>>;

/// Whether the filter lets the request pass.
pub(super) fn judge(rbac: &Rbac, call: &Call<'_>) -> Result<(), Denial> {
    let Some(rules) = &rbac.rules else { return Ok(()) };
    let hit = rules.policies.iter().find(|(_, policy)| {
        policy.permissions.iter().any(|asked| permits(asked, call))
            && policy.principals.iter().any(|who| names(who, call))
    });
    match (rules.action, hit) {
        (RbacAction::Allow, Some(_)) | (RbacAction::Deny, None) => Ok(()),
        (RbacAction::Allow, None) => Err(None),
        (RbacAction::Deny, Some((policy, _))) => Err(Some(policy.clone())),
    }
}

fn permits(permission: &Permission, call: &Call<'_>) -> bool {
    let local = call.connection.local;
    match permission {
        Permission::Any => true,
        Permission::Header(matcher) => matcher.matches(&call.headers),
        Permission::UrlPath(matcher) => matcher.matches(call.headers.path),
        Permission::DestinationIp(net) => net.contains(&local.ip().to_canonical()),
        Permission::DestinationPort(ports) => ports.contains(&local.port()),
        // gRPC servers do not look at the server name.
        Permission::RequestedServerName(matcher) => matcher.matches(""),
        Permission::Metadata { invert } => *invert,
        Permission::Not(permission) => !permits(permission, call),
        Permission::And(all) => all.iter().all(|permission| permits(permission, call)),
        Permission::Or(any) => any.iter().any(|permission| permits(permission, call)),
    }
}

fn names(principal: &Principal, call: &Call<'_>) -> bool {
    match principal {
        Principal::Any => true,
        Principal::Authenticated(None) => call.connection.security.peer().is_some(),
        Principal::Authenticated(Some(matcher)) => is_named(matcher, call),
        Principal::RemoteIp(net) => net.contains(&call.connection.remote.ip().to_canonical()),
        Principal::Header(matcher) => matcher.matches(&call.headers),
        Principal::UrlPath(matcher) => matcher.matches(call.headers.path),
        Principal::Metadata { invert } => *invert,
        Principal::Not(principal) => !names(principal, call),
        Principal::And(all) => all.iter().all(|principal| names(principal, call)),
        Principal::Or(any) => any.iter().any(|principal| names(principal, call)),
    }
}

/// Whether a name of the peer satisfies the matcher: its URI names, or its DNS names if it has no URI name.
/// (A verified peer has a SPIFFE id, so the third choice of A41, the subject, never comes up.)
fn is_named(matcher: &StringMatcher, call: &Call<'_>) -> bool {
    let Some(peer) = call.connection.security.peer() else { return matcher.matches("") };
    let names = if peer.uri_sans().is_empty() { peer.dns_sans() } else { peer.uri_sans() };
    names.iter().any(|name| matcher.matches(name))
}
