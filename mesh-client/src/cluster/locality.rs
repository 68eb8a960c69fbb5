//! The endpoints of a priority, judged.
//!
//! Promises: only endpoints that are neither ejected nor unusable by their health status are offered to calls;
//! below the panic threshold health and ejection are ignored (but an endpoint that drains never gets new calls).

use super::{
    slots::{Id, Slot, Slots, Tier},
    standing::{Judge, Link, Standing},
};
use crate::endpoint::Endpoint as LiveEndpoint;
use mesh_xds::resource::endpoint::{Endpoint, Priority};
use std::{ops::Deref, sync::Arc};

/// One priority, with how its endpoints are judged.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Of the priority.
    pub(crate) index: usize,
    pub(crate) priority: &'a Priority,
    pub(crate) tier: &'a Tier,
    pub(crate) slots: &'a Slots,
    pub(crate) judge: Judge,
}

/// An endpoint as it is configured, and how it stands.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) standing: Standing,
    pub(crate) id: Id,
}

impl<'a> View<'a> {
    /// By locality.
    pub(crate) fn localities(&self) -> impl Iterator<Item = impl Iterator<Item = Member<'a>> + use<'a>> {
        let slots = self.slots;
        let zones = slots.zones(self.tier.zones.clone()).iter();
        self.priority.localities.iter().zip(zones).map(move |(locality, zone)| {
            let standings = slots.standings(zone.positions.clone());
            let known = standings.iter().zip(slots.ids(zone.positions.clone()));
            locality.endpoints.iter().zip(known).map(|(endpoint, (standing, id))| Member {
                endpoint,
                standing: *standing,
                id: *id,
            })
        })
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = Member<'a>> {
        self.localities().flatten()
    }

    /// Those to be woken when a call comes.
    pub(crate) fn asleep(&self) -> Vec<Arc<LiveEndpoint>> {
        let is_asleep = |standing: Standing| standing.want().is_of_policy() && standing.link() == Link::Idle;
        if !self.tier.census.any(is_asleep) {
            return Vec::new();
        }
        let asleep = self.members().filter(|member| is_asleep(member.standing));
        asleep.filter_map(|member| self.slot(member)).map(|slot| Arc::clone(slot.endpoint())).collect()
    }

    pub(crate) fn slot(&self, member: Member<'_>) -> Option<&'a Slot> {
        self.slots.get(member.id)
    }
}

impl Deref for View<'_> {
    type Target = Judge;

    fn deref(&self) -> &Judge {
        &self.judge
    }
}
