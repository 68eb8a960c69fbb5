//! The workloads that are registered, on disk: so that a control plane that was killed and started again
//! does not tell its clients that everybody is gone, before the workloads have come back.
//!
//! Written behind the changes (a few milliseconds late, whole files only). Holds no secret.

use crate::model::{Health, Labels, Locality, RegisteredWorkload, Workloads};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A file of workloads.
#[derive(Clone, Debug)]
pub struct WorkloadFile(PathBuf);

impl WorkloadFile {
    /// The file of a data directory.
    pub fn of(data: &Path) -> Self {
        Self(data.join("workloads.json"))
    }

    /// The workloads that were there; none when there is no file. One that cannot be read is reported and
    /// counts as none: the workloads will come back by themselves.
    pub fn read(&self) -> Vec<RegisteredWorkload> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "known workloads cannot be read; waiting for them");
                return Vec::new();
            }
        };
        match serde_json::from_slice::<Vec<Stored>>(&text) {
            Ok(stored) => stored.into_iter().map(Into::into).collect(),
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "known workloads cannot be read; waiting for them");
                Vec::new()
            }
        }
    }

    /// Replaces the file.
    pub fn write(&self, workloads: &Workloads) -> io::Result<()> {
        let stored: Vec<Stored> = workloads.iter().map(|workload| Stored::from(workload.as_ref())).collect();
        let text = serde_json::to_vec_pretty(&stored)?;
        let new = self.0.with_extension("json.new");
        fs::write(&new, text)?;
        fs::rename(&new, &self.0)
    }
}

/// A workload as the file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    namespace: String,
    service_account: String,
    address: IpAddr,
    ports: BTreeMap<String, u16>,
    labels: Labels,
    locality: String,
    weight: u32,
    health: StoredHealth,
    group: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredHealth {
    Healthy,
    Draining,
    Unhealthy,
}

impl From<&RegisteredWorkload> for Stored {
    fn from(workload: &RegisteredWorkload) -> Self {
        Self {
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            service_account: workload.service_account.clone(),
            address: workload.address,
            ports: workload.ports.clone(),
            labels: workload.labels.clone(),
            locality: workload.locality.to_string(),
            weight: workload.weight,
            health: match workload.health {
                Health::Healthy => StoredHealth::Healthy,
                Health::Draining => StoredHealth::Draining,
                Health::Unhealthy => StoredHealth::Unhealthy,
            },
            group: workload.group.clone(),
        }
    }
}

impl From<Stored> for RegisteredWorkload {
    fn from(stored: Stored) -> Self {
        Self {
            name: stored.name,
            namespace: stored.namespace,
            service_account: stored.service_account,
            address: stored.address,
            ports: stored.ports,
            labels: stored.labels,
            locality: Locality::parse(&stored.locality),
            weight: stored.weight.max(1),
            health: match stored.health {
                StoredHealth::Healthy => Health::Healthy,
                StoredHealth::Draining => Health::Draining,
                StoredHealth::Unhealthy => Health::Unhealthy,
            },
            group: stored.group,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = WorkloadFile::of(dir.path());
        assert_eq!(file.read(), []);
        let workload = RegisteredWorkload {
            name: "reviews-10.0.0.1".into(),
            namespace: "default".into(),
            service_account: "reviews".into(),
            address: "10.0.0.1".parse().unwrap(),
            ports: [("grpc".to_owned(), 9080)].into(),
            labels: [("app".to_owned(), "reviews".to_owned())].into(),
            locality: Locality::parse("r/z"),
            weight: 3,
            health: Health::Draining,
            group: Some("reviews".into()),
        };
        file.write(&Workloads::default().with(workload.clone())).unwrap();
        assert_eq!(file.read(), [workload]);
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("workloads.json"), "[{").unwrap();
        assert_eq!(WorkloadFile::of(dir.path()).read(), []);
    }
}
