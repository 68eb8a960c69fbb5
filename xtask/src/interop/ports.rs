//! Free ports below the range that the system gives to outgoing connections.

use super::Outcome;
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

const FIRST: u16 = 10_240;
const LAST: u16 = 32_767;

/// Those given out already: a process may not have bound its own yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody listens on and that was not given out before.
pub(super) fn free() -> Outcome<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let random = RandomState::new();
    for attempt in 0..1000_u32 {
        let offset = random.hash_one(attempt) % u64::from(LAST - FIRST + 1);
        let port = FIRST + u16::try_from(offset)?;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(format!("no free port between {FIRST} and {LAST}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_is_none_that_the_system_gives_away() {
        let ports: BTreeSet<u16> = (0..20).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 20);
        assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
    }
}
