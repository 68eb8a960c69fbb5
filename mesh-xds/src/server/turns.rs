//! Turns: so many at a time, in the order of asking, and one after the other for each account that waits.
//!
//! Whoever asks for thousands of turns waits behind himself, and others get theirs next.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Each time that so many wait, those that left are taken out.
const TIDY: usize = 64;

pub(super) struct Turns(Mutex<State>);

struct State {
    free: usize,
    /// By account; only those with somebody.
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<Turn>>>,
    /// Accounts that wait, next first.
    order: VecDeque<Arc<str>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// At least one at a time.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let state = State { free: limit.max(1), waiting: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn. Who no longer waits loses no turn for others.
    pub(super) async fn take(self: &Arc<Self>, account: &str) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(self.clone()));
            }
            let (give, turn) = oneshot::channel();
            if let Some(waiting) = state.waiting.get_mut(account) {
                if waiting.len() % TIDY == 0 {
                    waiting.retain(|one| !one.is_closed());
                }
                waiting.push_back(give);
            } else {
                let account: Arc<str> = account.into();
                state.waiting.insert(account.clone(), [give].into());
                state.order.push_back(account);
            }
            turn
        };
        // All turns are given, or their holders are gone: never so while this is borrowed.
        turn.await.unwrap_or(Turn(None))
    }

    /// Gives a turn that became free to whoever is next.
    fn give(self: Arc<Self>) {
        let mut turn = Turn(Some(self.clone()));
        let mut state = self.state();
        while let Some(account) = state.order.pop_front() {
            let next = state.waiting.get_mut(&account).and_then(VecDeque::pop_front);
            if state.waiting.get(&account).is_none_or(VecDeque::is_empty) {
                state.waiting.remove(&account);
            } else {
                state.order.push_back(account);
            }
            let Some(next) = next else { continue };
            match next.send(turn) {
                Ok(()) => return,
                Err(refused) => turn = refused,
            }
        }
        state.free += 1;
        turn.0 = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::{future::Future, pin::Pin};

    type Waiting = Pin<Box<dyn Future<Output = Turn>>>;

    /// Asks for a turn, and stands in line if there is none.
    fn ask(turns: &Arc<Turns>, account: &'static str) -> Result<Turn, Waiting> {
        let turns = turns.clone();
        let mut waiting: Waiting = Box::pin(async move { turns.take(account).await });
        match waiting.as_mut().now_or_never() {
            Some(turn) => Ok(turn),
            None => Err(waiting),
        }
    }

    #[test]
    fn accounts_take_turns_and_each_has_its_order() {
        let turns = Turns::new(1);
        let first = ask(&turns, "a").ok().unwrap();
        let mut waiting: Vec<(&str, Waiting)> =
            ["a1", "a2", "a3", "b1", "c1"].map(|who| (who, ask(&turns, &who[..1]).err().unwrap())).into();
        let mut order = Vec::new();
        let mut turn = Some(first);
        while let Some(held) = turn.take() {
            drop(held);
            let next = waiting.iter_mut().position(|(_, one)| {
                turn = one.as_mut().now_or_never();
                turn.is_some()
            });
            order.extend(next.map(|next| waiting.remove(next).0));
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "a3"]);
        assert_eq!(turns.state().free, 1);
        assert!(turns.state().waiting.is_empty());
    }

    #[test]
    fn who_leaves_the_line_takes_no_turn_with_it_and_no_room() {
        let turns = Turns::new(1);
        let held = ask(&turns, "a").ok().unwrap();
        let gone = ask(&turns, "a").err().unwrap();
        let given_and_gone = ask(&turns, "b").err().unwrap();
        let mut last = ask(&turns, "c").err().unwrap();
        drop(gone);
        drop(held);
        assert!(last.as_mut().now_or_never().is_none(), "it is b's");
        drop(given_and_gone);
        let held = last.as_mut().now_or_never().unwrap();
        for _ in 0..10 * TIDY {
            drop(ask(&turns, "a"));
        }
        assert!(turns.state().waiting["a"].len() <= TIDY);
        drop(held);
        assert_eq!(turns.state().free, 1);
    }
}
