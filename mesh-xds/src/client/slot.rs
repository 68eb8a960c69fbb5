//! Where the configuration of a target is published: the latest only, and who has not taken it yet.
//!
//! What a response brought is outstanding until every reader that it was published to has looked, or is gone; its stream
//! is read on after that. Each such reader holds the response's [`Receipt`], and [`Outstanding`] ends with the last one.

use super::handle::lock;
use crate::config::XdsError;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::Deref,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::{oneshot, watch};

/// `None` until something is known.
pub(super) type Value<T> = Option<Result<Arc<T>, XdsError>>;

/// The end of a target that is published to.
pub(super) struct Slot<T> {
    published: watch::Sender<Stamped<T>>,
    readers: Arc<Readers>,
}

/// The other end.
pub(super) struct Published<T> {
    published: watch::Receiver<Stamped<T>>,
    readers: Arc<Readers>,
}

/// A value, and how many there were before.
struct Stamped<T> {
    stamp: u64,
    value: Value<T>,
}

/// What each reader has yet to take, by the value that it came with.
#[derive(Default)]
struct Readers(Mutex<Awaited>);

#[derive(Default)]
struct Awaited {
    next: u64,
    of: BTreeMap<u64, Vec<(u64, Receipt)>>,
}

impl<T> Slot<T> {
    pub(super) fn new() -> (Self, Published<T>) {
        let (sender, receiver) = watch::channel(Stamped { stamp: 0, value: None });
        let readers = Arc::<Readers>::default();
        (Self { published: sender, readers: readers.clone() }, Published { published: receiver, readers })
    }

    /// `receipt` is that of the response that it follows from, if it follows from one.
    pub(super) fn publish(&self, value: Result<Arc<T>, XdsError>, receipt: Option<&Receipt>) {
        let stamp = self.published.borrow().stamp + 1;
        // Before the value: one that has seen the value holds nothing of it.
        if let Some(receipt) = receipt {
            self.readers.give(stamp, receipt);
        }
        self.published.send_replace(Stamped { stamp, value: Some(value) });
    }
}

impl Readers {
    fn give(&self, stamp: u64, receipt: &Receipt) {
        for awaited in lock(&self.0).of.values_mut() {
            // One that was given up holds up nothing before it takes again.
            if !awaited.iter().any(|(_, receipt)| receipt.is_given_up()) {
                awaited.push((stamp, receipt.clone()));
            }
        }
    }

    fn took(&self, reader: u64, stamp: u64) {
        if let Some(awaited) = lock(&self.0).of.get_mut(&reader) {
            awaited.retain(|(came_with, _)| *came_with > stamp);
        }
    }

    fn begin(&self, awaited: Vec<(u64, Receipt)>) -> u64 {
        let mut all = lock(&self.0);
        all.next += 1;
        let id = all.next;
        all.of.insert(id, awaited);
        id
    }
}

impl<T> Published<T> {
    /// A reader who has seen nothing yet. What was published before is not awaited of it.
    pub(super) fn reader(&self) -> Reader<T> {
        let (receiver, readers) = (self.published.clone(), self.readers.clone());
        Reader { id: readers.begin(Vec::new()), receiver, readers }
    }
}

/// One who follows what is published. Looking at it takes it.
pub(super) struct Reader<T> {
    receiver: watch::Receiver<Stamped<T>>,
    readers: Arc<Readers>,
    id: u64,
}

impl<T> Reader<T> {
    pub(super) fn borrow(&self) -> Current<'_, T> {
        self.taken(self.receiver.borrow())
    }

    pub(super) fn borrow_and_update(&mut self) -> Current<'_, T> {
        let current = self.receiver.borrow_and_update();
        self.readers.took(self.id, current.stamp);
        Current(current)
    }

    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.receiver.changed().await
    }

    pub(super) fn has_changed(&self) -> bool {
        self.receiver.has_changed().unwrap_or(false)
    }

    pub(super) async fn known(&mut self) -> Option<Result<Arc<T>, XdsError>> {
        let current = self.receiver.wait_for(|current| current.value.is_some()).await.ok()?;
        self.readers.took(self.id, current.stamp);
        current.value.clone()
    }

    fn taken<'a>(&self, current: watch::Ref<'a, Stamped<T>>) -> Current<'a, T> {
        self.readers.took(self.id, current.stamp);
        Current(current)
    }
}

impl<T> Clone for Reader<T> {
    /// It has seen what this one has.
    fn clone(&self) -> Self {
        let awaited = lock(&self.readers.0).of.get(&self.id).cloned().unwrap_or_default();
        let (receiver, readers) = (self.receiver.clone(), self.readers.clone());
        Self { id: readers.begin(awaited), receiver, readers }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        lock(&self.readers.0).of.remove(&self.id);
    }
}

/// The latest of what is watched; `None` while nothing is known. Nothing can be published while it is held.
pub struct Current<'a, T>(watch::Ref<'a, Stamped<T>>);

impl<T> Deref for Current<'_, T> {
    type Target = Option<Result<Arc<T>, XdsError>>;

    fn deref(&self) -> &Self::Target {
        &self.0.value
    }
}

/// Held by all who have yet to take what a response brought.
#[derive(Clone)]
pub(super) struct Receipt(Arc<Open>);

struct Open {
    given_up: AtomicBool,
    /// Its end is that of the last receipt.
    _end: oneshot::Sender<Infallible>,
}

impl Receipt {
    fn is_given_up(&self) -> bool {
        self.0.given_up.load(Relaxed)
    }
}

/// What a response brought and not everybody has taken.
#[derive(Debug)]
pub(super) struct Outstanding {
    end: oneshot::Receiver<Infallible>,
    open: Weak<Open>,
}

impl Outstanding {
    pub(super) fn new() -> (Receipt, Self) {
        let (sender, end) = oneshot::channel();
        let open = Arc::new(Open { given_up: AtomicBool::new(false), _end: sender });
        let outstanding = Self { end, open: Arc::downgrade(&open) };
        (Receipt(open), outstanding)
    }

    pub(super) fn is_over(&self) -> bool {
        self.open.strong_count() == 0
    }

    /// Until everybody has taken it. Cancel safe; not to be asked again after that.
    pub(super) async fn over(&mut self) {
        let Err(_) = (&mut self.end).await;
    }

    /// It is waited for no longer, and those who have not taken it are not waited for before they do.
    pub(super) fn give_up(&self) {
        if let Some(open) = self.open.upgrade() {
            open.given_up.store(true, Relaxed);
        }
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_response_brought_is_outstanding_until_all_its_readers_have_looked_or_are_gone() {
        let (slot, published) = Slot::<u8>::new();
        let (mut one, two, three) = (published.reader(), published.reader(), published.reader());
        let (receipt, outstanding) = Outstanding::new();
        slot.publish(Ok(Arc::new(1)), Some(&receipt));
        // Its own end counts too: more may follow from the response.
        let four = three.clone();
        drop((one.borrow_and_update(), two.borrow()));
        drop((receipt, three));
        assert!(!outstanding.is_over(), "a clone has seen as little as the original");
        drop(four);
        assert!(outstanding.is_over());
        // One who comes later is not waited for.
        let five = published.reader();
        assert!(five.borrow().is_some());
        let (receipt, outstanding) = Outstanding::new();
        slot.publish(Ok(Arc::new(2)), None);
        drop(receipt);
        assert!(outstanding.is_over(), "what follows from no response holds up none");
    }

    #[test]
    fn a_reader_that_was_given_up_holds_up_nothing_before_it_takes_again() {
        let (slot, published) = Slot::<u8>::new();
        let (mut slow, mut quick) = (published.reader(), published.reader());
        let publish = |value| {
            let (receipt, outstanding) = Outstanding::new();
            slot.publish(Ok(Arc::new(value)), Some(&receipt));
            outstanding
        };
        let first = publish(1);
        drop(quick.borrow_and_update());
        assert!(!first.is_over());
        first.give_up();
        let second = publish(2);
        assert!(!second.is_over(), "the quick one");
        drop(quick.borrow_and_update());
        assert!(second.is_over());
        drop(slow.borrow_and_update());
        assert!(first.is_over());
        let third = publish(3);
        drop(quick.borrow_and_update());
        assert!(!third.is_over(), "it takes again, and is waited for again");
        drop(slow.borrow_and_update());
        assert!(third.is_over());
    }
}
