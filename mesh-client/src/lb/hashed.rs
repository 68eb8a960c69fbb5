//! Consistent hashing over endpoints that come and go (gRFC A42, A61, A76, A117; Envoy's Maglev).
//!
//! Promises: a hash leads to the same endpoint for as long as that one takes calls, whoever else comes or goes
//! into trouble; an endpoint is connected when a hash leads to it, and the call waits for it; one that failed,
//! was ejected or is not usable is passed over, and only its own keys move. The tables themselves are made when
//! endpoints or weights change, not when connectivity does.

use super::Dice;
use crate::{cluster::Link, endpoint::Endpoint};
use mesh_xds::balancing::Table;
use std::sync::Arc;

/// What may be done with an endpoint of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Idle,
    Connecting,
    /// Failed, ejected or not usable: passed over.
    Failed,
}

impl From<Link> for State {
    fn from(link: Link) -> Self {
        match link {
            Link::Ready => Self::Ready,
            Link::Idle => Self::Idle,
            Link::Connecting => Self::Connecting,
            Link::Failed => Self::Failed,
        }
    }
}

/// What a hash gave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hit<'a> {
    /// This endpoint, which was ready when the picker was built.
    Ready(&'a Arc<Endpoint>),
    /// This one is being connected; the call waits for it.
    Wait(&'a Arc<Endpoint>),
    /// Nobody takes calls.
    Nobody,
}

/// A table and the states of its endpoints at one moment.
#[derive(Debug)]
pub(crate) struct Hashed {
    table: Arc<Table>,
    /// In the order of the table's shares; shared by the pickers that follow one another.
    members: Arc<[Arc<Endpoint>]>,
    states: Box<[State]>,
    /// Somebody is ready.
    ready: usize,
    connecting: bool,
    /// Somebody has not failed.
    hope: bool,
}

impl Hashed {
    /// `members` and their states stand in the order of the table's shares.
    pub(crate) fn new(table: Arc<Table>, members: Arc<[Arc<Endpoint>]>, states: Box<[State]>) -> Self {
        let count = |state| states.iter().filter(|one| **one == state).count();
        let (ready, connecting) = (count(State::Ready), count(State::Connecting));
        Self {
            ready,
            connecting: connecting > 0,
            hope: count(State::Failed) < states.len(),
            table,
            members,
            states,
        }
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// Nobody takes calls, now or soon.
    pub(crate) fn is_hopeless(&self) -> bool {
        !self.hope
    }

    /// Those that are ready.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let ready = self.members.iter().zip(&self.states).filter(|(_, state)| **state == State::Ready);
        ready.map(|(endpoint, _)| endpoint)
    }

    fn walk(&self, hash: u64) -> impl Iterator<Item = (&Arc<Endpoint>, State)> {
        let owners = self.table.walk(hash);
        owners.filter_map(|owner| Some((self.members.get(owner)?, *self.states.get(owner)?)))
    }

    /// The endpoint of a hash: its owner, or the next around the table that did not fail and is not to be
    /// avoided. If every other one is to be avoided or failed, avoidance counts no more. Looking changes nothing.
    pub(crate) fn find(
        &self,
        hash: u64,
        avoid: impl Fn(&Endpoint) -> bool,
    ) -> Option<(&Arc<Endpoint>, State)> {
        if !self.hope {
            return None;
        }
        let mut avoided = None;
        for (endpoint, state) in self.walk(hash) {
            if state == State::Failed {
                continue;
            }
            if !avoid(endpoint) {
                return Some((endpoint, state));
            }
            avoided.get_or_insert((endpoint, state));
        }
        avoided
    }

    /// The same for a call, which an endpoint is connected for.
    pub(crate) fn pick(&self, hash: u64, avoid: impl Fn(&Endpoint) -> bool) -> Hit<'_> {
        self.find(hash, avoid).map_or(Hit::Nobody, |(endpoint, state)| hit(endpoint, state))
    }

    /// For a call without a hash, which may go anywhere: a random one that is ready (gRFC A76). On the way at
    /// most one idle endpoint is asked to connect, and none while another connects.
    pub(crate) fn pick_any(&self, dice: &Dice, avoid: impl Fn(&Endpoint) -> bool) -> Hit<'_> {
        if !self.hope {
            return Hit::Nobody;
        }
        let (mut idle, mut waiting, mut avoided) = (None, None, None);
        let mut sent_for = self.connecting;
        for (endpoint, state) in self.walk(dice.roll().u64(..)) {
            match state {
                State::Ready if avoid(endpoint) => {
                    avoided.get_or_insert(endpoint);
                }
                State::Ready => return Hit::Ready(endpoint),
                State::Idle => {
                    idle.get_or_insert(endpoint);
                    if !std::mem::replace(&mut sent_for, true) {
                        endpoint.kick();
                    }
                }
                State::Connecting => {
                    waiting.get_or_insert(endpoint);
                }
                State::Failed => {}
            }
            if self.ready == 0 && waiting.is_some() {
                break;
            }
        }
        match (avoided, waiting.or(idle)) {
            (Some(ready), _) => Hit::Ready(ready),
            (None, Some(endpoint)) => Hit::Wait(endpoint),
            (None, None) => Hit::Nobody,
        }
    }
}

/// What to do with an endpoint that did not fail.
fn hit(endpoint: &Arc<Endpoint>, state: State) -> Hit<'_> {
    match state {
        State::Ready => Hit::Ready(endpoint),
        State::Idle => {
            endpoint.kick();
            Hit::Wait(endpoint)
        }
        State::Connecting | State::Failed => Hit::Wait(endpoint),
    }
}

/// The endpoints of a table taken together, as gRFC A42 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Together {
    Ready,
    Connecting,
    Idle,
    TransientFailure,
}

/// The state of all, from how many are in each: in the order of A42's rules.
pub(crate) fn together(states: impl Iterator<Item = (State, usize)>) -> Together {
    let (mut ready, mut failed, mut connecting, mut idle, mut all) = (0, 0, 0, 0, 0);
    for (state, count) in states {
        all += count;
        match state {
            State::Ready => ready += count,
            State::Failed => failed += count,
            State::Connecting => connecting += count,
            State::Idle => idle += count,
        }
    }
    if ready > 0 {
        Together::Ready
    } else if failed >= 2 {
        Together::TransientFailure
    } else if connecting > 0 || (failed == 1 && all > 1) {
        Together::Connecting
    } else if idle > 0 {
        Together::Idle
    } else {
        Together::TransientFailure
    }
}

/// No call comes to a priority in this state.
pub(crate) fn is_stuck(together: Together) -> bool {
    matches!(together, Together::Connecting | Together::TransientFailure)
}

/// The idle endpoint that is connected without a call, because none would come: in a state in which a
/// priority is passed over, nobody else would ever wake it (A42's self-recovery). From a random one on (A117).
pub(crate) fn to_wake(states: &[State], rng: &mut fastrand::Rng) -> Option<usize> {
    if !is_stuck(together(states.iter().map(|state| (*state, 1))))
        || states.contains(&State::Connecting)
        || states.is_empty()
    {
        return None;
    }
    let from = rng.usize(0..states.len());
    (from..states.len()).chain(0..from).find(|index| states.get(*index) == Some(&State::Idle))
}

#[cfg(test)]
mod tests {
    use super::{State::*, *};
    use crate::lb::tests::{endpoint, shares};
    use mesh_xds::balancing::{Algorithm, RingSize};
    use twox_hash::XxHash64;

    fn hashed(algorithm: Algorithm, states: &[State]) -> Hashed {
        let table = Table::new(algorithm, shares(&vec![1; states.len()]));
        Hashed::new(Arc::new(table), (0..states.len()).map(endpoint).collect(), states.into())
    }

    const RING: Algorithm = Algorithm::Ring(RingSize { min: 1024, max: 4096 });
    const MAGLEV: Algorithm = Algorithm::Maglev(65_537);

    fn ready(hit: Hit<'_>) -> Option<u16> {
        match hit {
            Hit::Ready(endpoint) => Some(endpoint.address.port()),
            Hit::Wait(_) | Hit::Nobody => None,
        }
    }

    fn waits(hit: Hit<'_>) -> Option<u16> {
        match hit {
            Hit::Wait(endpoint) => Some(endpoint.address.port()),
            Hit::Ready(_) | Hit::Nobody => None,
        }
    }

    fn hash(key: u32) -> u64 {
        XxHash64::oneshot(0, &key.to_le_bytes())
    }

    #[test]
    fn keys_of_one_that_failed_go_to_the_others_and_no_other_key_moves() {
        for algorithm in [RING, MAGLEV] {
            let whole = hashed(algorithm, &[Ready; 5]);
            let hurt = hashed(algorithm, &[Ready, Ready, Failed, Ready, Ready]);
            let mut takers = [0; 5];
            for key in 0..5000 {
                let before = ready(whole.pick(hash(key), |_| false)).unwrap();
                let after = ready(hurt.pick(hash(key), |_| false)).unwrap();
                if before == 2 {
                    takers[usize::from(after)] += 1;
                } else {
                    assert_eq!(before, after);
                }
            }
            assert!(takers[2] == 0 && [0, 1, 3, 4].iter().all(|taker| takers[*taker] > 100), "{takers:?}");
        }
    }

    #[test]
    fn a_hash_waits_for_its_own_endpoint_though_others_are_ready() {
        for state in [Idle, Connecting] {
            let all = hashed(RING, &[Ready, state, Ready]);
            let key = (0..).find(|key| ready(all.pick(hash(*key), |_| false)).is_none()).unwrap();
            assert_eq!(waits(all.pick(hash(key), |_| false)), Some(1));
        }
    }

    #[test]
    fn what_a_call_has_tried_is_avoided_while_there_is_another() {
        let all = hashed(RING, &[Ready, Ready]);
        let first = ready(all.pick(1, |_| false)).unwrap();
        let second = ready(all.pick(1, |endpoint| endpoint.address.port() == first)).unwrap();
        assert_ne!(first, second);
        assert_eq!(ready(all.pick(1, |_| true)), Some(first));
    }

    #[test]
    fn a_call_without_hash_takes_any_that_is_ready_and_wakes_at_most_one() {
        let dice = Dice::new(1);
        let all = hashed(RING, &[Idle, Ready, Failed, Idle, Connecting]);
        for _ in 0..50 {
            assert_eq!(ready(all.pick_any(&dice, |_| false)), Some(1));
        }
        assert!(all.members.iter().all(|endpoint| !endpoint.is_kicked()), "one connects already");
        let asleep = hashed(RING, &[Idle, Idle, Idle]);
        assert!(waits(asleep.pick_any(&dice, |_| false)).is_some());
        assert_eq!(asleep.members.iter().filter(|endpoint| endpoint.is_kicked()).count(), 1);
    }

    #[test]
    fn when_all_failed_there_is_nobody() {
        for states in [&[Failed, Failed][..], &[]] {
            let none = hashed(MAGLEV, states);
            assert!(none.is_hopeless() && none.ready() == 0);
            assert!(matches!(none.pick(1, |_| false), Hit::Nobody));
            assert!(matches!(none.pick_any(&Dice::new(1), |_| false), Hit::Nobody));
        }
    }

    #[test]
    fn states_are_taken_together_in_the_order_of_a42() {
        let table = [
            (&[Failed, Failed, Ready][..], Together::Ready),
            (&[Failed, Failed, Connecting], Together::TransientFailure),
            (&[Failed, Connecting, Idle], Together::Connecting),
            (&[Failed, Idle], Together::Connecting),
            (&[Idle, Idle], Together::Idle),
            (&[Failed], Together::TransientFailure),
            (&[], Together::TransientFailure),
        ];
        for (states, expected) in table {
            assert_eq!(together(states.iter().map(|state| (*state, 1))), expected, "{states:?}");
        }
    }

    #[test]
    fn one_idle_endpoint_is_woken_where_no_call_would_do_it() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut woken = [0; 4];
        for _ in 0..300 {
            woken[to_wake(&[Failed, Failed, Idle, Idle], &mut rng).unwrap()] += 1;
        }
        assert!(woken[2] > 50 && woken[3] > 50, "{woken:?}");
        assert_eq!(to_wake(&[Failed, Idle, Connecting], &mut rng), None, "one is on its way");
        assert_eq!(to_wake(&[Idle, Idle], &mut rng), None, "calls come to an idle priority");
        assert_eq!(to_wake(&[Ready, Failed, Idle], &mut rng), None);
        assert_eq!(to_wake(&[Failed, Failed], &mut rng), None);
    }
}
