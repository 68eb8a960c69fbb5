//! Fault injection, sessions, and overrides of any filter.

use super::*;
use crate::resource::filter::registry::{KINDS, Side};
use envoy_types::pb::{
    envoy::{
        config::route::v3::{FilterConfig as Wrapper, HeaderMatcher},
        extensions::filters::{
            common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
            http::{
                fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
                rbac::v3::RbacPerRoute,
                router::v3::Router,
                stateful_session::v3::{StatefulSessionPerRoute, stateful_session_per_route::Override},
            },
        },
        r#type::{http::v3::CookieAttribute, v3::FractionalPercent},
    },
    google::protobuf::Duration,
};

#[test]
fn a_fault_that_cannot_be_injected_is_refused_with_the_place() {
    const CASES: &[Case<HttpFault>] = &[
        (|m| m.delay = Some(FaultDelay::default()), ".delay", "fixed_delay or header_delay is required"),
        (
            |m| {
                let negative = FaultDelaySecifier::FixedDelay(Duration { seconds: -1, nanos: 0 });
                m.delay = Some(FaultDelay { fault_delay_secifier: Some(negative), ..Default::default() });
            },
            ".delay.fixed_delay",
            "not a valid duration",
        ),
        (
            |m| {
                let percentage = Some(FractionalPercent { numerator: 1, denominator: 7 });
                m.delay = Some(FaultDelay { percentage, ..Default::default() });
            },
            ".delay.percentage",
            "denominator 7 is unknown",
        ),
        (
            |m| m.abort = Some(FaultAbort::default()),
            ".abort",
            "http_status, grpc_status or header_abort is required",
        ),
        (
            |m| {
                let error_type = Some(ErrorType::HttpStatus(199));
                m.abort = Some(FaultAbort { error_type, ..Default::default() });
            },
            ".abort.http_status",
            "199 is not within 200..=599",
        ),
        (
            |m| {
                let percentage = Some(FractionalPercent { numerator: 1, denominator: 7 });
                m.abort = Some(FaultAbort { percentage, ..Default::default() });
            },
            ".abort.percentage",
            "denominator 7 is unknown",
        ),
        (
            |m| m.headers.push(HeaderMatcher { name: "x".into(), ..Default::default() }),
            ".headers[0]",
            "asks for nothing",
        ),
    ];
    refuses_filter(&HttpFault::default(), false, CASES);
    refuses_override(&HttpFault::default(), CASES);
}

fn with_cookie(message: &mut StatefulSession, change: impl FnOnce(&mut Cookie)) {
    let mut cookie = Cookie { name: "c".into(), ..Default::default() };
    change(&mut cookie);
    message.session_state = extension("s", &CookieBasedSessionState { cookie: Some(cookie) });
}

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
fn garbled<M: MessageName>() -> Option<TypedExtensionConfig> {
    let garbage = Any { type_url: M::type_url(), value: vec![0xff] };
    Some(TypedExtensionConfig { name: "g".into(), typed_config: Some(garbage) })
}

#[test]
fn a_session_that_cannot_be_kept_is_refused_with_the_place() {
    fn attribute(message: &mut StatefulSession, name: &str, value: &str) {
        let attribute = CookieAttribute { name: name.into(), value: value.into() };
        with_cookie(message, |cookie| cookie.attributes.push(attribute));
    }
    const COOKIE: &str = ".session_state.typed_config.cookie";
    let at = |rest: &str| -> &'static str { format!("{COOKIE}{rest}").leak() };
    let mut good = StatefulSession::default();
    with_cookie(&mut good, |_| {});
    refuses_filter(
        &good,
        false,
        &[
            (|m| m.session_state = Some(Default::default()), ".session_state.typed_config", "is required"),
            (
                |m| m.session_state = garbled::<CookieBasedSessionState>(),
                ".session_state.typed_config",
                "failed to decode",
            ),
            (
                |m| m.session_state = garbled::<HeaderBasedSessionState>(),
                ".session_state.typed_config",
                "failed to decode",
            ),
            (
                |m| with_cookie(m, |cookie| cookie.ttl = Some(Duration { seconds: -1, nanos: 0 })),
                at(".ttl"),
                "not a valid duration",
            ),
            (
                |m| with_cookie(m, |cookie| cookie.path = "/a;b".into()),
                at(".path"),
                "cannot stand in a cookie",
            ),
            (|m| attribute(m, "", "v"), at(".attributes[0].name"), "is required"),
            (|m| attribute(m, "a=", "v"), at(".attributes[0].name"), "cannot stand in a cookie"),
            (|m| attribute(m, "a", "v;"), at(".attributes[0].value"), "cannot stand in a cookie"),
        ],
    );
    refuses_override(
        &StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(good)) },
        &[
            (|m| m.r#override = None, "", "disabled or stateful_session is required"),
            (|m| m.r#override = Some(Override::Disabled(false)), ".disabled", "must be true"),
            (
                |m| {
                    let session_state = Some(Default::default());
                    let session = StatefulSession { session_state, ..Default::default() };
                    m.r#override = Some(Override::StatefulSession(session));
                },
                ".stateful_session.session_state.typed_config",
                "is required",
            ),
        ],
    );
}

#[test]
fn an_override_that_is_none_is_refused_with_the_place() {
    let unknown = || Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
    let in_struct = || Any {
        type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".into(),
        value: Any { type_url: HttpFault::type_url(), value: vec![] }.encode_to_vec(),
    };
    let wrapped = |config| any(&Wrapper { config, ..Default::default() });
    let garbage = |type_url| Any { type_url, value: vec![0xff] };
    for (config, path, reason) in [
        (unknown(), "", "filter type type.googleapis.com/x.Y is not supported, and not optional"),
        (wrapped(Some(unknown())), "", "x.Y is not supported, and not optional"),
        (wrapped(None), ".config", "is required"),
        (in_struct(), "", "must be sent as itself, not in a TypedStruct"),
        (garbage(HttpFault::type_url()), "", "failed to decode"),
        (garbage(Wrapper::type_url()), "", "failed to decode"),
        (
            any(&Rbac::default()),
            "",
            "rbac.v3.RBAC is overridden by envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        ),
        (any(&Router::default()), "", "router.v3.Router cannot be overridden"),
    ] {
        let error = RouteConfiguration::parse(&overriding(config), &context()).unwrap_err();
        let fault = &error.rejected.faults[0];
        assert_eq!(
            fault.path,
            format!("virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]{path}"),
            "{error}"
        );
        assert!(fault.reason.contains(reason), "{reason}: {error}");
    }
    refuses_override(
        &RbacPerRoute::default(),
        &[(
            |m| {
                m.rbac = Some(Rbac {
                    rules: Some(envoy_types::pb::envoy::config::rbac::v3::Rbac {
                        action: 7,
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            },
            ".rbac.rules.action",
            "7 is unknown",
        )],
    );
}

#[test]
fn bytes_that_are_no_filter_are_refused_with_the_place() {
    for kind in KINDS {
        let garbage =
            |message: &str| Any { type_url: format!("type.googleapis.com/{message}"), value: vec![0xff] };
        let faults = refused(garbage(kind.message), !kind.sides.contains(&Side::Client));
        assert!(
            faults.iter().any(|(at, why)| at.is_empty() && why.contains("failed to decode")),
            "{}: {faults:?}",
            kind.message
        );
        let Some((message, _)) = kind.per_route else { continue };
        let error = RouteConfiguration::parse(&overriding(garbage(message)), &context()).unwrap_err();
        let fault = &error.rejected.faults[0];
        assert_eq!(fault.path, "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]", "{error}");
        assert!(fault.reason.contains("failed to decode"), "{message}: {error}");
    }
}
