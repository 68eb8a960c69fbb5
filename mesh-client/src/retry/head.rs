//! The head of a request that may be sent again.
//!
//! Promises: an ordinary one needs no memory but its own, since most are never needed: its headers are copied, in
//! order. Longer ones take an allocation.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// Room for the headers of most gRPC requests, and a short message.
const ROOM: usize = 256;
/// Of one header: the lengths of its name and of its value.
const LENGTHS: usize = 8;
const SENSITIVE: u32 = 1 << 31;

/// Method, URI and headers of a request; and its message, if that is short.
pub(crate) struct Head {
    method: Method,
    uri: Uri,
    /// Headers one after the other, then the message.
    bytes: [u8; ROOM],
    headers: usize,
    message: usize,
    /// The headers, if they need more room.
    long: Vec<u8>,
}

impl Head {
    pub(crate) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let (method, uri) = (method.clone(), uri.clone());
        let mut head = Self { method, uri, bytes: [0; ROOM], headers: 0, message: 0, long: Vec::new() };
        for (name, value) in headers {
            head.push(name, value);
        }
        head
    }

    fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        let (name, text) = (name.as_str().as_bytes(), value.as_bytes());
        // `http` allows neither of them to be as long as that.
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(SENSITIVE) & !SENSITIVE;
        let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
        self.put(&length(name).to_le_bytes());
        self.put(&(length(text) | flag).to_le_bytes());
        self.put(name);
        self.put(text);
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.long.is_empty() {
            let end = self.headers + bytes.len();
            if let Some(room) = self.bytes.get_mut(self.headers..end) {
                room.copy_from_slice(bytes);
                self.headers = end;
                return;
            }
            self.long.reserve(4 * ROOM);
            self.long.extend_from_slice(self.bytes.get(..self.headers).unwrap_or_default());
        }
        self.long.extend_from_slice(bytes);
    }

    /// Keeps this message as well, if there is room for it.
    pub(crate) fn keep(&mut self, message: &[u8]) -> bool {
        let end = self.headers + message.len();
        let room = self.bytes.get_mut(self.headers..end);
        let fits = room.is_some();
        if let Some(room) = room {
            room.copy_from_slice(message);
            self.message = message.len();
        }
        fits
    }

    /// The message that was kept.
    pub(crate) fn message(&self) -> Bytes {
        let message = self.bytes.get(self.headers..self.headers + self.message);
        Bytes::copy_from_slice(message.unwrap_or_default())
    }

    /// A request with this head.
    pub(crate) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let short = self.bytes.get(..self.headers).unwrap_or_default();
        let mut rest = if self.long.is_empty() { short } else { &self.long };
        while let Some((name, value, after)) = next(rest) {
            request.headers_mut().append(name, value);
            rest = after;
        }
        request
    }
}

/// The first of these headers, and the others.
fn next(bytes: &[u8]) -> Option<(HeaderName, HeaderValue, &[u8])> {
    let ([a, b, c, d, e, f, g, h], rest) = bytes.split_first_chunk::<LENGTHS>()?;
    let (name, value) = (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]));
    let (name, rest) = rest.split_at_checked(usize::try_from(name).ok()?)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(value & !SENSITIVE).ok()?)?;
    let mut read = HeaderValue::from_bytes(text).ok()?;
    read.set_sensitive(value & SENSITIVE != 0);
    Some((HeaderName::from_bytes(name).ok()?, read, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(headers: &HeaderMap) -> Head {
        Head::of(&Method::POST, &Uri::from_static("http://reviews:9080/r.Reviews/List?a=b"), headers)
    }

    proptest! {
        #[test]
        fn any_head_is_sent_again_as_it_was(
            entries in proptest::collection::vec(
                ("[a-z][a-z0-9-]{0,20}", proptest::collection::vec(0x20..=0x7eu8, 0..80), any::<bool>()),
                0..12,
            ),
            message in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value, sensitive) in entries {
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                headers.append(HeaderName::try_from(name).unwrap(), value);
            }
            let mut head = head(&headers);
            if head.keep(&message) {
                prop_assert_eq!(&head.message()[..], &message[..]);
            }
            let again = head.request();
            prop_assert_eq!(again.method(), Method::POST);
            prop_assert_eq!(again.uri(), &Uri::from_static("http://reviews:9080/r.Reviews/List?a=b"));
            prop_assert_eq!(again.headers(), &headers);
            let marks = |map: &HeaderMap| map.iter().map(|(_, value)| value.is_sensitive()).collect::<Vec<_>>();
            prop_assert_eq!(marks(again.headers()), marks(&headers));
        }
    }

    #[test]
    fn an_ordinary_head_and_a_short_message_need_no_allocation() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "mesh-client/0.1.0 tonic/0.14.9"),
            ("grpc-timeout", "4999999u"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let uri = Uri::from_static("http://reviews:9080/r.Reviews/List");
        let counted = allocation_counter::measure(|| {
            let mut head = Head::of(&Method::POST, &uri, &headers);
            assert!(head.keep(&[7; 69]));
            std::hint::black_box(&head);
        });
        assert_eq!(counted.count_total, 0);
    }
}
