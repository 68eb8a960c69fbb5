//! What is known, and whose word it is: of each authority what the control plane said that speaks for it, or what is on
//! disk.

use super::{Accepted, Authority, Federation, Server};
use crate::{
    client::{
        cache::{Known, ResourceState, ResourceStatus},
        listing::Listed,
        machine::{Key, Parse},
    },
    config::{Lookup, Source, XdsError, XdsErrorCause},
    name::{self, Name, ResourceType, WILDCARD},
    resource::AnyResource,
};
use std::{sync::Arc, time::Instant};

impl<P: Parse> Federation<P> {
    /// What is known of a resource, from whoever speaks for it. `name` is canonical.
    pub(in crate::client) fn known(&self, kind: ResourceType, name: &str) -> Known<P::Resource> {
        let nobody =
            |why: String| Known::Bad(self.error(kind, name, XdsErrorCause::Failed(why.into()), "none"));
        if name == WILDCARD {
            return nobody("it names no resource: to a control plane `*` is all of them".to_owned());
        }
        if name::is_collection(kind, name) {
            let why =
                "it names a collection of `xdstp:` resources, which is not asked for: name each resource";
            return nobody(why.to_owned());
        }
        let authority = match self.authority(kind, name) {
            Ok(id) => self.authorities.get(id),
            Err(authority) => return nobody((self.unknown)(authority)),
        };
        let Some(authority) = authority else { return Known::Pending };
        let Some(server) = self.servers.get(authority.last()) else { return Known::Pending };
        let why = || self.unreachable(authority);
        let known = server.machine.known(kind, name);
        if authority.server().is_none() {
            return match self.stored.get(&(kind, name.into())) {
                Some(kept) => {
                    let why =
                        why().map(|why| format!("; control plane unreachable: {why}")).unwrap_or_default();
                    let note = format!("{kind} {name} is {}{why}", self.stored.describe());
                    Known::Good { resource: kept.resource.clone(), note: Some(note.into()) }
                }
                // Not even one that is silent is waited for: nothing of this view waits.
                None if !kind.is_public() && matches!(known, Known::Pending) => {
                    let silent = || "no control plane has sent it, and secrets are not kept on disk".into();
                    let cause = XdsErrorCause::Unreachable(why().unwrap_or_else(silent));
                    Known::Bad(self.error(kind, name, cause, &server.config.address))
                }
                // What it says now does not go with what is on disk.
                None if matches!(known, Known::Good { .. }) => {
                    let why = format!("{} does not have it", self.stored.describe());
                    let cause = XdsErrorCause::Unreachable(why.into());
                    Known::Bad(self.error(kind, name, cause, &server.config.address))
                }
                None => known,
            };
        }
        match known {
            Known::Bad(XdsError { cause: XdsErrorCause::Unreachable(only), server, .. }) => {
                let cause = XdsErrorCause::Unreachable(why().unwrap_or(only));
                Known::Bad(self.error(kind, name, cause, &server))
            }
            known => known,
        }
    }

    /// Everything of a type that the control plane of names without an authority has. What is on disk is no such thing: it
    /// is what was watched by name, and not all of that.
    pub(in crate::client) fn listing(&self, kind: ResourceType) -> Known<Vec<(Name, Listed<P::Resource>)>> {
        let Some(authority) = self.authorities.first() else { return Known::Pending };
        let Some(server) = self.servers.get(authority.last()) else { return Known::Pending };
        let unreachable = |why: Arc<str>, server: &str| {
            Known::Bad(self.error(kind, WILDCARD, XdsErrorCause::Unreachable(why), server))
        };
        if authority.server().is_none() {
            let why = self.unreachable(authority).unwrap_or_else(|| "it says nothing".into());
            let why = format!("{why}; and {} does not say what else there is", self.stored.describe());
            return unreachable(why.into(), &server.config.address);
        }
        match server.machine.listing(kind) {
            Known::Bad(XdsError { cause: XdsErrorCause::Unreachable(only), server, .. }) => {
                unreachable(self.unreachable(authority).unwrap_or(only), &server)
            }
            known => known,
        }
    }

    /// Why none of those that are asked can be reached.
    fn unreachable(&self, authority: &Authority) -> Option<Arc<str>> {
        let machines = authority.asked().iter().filter_map(|id| self.servers.get(*id));
        let whys: Vec<_> = machines.filter_map(|server| server.machine.unreachable()).collect();
        match whys.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            all => Some(all.iter().map(|why| &**why).collect::<Vec<_>>().join("; ").into()),
        }
    }

    fn error(&self, kind: ResourceType, name: &str, cause: XdsErrorCause, server: &str) -> XdsError {
        let node = self.servers.first().map(|server| server.machine.node()).unwrap_or_default();
        XdsError { resource_type: kind, name: name.into(), cause, server: server.into(), node }
    }

    /// The machine of a name's authority that speaks, or spoke last.
    fn speaker(&self, kind: ResourceType, name: &str) -> Option<&Server<P>> {
        let authority = self.authorities.get(self.authority(kind, name).unwrap_or_default())?;
        self.servers.get(authority.last())
    }

    /// What the control planes said last, for [`super::store`]: what is in use, and what they say does not exist;
    /// that nothing came in time is no reason to give up what was good once. What came by a wildcard alone is left out:
    /// nobody could say of a file, to which several processes add, whether it is everything.
    /// Authorities that run on what is on disk are left out, and so are secrets and what has a time to live.
    pub(in crate::client) fn accepted(&self) -> Vec<Accepted<P::Resource>> {
        let mut all = Vec::new();
        for authority in &self.authorities {
            let Some(server) = authority.server().and_then(|id| self.servers.get(id)) else { continue };
            let is_open = server.machine.link().0;
            let public =
                || authority.interest.keys().filter(|(kind, name)| kind.is_public() && **name != *WILDCARD);
            let spoken = |(kind, name): &Key| {
                matches!(server.machine.known(*kind, name), Known::Good { .. })
                    || server.machine.is_gone(*kind, name)
            };
            let is_whole = public().all(spoken);
            for (kind, name) in public() {
                let accepted = |good| Accepted {
                    key: (*kind, name.clone()),
                    server: server.config.to_string().into(),
                    is_open,
                    is_whole,
                    good,
                };
                match server.machine.good(*kind, name) {
                    Some(good) => all.push(accepted(Some(good))),
                    None if server.machine.is_gone(*kind, name) => all.push(accepted(None)),
                    None => {}
                }
            }
        }
        all
    }

    /// State of every watched resource. `epoch` turns a moment into seconds since the epoch.
    pub(in crate::client) fn status(&self, epoch: impl Fn(Instant) -> f64 + Copy) -> Vec<ResourceStatus> {
        let mut all = Vec::new();
        for authority in &self.authorities {
            let Some(server) = self.servers.get(authority.last()) else { continue };
            let lists = |kind| {
                authority.server().is_some() && authority.interest.contains_key(&(kind, WILDCARD.into()))
            };
            let lists: Vec<_> = ResourceType::ALL.into_iter().filter(|kind| lists(*kind)).collect();
            // Only names without an authority are ever listed.
            let watched = |status: &ResourceStatus| {
                let (kind, name) = (status.resource_type, &status.name);
                let is_listed = lists.contains(&kind) && name::authority(kind, name).is_none();
                is_listed || authority.interest.contains_key(&status.key())
            };
            let mut own: Vec<_> = server.machine.status(epoch).into_iter().filter(watched).collect();
            if authority.server().is_none() {
                for status in &mut own {
                    let Some(kept) = self.stored.get(&status.key()) else { continue };
                    status.version = Some(kept.version.clone());
                    status.body = Some(kept.body.clone());
                    status.updated = Some(kept.confirmed);
                    status.from_cache = Some(kept.confirmed);
                    status.server = kept.server.clone();
                    if status.error.is_none() {
                        status.state = ResourceState::Acked;
                    }
                }
            }
            all.extend(own);
        }
        all.sort_by_key(ResourceStatus::key);
        all
    }
}

impl<P: Parse<Resource = AnyResource>> Lookup for Federation<P> {
    fn known(&self, kind: ResourceType, name: &str) -> Known<AnyResource> {
        Self::known(self, kind, name)
    }

    fn misfit(&self, kind: ResourceType, name: &Name, why: String) -> XdsError {
        match self.speaker(kind, name) {
            Some(server) => server.machine.misfit(kind, name, why),
            None => self.error(kind, name, XdsErrorCause::Failed(why.into()), "none"),
        }
    }

    fn version(&self, kind: ResourceType, name: &str) -> Arc<str> {
        if self.source(kind, name).stored {
            return self
                .stored
                .get(&(kind, name.into()))
                .map(|kept| kept.version.clone())
                .unwrap_or_default();
        }
        self.speaker(kind, name).map(|server| server.machine.version()).unwrap_or_default()
    }

    fn source(&self, kind: ResourceType, name: &str) -> Source {
        let id = self.authority(kind, name).unwrap_or(usize::MAX);
        let authority = self.authorities.get(id);
        Source {
            authority: u32::try_from(id).unwrap_or(u32::MAX),
            server: authority.map_or(u32::MAX, |one| u32::try_from(one.last()).unwrap_or(u32::MAX)),
            stored: authority.is_some_and(|one| one.server().is_none()),
        }
    }

    fn is_current(&self, source: Source) -> bool {
        let Some(authority) = self.authorities.get(source.authority as usize) else { return true };
        source.server as usize == authority.last() && source.stored == authority.server().is_none()
    }

    fn drops_data(&self, source: Source) -> bool {
        let server = self.servers.get(source.server as usize);
        server.is_some_and(|server| server.config.features.fail_on_data_errors)
    }
}
