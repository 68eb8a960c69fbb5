//! The part of the actor that has to do with active health checks.

use super::Actor;
use crate::{
    cluster::slots::{Id, Slot},
    health::{Checked, task::Checker},
};
use std::sync::{Arc, atomic::AtomicBool};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// What is known of all endpoints together.
#[derive(Default)]
pub(super) struct Health {
    /// The cluster asks for checks.
    checks: bool,
    /// The first endpoints have all answered. Envoy does not use a cluster before.
    warm: bool,
    /// A call was made.
    used: Arc<AtomicBool>,
}

impl Actor {
    /// Lets the endpoints be checked that are to be, and no others.
    pub(super) fn check_health(&mut self) {
        let checks = self.config.cluster.health_check.is_some();
        if !checks && !self.health.checks {
            return;
        }
        if !self.health.checks {
            // Those that are there were used without; only new ones wait.
            self.health.warm = !self.waits_for_checks();
        }
        self.health.checks = checks;
        for id in self.slots.ids(self.slots.positions()).to_vec() {
            let Some(slot) = self.slots.get(id).filter(|slot| slot.has_checker() != checks) else { continue };
            if !checks {
                self.slots.update(id, Slot::end_checking);
                continue;
            }
            let checker = Checker {
                endpoint: Arc::clone(slot.endpoint()),
                around: Arc::clone(&self.around),
                spec: slot.spec(),
                used: Arc::clone(&self.health.used),
                rng: fastrand::Rng::with_seed(self.rng.u64(..)),
            };
            let checker = AbortOnDropHandle::new(tokio::spawn(checker.run()));
            self.slots.update(id, |slot| slot.begin_checking(checker));
        }
    }

    /// Endpoints whose first check was not answered count as unhealthy: for Envoy, those that come while others are
    /// there, unless `ignore_new_hosts_until_first_hc` says no.
    pub(super) fn counts_unchecked(&self) -> bool {
        let check = self.config.cluster.health_check.as_ref();
        self.health.warm && check.is_some_and(|check| !check.ignore_new_until_first_check)
    }

    fn waits_for_checks(&self) -> bool {
        self.slots.tiers().iter().any(|tier| tier.census.any(|standing| standing.is_unchecked()))
    }

    /// True: something that calls see may have changed.
    pub(super) fn on_checked(&mut self, id: Id, state: Checked, success: bool) -> bool {
        let now = Instant::now();
        let Some(slot) = self.slots.get(id) else { return false };
        let unejected = success && self.ejector.on_healthy(slot.endpoint().address);
        if !unejected && slot.checked == state {
            return false;
        }
        self.slots.update(id, |slot| {
            if unejected {
                slot.ejected = false;
                slot.endpoint().tally().clear_streaks();
            }
            if unejected || state == Checked::Healthy && slot.checked != Checked::Healthy {
                slot.since = now;
            }
            slot.checked = state;
        });
        self.health.warm |= !self.waits_for_checks();
        true
    }
}
