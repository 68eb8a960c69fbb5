//! JwtProvider, to and from protobuf.

use crate::{
    field_path::{Faults, Path},
    resource::{
        jwt::{Claim, ClaimToHeader, Jwks, JwtHeader, JwtProvider, Prefetch, RemoteJwks},
        route::HeaderName,
        wire,
    },
};
use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, HttpUri, data_source::Specifier, http_uri::HttpUpstreamType},
    extensions::filters::http::jwt_authn::v3::{
        self as proto, JwksAsyncFetch, JwtClaimToHeader, JwtHeader as JwtHeaderProto,
        jwt_claim_to_header::PathSegment,
        jwt_provider::{JwksSourceSpecifier, NormalizePayload},
    },
};
use std::{sync::Arc, time::Duration};

const CLOCK_SKEW: u32 = 60;
const CACHE_DURATION: Duration = Duration::from_secs(600);
const FAILED_REFETCH: Duration = Duration::from_secs(1);

pub(super) fn parse(proto: &proto::JwtProvider, at: &Path<'_>, faults: &mut Faults) -> Option<JwtProvider> {
    for (unsupported, field) in [
        (!proto.header_in_metadata.is_empty(), "header_in_metadata"),
        (!proto.failed_status_in_metadata.is_empty(), "failed_status_in_metadata"),
        (proto.clear_route_cache, "clear_route_cache"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let subjects = match &proto.subjects {
        Some(subjects) => wire::string_matcher(subjects, &at.field("subjects"), faults).map(Some),
        None => Some(None),
    };
    let max_lifetime = match &proto.max_lifetime {
        Some(lifetime) => wire::duration(lifetime, &at.field("max_lifetime"), faults).map(Some),
        None => Some(None),
    };
    let keys = match &proto.jwks_source_specifier {
        Some(JwksSourceSpecifier::LocalJwks(source)) => local(source, &at.field("local_jwks"), faults),
        Some(JwksSourceSpecifier::RemoteJwks(remote)) => {
            self::remote(remote, &at.field("remote_jwks"), faults).map(Jwks::Remote)
        }
        None => faults.reject(at, "has no keys: local_jwks or remote_jwks is required"),
    };
    let from_headers =
        wire::every(&proto.from_headers, &at.field("from_headers"), faults, |header, at, faults| {
            let name = header_name(&header.name, &at.field("name"), faults)?;
            Some(JwtHeader { name, prefix: header.value_prefix.as_str().into() })
        });
    let payload_header = match proto.forward_payload_header.as_str() {
        "" => Some(None),
        name => header_name(name, &at.field("forward_payload_header"), faults).map(Some),
    };
    let claims = wire::every(&proto.claim_to_headers, &at.field("claim_to_headers"), faults, claim);
    let skew = if proto.clock_skew_seconds == 0 { CLOCK_SKEW } else { proto.clock_skew_seconds };
    Some(JwtProvider {
        issuer: wire::text(&proto.issuer),
        audiences: wire::texts(&proto.audiences),
        subjects: subjects?,
        require_expiration: proto.require_expiration,
        max_lifetime: max_lifetime?,
        clock_skew: Duration::from_secs(skew.into()),
        keys: keys?,
        forward: proto.forward,
        from_headers: from_headers?,
        from_params: wire::texts(&proto.from_params),
        from_cookies: wire::texts(&proto.from_cookies),
        payload_header: payload_header?,
        pad_payload_header: proto.pad_forward_payload_header,
        payload_in_metadata: wire::text(&proto.payload_in_metadata),
        space_delimited_claims: proto
            .normalize_payload_in_metadata
            .as_ref()
            .map(|normalize| wire::texts(&normalize.space_delimited_claims))
            .unwrap_or_default(),
        claims: claims?,
    })
}

fn header_name(name: &str, at: &Path<'_>, faults: &mut Faults) -> Option<HeaderName> {
    faults.take(at, HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header name")))
}

/// Keys that stand here: a JSON object with the list `keys`. (Their form is for who verifies.)
fn local(source: &DataSource, at: &Path<'_>, faults: &mut Faults) -> Option<Jwks> {
    let text = match &source.specifier {
        Some(Specifier::InlineString(text)) => text.clone(),
        Some(Specifier::InlineBytes(bytes)) => {
            faults.take(at, String::from_utf8(bytes.clone()).map_err(|_| "is not UTF-8"))?
        }
        _ => return faults.reject(at, "must be inline_string or inline_bytes"),
    };
    let has_keys = serde_json::from_str::<serde_json::Value>(&text)
        .is_ok_and(|set| set.get("keys").is_some_and(serde_json::Value::is_array));
    if !has_keys {
        return faults.reject(at, "is not a JSON Web Key Set: an object with the list `keys`");
    }
    Some(Jwks::Local(text.into()))
}

fn remote(proto: &proto::RemoteJwks, at: &Path<'_>, faults: &mut Faults) -> Option<RemoteJwks> {
    let uri_at = at.field("http_uri");
    let http_uri = faults.required(&uri_at, &proto.http_uri)?;
    let uri = http_uri.uri.parse::<http::Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme().is_some() && uri.authority().is_some());
    let reason = format!("`{}` is not an absolute URI", http_uri.uri);
    let uri = faults.take(&uri_at.field("uri"), uri.ok_or(reason));
    let cluster = match &http_uri.http_upstream_type {
        Some(HttpUpstreamType::Cluster(cluster)) if !cluster.is_empty() => Some(cluster.as_str().into()),
        _ => faults.reject(&uri_at.field("cluster"), "is required"),
    };
    let timeout_at = uri_at.field("timeout");
    faults.required(&timeout_at, &http_uri.timeout)?;
    let timeout = wire::positive_duration(&http_uri.timeout, &timeout_at, faults);
    let cache_duration = match &proto.cache_duration {
        Some(_) => wire::positive_duration(&proto.cache_duration, &at.field("cache_duration"), faults),
        None => Some(CACHE_DURATION),
    };
    let prefetch = match &proto.async_fetch {
        Some(fetch) => {
            let at = at.field("async_fetch");
            let wait = match &fetch.failed_refetch_duration {
                Some(wait) => wire::duration(wait, &at.field("failed_refetch_duration"), faults)?,
                None => FAILED_REFETCH,
            };
            Some(Prefetch { fast_listener: fetch.fast_listener, failed_refetch: wait })
        }
        None => None,
    };
    Some(RemoteJwks {
        uri: uri?,
        cluster: cluster?,
        timeout: timeout?,
        cache_duration: cache_duration?,
        prefetch,
    })
}

fn claim(proto: &JwtClaimToHeader, at: &Path<'_>, faults: &mut Faults) -> Option<ClaimToHeader> {
    let header = header_name(&proto.header_name, &at.field("header_name"), faults);
    let claim = match (proto.claim_name.as_str(), proto.claim_path.as_slice()) {
        ("", []) => return faults.reject(&at.field("claim_name"), "is required, or a claim_path"),
        (name, []) => Claim::Name(name.into()),
        ("", path) => {
            if path.iter().any(|segment| segment.key.is_empty()) {
                return faults.reject(&at.field("claim_path"), "holds an empty name");
            }
            Claim::Path(path.iter().map(|segment| Arc::from(segment.key.as_str())).collect())
        }
        _ => return faults.reject(&at.field("claim_path"), "excludes claim_name"),
    };
    Some(ClaimToHeader { header: header?, claim })
}

pub(super) fn encode(provider: &JwtProvider) -> proto::JwtProvider {
    let strings = |texts: &[Arc<str>]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    proto::JwtProvider {
        issuer: text(&provider.issuer),
        audiences: strings(&provider.audiences),
        subjects: provider.subjects.as_ref().map(wire::string_matcher_proto),
        require_expiration: provider.require_expiration,
        max_lifetime: provider.max_lifetime.map(wire::duration_proto),
        clock_skew_seconds: u32::try_from(provider.clock_skew.as_secs()).unwrap_or(u32::MAX),
        jwks_source_specifier: Some(match &provider.keys {
            Jwks::Local(set) => JwksSourceSpecifier::LocalJwks(DataSource {
                specifier: Some(Specifier::InlineString(set.to_string())),
                ..Default::default()
            }),
            Jwks::Remote(remote) => JwksSourceSpecifier::RemoteJwks(encode_remote(remote)),
        }),
        forward: provider.forward,
        from_headers: provider
            .from_headers
            .iter()
            .map(|header| JwtHeaderProto {
                name: header.name.to_string(),
                value_prefix: header.prefix.to_string(),
            })
            .collect(),
        from_params: strings(&provider.from_params),
        from_cookies: strings(&provider.from_cookies),
        forward_payload_header: provider.payload_header.as_ref().map(ToString::to_string).unwrap_or_default(),
        pad_forward_payload_header: provider.pad_payload_header,
        payload_in_metadata: text(&provider.payload_in_metadata),
        normalize_payload_in_metadata: (!provider.space_delimited_claims.is_empty())
            .then(|| NormalizePayload { space_delimited_claims: strings(&provider.space_delimited_claims) }),
        claim_to_headers: provider.claims.iter().map(encode_claim).collect(),
        ..Default::default()
    }
}

fn encode_remote(remote: &RemoteJwks) -> proto::RemoteJwks {
    proto::RemoteJwks {
        http_uri: Some(HttpUri {
            uri: remote.uri.to_string(),
            timeout: Some(wire::duration_proto(remote.timeout)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(remote.cluster.to_string())),
        }),
        cache_duration: Some(wire::duration_proto(remote.cache_duration)),
        async_fetch: remote.prefetch.as_ref().map(|fetch| JwksAsyncFetch {
            fast_listener: fetch.fast_listener,
            failed_refetch_duration: Some(wire::duration_proto(fetch.failed_refetch)),
        }),
        ..Default::default()
    }
}

fn encode_claim(claim: &ClaimToHeader) -> JwtClaimToHeader {
    let mut encoded = JwtClaimToHeader { header_name: claim.header.to_string(), ..Default::default() };
    match &claim.claim {
        Claim::Name(name) => encoded.claim_name = name.to_string(),
        Claim::Path(path) => {
            encoded.claim_path = path.iter().map(|key| PathSegment { key: key.to_string() }).collect();
        }
    }
    encoded
}
