//! Bytes that were handed to connections and are not written yet: so many at a time for each account.
//!
//! A connection takes a response as a whole, and keeps it as long as its peer does not read. Who opens thousands of
//! streams and reads none of them has filled what is his own; the next of his responses are not even encoded.

use bytes::{Bytes, BytesMut};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted: small responses are many.
const UNIT: usize = 1 << 10;

/// The allowances of all accounts.
pub(super) struct Unsent {
    units: u32,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    all: HashMap<Arc<str>, Weak<Semaphore>>,
    /// Those whose last stream has gone are taken out when there are so many.
    full: usize,
}

/// The allowance of one account, as one stream uses it. `None`: peers that are not told apart have no limit, as they
/// would wait for each other.
#[derive(Clone)]
pub(super) struct Allowance(Option<(Arc<Semaphore>, u32)>);

/// Leave for a response, until it is written.
pub(super) struct Leave(Option<OwnedSemaphorePermit>);

impl Unsent {
    /// `limit` is in bytes, for each account.
    pub(super) fn new(limit: usize) -> Self {
        let units = limit.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: u32::try_from(units).unwrap_or(u32::MAX), accounts: Mutex::default() }
    }

    pub(super) fn of(&self, account: &str) -> Allowance {
        if account.is_empty() {
            return Allowance(None);
        }
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = accounts.all.get(account).and_then(Weak::upgrade) {
            return Allowance(Some((known, self.units)));
        }
        if accounts.all.len() >= accounts.full {
            accounts.all.retain(|_, one| one.strong_count() > 0);
            accounts.full = 2 * accounts.all.len() + 16;
        }
        let new = Arc::new(Semaphore::new(self.units as usize));
        accounts.all.insert(account.into(), Arc::downgrade(&new));
        Allowance(Some((new, self.units)))
    }
}

impl Allowance {
    /// Until there is room for so many bytes, in the order of asking. One that is larger than the whole allowance waits
    /// for all of it.
    pub(super) async fn leave(self, bytes: usize) -> Leave {
        let Some((semaphore, most)) = self.0 else { return Leave(None) };
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(most);
        // Nobody closes it.
        Leave(semaphore.acquire_many_owned(units).await.ok())
    }
}

/// Bytes that give their leave back when the last of them is let go.
struct Kept(BytesMut, #[expect(dead_code, reason = "it is held")] Leave);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Leave {
    /// A response under this leave.
    pub(super) fn for_response(self, bytes: BytesMut) -> Bytes {
        match &self.0 {
            None => bytes.freeze(),
            Some(_) => Bytes::from_owner(Kept(bytes, self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn an_account_waits_for_itself_alone_until_its_bytes_are_let_go() {
        let unsent = Unsent::new(10 * UNIT);
        let ask = |account: &str, bytes| unsent.of(account).leave(bytes).now_or_never();
        let keeps = unsent.of("a");
        let data = keeps.clone().leave(6 * UNIT).now_or_never().unwrap();
        let data = data.for_response(BytesMut::from(&b"abc"[..]));
        assert!(ask("a", 5 * UNIT).is_none());
        assert!(ask("a", 4 * UNIT).is_some() && ask("b", 5 * UNIT).is_some() && ask("", 11 * UNIT).is_some());
        let part = data.slice(1..2);
        drop(data);
        assert!(ask("a", 5 * UNIT).is_none(), "a part of it is still there");
        assert_eq!(&part[..], b"b");
        drop(part);
        assert!(ask("a", 5 * UNIT).is_some());
        assert!(ask("a", usize::MAX).is_some(), "all of it is enough");
    }

    #[test]
    fn accounts_without_streams_are_forgotten() {
        let unsent = Unsent::new(1);
        for i in 0..100 {
            drop(unsent.of(&i.to_string()));
        }
        assert!(unsent.accounts.lock().unwrap().all.len() <= 16);
    }
}
