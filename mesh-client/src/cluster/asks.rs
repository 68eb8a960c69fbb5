//! What calls ask of a cluster's actor that it does not do unasked, and how long it goes on with it.
//!
//! Promises: whoever asks for what was asked for already wakes nobody; what no call has used for 15 minutes (as long as
//! gRFC A56 keeps priorities that were needed) is forgotten, and may be asked for again.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

const RETENTION: Duration = Duration::from_secs(15 * 60);

/// The side of the calls.
#[derive(Debug, Default)]
pub(super) struct Asks<T> {
    wanted: watch::Sender<T>,
    /// A call used it since this was last looked at.
    used: AtomicBool,
}

impl<T: Copy + Default + PartialEq> Asks<T> {
    pub(super) fn subscribe(&self) -> watch::Receiver<T> {
        self.wanted.subscribe()
    }

    /// A call uses what was asked for.
    pub(super) fn mark_used(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Asks for more.
    pub(super) fn want(&self, more: impl FnOnce(&mut T)) {
        self.wanted.send_if_modified(|wanted| {
            let before = *wanted;
            more(wanted);
            *wanted != before
        });
    }

    /// Forgets what was asked for, unless it was used since this was last called. True: forgotten.
    fn forget(&self) -> bool {
        let unused = !self.used.swap(false, Relaxed);
        if unused {
            self.wanted.send_if_modified(|wanted| {
                *wanted = T::default();
                false
            });
        }
        unused
    }
}

/// The side of the actor.
#[derive(Debug, Default)]
pub(super) struct Retention {
    look_at: Option<Instant>,
}

impl Retention {
    /// Something was asked for.
    pub(super) fn begin(&mut self) {
        self.look_at.get_or_insert_with(|| Instant::now() + RETENTION);
    }

    /// When to look whether it is still used.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// True, once: it is due to be looked at, and nothing was used meanwhile.
    pub(super) fn is_over<T: Copy + Default + PartialEq>(&mut self, asks: &Asks<T>) -> bool {
        let now = Instant::now();
        if self.look_at.is_none_or(|at| at > now) {
            return false;
        }
        let over = asks.forget();
        self.look_at = (!over).then(|| now + RETENTION);
        over
    }
}
