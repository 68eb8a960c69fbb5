//! The hash of a call, where its cluster balances by it: [`mesh_xds::balancing`] says what it is.
//!
//! The caller of an outbound sidecar is the workload itself: so the address that is hashed is this process's own, and
//! all its calls go one way. A cookie that a request lacks is given to the caller in `set-cookie`, as Envoy does per
//! connection.

use super::{Call, Core, cookie};
use crate::{
    call::Upstream,
    table::{Action, Compiled},
};
use http::{HeaderValue, request::Parts};
use mesh_xds::{
    balancing::{Caller, hash},
    resource::route::HashCookie,
};

/// What hashing a request gave.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    pub(super) hash: Option<u64>,
    /// To be set by the caller (`set-cookie`).
    pub(super) cookie: Option<Box<HeaderValue>>,
}

impl<U: Upstream> Call<'_, U> {
    /// The hash of a request as it is sent, if its cluster asks for one.
    pub(super) fn hash(&self, parts: &Parts) -> Hashed {
        let policies = &self.forwarding.hash;
        if policies.is_empty() || !self.choice.cluster.as_ref().is_ok_and(|cluster| cluster.wants_hash()) {
            return Hashed::default();
        }
        let caller = &self.core.caller;
        let hashed = hash(policies, &parts.headers, &parts.uri, caller);
        let cookie = hashed.cookie.and_then(|cookie| given(cookie, caller)).map(Box::new);
        Hashed { hash: hashed.hash, cookie }
    }
}

impl<U> Core<U> {
    /// What a call with this head would be hashed by on its way to one of a route's clusters; `None` where nothing
    /// asks for a hash. For explanations.
    pub(crate) fn hash_of(
        &self,
        compiled: &Compiled<U>,
        destination: usize,
        head: &Parts,
    ) -> Option<Option<u64>> {
        let Action::Forward(forwarding) = &compiled.action else { return None };
        if forwarding.hash.is_empty() {
            return None;
        }
        let mut parts = head.clone();
        let named;
        let choice = match &forwarding.by_header {
            None => forwarding.choices().get(destination)?,
            Some(by_header) => {
                named = by_header.choice("", Err("".into()));
                &named
            }
        };
        self.rewrite(&mut parts, compiled, forwarding, choice);
        Some(hash(&forwarding.hash, &parts.headers, &parts.uri, &self.caller).hash)
    }
}

/// `set-cookie` of a cookie that a caller is given.
fn given(cookie: &HashCookie, caller: &Caller) -> Option<HeaderValue> {
    let terms = cookie::Terms { ttl: cookie.ttl, path: &cookie.path, attributes: &cookie.attributes };
    cookie::given(&cookie.name, &format!("\"{}\"", caller.cookie()), &terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_cookie_is_given_on_the_terms_of_its_policy() {
        let caller = Caller { channel: 0xC4A2, address: "10.0.0.7".into() };
        for (ttl, path, expected) in [
            (60, "/", "session=\"000000000000c4a2\"; Max-Age=60; Path=/; SameSite=Strict; Secure; HttpOnly"),
            (0, "", "session=\"000000000000c4a2\"; SameSite=Strict; Secure; HttpOnly"),
        ] {
            let cookie = HashCookie {
                name: "session".into(),
                ttl: Some(Duration::from_secs(ttl)),
                path: path.into(),
                attributes: vec![("SameSite".into(), "Strict".into()), ("Secure".into(), "".into())],
            };
            assert_eq!(given(&cookie, &caller).unwrap(), expected);
        }
    }
}
