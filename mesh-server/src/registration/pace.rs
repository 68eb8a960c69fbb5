//! How often one account changes the mesh.
//!
//! Each change is a revision that every stream of the control plane looks at, and streams are cheap: so it is not
//! enough that each of them has a rate. Beyond its pace an account's changes wait, and nobody else's do; many replicas
//! that start at once are let in one after the other.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Changes of an account at once …
const AT_ONCE: u32 = 500;
/// … and the time for each after that.
const EACH: Duration = Duration::from_millis(10);
/// What would wait longer is refused.
pub(super) const LONGEST: Duration = Duration::from_secs(20);
/// Accounts, beyond which those are looked for that are within their pace.
const ACCOUNTS: usize = 1024;

/// The pace of all accounts. Each has a time up to which its changes have used up what it may; when that has passed,
/// the account is as good as new.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// When a change may be made that is wanted now; `None`: too late for anybody to wait.
    pub(super) fn turn(&self, account: &str, now: Instant) -> Option<Instant> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = used.get(account).copied().unwrap_or(now).max(now) + EACH;
        let turn = (until - EACH * AT_ONCE).max(now);
        if turn > now + LONGEST {
            return None;
        }
        if used.len() >= ACCOUNTS && used.len().is_power_of_two() && !used.contains_key(account) {
            used.retain(|_, until| *until > now);
        }
        used.insert(account.to_owned(), until);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_waits_for_its_own_changes_only() {
        let (pace, now) = (Pace::default(), Instant::now());
        let turns = |account, count, now| -> Vec<_> { (0..count).map(|_| pace.turn(account, now)).collect() };
        assert_eq!(turns("a", AT_ONCE, now), vec![Some(now); 500]);
        assert_eq!(turns("a", 2, now), [Some(now + EACH), Some(now + 2 * EACH)]);
        assert_eq!(turns("b", 1, now), [Some(now)]);
        assert_eq!(turns("a", 1_998, now).last(), Some(&Some(now + LONGEST)));
        assert_eq!(turns("a", 2, now), [None, None], "what is refused takes no turn");
        let later = now + Duration::from_secs(60);
        assert_eq!(turns("a", AT_ONCE, later), vec![Some(later); 500], "as good as new");
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_that_are_within_their_pace_are_forgotten() {
        let pace = Pace::default();
        let mut now = Instant::now();
        for i in 0..10_000 {
            now += EACH;
            pace.turn(&i.to_string(), now);
        }
        assert!(pace.0.lock().unwrap().len() <= 2 * ACCOUNTS);
    }
}
