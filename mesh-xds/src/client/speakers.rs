//! Which control plane speaks for which names right now (gRFC A47, A71), for the services beside ADS.

use crate::{
    bootstrap::ServerConfig,
    name::{self, ResourceType},
};
use std::{collections::BTreeMap, sync::Arc};

/// The control plane of each authority whose word counts: the first of its list, or the replacement that is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speakers {
    pub(super) default: Option<Arc<ServerConfig>>,
    pub(super) authorities: BTreeMap<Arc<str>, Arc<ServerConfig>>,
}

impl Speakers {
    /// Of an authority; `None`: of names without one. Absent: it is not configured.
    pub fn of(&self, authority: Option<&str>) -> Option<&Arc<ServerConfig>> {
        match authority {
            None => self.default.as_ref(),
            Some(name) => self.authorities.get(name),
        }
    }

    /// Of the cluster of this name, which is what `lrs_server: self` means.
    pub fn of_cluster(&self, name: &str) -> Option<&Arc<ServerConfig>> {
        self.of(name::authority(ResourceType::Cluster, name))
    }
}
