//! Valid values of every resource, for property tests: here the pieces, in the files below one resource each.

mod cluster;
mod endpoint;
mod extension;
mod filter;
mod listener;
mod route;
mod tls;

pub(crate) use cluster::cluster;
pub(crate) use endpoint::assignment;
pub(crate) use listener::listener;
pub(crate) use route::route_configuration;
pub(crate) use tls::secret;

use crate::{
    matcher::{Fraction, HeaderMatch, HeaderMatcher, HeaderOrPseudo, PathMatcher, StringMatcher},
    name::Name,
    resource::{
        Origin,
        route::{HeaderName, HeaderValue},
    },
};
use ipnet::IpNet;
use proptest::{collection::vec, prelude::*};
use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9|.:_-]{0,20}".prop_map(Name::from)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[ -~é]{0,12}".prop_map(Arc::from)
}

fn some_text() -> impl Strategy<Value = Arc<str>> {
    "[ -~é]{1,12}".prop_map(Arc::from)
}

fn origin() -> impl Strategy<Value = Origin> {
    let settings = proptest::option::of(vec((some_text(), some_text()), 0..3));
    (some_text(), settings).prop_map(|(place, settings)| match settings {
        Some(settings) => Origin::new(place, settings),
        None => place.into(),
    })
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..100_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn positive() -> impl Strategy<Value = Duration> {
    duration().prop_map(|duration| duration + Duration::from_millis(1))
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=1_000_000_u32).prop_map(Fraction::per_million)
}

fn weight() -> impl Strategy<Value = NonZeroU32> {
    (1..1_000_000_u32).prop_map(|weight| NonZeroU32::new(weight).unwrap())
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=32_u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap().trunc())
}

fn string() -> impl Strategy<Value = StringMatcher> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::exact(&text, fold)),
        (some_text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::prefix(&text, fold).unwrap()),
        (some_text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::suffix(&text, fold).unwrap()),
        (some_text(), any::<bool>()).prop_map(|(text, fold)| StringMatcher::contains(&text, fold).unwrap()),
        some_text().prop_map(|text| StringMatcher::regex(&regex::escape(&text)).unwrap()),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z0-9-]{1,10}".prop_map(|name| HeaderName::try_from(name).unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    prop_oneof![
        "[ -~]{0,12}".prop_map(|value| HeaderValue::try_from(value).unwrap()),
        vec(0x80..=0xff_u8, 1..4).prop_map(|value| HeaderValue::from_bytes(&value).unwrap()),
    ]
}

fn authority() -> impl Strategy<Value = HeaderValue> {
    "[a-z.]{1,12}".prop_map(|value| HeaderValue::try_from(value).unwrap())
}

fn header() -> impl Strategy<Value = HeaderMatcher> {
    let name = prop_oneof![
        4 => header_name().prop_map(HeaderOrPseudo::Header),
        1 => Just(HeaderOrPseudo::Authority),
        1 => Just(HeaderOrPseudo::Path),
        1 => Just(HeaderOrPseudo::Method),
        1 => Just(HeaderOrPseudo::Scheme),
    ];
    let kind = prop_oneof![
        string().prop_map(HeaderMatch::String),
        any::<(i64, i64)>().prop_map(|(a, b)| HeaderMatch::Range { start: a.min(b), end: a.max(b) }),
        any::<bool>().prop_map(HeaderMatch::Present),
    ];
    (name, kind, any::<bool>(), any::<bool>()).prop_map(|(name, kind, invert, treat_missing_as_empty)| {
        HeaderMatcher { name, kind, invert, treat_missing_as_empty }
    })
}

fn headers() -> impl Strategy<Value = Vec<HeaderMatcher>> {
    vec(header(), 0..3)
}

fn path() -> impl Strategy<Value = PathMatcher> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, fold)| PathMatcher::prefix(&text, fold)),
        (text(), any::<bool>()).prop_map(|(text, fold)| PathMatcher::exact(&text, fold)),
        some_text().prop_map(|text| PathMatcher::regex(&regex::escape(&text)).unwrap()),
        ("/[a-z]{1,5}", any::<bool>())
            .prop_map(|(text, fold)| PathMatcher::separated_prefix(&text, fold).unwrap()),
    ]
}
