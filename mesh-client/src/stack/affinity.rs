//! The session of a call: read from its request, and told with its response (gRFC A55, A60; Envoy's
//! `stateful_session`).
//!
//! Promises: what a caller keeps is base64 of `address;cluster:name`, in a cookie or in a header; an address alone (A55,
//! and what Envoy writes into headers) and a list of addresses with commas (A75) are understood as well, anything else is
//! as good as nothing. Where the route has several clusters, the one of the session takes the place of the one that was
//! drawn; a cluster that the route does not have makes the session void. The caller is told only when its call was
//! served by another endpoint or cluster than it asked for. The filter stands before the router: it sees the request as
//! the caller made it, and the response as the caller gets it.
//!
//! Only calls of routes with such a filter come here.

use super::{Call, Core, cookie};
use crate::{
    call::Upstream,
    cluster::{Session, track::BINARY},
    retry::policy::of_http,
    table::{Action, Choice, Compiled},
};
use base64::Engine as _;
use http::{HeaderMap, HeaderValue, Uri, header::SET_COOKIE, request::Parts};
use mesh_xds::balancing;
use mesh_xds::resource::stateful_session::{SessionState, StatefulSession};
use std::net::SocketAddr;
use tonic::Status;

/// What a caller keeps of its session.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    hosts: Box<[SocketAddr]>,
    cluster: Option<Box<str>>,
}

/// A call that has a session, or is to have one.
#[derive(Debug)]
pub(super) struct Affinity<'c> {
    state: &'c SessionState,
    kept: Option<Kept>,
}

impl<'c, U: Upstream> Call<'c, U> {
    /// The session of a request. It decides over the cluster as well, if it knows one.
    pub(super) fn begin_session(
        &mut self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Affinity<'c>>, Status> {
        let Some(session) = self.choice.session.as_deref() else { return Ok(None) };
        let StatefulSession { state: Some(state), strict } = session else { return Ok(None) };
        if let SessionState::Cookie(cookie) = state
            && !cookie.is_for(uri.path())
        {
            return Ok(None);
        }
        let mut kept = Kept::read(state, headers);
        if let Some(Kept { cluster: Some(cluster), hosts }) = &kept
            && **cluster != *self.choice.name
        {
            let has_it = |choice: &&Choice<U>| *choice.name == **cluster && choice.session.is_some();
            match (self.forwarding.choices().iter().find(has_it), strict) {
                (Some(choice), _) => self.choice = choice,
                (None, None) => kept = None,
                (None, Some(status)) => {
                    let message = format!(
                        "the session (strict) is with {hosts:?} of cluster {cluster}, which the route does not have"
                    );
                    let status = Status::new(of_http(status.as_u16()), message);
                    return Err(self.explain(status, 0, None));
                }
            }
        }
        let hosts = kept.as_ref().map(|kept| kept.hosts.clone()).unwrap_or_default();
        self.session = Some(Box::new(Session::new(hosts, *strict)));
        Ok(Some(Affinity { state, kept }))
    }
}

impl<U: Upstream> Core<U> {
    /// Tells the caller where its session is, unless it knows.
    pub(super) fn tell_session(
        affinity: &Affinity<'_>,
        headers: &mut HeaderMap,
        host: SocketAddr,
        choice: &Choice<U>,
    ) {
        let Affinity { state, kept } = affinity;
        let is_there = |kept: &Kept| {
            kept.hosts.contains(&host) && kept.cluster.as_deref().is_some_and(|name| name == &*choice.name)
        };
        if kept.as_ref().is_some_and(is_there) {
            return;
        }
        let value = encoded(host, &choice.name);
        match state {
            SessionState::Cookie(of) => {
                let terms = cookie::Terms { ttl: Some(of.ttl), path: &of.path, attributes: &of.attributes };
                if let Some(given) = cookie::given(&of.name, &value, &terms) {
                    headers.append(SET_COOKIE, given);
                }
            }
            SessionState::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// The first endpoint that the session of a request with this head names, if it is of this one of the route's clusters. For
/// explanations.
pub(crate) fn session_of<U>(compiled: &Compiled<U>, destination: usize, head: &Parts) -> Option<SocketAddr> {
    let Action::Forward(forwarding) = &compiled.action else { return None };
    let choice = forwarding.choices().get(destination)?;
    let state = choice.session.as_deref()?.state.as_ref()?;
    if matches!(state, SessionState::Cookie(cookie) if !cookie.is_for(head.uri.path())) {
        return None;
    }
    let Kept { hosts, cluster } = Kept::read(state, &head.headers)?;
    let is_here = cluster.is_none_or(|cluster| *cluster == *choice.name);
    hosts.first().copied().filter(|_| is_here)
}

/// What a caller is to keep.
fn encoded(host: SocketAddr, cluster: &str) -> String {
    BINARY.encode(format!("{host};cluster:{cluster}"))
}

impl Kept {
    fn read(state: &SessionState, headers: &HeaderMap) -> Option<Self> {
        let value = match state {
            SessionState::Cookie(cookie) => balancing::cookie(headers, &cookie.name)?,
            SessionState::Header(name) => headers.get(name)?.to_str().ok()?,
        };
        Self::decode(value)
    }

    fn decode(value: &str) -> Option<Self> {
        let text = String::from_utf8(BINARY.decode(value).ok()?).ok()?;
        let (hosts, cluster) = match text.split_once(';') {
            None => (&*text, None),
            Some((hosts, cluster)) => (hosts, Some(cluster.strip_prefix("cluster:")?.into())),
        };
        let hosts: Option<_> = hosts.split(',').map(|host| host.parse().ok()).collect();
        Some(Self { hosts: hosts?, cluster })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Option<(Vec<String>, Option<String>)> {
        let kept = Kept::decode(&BINARY.encode(text))?;
        let hosts = kept.hosts.iter().map(ToString::to_string).collect();
        Some((hosts, kept.cluster.map(String::from)))
    }

    #[test]
    fn what_callers_keep_is_read_in_every_form_that_there_is() {
        let one = |cluster: Option<&str>| Some((vec!["10.0.0.1:80".to_owned()], cluster.map(str::to_owned)));
        assert_eq!(decode("10.0.0.1:80"), one(None));
        assert_eq!(decode("10.0.0.1:80;cluster:outbound|80|v1|a.b"), one(Some("outbound|80|v1|a.b")));
        let both = Some((vec!["10.0.0.1:80".to_owned(), "[::1]:80".to_owned()], Some("c".to_owned())));
        assert_eq!(decode("10.0.0.1:80,[::1]:80;cluster:c"), both);
        for nothing in ["", "reviews:80", "10.0.0.1", "10.0.0.1:80;c", "10.0.0.1:80,;cluster:c", "\u{fffd}"] {
            assert_eq!(decode(nothing), None, "{nothing}");
        }
        assert_eq!(Kept::decode("not base64!"), None);
        let padded = BINARY.encode("10.0.0.1:80");
        assert_eq!(Kept::decode(padded.trim_end_matches('=')), Kept::decode(&padded));
        let mine = encoded("10.0.0.1:80".parse().unwrap(), "c");
        assert_eq!(Kept::decode(&mine).unwrap().cluster.as_deref(), Some("c"));
    }
}
