//! Hash policies, to and from protobuf (gRFC A42).

use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext,
        route::{HashCookie, HashKey, HashPolicy, HeaderName},
        wire::{self, cookie_text},
    },
};
use envoy_types::pb::envoy::config::route::v3::route_action::{
    HashPolicy as Proto,
    hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier, QueryParameter,
    },
};

/// gRFC A42: the one filter state that clients know.
const CHANNEL_ID: &str = "io.grpc.channel_id";

/// `Some(None)`: a kind that yields no hash here (A42).
pub(super) fn parse(
    proto: &Proto,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<HashPolicy>> {
    let more = context.support.has(Feature::HashPolicies);
    let key = match &proto.policy_specifier {
        // gRPC sees no pseudo headers (A42).
        Some(PolicySpecifier::Header(header)) if header.header_name.starts_with(':') => return Some(None),
        Some(PolicySpecifier::Header(header)) => {
            let at = at.field("header");
            let name = HeaderName::try_from(header.header_name.as_str());
            let name = name.map_err(|_| format!("`{}` is not a header name", header.header_name));
            let name = faults.take(&at.field("header_name"), name);
            let rewrite = match &header.regex_rewrite {
                Some(rewrite) => Some(wire::regex_rewrite(rewrite, &at.field("regex_rewrite"), faults)?),
                None => None,
            };
            HashKey::Header { name: name?, rewrite }
        }
        Some(PolicySpecifier::FilterState(state)) if state.key == CHANNEL_ID => HashKey::ChannelId,
        Some(PolicySpecifier::Cookie(proto)) if more => {
            HashKey::Cookie(cookie(proto, &at.field("cookie"), faults)?)
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) if more && properties.source_ip => {
            HashKey::SourceIp
        }
        Some(PolicySpecifier::QueryParameter(parameter)) if more => {
            if parameter.name.is_empty() {
                let at = at.field("query_parameter");
                return faults.reject(&at.field("name"), "is required");
            }
            HashKey::QueryParameter(parameter.name.as_str().into())
        }
        _ => return Some(None),
    };
    Some(Some(HashPolicy { key, terminal: proto.terminal }))
}

fn cookie(proto: &Cookie, at: &Path<'_>, faults: &mut Faults) -> Option<HashCookie> {
    let name = cookie_text(&proto.name, &at.field("name"), faults);
    if proto.name.is_empty() {
        return faults.reject(&at.field("name"), "is required");
    }
    let ttl = match &proto.ttl {
        Some(ttl) => Some(wire::duration(ttl, &at.field("ttl"), faults)?),
        None => None,
    };
    let path = cookie_text(&proto.path, &at.field("path"), faults);
    let attributes =
        wire::every(&proto.attributes, &at.field("attributes"), faults, |attribute, at, faults| {
            if attribute.name.is_empty() {
                return faults.reject(&at.field("name"), "is required");
            }
            let name = cookie_text(&attribute.name, &at.field("name"), faults);
            let value = cookie_text(&attribute.value, &at.field("value"), faults);
            Some((name?, value?))
        });
    Some(HashCookie { name: name?, ttl, path: path?, attributes: attributes? })
}

pub(super) fn encode(policy: &HashPolicy) -> Proto {
    Proto {
        terminal: policy.terminal,
        policy_specifier: Some(match &policy.key {
            HashKey::Header { name, rewrite } => PolicySpecifier::Header(Header {
                header_name: name.to_string(),
                regex_rewrite: rewrite.as_ref().map(wire::regex_rewrite_proto),
            }),
            HashKey::ChannelId => PolicySpecifier::FilterState(FilterState { key: CHANNEL_ID.into() }),
            HashKey::Cookie(cookie) => PolicySpecifier::Cookie(Cookie {
                name: cookie.name.to_string(),
                ttl: cookie.ttl.map(wire::duration_proto),
                path: cookie.path.to_string(),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|(name, value)| CookieAttribute { name: name.to_string(), value: value.to_string() })
                    .collect(),
            }),
            HashKey::SourceIp => {
                PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
            }
            HashKey::QueryParameter(name) => {
                PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() })
            }
        }),
    }
}
