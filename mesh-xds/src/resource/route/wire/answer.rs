//! Actions that answer a call here: direct responses and redirects, to and from protobuf.

use crate::{
    field_path::{Faults, Path},
    resource::{
        route::{DirectResponse, Redirect, RedirectPath},
        wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::envoy::config::{
    core::v3::{DataSource, data_source::Specifier},
    route::v3::{
        DirectResponseAction, RedirectAction,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    },
};

/// Longest body, unless the RouteConfiguration says otherwise.
const MAX_BODY: u32 = 4096;

pub(super) fn direct_response(
    proto: &DirectResponseAction,
    max_body: Option<u32>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<DirectResponse> {
    if proto.body_format.is_some() {
        faults.reject::<()>(&at.field("body_format"), "is not supported: it would not be evaluated");
    }
    let status = match u16::try_from(proto.status) {
        Ok(status @ 200..=599) => Some(status),
        _ => faults.reject(&at.field("status"), format_args!("{} is not within 200..=599", proto.status)),
    };
    let body_at = at.field("body");
    let body = match proto.body.as_ref().map(|body| body.specifier.as_ref()) {
        None => Some(Bytes::new()),
        Some(Some(Specifier::InlineBytes(bytes))) => Some(bytes.clone().into()),
        Some(Some(Specifier::InlineString(text))) => Some(text.clone().into()),
        Some(Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None) => {
            faults.reject(&body_at, "must be inline_string or inline_bytes")
        }
    };
    let most = max_body.unwrap_or(MAX_BODY);
    let body = body?;
    if body.len() > most as usize {
        return faults
            .reject(&body_at, format_args!("{} bytes are more than the limit of {most}", body.len()));
    }
    Some(DirectResponse { status: status?, body })
}

pub(super) fn encode_direct_response(response: &DirectResponse) -> DirectResponseAction {
    DirectResponseAction {
        status: response.status.into(),
        body: (!response.body.is_empty()).then(|| DataSource {
            specifier: Some(Specifier::InlineBytes(response.body.to_vec())),
            ..DataSource::default()
        }),
        ..DirectResponseAction::default()
    }
}

const CODES: [(RedirectResponseCode, u16); 5] = [
    (RedirectResponseCode::MovedPermanently, 301),
    (RedirectResponseCode::Found, 302),
    (RedirectResponseCode::SeeOther, 303),
    (RedirectResponseCode::TemporaryRedirect, 307),
    (RedirectResponseCode::PermanentRedirect, 308),
];

pub(super) fn redirect(proto: &RedirectAction, at: &Path<'_>, faults: &mut Faults) -> Option<Redirect> {
    let code = CODES.iter().find(|(code, _)| i32::from(*code) == proto.response_code);
    let status = match code {
        Some((_, status)) => Some(*status),
        None => faults.reject(&at.field("response_code"), format_args!("{} is unknown", proto.response_code)),
    };
    let scheme = match &proto.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            match http::uri::Scheme::try_from(&**scheme) {
                Ok(scheme) => Some(scheme.as_str().into()),
                Err(_) => {
                    faults.reject(&at.field("scheme_redirect"), format_args!("`{scheme}` is not a scheme"))
                }
            }
        }
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let host = match proto.host_redirect.as_str() {
        "" => None,
        host => match host.parse::<http::uri::Authority>() {
            Ok(host) => Some(host.as_str().into()),
            Err(error) => {
                faults.reject(&at.field("host_redirect"), format_args!("`{host}` is not a host: {error}"))
            }
        },
    };
    let port = match u16::try_from(proto.port_redirect) {
        Ok(0) => None,
        Ok(port) => Some(port),
        Err(_) => {
            faults.reject(&at.field("port_redirect"), format_args!("{} is not a port", proto.port_redirect))
        }
    };
    let path = match &proto.path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(RedirectPath::Exact(path.as_str().into())),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(RedirectPath::Prefix(prefix.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            wire::regex_rewrite(rewrite, &at.field("regex_rewrite"), faults).map(RedirectPath::Regex)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            faults.reject(&at.field("path_rewrite"), "is not supported; use path_redirect or prefix_rewrite")
        }
    };
    Some(Redirect { status: status?, scheme, host, port, path, strip_query: proto.strip_query })
}

pub(super) fn encode_redirect(redirect: &Redirect) -> RedirectAction {
    let code = CODES.iter().find(|(_, status)| *status == redirect.status).map(|(code, _)| *code);
    RedirectAction {
        response_code: code.unwrap_or(RedirectResponseCode::MovedPermanently).into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .as_ref()
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        host_redirect: redirect.host.as_deref().unwrap_or_default().into(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        path_rewrite_specifier: redirect.path.as_ref().map(|path| match path {
            RedirectPath::Exact(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
            RedirectPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.to_string()),
            RedirectPath::Regex(rewrite) => {
                PathRewriteSpecifier::RegexRewrite(wire::regex_rewrite_proto(rewrite))
            }
        }),
        strip_query: redirect.strip_query,
    }
}
