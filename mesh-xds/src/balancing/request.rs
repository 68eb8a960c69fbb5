//! The hash of a call, for clusters that balance by it (gRFC A42, and Envoy's further keys).
//!
//! Promises: policies are evaluated in order and combined by `rotl(hash, 1) ^ next`; a terminal one stops as
//! soon as there is a hash, its own or an earlier one's; a policy that finds nothing leaves the hash as it is.
//! No hash at all is `None`: such a call may go anywhere. Headers are seen as they are sent, after header
//! rules, as in Envoy. Several values of a header are joined by `,` in the order they came (gRPC; Envoy
//! would sort them). `-bin` headers are never hashed, and `content-type` is `application/grpc` (A42).
//!
//! The caller of an outbound sidecar is the workload itself: so the address that is hashed is this process's
//! own, and all its calls go one way. A cookie that a request lacks is made up from the channel where the
//! policy has a lifetime for it: hashed at once and given to the caller in `set-cookie`, as Envoy does per
//! connection.

use crate::resource::route::{HashCookie, HashKey, HashPolicy, RegexRewrite};
use http::{
    HeaderMap, HeaderName, Uri,
    header::{CONTENT_TYPE, COOKIE},
};
use std::sync::Arc;
use twox_hash::XxHash64;

/// What a caller is hashed by, whatever it sends.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Random, fixed for the channel.
    pub channel: u64,
    /// Address of this process, as text.
    pub address: Arc<str>,
}

/// What hashing a request gave.
#[derive(Debug, Default)]
pub struct Hashed<'p> {
    /// Of calls without one any endpoint is as good.
    pub hash: Option<u64>,
    /// The caller is to be given this cookie (`set-cookie`), with [`Caller::cookie`] for its value.
    pub cookie: Option<&'p HashCookie>,
}

impl Caller {
    /// The value of a cookie that a caller is given.
    pub fn cookie(&self) -> String {
        format!("{:016x}", self.channel)
    }
}

/// The hash of a request.
pub fn hash<'p>(policies: &'p [HashPolicy], headers: &HeaderMap, uri: &Uri, caller: &Caller) -> Hashed<'p> {
    let mut hashed = Hashed::default();
    for policy in policies {
        let found = match &policy.key {
            HashKey::Header { name, rewrite } => header(headers, name, rewrite.as_ref()),
            HashKey::ChannelId => Some(caller.channel),
            HashKey::SourceIp => Some(xxh64(caller.address.as_bytes())),
            HashKey::QueryParameter(name) => parameter(uri, name).map(|value| xxh64(value.as_bytes())),
            HashKey::Cookie(cookie) => match (self::cookie(headers, &cookie.name), cookie.ttl) {
                (Some(value), _) => Some(xxh64(value.as_bytes())),
                (None, Some(_)) => {
                    hashed.cookie = Some(cookie);
                    Some(xxh64(caller.cookie().as_bytes()))
                }
                (None, None) => None,
            },
        };
        if let Some(found) = found {
            hashed.hash = Some(hashed.hash.map_or(0, |hash: u64| hash.rotate_left(1)) ^ found);
        }
        if policy.terminal && hashed.hash.is_some() {
            break;
        }
    }
    hashed
}

/// The first value of a query parameter, as it is sent.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// The first cookie of this name that is not empty, without quotes.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    let bare =
        |value: &'a str| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    values.map(bare).find(|value| !value.is_empty())
}

fn xxh64(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

fn header(headers: &HeaderMap, name: &HeaderName, rewrite: Option<&RegexRewrite>) -> Option<u64> {
    if name.as_str().ends_with("-bin") {
        return None;
    }
    if *name == CONTENT_TYPE {
        return Some(rewritten(b"application/grpc", rewrite));
    }
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(rewritten(first.as_bytes(), rewrite)) };
    let mut joined = first.as_bytes().to_vec();
    for value in [second].into_iter().chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(rewritten(&joined, rewrite))
}

/// What is not UTF-8 is not rewritten: expressions are about text.
fn rewritten(value: &[u8], rewrite: Option<&RegexRewrite>) -> u64 {
    match rewrite.zip(std::str::from_utf8(value).ok()) {
        Some((rewrite, text)) => xxh64(rewrite.apply(text).as_bytes()),
        None => xxh64(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const CHANNEL: u64 = 0xC4A2;

    fn hash(policies: &[HashPolicy], headers: &HeaderMap) -> Option<u64> {
        hash_of(policies, headers, "/r.Reviews/List").hash
    }

    fn hash_of<'p>(policies: &'p [HashPolicy], headers: &HeaderMap, uri: &str) -> Hashed<'p> {
        let caller = Caller { channel: CHANNEL, address: "10.0.0.7".into() };
        super::hash(policies, headers, &uri.parse().unwrap(), &caller)
    }

    fn headers(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
        let value = |bytes: &&'static [u8]| HeaderValue::from_bytes(bytes).unwrap();
        pairs.iter().map(|(name, bytes)| (HeaderName::from_static(name), value(bytes))).collect()
    }

    fn by_header(name: &'static str) -> HashPolicy {
        let key = HashKey::Header { name: HeaderName::from_static(name), rewrite: None };
        HashPolicy { key, terminal: false }
    }

    fn terminal(mut policy: HashPolicy) -> HashPolicy {
        policy.terminal = true;
        policy
    }

    fn channel() -> HashPolicy {
        HashPolicy { key: HashKey::ChannelId, terminal: false }
    }

    fn rewriting(name: &'static str, pattern: &str, substitution: &str) -> HashPolicy {
        let rewrite = Some(RegexRewrite::new(pattern, substitution).unwrap());
        HashPolicy { key: HashKey::Header { name: HeaderName::from_static(name), rewrite }, terminal: false }
    }

    #[test]
    fn a_header_is_hashed_by_its_joined_values_whatever_their_bytes() {
        for (sent, hashed) in [
            (&[("user", &b"alice"[..])][..], Some(xxh64(b"alice"))),
            (&[("user", b"a"), ("user", b"b"), ("user", b"c")], Some(xxh64(b"a,b,c"))),
            (&[("user", b"")], Some(xxh64(b""))),
            (&[("user", &[0xff, 0xfe])], Some(xxh64(&[0xff, 0xfe]))),
            (&[("other", b"alice")], None),
        ] {
            assert_eq!(hash(&[by_header("user")], &headers(sent)), hashed, "{sent:?}");
        }
        assert_eq!(hash(&[by_header("user-bin")], &headers(&[("user-bin", b"YQ")])), None);
        assert_eq!(
            hash(&[by_header("content-type")], &headers(&[("content-type", b"application/grpc+proto")])),
            Some(xxh64(b"application/grpc"))
        );
    }

    #[test]
    fn a_rewrite_comes_before_the_hash() {
        let sent = headers(&[("user", b"alice@example.com")]);
        let by_domain = rewriting("user", ".*@(.*)", r"\1");
        assert_eq!(hash(&[by_domain], &sent), Some(xxh64(b"example.com")));
        let untouched = headers(&[("user", &[0xff])]);
        assert_eq!(hash(&[rewriting("user", "x", "y")], &untouched), Some(xxh64(&[0xff])));
    }

    #[test]
    fn hashes_are_combined_in_order() {
        let sent = headers(&[("a", b"1"), ("b", b"2")]);
        let both = hash(&[by_header("a"), by_header("b")], &sent);
        assert_eq!(both, Some(xxh64(b"1").rotate_left(1) ^ xxh64(b"2")));
        assert_ne!(both, hash(&[by_header("b"), by_header("a")], &sent));
        let absent = hash(&[by_header("a"), by_header("absent")], &sent);
        assert_eq!(absent, Some(xxh64(b"1")), "what finds nothing changes nothing");
    }

    #[test]
    fn a_terminal_policy_stops_only_when_there_is_a_hash() {
        let sent = headers(&[("a", b"1")]);
        let first = hash(&[terminal(by_header("a")), channel()], &sent);
        assert_eq!(first, Some(xxh64(b"1")));
        let none_yet = hash(&[terminal(by_header("absent")), channel()], &sent);
        assert_eq!(none_yet, Some(CHANNEL));
        let earlier = hash(&[by_header("a"), terminal(by_header("absent")), channel()], &sent);
        assert_eq!(earlier, Some(xxh64(b"1")));
    }

    fn by(key: HashKey) -> [HashPolicy; 1] {
        [HashPolicy { key, terminal: false }]
    }

    #[test]
    fn the_address_of_this_process_and_query_parameters_are_hashed_as_text() {
        let none = HeaderMap::new();
        assert_eq!(hash(&by(HashKey::SourceIp), &none), Some(xxh64(b"10.0.0.7")));
        let user = by(HashKey::QueryParameter("user".into()));
        for (uri, hashed) in [
            ("/a?user=alice", Some(xxh64(b"alice"))),
            ("/a?x=1&user=a%20b&user=c", Some(xxh64(b"a%20b"))),
            ("/a?user", Some(xxh64(b""))),
            ("/a?users=1", None),
            ("/a", None),
        ] {
            assert_eq!(hash_of(&user, &none, uri).hash, hashed, "{uri}");
        }
    }

    fn by_cookie(ttl: Option<u64>) -> [HashPolicy; 1] {
        by(HashKey::Cookie(HashCookie {
            name: "session".into(),
            ttl: ttl.map(std::time::Duration::from_secs),
            path: "/".into(),
            attributes: Vec::new(),
        }))
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        for (sent, hashed) in [
            (&[("cookie", &b"session=abc"[..])][..], Some(xxh64(b"abc"))),
            (&[("cookie", b"a=1; session=\"abc\"; b=2")], Some(xxh64(b"abc"))),
            (&[("cookie", b"a=1"), ("cookie", b"session=x=y")], Some(xxh64(b"x=y"))),
            (&[("cookie", b"sessions=1; session=")], None),
            (&[("cookie", &[0xff])], None),
            (&[], None),
        ] {
            let policy = by_cookie(None);
            let found = hash_of(&policy, &headers(sent), "/a");
            assert_eq!((found.hash, found.cookie.is_none()), (hashed, true), "{sent:?}");
        }
    }

    #[test]
    fn a_caller_without_the_cookie_is_given_one_that_leads_to_the_same_endpoint() {
        let policy = by_cookie(Some(60));
        let first = hash_of(&policy, &HeaderMap::new(), "/a");
        assert_eq!(first.cookie.map(|cookie| &*cookie.name), Some("session"));
        let sent = headers(&[("cookie", b"session=000000000000c4a2")]);
        let again = hash_of(&policy, &sent, "/a");
        assert_eq!((again.hash, again.cookie.is_none()), (first.hash, true));
    }

    #[test]
    fn without_policies_or_findings_there_is_no_hash() {
        assert_eq!(hash(&[], &headers(&[("a", b"1")])), None);
        assert_eq!(hash(&[by_header("absent")], &HeaderMap::new()), None);
    }
}
