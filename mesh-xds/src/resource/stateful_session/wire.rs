//! StatefulSession, to and from protobuf.

use super::{SessionCookie, SessionState, StatefulSession};
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature,
        filter::{
            FilterConfig, FilterOverride,
            registry::{CLIENT, Kind},
        },
        wire::{self, cookie_text},
    },
};
use envoy_types::pb::envoy::{
    config::core::v3::TypedExtensionConfig,
    extensions::{
        filters::http::stateful_session::v3::{
            self as proto, StatefulSessionPerRoute, stateful_session_per_route::Override,
        },
        http::stateful_session::{cookie::v3::CookieBasedSessionState, header::v3::HeaderBasedSessionState},
    },
    r#type::http::v3::{Cookie, CookieAttribute},
};
use http::{HeaderName, StatusCode};
use prost::Name;
use std::{sync::Arc, time::Duration};

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    sides: CLIENT,
    feature: Some(Feature::StatefulSession),
    read: |any, _, at, faults| {
        let session = parse(&wire::unpack(any, at, faults)?, at, faults)?;
        Some(FilterConfig::StatefulSession(Arc::new(session)))
    },
    per_route: Some((
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
        |any, _, at, faults| {
            let per_route: StatefulSessionPerRoute = wire::unpack(any, at, faults)?;
            match &per_route.r#override {
                Some(Override::Disabled(true)) => Some(FilterOverride::Disabled),
                Some(Override::Disabled(false)) => faults.reject(&at.field("disabled"), "must be true"),
                Some(Override::StatefulSession(session)) => {
                    let session = parse(session, &at.field("stateful_session"), faults)?;
                    Some(FilterOverride::Config(FilterConfig::StatefulSession(Arc::new(session))))
                }
                None => faults.reject(at, "disabled or stateful_session is required"),
            }
        },
    )),
};

fn parse(proto: &proto::StatefulSession, at: &Path<'_>, faults: &mut Faults) -> Option<StatefulSession> {
    let strict = match (proto.strict, proto.status_on_strict_destination_not_found) {
        (false, _) => None,
        (true, 0) => Some(StatusCode::SERVICE_UNAVAILABLE),
        (true, status @ 200..=599) => {
            u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok())
        }
        (true, status) => {
            let at = at.field("status_on_strict_destination_not_found");
            return faults.reject(&at, format_args!("{status} is not within 200..=599"));
        }
    };
    let Some(state) = &proto.session_state else { return Some(StatefulSession { state: None, strict }) };
    let at = at.field("session_state");
    let at = at.field("typed_config");
    let any = faults.required(&at, &state.typed_config)?;
    let state = if any.type_url == CookieBasedSessionState::type_url() {
        SessionState::Cookie(cookie(&wire::unpack(any, &at, faults)?, &at, faults)?)
    } else if any.type_url == HeaderBasedSessionState::type_url() {
        let state: HeaderBasedSessionState = wire::unpack(any, &at, faults)?;
        SessionState::Header(faults.take(&at.field("name"), HeaderName::from_bytes(state.name.as_bytes()))?)
    } else {
        let why = format!(
            "session state {} is not supported: a CookieBasedSessionState or a HeaderBasedSessionState is",
            any.type_url
        );
        return faults.reject(&at, why);
    };
    Some(StatefulSession { state: Some(state), strict })
}

fn cookie(state: &CookieBasedSessionState, at: &Path<'_>, faults: &mut Faults) -> Option<SessionCookie> {
    let at = at.field("cookie");
    let cookie = faults.required(&at, &state.cookie)?;
    if cookie.name.is_empty() {
        return faults.reject(&at.field("name"), "is required");
    }
    let name = cookie_text(&cookie.name, &at.field("name"), faults);
    let ttl = match &cookie.ttl {
        Some(ttl) => wire::duration(ttl, &at.field("ttl"), faults),
        None => Some(Duration::ZERO),
    };
    let path = if cookie.path.is_empty() { "/" } else { &cookie.path };
    let path = cookie_text(path, &at.field("path"), faults);
    let attributes =
        wire::every(&cookie.attributes, &at.field("attributes"), faults, |attribute, at, faults| {
            if attribute.name.is_empty() {
                return faults.reject(&at.field("name"), "is required");
            }
            let name = cookie_text(&attribute.name, &at.field("name"), faults);
            let value = cookie_text(&attribute.value, &at.field("value"), faults);
            Some((name?, value?))
        });
    Some(SessionCookie { name: name?, ttl: ttl?, path: path?, attributes: attributes? })
}

pub(in crate::resource) fn encode(session: &StatefulSession) -> proto::StatefulSession {
    let state = session.state.as_ref().map(|state| match state {
        SessionState::Cookie(cookie) => {
            ("envoy.http.stateful_session.cookie", wire::any(&cookie_proto(cookie)))
        }
        SessionState::Header(name) => {
            let state = HeaderBasedSessionState { name: name.to_string() };
            ("envoy.http.stateful_session.header", wire::any(&state))
        }
    });
    proto::StatefulSession {
        session_state: state
            .map(|(name, config)| TypedExtensionConfig { name: name.into(), typed_config: Some(config) }),
        strict: session.strict.is_some(),
        status_on_strict_destination_not_found: session.strict.map_or(0, |status| status.as_u16().into()),
        ..Default::default()
    }
}

fn cookie_proto(cookie: &SessionCookie) -> CookieBasedSessionState {
    let attributes = cookie.attributes.iter();
    let attributes =
        attributes.map(|(name, value)| CookieAttribute { name: name.to_string(), value: value.to_string() });
    let cookie = Cookie {
        name: cookie.name.to_string(),
        ttl: Some(wire::duration_proto(cookie.ttl)),
        path: cookie.path.to_string(),
        attributes: attributes.collect(),
    };
    CookieBasedSessionState { cookie: Some(cookie) }
}

pub(in crate::resource) fn encode_override(session: &StatefulSession) -> StatefulSessionPerRoute {
    StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(encode(session))) }
}
