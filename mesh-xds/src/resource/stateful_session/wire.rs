//! StatefulSession, to and from protobuf.

use super::{SessionCookie, StatefulSession};
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
        http::stateful_session::cookie::v3::CookieBasedSessionState,
    },
    r#type::http::v3::{Cookie, CookieAttribute},
};
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
    if proto.strict {
        return faults.reject(&at.field("strict"), "is not supported");
    }
    let Some(state) = &proto.session_state else { return Some(StatefulSession { cookie: None }) };
    let at = at.field("session_state");
    let at = at.field("typed_config");
    let state: CookieBasedSessionState =
        wire::unpack(faults.required(&at, &state.typed_config)?, &at, faults)?;
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
    let cookie = SessionCookie { name: name?, ttl: ttl?, path: path?, attributes: attributes? };
    Some(StatefulSession { cookie: Some(cookie) })
}

pub(in crate::resource) fn encode(session: &StatefulSession) -> proto::StatefulSession {
    proto::StatefulSession {
        session_state: session.cookie.as_ref().map(|cookie| {
            let attributes = cookie.attributes.iter();
            let attributes = attributes
                .map(|(name, value)| CookieAttribute { name: name.to_string(), value: value.to_string() });
            let cookie = Cookie {
                name: cookie.name.to_string(),
                ttl: Some(wire::duration_proto(cookie.ttl)),
                path: cookie.path.to_string(),
                attributes: attributes.collect(),
            };
            let state = CookieBasedSessionState { cookie: Some(cookie) };
            TypedExtensionConfig {
                name: "envoy.http.stateful_session.cookie".into(),
                typed_config: Some(wire::any(&state)),
            }
        }),
        ..Default::default()
    }
}

pub(in crate::resource) fn encode_override(session: &StatefulSession) -> StatefulSessionPerRoute {
    StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(encode(session))) }
}
