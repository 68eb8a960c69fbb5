//! Clusters that requests name (Envoy's `cluster_header`): subscribed when a call first names them.
//!
//! Promises: a name that is known costs one look into an immutable map; one that is not known is subscribed to, and the
//! call waits for the answer. Names come from callers, so nothing grows with them: there are at most [`MOST`] at a time.
//! When one more comes, the oldest one without a cluster gives way; one that has its cluster never does, so made-up
//! names cannot push out those in use. What no call has named for one to two minutes is forgotten; calls that are under
//! way keep their cluster.

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use mesh_xds::name::Name;
use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

/// So many names at a time, in a mesh.
pub(crate) const MOST: usize = 100;
/// A longer name is none: no control plane has such a cluster.
pub(crate) const LONGEST: usize = 512;
/// How often it is looked whether a name is still used.
const LOOK: Duration = Duration::from_secs(60);

/// A live cluster, or why there is none.
pub(crate) type Found<U> = Result<Arc<U>, Arc<str>>;

/// The cluster of a name over time; dropped when nobody names it any more.
pub(crate) type Follow<U> = Box<dyn Fn(&Name) -> BoxStream<'static, Found<U>> + Send + Sync>;

/// The clusters that requests name, of a mesh.
pub(crate) struct Named<U> {
    follow: Follow<U>,
    entries: ArcSwap<HashMap<Name, Arc<Entry<U>>>>,
    /// Held while `entries` is replaced: how many there have been.
    changing: Mutex<u64>,
}

struct Entry<U> {
    /// None: there is no answer yet.
    found: watch::Sender<Option<Found<U>>>,
    /// The how-manieth it is.
    number: u64,
    /// A call named it since this was last looked at.
    used: AtomicBool,
    following: OnceLock<AbortOnDropHandle<()>>,
}

impl<U: Send + Sync + 'static> Named<U> {
    pub(crate) fn new(follow: Follow<U>) -> Arc<Self> {
        Arc::new(Self { follow, entries: ArcSwap::default(), changing: Mutex::default() })
    }

    /// The cluster of this name, when the control plane has answered. Needs a tokio runtime; cancel safe.
    pub(crate) async fn cluster(self: &Arc<Self>, name: &str) -> Found<U> {
        let entry = self.entry(name)?;
        if !entry.used.load(Relaxed) {
            entry.used.store(true, Relaxed);
        }
        let mut found = entry.found.subscribe();
        // The sender is the entry's: an error cannot be.
        let found = found.wait_for(Option::is_some).await.ok();
        found.and_then(|found| Option::clone(&found)).unwrap_or_else(|| Err("nobody follows it".into()))
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.load().len()
    }

    fn entry(self: &Arc<Self>, name: &str) -> Result<Arc<Entry<U>>, Arc<str>> {
        if let Some(entry) = self.entries.load().get(name) {
            return Ok(Arc::clone(entry));
        }
        let mut begun = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = HashMap::clone(&self.entries.load());
        if let Some(entry) = entries.get(name) {
            return Ok(Arc::clone(entry));
        }
        if entries.len() >= MOST {
            let without = entries.iter().filter(|(_, entry)| !entry.has_cluster());
            let Some(oldest) = without.min_by_key(|(_, entry)| entry.number).map(|(name, _)| name.clone())
            else {
                return Err(
                    format!("{MOST} other clusters are named by requests, and there may be no more").into()
                );
            };
            if let Some(entry) = entries.remove(&oldest) {
                entry.give_way();
            }
        }
        *begun += 1;
        let name = Name::from(name);
        let entry = Arc::new(Entry {
            found: watch::Sender::new(None),
            number: *begun,
            used: AtomicBool::new(true),
            following: OnceLock::new(),
        });
        let following =
            follow((self.follow)(&name), Arc::downgrade(self), Arc::downgrade(&entry), name.clone());
        let _ = entry.following.set(AbortOnDropHandle::new(tokio::spawn(following)));
        entries.insert(name, Arc::clone(&entry));
        self.entries.store(Arc::new(entries));
        Ok(entry)
    }

    fn forget(&self, name: &Name, entry: &Arc<Entry<U>>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = HashMap::clone(&self.entries.load());
        if entries.get(name).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            entries.remove(name);
            self.entries.store(Arc::new(entries));
        }
    }
}

impl<U> Entry<U> {
    fn has_cluster(&self) -> bool {
        matches!(&*self.found.borrow(), Some(Ok(_)))
    }

    /// Ends it, and the waits for it.
    fn give_way(&self) {
        if let Some(following) = self.following.get() {
            following.abort();
        }
        let why = format!("it gave way: requests name more than {MOST} clusters, most of which do not exist");
        self.found.send_replace(Some(Err(why.into())));
    }
}

/// Takes in what is said of a name until no call has named it for a while.
async fn follow<U: Send + Sync + 'static>(
    says: impl Stream<Item = Found<U>>,
    named: Weak<Named<U>>,
    entry: Weak<Entry<U>>,
    name: Name,
) {
    let mut says = pin!(says);
    let mut look_at = Instant::now() + LOOK;
    loop {
        tokio::select! {
            Some(found) = says.next() => match entry.upgrade() {
                Some(entry) => drop(entry.found.send_replace(Some(found))),
                None => return,
            },
            () = tokio::time::sleep_until(look_at) => {
                let Some((named, entry)) = named.upgrade().zip(entry.upgrade()) else { return };
                // A call that still waits for the answer uses it, too.
                if !entry.used.swap(false, Relaxed) && entry.found.receiver_count() == 0 {
                    named.forget(&name, &entry);
                    return;
                }
                look_at += LOOK;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Names that begin with `c` are clusters, those that begin with `x` are not, others are never answered. Counts
    /// those that are followed.
    fn named() -> (Arc<Named<String>>, Arc<AtomicUsize>) {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        let followed = Arc::new(AtomicUsize::new(0));
        let count = followed.clone();
        let follow = move |name: &Name| {
            count.fetch_add(1, SeqCst);
            let counted = Counted(count.clone());
            let said: Vec<Found<String>> = match name.as_bytes().first() {
                Some(b'c') => vec![Ok(Arc::new(name.to_string()))],
                Some(b'x') => vec![Err("there is none".into())],
                _ => vec![],
            };
            stream::iter(said)
                .chain(stream::pending())
                .map(move |found| {
                    let _ = &counted;
                    found
                })
                .boxed()
        };
        (Named::new(Box::new(follow)), followed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_followed_once_and_until_nobody_names_it() {
        let (named, followed) = named();
        for _ in 0..3 {
            assert_eq!(*named.cluster("c1").await.unwrap(), "c1");
            assert_eq!(&*named.cluster("x1").await.unwrap_err(), "there is none");
        }
        assert_eq!((named.len(), followed.load(SeqCst)), (2, 2));
        for _ in 0..5 {
            tokio::time::sleep(LOOK).await;
            named.cluster("c1").await.unwrap();
        }
        assert_eq!((named.len(), followed.load(SeqCst)), (1, 1), "x1 is forgotten");
        tokio::time::sleep(2 * LOOK + Duration::from_secs(1)).await;
        assert_eq!((named.len(), followed.load(SeqCst)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_long_is_not_forgotten() {
        let (answers, _) = watch::channel(None::<Found<String>>);
        let told = answers.subscribe();
        let follow = move |_: &Name| {
            let mut told = told.clone();
            stream::once(async move { told.wait_for(Option::is_some).await.unwrap().clone().unwrap() })
                .chain(stream::pending())
                .boxed()
        };
        let named = Named::new(Box::new(follow));
        let waiting = {
            let named = named.clone();
            tokio::spawn(async move { named.cluster("late").await })
        };
        tokio::time::sleep(10 * LOOK).await;
        assert_eq!(named.len(), 1);
        answers.send_replace(Some(Ok(Arc::new("late".to_owned()))));
        assert_eq!(*waiting.await.unwrap().unwrap(), "late");
        tokio::time::sleep(2 * LOOK + Duration::from_secs(1)).await;
        assert_eq!(named.len(), 0, "nobody names it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_names_give_way_to_one_another_and_never_take_the_place_of_a_cluster() {
        let (named, followed) = named();
        for index in 0..MOST / 2 {
            named.cluster(&format!("c{index}")).await.unwrap();
        }
        let waiting = {
            let named = named.clone();
            tokio::spawn(async move { named.cluster("never").await })
        };
        tokio::task::yield_now().await;
        for index in 0..10 * MOST {
            assert!(named.cluster(&format!("x{index}")).await.is_err());
            assert!(named.len() <= MOST && followed.load(SeqCst) <= MOST + 1);
        }
        let error = waiting.await.unwrap().unwrap_err();
        assert!(error.contains("gave way"), "{error}");
        for index in 0..MOST {
            assert_eq!(*named.cluster(&format!("c{index}")).await.unwrap(), format!("c{index}"));
        }
        // All are clusters in use now.
        let error = named.cluster("c-one-more").now_or_never().unwrap().unwrap_err();
        assert!(error.contains("there may be no more"), "{error}");
        assert!(named.cluster("c0").await.is_ok());
        tokio::task::yield_now().await;
        assert_eq!((named.len(), followed.load(SeqCst)), (MOST, MOST));
    }
}
