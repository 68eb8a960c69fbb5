//! A service that a filter calls (gRFC A102).

use crate::{
    field_path::{Faults, Path},
    resource::{
        ParseContext,
        route::{HeaderName, HeaderValue},
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            GrpcService as Proto, HeaderValue as HeaderValueProto,
            grpc_service::{GoogleGrpc, TargetSpecifier},
        },
        extensions::grpc_service::channel_credentials::{
            insecure::v3::InsecureCredentials, xds::v3::XdsCredentials,
        },
    },
    google::protobuf::Any,
};
use prost::Name;
use std::{sync::Arc, time::Duration};

/// `envoy.config.core.v3.GrpcService` with `google_grpc`.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcService {
    /// gRPC target: `dns:///authz.default:9000`, `xds:///authz.default:9000`.
    pub target: Arc<str>,
    /// Of the channel to it.
    pub credentials: Credentials,
    /// Bound of a call.
    pub timeout: Option<Duration>,
    /// Sent with each call.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Credentials of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Plaintext.
    Insecure,
    /// As the target's cluster says; else the ones inside.
    Xds(Box<Credentials>),
}

pub(in crate::resource) fn parse(
    proto: &Proto,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<GrpcService> {
    let google = match &proto.target_specifier {
        Some(TargetSpecifier::GoogleGrpc(google)) => google,
        Some(TargetSpecifier::EnvoyGrpc(_)) => {
            return faults.reject(&at.field("envoy_grpc"), "is not supported; use google_grpc");
        }
        None => return faults.reject(&at.field("google_grpc"), "is required"),
    };
    if !context.trusted {
        let reason = "names a service to call, and the control plane is not one with trusted_xds_server";
        return faults.reject(&at.field("google_grpc"), reason);
    }
    if proto.retry_policy.is_some() {
        faults.reject::<()>(&at.field("retry_policy"), "is not supported");
    }
    let timeout = match &proto.timeout {
        Some(_) => wire::positive_duration(&proto.timeout, &at.field("timeout"), faults).map(Some),
        None => Some(None),
    };
    let metadata = wire::every(&proto.initial_metadata, &at.field("initial_metadata"), faults, metadata);
    let at = at.field("google_grpc");
    let target = if google.target_uri.is_empty() {
        faults.reject(&at.field("target_uri"), "is required")
    } else {
        Some(google.target_uri.as_str().into())
    };
    if !google.call_credentials_plugin.is_empty() {
        faults.reject::<()>(&at.field("call_credentials_plugin"), "is not supported");
    }
    let list = at.field("channel_credentials_plugin");
    let credentials = match google.channel_credentials_plugin.iter().find_map(credentials) {
        Some(credentials) => Some(credentials),
        None => faults.reject(&list, "names no credentials that are supported (insecure, xds)"),
    };
    Some(GrpcService { target: target?, credentials: credentials?, timeout: timeout?, metadata: metadata? })
}

/// The first that is supported counts (A102).
fn credentials(any: &Any) -> Option<Credentials> {
    use prost::Message;
    if any.type_url == InsecureCredentials::type_url() {
        return Some(Credentials::Insecure);
    }
    if any.type_url == XdsCredentials::type_url() {
        let xds = XdsCredentials::decode(&*any.value).ok()?;
        let fallback = credentials(xds.fallback_credentials.as_ref()?)?;
        // One inside another says nothing more.
        return (fallback == Credentials::Insecure).then(|| Credentials::Xds(Box::new(fallback)));
    }
    None
}

fn metadata(
    proto: &HeaderValueProto,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(proto.key.as_str()).ok();
    let name = name.filter(|name| proto.key.len() < 16_384 && name != http::header::HOST);
    let reason = format!("`{}` is not a key of metadata", proto.key);
    let name = faults.take(&at.field("key"), name.ok_or(reason));
    let bytes = if proto.raw_value.is_empty() { proto.value.as_bytes() } else { &proto.raw_value };
    let value = HeaderValue::from_bytes(bytes).map_err(|_| "is not a header value");
    let value = faults.take(&at.field("value"), value);
    Some((name?, value?))
}

pub(in crate::resource) fn encode(service: &GrpcService) -> Proto {
    Proto {
        target_specifier: Some(TargetSpecifier::GoogleGrpc(GoogleGrpc {
            target_uri: service.target.to_string(),
            channel_credentials_plugin: vec![credentials_proto(&service.credentials)],
            // Envoy demands one.
            stat_prefix: "grpc_service".into(),
            ..Default::default()
        })),
        timeout: service.timeout.map(wire::duration_proto),
        initial_metadata: service
            .metadata
            .iter()
            .map(|(name, value)| {
                let mut header = HeaderValueProto { key: name.to_string(), ..Default::default() };
                match value.to_str() {
                    Ok(text) => header.value = text.into(),
                    Err(_) => header.raw_value = value.as_bytes().to_vec(),
                }
                header
            })
            .collect(),
        ..Default::default()
    }
}

fn credentials_proto(credentials: &Credentials) -> Any {
    match credentials {
        Credentials::Insecure => wire::any(&InsecureCredentials {}),
        Credentials::Xds(fallback) => {
            wire::any(&XdsCredentials { fallback_credentials: Some(credentials_proto(fallback)) })
        }
    }
}
