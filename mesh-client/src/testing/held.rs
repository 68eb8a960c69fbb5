//! What calls hold, of everything that counts it: at the end of a test all of it was given back.
//!
//! Promises: whatever was made on this thread is looked at, for as long as somebody has it; tests of one runtime thread
//! need not name what they used. Where a runtime has several threads, what the others made is not seen.

use std::{cell::RefCell, sync::Arc};

/// What it is, and how much of it.
type Count = (String, u64);
/// None: it is gone, and so is what it counted.
type Gauge = Box<dyn Fn() -> Option<Vec<Count>>>;

thread_local! {
    static GAUGES: RefCell<Vec<Gauge>> = const { RefCell::new(Vec::new()) };
}

/// From now on this is looked at.
pub(crate) fn watch<T: 'static, const N: usize>(
    counted: &Arc<T>,
    read: impl Fn(&T) -> [(&'static str, u64); N] + 'static,
) {
    let counted = Arc::downgrade(counted);
    let gauge: Gauge = Box::new(move || {
        let counts = read(&*counted.upgrade()?);
        Some(counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect())
    });
    GAUGES.with_borrow_mut(|gauges| gauges.push(gauge));
}

/// All that is not zero.
pub(crate) fn held() -> Vec<Count> {
    let mut gauges = GAUGES.take();
    let mut held = Vec::new();
    gauges.retain(|gauge| {
        gauge().is_some_and(|counts| {
            held.extend(counts.into_iter().filter(|(_, count)| *count > 0));
            true
        })
    });
    GAUGES.with_borrow_mut(|new| {
        gauges.append(new);
        *new = gauges;
    });
    held
}

/// The end of a test, in its world: dropped, it looks whether everything was given back. Tasks do not run any more then:
/// what they give back, the test waits for.
#[derive(Debug)]
pub(crate) struct Rest {
    looks: bool,
}

impl Default for Rest {
    fn default() -> Self {
        Self { looks: true }
    }
}

/// A copy of what has it is not the end of anything.
impl Clone for Rest {
    fn clone(&self) -> Self {
        Self { looks: false }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.looks && !std::thread::panicking() {
            let held = held();
            assert!(held.is_empty(), "the test ends, and this is held: {held:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn a_count_that_is_not_zero_is_found_until_nobody_has_it() {
        let counter = Arc::new(AtomicU64::new(0));
        watch(&counter, |counter| [("requests", counter.load(Relaxed))]);
        drop(Rest::default());
        counter.store(2, Relaxed);
        assert_eq!(held(), [("requests".to_owned(), 2)]);
        let dropped = std::panic::catch_unwind(|| drop(Rest::default())).unwrap_err();
        assert!(dropped.downcast_ref::<String>().unwrap().contains("requests"));
        drop(counter);
        assert_eq!(held(), []);
    }
}
