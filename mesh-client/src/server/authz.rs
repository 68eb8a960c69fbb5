//! Role-based access control (gRFC A41): what the rules are asked about a request.
//!
//! The peer's names are those of its verified certificate. A peer without one has the empty name: a
//! positive rule about names never admits it, a negated one does.

use super::http::Call;
use mesh_xds::resource::rbac::{Rbac, RbacRequest};
use std::sync::Arc;

/// The policy that said no; none when no policy said yes.
pub(super) type Denial = Option<Arc<str>>;

/// Whether the filter lets the request pass.
pub(super) fn judge(rbac: &Rbac, call: &Call<'_>) -> Result<(), Denial> {
    let Some(rules) = &rbac.rules else { return Ok(()) };
    let connection = call.connection;
    let peer = connection.security.peer();
    let decision = rules.decide(&RbacRequest {
        headers: call.headers,
        authenticated: peer.is_some(),
        uri_sans: peer.map_or(&[], |peer| peer.uri_sans()),
        dns_sans: peer.map_or(&[], |peer| peer.dns_sans()),
        // A verified peer has a SPIFFE id, and the subject only counts without any other name.
        subject: "",
        peer: connection.remote,
        local: connection.local,
    });
    if decision.allowed { Ok(()) } else { Err(decision.policy) }
}
