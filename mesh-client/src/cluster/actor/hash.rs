//! Consistent hashing in the actor: the tables of the priorities, and the states of their endpoints.
//!
//! Promises: a table is made anew only when endpoints, keys, weights or the policy's settings change, not when
//! connectivity or ejection does: then one pass over the standings makes the picker.

use crate::{
    cluster::{
        locality::View,
        slots::Id,
        standing::{Judge, Standing},
    },
    endpoint::Endpoint as LiveEndpoint,
    lb::hashed::{self, Hashed, State, Together},
};
use mesh_xds::balancing::{Hashing, Share, Table};
use std::{num::NonZeroU32, sync::Arc};

/// The tables in use; two for a priority: of endpoints that are not degraded, and of those that are.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<[Option<Kept>; 2]>);

/// A table, and what it was made of.
#[derive(Debug)]
struct Kept {
    /// As of this [`Slots::reviewed`](crate::cluster::slots::Slots::reviewed).
    reviewed: u64,
    judge: Judge,
    hashing: Hashing,
    table: Arc<Table>,
    /// In the order of the table's shares.
    members: Arc<[Arc<LiveEndpoint>]>,
    /// Where their standings are, counted from the first of the priority.
    positions: Box<[usize]>,
}

impl Tables {
    /// There are so many priorities.
    pub(super) fn resize(&mut self, priorities: usize) {
        self.0.resize_with(priorities, Default::default);
    }

    /// The picker's part of a priority; none if it has no endpoint that may be hashed to.
    pub(super) fn hashed(
        &mut self,
        index: usize,
        view: &View<'_>,
        hashing: Hashing,
        degraded: bool,
    ) -> Option<Hashed> {
        if !view.tier.census.any(|standing| stands(view, standing, degraded)) {
            return None;
        }
        let place = self.0.get_mut(index)?.get_mut(usize::from(degraded))?;
        let reviewed = view.slots.reviewed();
        let kept = match place.take() {
            Some(kept) if (kept.reviewed, kept.judge, kept.hashing) == (reviewed, view.judge, hashing) => {
                kept
            }
            before => {
                let (shares, entries) = members(view, hashing, degraded);
                let same = before.map(|kept| kept.table);
                let table = match same.filter(|table| table.is_of(hashing.algorithm, &shares)) {
                    Some(table) => table,
                    None => Arc::new(Table::new(hashing.algorithm, shares)),
                };
                let (positions, members): (Vec<usize>, Vec<Arc<LiveEndpoint>>) = entries.into_iter().unzip();
                let (members, positions) = (members.into(), positions.into());
                Kept { reviewed, judge: view.judge, hashing, table, members, positions }
            }
        };
        let standings = view.slots.standings(view.tier.positions.clone());
        let state =
            |position: &usize| standings.get(*position).map_or(State::Failed, |one| state(view, *one));
        let states = kept.positions.iter().map(state).collect();
        let hashed = Hashed::new(Arc::clone(&kept.table), Arc::clone(&kept.members), states);
        *place = Some(kept);
        Some(hashed)
    }
}

/// Whether it is in the table of its priority.
fn stands(view: &View<'_>, standing: Standing, degraded: bool) -> bool {
    view.is_usable(standing) && view.is_degraded(standing) == degraded
}

fn state(view: &View<'_>, standing: Standing) -> State {
    if view.is_ejected(standing) { State::Failed } else { State::from(standing.link()) }
}

/// The endpoints that stand in a table, and their parts of it.
fn members(
    view: &View<'_>,
    hashing: Hashing,
    degraded: bool,
) -> (Vec<Share>, Vec<(usize, Arc<LiveEndpoint>)>) {
    let mut position = 0;
    let localities: Vec<(NonZeroU32, Vec<_>)> = view
        .priority
        .localities
        .iter()
        .zip(view.localities())
        .map(|(locality, members)| {
            let entries = members.filter_map(|member| {
                let here = position;
                position += 1;
                let slot = view.slot(member).filter(|_| stands(view, member.standing, degraded))?;
                Some((member.endpoint, (here, Arc::clone(slot.endpoint()))))
            });
            (locality.weight, entries.collect())
        })
        .collect();
    hashing.shares(localities.into_iter().map(|(weight, entries)| (weight, entries.into_iter())))
}

/// Which table of a priority counts: of those that are degraded only when there are no others.
fn counting(view: &View<'_>) -> impl Fn(Standing) -> bool {
    let degraded = !view.tier.census.any(|standing| stands(view, standing, false));
    move |standing| stands(view, standing, degraded)
}

/// The endpoints that stand in a priority's table, taken together.
pub(super) fn together(view: &View<'_>) -> Together {
    let counts = counting(view);
    let all = view.tier.census.iter().filter(|(standing, _)| counts(*standing));
    hashed::together(all.map(|(standing, count)| (state(view, standing), count)))
}

/// The endpoint of a priority that is connected without a call.
pub(super) fn to_wake(view: &View<'_>, rng: &mut fastrand::Rng) -> Option<Id> {
    if !hashed::is_stuck(together(view)) {
        return None;
    }
    let counts = counting(view);
    let all = view.members().filter(|member| counts(member.standing));
    let (ids, states): (Vec<Id>, Vec<State>) =
        all.map(|member| (member.id, state(view, member.standing))).unzip();
    hashed::to_wake(&states, rng).and_then(|index| ids.get(index).copied())
}
