//! SPIFFE ids and trust domains, parsed strictly.
//!
//! A value of these types is valid by construction ([SPIFFE-ID] §2): lower-case scheme and trust
//! domain, no port, query, fragment or percent-encoding, no empty or dot segments. What a stricter
//! parser refuses cannot be confused with something else by a laxer one.
//!
//! [SPIFFE-ID]: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md

use std::{fmt, str::FromStr, sync::Arc};

const SCHEME: &str = "spiffe://";
/// The namespace of the control plane itself.
pub const SERVER_NAMESPACE: &str = "mesh-system";
const SERVER_ACCOUNT: &str = "mesh-server";
const LONGEST_ID: usize = 2048;
const LONGEST_TRUST_DOMAIN: usize = 255;

/// Why a text is not a SPIFFE id or trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {reason}")]
pub struct InvalidSpiffeId {
    text: String,
    what: &'static str,
    reason: &'static str,
}

impl InvalidSpiffeId {
    fn new(text: &str, what: &'static str, reason: &'static str) -> Self {
        // The text may be an attacker's: quote it escaped and short.
        let text = text.chars().take(128).flat_map(char::escape_default).collect();
        Self { text, what, reason }
    }
}

/// The name of a trust domain, e.g. `cluster.local`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses the bare name (no scheme).
    pub fn parse(name: &str) -> Result<Self, InvalidSpiffeId> {
        let fail = |reason| Err(InvalidSpiffeId::new(name, "trust domain", reason));
        if name.is_empty() {
            return fail("it is empty");
        }
        if name.len() > LONGEST_TRUST_DOMAIN {
            return fail("it is longer than 255 bytes");
        }
        if !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
            return fail("only a-z, 0-9, `.`, `-` and `_` are allowed");
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(name: &str) -> Result<Self, InvalidSpiffeId> {
        Self::parse(name)
    }
}

/// A SPIFFE id, e.g. `spiffe://cluster.local/ns/default/sa/reviews`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Parses the whole URI.
    pub fn parse(uri: &str) -> Result<Self, InvalidSpiffeId> {
        let fail = |reason| InvalidSpiffeId::new(uri, "SPIFFE id", reason);
        if uri.len() > LONGEST_ID {
            return Err(fail("it is longer than 2048 bytes"));
        }
        let rest = uri.strip_prefix(SCHEME).ok_or_else(|| fail("it does not begin with `spiffe://`"))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = TrustDomain::parse(domain).map_err(|error| fail(error.reason))?;
        if let Some(segments) = path.strip_prefix('/') {
            for segment in segments.split('/') {
                if let Some(reason) = segment_error(segment) {
                    return Err(fail(reason));
                }
            }
        }
        Ok(Self { text: uri.into(), trust_domain })
    }

    /// The id that Istio gives a workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        for part in [namespace, service_account] {
            if let Some(reason) = segment_error(part) {
                return Err(InvalidSpiffeId::new(part, "part of a SPIFFE id", reason));
            }
        }
        Self::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"))
    }

    /// The id of a trust domain's control plane:
    /// `spiffe://<trust domain>/ns/mesh-system/sa/mesh-server`.
    pub fn mesh_server(trust_domain: &TrustDomain) -> Self {
        let text = format!("{SCHEME}{trust_domain}/ns/{SERVER_NAMESPACE}/sa/{SERVER_ACCOUNT}");
        Self { text: text.into(), trust_domain: trust_domain.clone() }
    }

    /// The domain whose authority vouches for this id.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What follows the trust domain: empty, or beginning with `/`.
    pub fn path(&self) -> &str {
        self.text.get(SCHEME.len() + self.trust_domain.0.len()..).unwrap_or_default()
    }

    /// `<ns>` of `/ns/<ns>/sa/<sa>`; none for a path of another form.
    pub fn namespace(&self) -> Option<&str> {
        self.istio_path().map(|(namespace, _)| namespace)
    }

    /// `<sa>` of `/ns/<ns>/sa/<sa>`; none for a path of another form.
    pub fn service_account(&self) -> Option<&str> {
        self.istio_path().map(|(_, account)| account)
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn istio_path(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        let plain = !namespace.contains('/') && !account.contains('/');
        plain.then_some((namespace, account))
    }
}

/// Why a path segment is refused, if it is.
fn segment_error(segment: &str) -> Option<&'static str> {
    let allowed = |b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    match segment {
        "" => Some("a path segment is empty"),
        "." | ".." => Some("`.` and `..` are not allowed as path segments"),
        _ if !segment.bytes().all(allowed) => {
            Some("in a path segment only a-z, A-Z, 0-9, `.`, `-` and `_` are allowed")
        }
        _ => None,
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(uri: &str) -> Result<Self, InvalidSpiffeId> {
        Self::parse(uri)
    }
}

#[cfg(test)]
mod tests;
