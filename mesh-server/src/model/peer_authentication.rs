//! PeerAuthentication: whether a workload takes plaintext.
//!
//! <https://istio.io/latest/docs/reference/config/security/peer_authentication/>

use std::collections::BTreeMap;

use super::node::Node;
use super::object::{Metadata, Origin, spec};
use super::read::{self, Report};
use super::value::Labels;

/// What a workload accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Plaintext and mTLS.
    Permissive,
    /// mTLS only.
    Strict,
}

/// A PeerAuthentication.
#[derive(Clone, Debug)]
pub struct PeerAuthentication {
    /// What it is called and where it was written.
    pub origin: Origin,
    /// The workloads it is for; the whole namespace (or mesh) when empty.
    pub selector: Labels,
    /// The mode; inherited from the level above when absent.
    pub mode: Option<MtlsMode>,
    /// By the workload's own port; `None` inherits the workload's mode.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

const MODES: [(&str, Option<MtlsMode>); 4] = [
    ("UNSET", None),
    ("DISABLE", Some(MtlsMode::Disable)),
    ("PERMISSIVE", Some(MtlsMode::Permissive)),
    ("STRICT", Some(MtlsMode::Strict)),
];

impl PeerAuthentication {
    /// What a refused object leaves behind: its scope, closed to plaintext.
    pub(crate) fn strict(origin: Origin, selector: Labels) -> Self {
        Self { origin, selector, mode: Some(MtlsMode::Strict), ports: BTreeMap::new() }
    }

    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        let map = spec(node, report, &["selector", "mtls", "portLevelMtls"])?;
        let selector = map.one("selector", report, read::selector("matchLabels")).unwrap_or_default();
        let mode = map.one("mtls", report, mtls).flatten();
        let mut ports = BTreeMap::new();
        if let Some(block) = map.get("portLevelMtls") {
            if selector.is_empty() {
                report.error(map.key_at("portLevelMtls"), "`portLevelMtls` needs a selector with labels");
            }
            for entry in report.entries(block, "portLevelMtls").unwrap_or_default() {
                match entry.key.parse::<u16>() {
                    Ok(port) if port > 0 => {
                        ports.insert(port, mtls(&entry.node, report).flatten());
                    }
                    _ => {
                        report.error(entry.key_at, format!("{:?} is not a port: 1 to 65535 are", entry.key));
                    }
                }
            }
        }
        Some(Self { origin: metadata.origin, selector, mode, ports })
    }
}

fn mtls(node: &Node, report: &mut Report) -> Option<Option<MtlsMode>> {
    report.map(node, "mtls", &["mode"])?.one("mode", report, read::word("mode", &MODES)).or(Some(None))
}

#[cfg(test)]
mod tests;
