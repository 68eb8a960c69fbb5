//! Pieces of messages that several resources have in common, both ways.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

pub(super) mod tree;

use super::{Locality, Origin};
use crate::{
    field_path::{Faults, Path},
    matcher::{
        Expressions, Fraction, FullRegex, HeaderMatch, HeaderMatcher, HeaderOrPseudo, StringMatcher,
        StringPattern,
    },
    resource::route::RegexRewrite,
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3 as core,
            route::v3::{HeaderMatcher as HeaderMatcherProto, header_matcher::HeaderMatchSpecifier},
        },
        r#type::{
            matcher::v3 as matcher,
            v3::{FractionalPercent, HttpStatus, Int64Range, fractional_percent::DenominatorType},
        },
    },
    google::protobuf::{self as pb, Any, UInt32Value, value::Kind},
};
use ipnet::IpNet;
use prost::{Message, Name};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Decodes an `Any` that must hold an `M`.
pub(super) fn unpack<M: Message + Name + Default>(
    any: &Any,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<M> {
    if any.type_url != M::type_url() {
        return faults.reject(at, format_args!("expected {}, found {}", M::type_url(), any.type_url));
    }
    faults.take(at, M::decode(&*any.value))
}

pub(super) fn u32_value(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A duration that is neither negative nor out of protobuf's range.
pub(super) fn duration(proto: &pb::Duration, at: &Path<'_>, faults: &mut Faults) -> Option<Duration> {
    let nanos = u32::try_from(proto.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let seconds = u64::try_from(proto.seconds).ok().filter(|seconds| *seconds <= 315_576_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            faults.reject(at, format_args!("{} s {} ns is not a valid duration", proto.seconds, proto.nanos))
        }
    }
}

/// Like [`duration`], absent when absent.
pub(super) fn optional_duration(
    proto: &Option<pb::Duration>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Duration> {
    proto.as_ref().and_then(|proto| duration(proto, at, faults))
}

/// Like [`optional_duration`], and not zero.
pub(super) fn positive_duration(
    proto: &Option<pb::Duration>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Duration> {
    let duration = optional_duration(proto, at, faults)?;
    if duration.is_zero() { faults.reject(at, "must be greater than zero") } else { Some(duration) }
}

pub(super) fn duration_proto(duration: Duration) -> pb::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(315_576_000_000).min(315_576_000_000);
    pb::Duration { seconds, nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0) }
}

pub(super) fn fraction(proto: &FractionalPercent, at: &Path<'_>, faults: &mut Faults) -> Option<Fraction> {
    let scale = match DenominatorType::try_from(proto.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => return faults.reject(at, format_args!("denominator {} is unknown", proto.denominator)),
    };
    Some(Fraction::per_million(proto.numerator.saturating_mul(scale)))
}

/// Absent means never, as in Envoy's fault percentages.
pub(super) fn optional_fraction(
    proto: &Option<FractionalPercent>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Fraction> {
    match proto {
        Some(proto) => fraction(proto, at, faults),
        None => Some(Fraction::ZERO),
    }
}

pub(super) fn fraction_proto(fraction: Fraction) -> FractionalPercent {
    FractionalPercent { numerator: fraction.parts(), denominator: DenominatorType::Million.into() }
}

pub(super) fn runtime_fraction_proto(fraction: Fraction) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent {
        default_value: Some(fraction_proto(fraction)),
        runtime_key: String::new(),
    }
}

/// `default_value` of a runtime fraction: there is no runtime, so the key is not read (gRFC A28).
pub(super) fn runtime_fraction(
    proto: &core::RuntimeFractionalPercent,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Fraction> {
    let at = at.field("default_value");
    fraction(faults.required(&at, &proto.default_value)?, &at, faults)
}

/// An HTTP status; `Some(None)`: absent.
pub(super) fn http_status(
    proto: &Option<HttpStatus>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<u16>> {
    let Some(status) = proto else { return Some(None) };
    match u16::try_from(status.code) {
        Ok(code @ 200..=599) => Some(Some(code)),
        _ => faults.reject(&at.field("code"), format_args!("{} is not within 200..=599", status.code)),
    }
}

/// Text that can stand in a `Set-Cookie` header without ending what it is part of.
pub(super) fn cookie_text(text: &str, at: &Path<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    if text.bytes().any(|c| !(b' '..=b'~').contains(&c) || matches!(c, b';' | b',' | b'=')) {
        return faults.reject(at, format_args!("`{text}` cannot stand in a cookie"));
    }
    Some(text.into())
}

/// Absent when empty.
pub(super) fn text(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

pub(super) fn texts(texts: &[String]) -> Vec<Arc<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// What must match as a whole.
pub(super) fn full_regex(regex: &str, at: &Path<'_>, faults: &mut Faults) -> Option<FullRegex> {
    let built = faults.expressions.full(regex);
    faults.take(at, built)
}

pub(super) fn regex_proto(regex: &FullRegex) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: regex.as_str().into(), engine_type: None }
}

pub(super) fn string_matcher(
    proto: &matcher::StringMatcher,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<StringMatcher> {
    let built = read_string_matcher(proto, &mut faults.expressions);
    faults.take(at, built)
}

/// The error does not say where it is.
pub(crate) fn read_string_matcher(
    proto: &matcher::StringMatcher,
    expressions: &mut Expressions,
) -> Result<StringMatcher, String> {
    use matcher::string_matcher::MatchPattern;
    let fold = proto.ignore_case;
    let built = match &proto.match_pattern {
        Some(MatchPattern::Exact(value)) => Ok(StringMatcher::exact(value, fold)),
        Some(MatchPattern::Prefix(value)) => StringMatcher::prefix(value, fold),
        Some(MatchPattern::Suffix(value)) => StringMatcher::suffix(value, fold),
        Some(MatchPattern::Contains(value)) => StringMatcher::contains(value, fold),
        // `ignore_case` has no effect on a regex (gRFC A63).
        Some(MatchPattern::SafeRegex(regex)) => expressions.full(&regex.regex).map(StringMatcher::from),
        Some(MatchPattern::Custom(_)) => {
            return Err("custom string matchers are not supported".to_owned());
        }
        None => {
            return Err("one of exact, prefix, suffix, contains and safe_regex is required".to_owned());
        }
    };
    built.map_err(|error| error.to_string())
}

pub(super) fn string_matcher_proto(matcher: &StringMatcher) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    let pattern = match &matcher.pattern {
        StringPattern::Exact(value) => MatchPattern::Exact(value.to_string()),
        StringPattern::Prefix(value) => MatchPattern::Prefix(value.to_string()),
        StringPattern::Suffix(value) => MatchPattern::Suffix(value.to_string()),
        StringPattern::Contains(value) => MatchPattern::Contains(value.to_string()),
        StringPattern::Regex(regex) => MatchPattern::SafeRegex(regex_proto(regex)),
    };
    matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: matcher.ignore_case }
}

pub(super) fn regex_rewrite(
    proto: &matcher::RegexMatchAndSubstitute,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<RegexRewrite> {
    let pattern = faults.required(&at.field("pattern"), &proto.pattern)?;
    let built = RegexRewrite::among(&mut faults.expressions, &pattern.regex, &proto.substitution);
    faults.take(at, built)
}

pub(super) fn regex_rewrite_proto(rewrite: &RegexRewrite) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute {
        pattern: Some(matcher::RegexMatcher { regex: rewrite.as_str().into(), engine_type: None }),
        substitution: rewrite.substitution().into(),
    }
}

pub(super) fn header_matcher(
    proto: &HeaderMatcherProto,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<HeaderMatcher> {
    let name = faults.take(&at.field("name"), HeaderOrPseudo::parse(&proto.name))?;
    Some(HeaderMatcher {
        name,
        kind: header_match(proto, at, faults)?,
        invert: proto.invert_match,
        treat_missing_as_empty: proto.treat_missing_header_as_empty,
    })
}

/// What is asked of the value, whatever the header is.
pub(super) fn header_match(
    proto: &HeaderMatcherProto,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<HeaderMatch> {
    let string = |built| HeaderMatch::String(built);
    Some(match &proto.header_match_specifier {
        Some(HeaderMatchSpecifier::ExactMatch(value)) => string(StringMatcher::exact(value, false)),
        Some(HeaderMatchSpecifier::PrefixMatch(value)) => {
            string(faults.take(&at.field("prefix_match"), StringMatcher::prefix(value, false))?)
        }
        Some(HeaderMatchSpecifier::SuffixMatch(value)) => {
            string(faults.take(&at.field("suffix_match"), StringMatcher::suffix(value, false))?)
        }
        Some(HeaderMatchSpecifier::ContainsMatch(value)) => {
            string(faults.take(&at.field("contains_match"), StringMatcher::contains(value, false))?)
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            string(full_regex(&regex.regex, &at.field("safe_regex_match"), faults)?.into())
        }
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            string(string_matcher(matcher, &at.field("string_match"), faults)?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start, end })) => {
            if start > end {
                return faults.reject(&at.field("range_match"), format_args!("{start} is more than {end}"));
            }
            HeaderMatch::Range { start: *start, end: *end }
        }
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderMatch::Present(*present),
        // Or a kind of the future, which only looks absent.
        None => return faults.reject(at, "asks for nothing that this version knows"),
    })
}

pub(super) fn header_matcher_proto(matcher: &HeaderMatcher) -> HeaderMatcherProto {
    let specifier = match &matcher.kind {
        HeaderMatch::String(string) => HeaderMatchSpecifier::StringMatch(string_matcher_proto(string)),
        HeaderMatch::Range { start, end } => {
            HeaderMatchSpecifier::RangeMatch(Int64Range { start: *start, end: *end })
        }
        HeaderMatch::Present(present) => HeaderMatchSpecifier::PresentMatch(*present),
    };
    HeaderMatcherProto {
        name: matcher.name.as_str().into(),
        header_match_specifier: Some(specifier),
        invert_match: matcher.invert,
        treat_missing_header_as_empty: matcher.treat_missing_as_empty,
    }
}

/// Every element; `None` when one of them is wrong (after looking at all).
pub(super) fn every<T, U>(
    items: &[T],
    at: &Path<'_>,
    faults: &mut Faults,
    parse: impl Fn(&T, &Path<'_>, &mut Faults) -> Option<U>,
) -> Option<Vec<U>> {
    let parsed: Vec<_> =
        items.iter().enumerate().map(|(i, item)| parse(item, &at.index(i), faults)).collect();
    parsed.into_iter().collect()
}

pub(super) fn locality(proto: &core::Locality) -> Locality {
    Locality {
        region: proto.region.as_str().into(),
        zone: proto.zone.as_str().into(),
        sub_zone: proto.sub_zone.as_str().into(),
    }
}

pub(super) fn locality_proto(locality: &Locality) -> core::Locality {
    core::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        sub_zone: locality.sub_zone.to_string(),
    }
}

/// A literal IP address and port.
pub(super) fn socket_address(
    proto: &Option<core::Address>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<SocketAddr> {
    let Some(core::address::Address::SocketAddress(address)) = faults.required(at, proto)?.address.as_ref()
    else {
        return faults.reject(at, "must be a socket_address");
    };
    let here = at.field("socket_address");
    let ip = address.address.parse();
    let ip = ip.map_err(|_| format!("`{}` is not a literal IP address", address.address));
    let ip = faults.take(&here.field("address"), ip);
    let port = port(address, &here, faults);
    Some(SocketAddr::new(ip?, port?))
}

/// The port of a socket address, as a number.
pub(super) fn port(proto: &core::SocketAddress, at: &Path<'_>, faults: &mut Faults) -> Option<u16> {
    match proto.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) => faults
            .take(&at.field("port_value"), u16::try_from(port).map_err(|_| format!("{port} is not a port"))),
        Some(core::socket_address::PortSpecifier::NamedPort(_)) => {
            faults.reject(&at.field("named_port"), "is not supported: ports are numbers")
        }
        None => faults.reject(&at.field("port_value"), "is required"),
    }
}

pub(super) fn socket_address_proto(address: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
            ..core::SocketAddress::default()
        })),
    }
}

/// A CIDR range, with its host bits cleared.
pub(super) fn cidr(proto: &core::CidrRange, at: &Path<'_>, faults: &mut Faults) -> Option<IpNet> {
    let address = proto.address_prefix.parse();
    let address = address.map_err(|_| format!("`{}` is not a literal IP address", proto.address_prefix));
    let address = faults.take(&at.field("address_prefix"), address)?;
    let length = proto.prefix_len.as_ref().map_or(0, |length| length.value);
    let net = u8::try_from(length).ok().and_then(|length| IpNet::new(address, length).ok());
    match net {
        Some(net) => Some(net.trunc()),
        None => faults.reject(&at.field("prefix_len"), format_args!("{length} is too long for {address}")),
    }
}

pub(super) fn cidr_proto(net: &IpNet) -> core::CidrRange {
    core::CidrRange { address_prefix: net.addr().to_string(), prefix_len: u32_value(net.prefix_len().into()) }
}

/// `ads`, of version 3: the one config source that gRPC clients and Envoy both take.
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..core::ConfigSource::default()
    }
}

/// `self`, of version 3: the control plane that sends it.
pub(super) fn own_server() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Self_(
            core::SelfConfigSource { transport_api_version: core::ApiVersion::V3.into() },
        )),
        ..core::ConfigSource::default()
    }
}

/// Requires `ads` or `self`.
pub(super) fn require_ads(
    proto: &Option<core::ConfigSource>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<()> {
    use core::config_source::ConfigSourceSpecifier::{Ads, Self_};
    match faults.required(at, proto)?.config_source_specifier {
        Some(Ads(_) | Self_(_)) => Some(()),
        _ => faults.reject(at, "must be `ads` or `self`"),
    }
}

/// Our own metadata: of a route or cluster, where it and its settings were written; of a cluster, automatic mTLS.
const OWN_NAMESPACE: &str = "io.mesh";
const ORIGIN: &str = "origin";
const ORIGINS: &str = "origins";
const AUTO_MTLS: &str = "auto_mtls";

/// Metadata of one namespace; none when it would be empty.
pub(super) fn metadata<const N: usize>(
    namespace: &str,
    values: [Option<(&str, Kind)>; N],
) -> Option<core::Metadata> {
    let values = values.into_iter().flatten();
    let fields: HashMap<_, _> =
        values.map(|(key, kind)| (key.to_owned(), pb::Value { kind: Some(kind) })).collect();
    (!fields.is_empty()).then(|| core::Metadata {
        filter_metadata: HashMap::from([(namespace.to_owned(), pb::Struct { fields })]),
        ..core::Metadata::default()
    })
}

pub(super) fn metadata_value<'a>(
    metadata: &'a Option<core::Metadata>,
    namespace: &str,
    key: &str,
) -> Option<&'a Kind> {
    metadata.as_ref()?.filter_metadata.get(namespace)?.fields.get(key)?.kind.as_ref()
}

/// Where something was written. It is advice: what cannot be read is left out.
pub(super) fn origin(metadata: &Option<core::Metadata>) -> Option<Origin> {
    let Some(Kind::StringValue(place)) = metadata_value(metadata, OWN_NAMESPACE, ORIGIN) else {
        return None;
    };
    let settings = match metadata_value(metadata, OWN_NAMESPACE, ORIGINS) {
        Some(Kind::StructValue(settings)) => Some(&settings.fields),
        _ => None,
    };
    let Some(settings) = settings else { return Some(place.as_str().into()) };
    let setting = |(name, place): (&String, &pb::Value)| match &place.kind {
        Some(Kind::StringValue(place)) => {
            Some((Arc::<str>::from(name.as_str()), Arc::<str>::from(place.as_str())))
        }
        _ => None,
    };
    Some(Origin::new(place.as_str(), settings.iter().filter_map(setting)))
}

pub(super) fn auto_mtls(metadata: &Option<core::Metadata>) -> bool {
    matches!(metadata_value(metadata, OWN_NAMESPACE, AUTO_MTLS), Some(Kind::BoolValue(true)))
}

pub(super) fn own_metadata(origin: Option<&Origin>, auto_mtls: bool) -> Option<core::Metadata> {
    let settings = origin.and_then(Origin::settings).map(|settings| {
        let text = |place: &Arc<str>| pb::Value { kind: Some(Kind::StringValue(place.to_string())) };
        let fields = settings.iter().map(|(name, place)| (name.to_string(), text(place)));
        (ORIGINS, Kind::StructValue(pb::Struct { fields: fields.collect() }))
    });
    let origin = origin.map(|origin| (ORIGIN, Kind::StringValue(origin.to_string())));
    metadata(OWN_NAMESPACE, [origin, settings, auto_mtls.then_some((AUTO_MTLS, Kind::BoolValue(true)))])
}

/// Appends an embedded message that is encoded already.
pub(super) fn embed(tag: u32, message: &[u8], buffer: &mut Vec<u8>) {
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, buffer);
    prost::encoding::encode_varint(message.len() as u64, buffer);
    buffer.extend_from_slice(message);
}
