//! Which service a channel is for: `xds:///reviews:9080`, or just `reviews:9080`; `xds://authority/reviews:9080`
//! where another xDS authority than the default one is asked for it (gRFC A47).

use http::uri::Authority;
use std::{fmt, sync::Arc};

/// A client target: the name that the listener is asked by, and the authority that routes see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Of the bootstrap's `authorities`.
    xds_authority: Option<Arc<str>>,
    authority: Authority,
}

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{target}` is not a mesh target: {reason}; write `xds:///service:port`, `xds://authority/service:port` or `service:port`"
)]
pub struct InvalidTarget {
    target: String,
    reason: String,
}

impl Target {
    /// Reads a target.
    pub fn parse(target: &str) -> Result<Self, InvalidTarget> {
        let invalid = |reason: &str| InvalidTarget { target: target.into(), reason: reason.into() };
        let (xds_authority, name) = match target.split_once("://") {
            None => (None, target.strip_prefix("xds:").unwrap_or(target)),
            Some(("xds", rest)) => match rest.split_once('/') {
                Some(("", name)) => (None, name),
                Some((authority, name)) => (Some(authority.into()), name),
                None => return Err(invalid("it has an xDS authority and no service after it")),
            },
            Some((scheme, _)) => return Err(invalid(&format!("its scheme is `{scheme}`, not `xds`"))),
        };
        if name.contains(['@', '/']) {
            return Err(invalid("it has more than a host and a port"));
        }
        let authority = name.parse::<Authority>().map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { xds_authority, authority })
    }

    /// The xDS authority that is asked for the service; `None`: the bootstrap's own control planes.
    pub fn xds_authority(&self) -> Option<&str> {
        self.xds_authority.as_deref()
    }

    /// `service:port`, as it is sent in `:authority`.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(authority) = &self.xds_authority {
            write!(f, "xds://{authority}/")?;
        }
        f.write_str(self.authority.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port_with_or_without_the_scheme() {
        for text in ["xds:///reviews:9080", "xds:reviews:9080", "reviews:9080"] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.to_string().as_str(), target.xds_authority()), ("reviews:9080", None));
        }
        let target = Target::parse("xds://xds.example.com/reviews:9080").unwrap();
        assert_eq!(target.to_string(), "xds://xds.example.com/reviews:9080");
        assert_eq!(
            (target.xds_authority(), target.authority().as_str()),
            (Some("xds.example.com"), "reviews:9080")
        );
        for (text, reason) in [
            ("http://reviews:9080", "its scheme is `http`"),
            ("xds://authority", "no service after it"),
            ("xds://authority/", "is not a mesh target"),
            ("xds://authority/a/b", "more than a host"),
            ("xds:///a/b", "more than a host"),
            ("", "`` is not a mesh target"),
            ("a b", "is not a mesh target"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
