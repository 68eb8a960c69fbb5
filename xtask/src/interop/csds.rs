//! Client status, as a tool that is not ours reads it.

use super::{Lab, Outcome};
use serde::Deserialize;

/// One xDS client.
#[derive(Debug, Deserialize)]
pub(super) struct ClientStatus {
    pub(super) node: String,
    pub(super) resources: Vec<ResourceStatus>,
}

/// What is told of one resource.
#[derive(Debug, Deserialize)]
pub(super) struct ResourceStatus {
    /// `Listener`, `Cluster`, …
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) version: String,
    /// `ACKED`, `NACKED`, …
    pub(super) status: String,
    /// Of a control plane: `SYNCED`, `STALE`, …
    pub(super) sync: String,
    pub(super) error: String,
    /// The resource itself is told.
    pub(super) told: bool,
}

/// Asks on a port of this machine.
pub(super) fn ask(lab: &Lab, port: u16) -> Outcome<Vec<ClientStatus>> {
    let output = lab.peers.python("csds.py").arg(port.to_string()).output()?;
    if !output.status.success() {
        return Err(format!("csds.py: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
