//! Which service a channel is for: `xds:///reviews:9080`, or just `reviews:9080`.

use http::uri::Authority;
use std::fmt;

/// A client target: the name that the listener is asked by, and the authority that routes see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    authority: Authority,
}

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{target}` is not a mesh target: {reason}; write `xds:///service:port` or `service:port`")]
pub struct InvalidTarget {
    target: String,
    reason: String,
}

impl Target {
    /// Reads a target.
    pub fn parse(target: &str) -> Result<Self, InvalidTarget> {
        let invalid = |reason: &str| InvalidTarget { target: target.into(), reason: reason.into() };
        let name = match target.split_once("://") {
            None => target.strip_prefix("xds:").unwrap_or(target),
            Some(("xds", rest)) => match rest.strip_prefix('/') {
                Some(name) => name,
                None => {
                    return Err(invalid("an xDS authority (`xds://authority/…`, gRFC A47) is not supported"));
                }
            },
            Some((scheme, _)) => return Err(invalid(&format!("its scheme is `{scheme}`, not `xds`"))),
        };
        if name.contains(['@', '/']) {
            return Err(invalid("it has more than a host and a port"));
        }
        let authority = name.parse::<Authority>().map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { authority })
    }

    /// `service:port`, as it is sent in `:authority`.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.authority.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port_with_or_without_the_scheme() {
        for text in ["xds:///reviews:9080", "xds:reviews:9080", "reviews:9080"] {
            assert_eq!(Target::parse(text).unwrap().to_string(), "reviews:9080");
        }
        for (text, reason) in [
            ("http://reviews:9080", "its scheme is `http`"),
            ("xds://authority/reviews", "not supported"),
            ("xds:///a/b", "more than a host"),
            ("", "`` is not a mesh target"),
            ("a b", "is not a mesh target"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
