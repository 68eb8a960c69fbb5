//! The values that Istio's kinds are made of, valid by construction.
//!
//! Rules of Istio's `pkg/config/{host,validation,labels}`. Everything here is pure; where a value
//! was written is the business of [`Located`] and of the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::analysis::Position;
use mesh_xds::matcher::{FullRegex, InvalidMatcher};

/// Labels of a workload, or a selector over them.
pub type Labels = BTreeMap<String, String>;

/// True when `labels` has every pair of `selector`; an empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A value with the place it was written, inside the file of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub at: Position,
}

/// A host name or a wildcard: `reviews.default.svc.cluster.local`, `*.example.com`, `*`.
///
/// Lower case; short names are already expanded when a `Host` exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// One name.
    Exact(String),
    /// Every name that ends with the text: `.example.com` for `*.example.com`, empty for `*`.
    Wildcard(String),
}

impl Host {
    /// Reads a host; `Err` says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a host must not be empty".to_owned());
        }
        if text.len() > 255 {
            return Err(format!("host {text:?} is longer than 255 characters"));
        }
        let (wildcard, rest) = match text.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(format!("host {text:?}: `*` may stand only at the start"));
        }
        let lower = rest.to_ascii_lowercase();
        if !wildcard && lower.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self::Exact(lower));
        }
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let labels = name.strip_prefix('.').filter(|_| wildcard).unwrap_or(name);
        if !(wildcard && labels.is_empty()) {
            for (index, label) in labels.split('.').enumerate() {
                // `*-foo.example.com`: the first label continues the wildcard.
                let label = if wildcard && index == 0 { label.trim_start_matches('-') } else { label };
                if !is_dns_label(label) {
                    return Err(format!("host {text:?}: {label:?} is not a DNS label"));
                }
            }
            let last = labels.rsplit('.').next().unwrap_or(labels);
            if last.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("host {text:?}: the last label must not be all digits"));
            }
        }
        Ok(if wildcard { Self::Wildcard(lower) } else { Self::Exact(lower) })
    }

    /// True when some name could be meant by both (Istio's `Name.Matches`, symmetric).
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Wildcard(suffix), Self::Exact(name)) | (Self::Exact(name), Self::Wildcard(suffix)) => {
                name.ends_with(suffix.as_str())
            }
            (Self::Wildcard(a), Self::Wildcard(b)) => a.ends_with(b.as_str()) || b.ends_with(a.as_str()),
        }
    }

    /// True when this host means the name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(host) => host == name,
            Self::Wildcard(suffix) => name.ends_with(suffix.as_str()),
        }
    }

    /// Orders hosts by how specific they are: an exact name, then the longest suffix.
    pub fn specificity(&self) -> (bool, usize) {
        match self {
            Self::Exact(name) => (true, name.len()),
            Self::Wildcard(suffix) => (false, suffix.len()),
        }
    }

    /// The name, unless this is a wildcard.
    pub fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name),
            Self::Wildcard(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Istio's `ResolveShortnameToFQDN`: a name without a dot gets the *rule's* namespace.
pub fn expand_short_name(name: &str, namespace: &str, domain: &str) -> String {
    let is_short = !name.is_empty()
        && !name.starts_with('*')
        && !name.contains('.')
        && name.parse::<std::net::IpAddr>().is_err();
    if is_short { format!("{name}.{namespace}.svc.{domain}") } else { name.to_owned() }
}

/// `[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?`, at most 63 characters; upper case is allowed.
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// A Kubernetes label key: an optional DNS prefix and `/`, then a name of at most 63 characters.
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let prefix_ok = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_dns_label));
    prefix_ok && !name.is_empty() && is_label_value(name)
}

/// A Kubernetes label value: empty, or at most 63 of `[-_.a-zA-Z0-9]` that start and end alphanumeric.
pub fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// An RFC 7230 token: what an HTTP header may be called.
pub fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A proto Duration in JSON (`1.5s`) or one of Go's (`1h30m`, `250ms`), in whole nanoseconds.
pub fn duration(text: &str) -> Option<std::time::Duration> {
    let mut total: u128 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos_per_unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        total = total
            .checked_add(whole.checked_mul(nanos_per_unit)?)?
            .checked_add(part.checked_mul(nanos_per_unit)? / scale)?;
        rest = tail;
    }
    Some(std::time::Duration::from_nanos(u64::try_from(total).ok()?))
}

/// A share in millionths, as Istio translates `percentage.value` (0, or 0.0001 to 100).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(u32);

impl PerMillion {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// From percent; `None` when it is out of range.
    pub fn from_percent(percent: f64) -> Option<Self> {
        if percent != 0.0 && !(0.0001..=100.0).contains(&percent) {
            return None;
        }
        // Truncates as Istio does; the epsilon undoes binary rounding of decimal input (0.29 * 1e4).
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked above")]
        Some(Self((percent * 10_000.0 + 1e-6) as u32))
    }

    /// Millionths, 0 to 1,000,000.
    pub fn millionths(self) -> u32 {
        self.0
    }
}

/// A regular expression in RE2's syntax, matched against the whole text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Compiles the text once to know that it can be; `Err` says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a regular expression must not be empty".to_owned());
        }
        if text.len() > 1024 {
            return Err("a regular expression must not be longer than 1024 characters".to_owned());
        }
        // By the function that clients read it with.
        match FullRegex::new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(InvalidMatcher::Regex { reason, .. } | InvalidMatcher::Costly { reason, .. }) => {
                Err(format!("regular expression {text:?} does not compile: {reason}"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Istio's StringMatch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// The whole text.
    Exact(String),
    /// The text's start.
    Prefix(String),
    /// A full match.
    Regex(Pattern),
    /// Any value, as long as there is one (`{}`, or the regex `*`); headers and query parameters only.
    Present,
}

/// Which namespaces may use an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// All of them (`*`, or nothing said).
    All,
    /// These; `.` is already the object's own namespace.
    Namespaces(BTreeSet<String>),
    /// None (`~`; ServiceEntry only).
    Nobody,
}

impl ExportTo {
    /// True when a client in `namespace` may use the object.
    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(namespace),
            Self::Nobody => false,
        }
    }

    /// True when only the object's own namespace may use it.
    pub fn is_private_to(&self, own: &str) -> bool {
        matches!(self, Self::Namespaces(names) if names.len() == 1 && names.contains(own))
    }
}

/// The application protocol of a service port (from the port's `appProtocol`, `protocol` or name).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/1.1.
    Http,
    /// HTTPS, opaque to the mesh.
    Https,
    /// TLS, opaque to the mesh.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams: nothing for this mesh.
    Udp,
    /// Not said: found out by looking.
    Unknown,
}

impl Protocol {
    /// Istio's port naming: `grpc`, `grpc-anything`; any case.
    pub fn from_name(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        if lower == "grpc-web" || lower.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        match lower.split('-').next().unwrap_or_default() {
            "grpc" => Self::Grpc,
            "http2" => Self::Http2,
            "http" => Self::Http,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" | "mongo" | "mysql" | "redis" => Self::Tcp,
            "udp" => Self::Udp,
            _ => Self::Unknown,
        }
    }

    /// True when requests, not bytes, are routed: HTTPRoutes apply.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb | Self::Http | Self::Http2 | Self::Unknown)
    }
}

/// Region, zone and sub-zone; each may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// `us-east1`
    pub region: String,
    /// `us-east1-b`
    pub zone: String,
    /// `rack7`
    pub sub_zone: String,
}

impl Locality {
    /// `region/zone/subzone`, later parts optional.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.sub_zone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.sub_zone.is_empty() {
            write!(f, "/{}", self.sub_zone)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
