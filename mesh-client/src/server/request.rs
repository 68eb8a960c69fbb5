//! A request at the edge: the one place where path, authority and headers are read.
//!
//! Authorisation, routing and the handler see the same values. Anything but `POST /package.Service/Method`
//! is refused before a policy could allow it (the lesson of CVE-2026-33186 and its kin), the authority is
//! read as gRFC A41 says, and headers that only the mesh itself may set are removed.

use http::{HeaderMap, HeaderName, Method, Uri, header};
use std::borrow::Cow;
use tonic::Status;

/// Prefix of the headers by which members of the mesh talk to each other.
const OURS: &str = "x-mesh-";
/// Envoy's statement about a client certificate: ours come from the handshake.
const FORWARDED_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes what a peer must not be believed.
pub(super) fn strip(headers: &mut HeaderMap) {
    headers.remove(&FORWARDED_CERT);
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The path of a gRPC call, if it is one.
pub(super) fn path<'a>(method: &Method, uri: &'a Uri) -> Result<&'a str, Status> {
    if method != Method::POST {
        return Err(Status::unimplemented("not a gRPC call: the HTTP method is not POST"));
    }
    let path = uri.path();
    if uri.query().is_some() || !is_grpc(path) {
        return Err(Status::unimplemented("the path is not of the form /package.Service/Method"));
    }
    Ok(path)
}

fn is_grpc(path: &str) -> bool {
    let word = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        !text.is_empty() && text.bytes().all(plain)
    };
    path.strip_prefix('/').and_then(|rest| rest.split_once('/')).is_some_and(|(service, method)| {
        word(service) && word(method) && ![".", ".."].contains(&service) && ![".", ".."].contains(&method)
    })
}

/// The authority, from `:authority`, or from `host` without it; afterwards there is no `host` header. Empty
/// if there is none.
pub(super) fn authority<'a>(uri: &'a Uri, headers: &mut HeaderMap) -> Result<Cow<'a, str>, Status> {
    let refuse = |why| Err(Status::invalid_argument(why));
    let authority = match uri.authority() {
        Some(authority) => Cow::Borrowed(authority.as_str()),
        None => {
            let mut hosts = headers.get_all(header::HOST).iter();
            let first = hosts.next();
            if hosts.next().is_some() {
                return refuse("several host headers and no :authority");
            }
            match first.map(|host| host.to_str()) {
                None => Cow::Borrowed(""),
                Some(Ok(host)) => Cow::Owned(host.to_owned()),
                Some(Err(_)) => return refuse("the host header is not text"),
            }
        }
    };
    headers.remove(header::HOST);
    if authority.contains(['@', '/', '?', '#', '\\']) {
        return refuse("the authority is not of the form host:port");
    }
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn checked(uri: &str) -> Result<String, Code> {
        let uri: Uri = uri.parse().map_err(|_| Code::Internal)?;
        path(&Method::POST, &uri).map(str::to_owned).map_err(|status| status.code())
    }

    #[test]
    fn only_the_path_of_a_grpc_call_is_let_through() {
        assert_eq!(checked("/bookinfo.Reviews/Get").as_deref(), Ok("/bookinfo.Reviews/Get"));
        assert_eq!(checked("/Reviews/Get-1_2").as_deref(), Ok("/Reviews/Get-1_2"));
        for bad in [
            "*", "/", "//", "/a", "/a/", "//a/b", "/a//b", "/a/b/", "/a/b/c", "/a/b?c", "/a/b?", "/a%2fb/c",
            "/a/b;x=y", "/a/b%00", "/a/*", "/./b", "/a/..", "/a/b~", "/é/b",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_post_is_a_grpc_call() {
        let uri = Uri::from_static("/a/b");
        for method in [Method::GET, Method::CONNECT, Method::PUT] {
            assert_eq!(path(&method, &uri).unwrap_err().code(), Code::Unimplemented);
        }
    }

    fn headers(hosts: &[&'static str]) -> HeaderMap {
        hosts.iter().map(|host| (header::HOST, http::HeaderValue::from_static(host))).collect()
    }

    #[test]
    fn the_authority_pseudo_header_beats_every_host_header_and_those_vanish() {
        let mut map = headers(&["evil", "worse"]);
        let uri = Uri::from_static("http://reviews:9080/a/b");
        assert_eq!(authority(&uri, &mut map).unwrap(), "reviews:9080");
        assert!(map.is_empty());
    }

    #[test]
    fn one_host_header_stands_in_for_a_missing_authority_and_several_are_refused() {
        let uri = Uri::from_static("/a/b");
        assert_eq!(authority(&uri, &mut headers(&["reviews"])).unwrap(), "reviews");
        assert_eq!(authority(&uri, &mut headers(&[])).unwrap(), "");
        let refused = authority(&uri, &mut headers(&["a", "b"])).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    #[test]
    fn an_authority_with_user_info_is_refused() {
        let uri = Uri::from_static("http://admin@reviews/a/b");
        assert!(authority(&uri, &mut HeaderMap::new()).is_err());
    }

    #[test]
    fn headers_that_only_the_mesh_may_set_are_removed() {
        let mut map = HeaderMap::new();
        for name in ["x-mesh-peer", "x-mesh-explain", "x-forwarded-client-cert", "x-request-id"] {
            map.append(name, http::HeaderValue::from_static("1"));
            map.append(name, http::HeaderValue::from_static("2"));
        }
        strip(&mut map);
        let left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-request-id"]);
    }
}
