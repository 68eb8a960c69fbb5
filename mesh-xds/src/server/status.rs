//! What a stream looks like from outside: for `/debug/syncz` and `proxy-status`.

use super::Node;
use crate::{client::ResourceState, name::Name};
use serde::Serialize;
use std::{sync::Arc, time::SystemTime};

/// The two ways of ADS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// `StreamAggregatedResources`.
    Sotw,
    /// `DeltaAggregatedResources`.
    Delta,
}

/// One connected stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    /// Unique in this process.
    pub id: u64,
    /// `node.id`.
    pub node: Arc<str>,
    /// `node.cluster`.
    pub cluster: Arc<str>,
    /// What the client calls itself.
    pub user_agent: Arc<str>,
    /// All that the client said of itself.
    #[serde(skip)]
    pub said: Arc<Node>,
    /// Who the peer was authenticated as.
    pub peer: Arc<str>,
    /// Seconds since the epoch.
    pub connected_since: f64,
    /// Which way of ADS.
    pub variant: Variant,
    /// Revision whose every subscribed resource the client has accepted; absent: none yet.
    pub acked_revision: Option<Arc<str>>,
    /// Revision that the stream is being brought to.
    pub target_revision: Arc<str>,
    /// By type; only those that the client asked for.
    pub types: Vec<TypeStatus>,
}

/// One type on one stream.
#[derive(Clone, Debug, Serialize)]
pub struct TypeStatus {
    /// `CDS`, `EDS`, `LDS`, `RDS`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Everything is subscribed.
    pub wildcard: bool,
    /// Explicitly subscribed names.
    pub names: Vec<Name>,
    /// Resources that the client was sent.
    pub held: usize,
    /// Revision of the last response.
    pub sent_revision: Option<Arc<str>>,
    /// Newest revision of which the client holds all it asked for.
    pub acked_revision: Option<Arc<str>>,
    /// A response awaits its ACK.
    pub outstanding: bool,
    /// The last rejection; kept after later ACKs.
    pub last_nack: Option<NackStatus>,
    /// Resources that the client rejected, as far as its text says which, and that did not change since.
    pub rejected: Vec<Name>,
    /// Each resource that the client holds or names; empty unless it was asked for ([`super::AdsService::select`]).
    #[serde(skip)]
    pub resources: Vec<HeldStatus>,
}

/// One resource on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldStatus {
    /// Its name.
    pub name: Name,
    /// The version that the client accepted, or brought from an earlier stream.
    pub version: Option<Arc<str>>,
    /// `Requested` as well while a response awaits its ACK.
    pub state: ResourceState,
    /// Why the client has none, as it was told.
    pub reason: Option<Arc<str>>,
}

/// A rejection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NackStatus {
    /// Revision that was rejected.
    pub revision: Arc<str>,
    /// What the client said.
    pub text: Arc<str>,
    /// Seconds since the epoch.
    pub at: f64,
}

/// Seconds since the epoch of a moment that was `ago`.
pub(crate) fn epoch_seconds(ago: std::time::Duration) -> f64 {
    let then = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    let since = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Milliseconds are all that is meaningful after the subtraction.
    (since.as_millis() as f64) / 1000.0
}
