//! One finding about the configuration: what, how bad, where, and what to do.
//!
//! Codes are Istio's (`IST0101` …) wherever Istio has one, so that its documentation applies;
//! `MESH…` codes are ours. A finding always names a place when one exists: a finding without a
//! place is about the directory as a whole.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::source::SourceFile;

/// A place in a YAML file: one-based line and column, and how many characters to underline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// One-based line.
    pub line: u32,
    /// One-based column, in characters.
    pub column: u32,
    /// Characters to underline, within the line; at least one.
    pub width: u32,
}

/// A position in a known file.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file, with the text that was parsed.
    pub file: Arc<SourceFile>,
    /// Where in it.
    pub position: Position,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position && self.file.path() == other.file.path()
    }
}

impl Eq for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.path(), self.position.line, self.position.column)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// The configuration is served, but probably not as meant.
    Warning,
    /// The object (or the file) is refused, or what it asks for cannot work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// The kind of a finding, stable across versions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// `IST0101`
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// `ReferencedResourceNotFound`
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }
        }
    };
}

codes! {
    /// A field or value that Istio has deprecated.
    Deprecated = "IST0002",
    /// A host, subset, namespace or workload that something names does not exist.
    ReferencedResourceNotFound = "IST0101",
    /// A field, type or value that the schema does not allow; YAML that does not parse.
    SchemaValidationError = "IST0106",
    /// Two VirtualServices claim one host.
    ConflictingMeshGatewayVirtualServiceHosts = "IST0109",
    /// A destination of a service with several ports names none.
    VirtualServiceDestinationPortSelectorRequired = "IST0112",
    /// A selector that no known workload matches.
    NoMatchingWorkloadsFound = "IST0127",
    /// TLS to a destination without verifying its certificate.
    NoServerCertificateVerificationDestinationLevel = "IST0128",
    /// TLS to one port of a destination without verifying its certificate.
    NoServerCertificateVerificationPortLevel = "IST0129",
    /// A route that no request can reach.
    VirtualServiceUnreachableRule = "IST0130",
    /// A match that an earlier one already covers.
    VirtualServiceIneffectiveMatch = "IST0131",
    /// Valid, and suspicious.
    SchemaWarning = "IST0133",
    /// A selector that is there and selects by nothing.
    IneffectiveSelector = "IST0166",
    /// A policy that can have no effect.
    IneffectivePolicy = "IST0167",
    /// A subset whose labels no endpoint of the service has.
    DestinationRuleSubsetNotSelectPods = "IST0173",
    /// A DestinationRule for a host that does not exist.
    UnknownDestinationRuleHost = "IST0174",
    /// A field that this version does not act on.
    NotSupported = "MESH0001",
    /// A kind that this version does not serve.
    KindIgnored = "MESH0002",
    /// One object is defined twice.
    DuplicateObject = "MESH0003",
    /// The last good version of something broken is still being served.
    LastGoodKept = "MESH0004",
    /// A change that would delete everything waits to be confirmed.
    ChangeHeld = "MESH0005",
    /// A file or directory that cannot be read.
    Unreadable = "MESH0006",
    /// A broken security policy without a last good version denies everything in its scope.
    FailedClosed = "MESH0007",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// One thing to know about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of finding.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// One sentence: what is wrong.
    pub message: String,
    /// Where it was written.
    pub place: Option<Place>,
    /// Other places that belong to it, each with a few words.
    pub related: Vec<(Place, String)>,
    /// The object it is about: `VirtualService default/reviews`.
    pub object: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Finding {
    /// A finding without place, object or help.
    pub fn new(code: Code, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: message.into(),
            place: None,
            related: Vec::new(),
            object: None,
            help: None,
        }
    }

    /// Sets where it was written.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Adds another place that belongs to it.
    pub fn with_related(mut self, place: Place, text: impl Into<String>) -> Self {
        self.related.push((place, text.into()));
        self
    }

    /// Sets the object it is about.
    pub fn about(mut self, object: impl fmt::Display) -> Self {
        self.object = Some(object.to_string());
        self
    }

    /// Sets what to do about it.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Finding {
    /// One line, as a compiler prints it: `file:line:column: severity[code]: message (help)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Place", 3)?;
        out.serialize_field("file", self.file.path())?;
        out.serialize_field("line", &self.position.line)?;
        out.serialize_field("column", &self.position.column)?;
        out.end()
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Related<'a> {
            #[serde(flatten)]
            place: &'a Place,
            message: &'a str,
        }
        let related: Vec<_> =
            self.related.iter().map(|(place, message)| Related { place, message }).collect();
        let mut out = serializer.serialize_struct("Finding", 8)?;
        out.serialize_field("code", self.code.id())?;
        out.serialize_field("name", self.code.name())?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("object", &self.object)?;
        out.serialize_field("place", &self.place)?;
        out.serialize_field("related", &related)?;
        out.serialize_field("help", &self.help)?;
        out.end()
    }
}
