//! Runs a model over random scripts: from seeds, so that each can be repeated, and on every core. A script that
//! fails is cut down to the events that it takes.

use std::{
    any::Any,
    env,
    fmt::Debug,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Mutex,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Under what conditions, and what happens.
#[derive(Clone, Debug)]
pub(crate) struct Script<S, E> {
    pub(crate) setup: S,
    pub(crate) events: Vec<E>,
}

/// Fails the script that runs. Unlike a panic it does not print anything, which counts while a failing script
/// is cut down in hundreds of steps.
pub(crate) fn fail(why: String) -> ! {
    resume_unwind(Box::new(why))
}

/// Runs `cases` scripts from the first seed, or as many and from where the environment says.
pub(crate) fn explore<S, E>(
    cases: u64,
    script: impl Fn(&mut fastrand::Rng) -> Script<S, E> + Sync,
    run: impl Fn(&Script<S, E>) + Sync,
) where
    S: Clone + Debug,
    E: Clone + Debug,
{
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let first = number("MESH_MODEL_SEED").unwrap_or(0);
    let last = first.saturating_add(number("MESH_MODEL_CASES").unwrap_or(cases));
    explore_seeds(first..last, script, run);
}

fn explore_seeds<S, E>(
    Range { start: first, end: last }: Range<u64>,
    script: impl Fn(&mut fastrand::Rng) -> Script<S, E> + Sync,
    run: impl Fn(&Script<S, E>) + Sync,
) where
    S: Clone + Debug,
    E: Clone + Debug,
{
    let next = AtomicU64::new(first);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < last
                {
                    let script = script(&mut fastrand::Rng::with_seed(seed));
                    if outcome(&run, &script).is_err() {
                        next.store(last, Ordering::Relaxed);
                        *failed.lock().unwrap() = Some(seed);
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        let (script, why) = cut_down(&run, script(&mut fastrand::Rng::with_seed(seed)));
        let events: String = script.events.iter().map(|event| format!("  {event:?}\n")).collect();
        let again = repeats(seed, thread::current().name());
        panic!("{why}\n{:?}\n{events}of the seeds {first}..{last} it is {seed}: {again}", script.setup);
    }
}

/// The command that runs one seed of a test again.
fn repeats(seed: u64, test: Option<&str>) -> String {
    // A test that has no thread of its own has no name here; then all models run.
    let test = test.filter(|test| test.contains("::")).unwrap_or("model");
    format!("MESH_MODEL_SEED={seed} MESH_MODEL_CASES=1 cargo test -p mesh-xds --lib {test}")
}

fn outcome<S, E>(run: impl Fn(&Script<S, E>), script: &Script<S, E>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run(script))).map_err(|payload| text(&*payload))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Drops events, in ever smaller pieces, as long as the rest still fails.
fn cut_down<S: Clone, E: Clone>(
    run: impl Fn(&Script<S, E>),
    mut script: Script<S, E>,
) -> (Script<S, E>, String) {
    let mut why = outcome(&run, &script).err().unwrap_or_else(|| "it does not fail again".to_owned());
    let mut piece = script.events.len().div_ceil(2);
    while piece > 0 {
        let mut dropped = false;
        let mut at = 0;
        while at < script.events.len() {
            let mut shorter = script.clone();
            shorter.events.drain(at..(at + piece).min(shorter.events.len()));
            match outcome(&run, &shorter) {
                Err(reason) => {
                    (script, why) = (shorter, reason);
                    dropped = true;
                }
                Ok(()) => at += piece,
            }
        }
        if !dropped {
            piece /= 2;
        }
    }
    (script, why)
}

#[test]
fn a_script_that_fails_is_cut_down_to_what_it_takes() {
    let script = Script { setup: (), events: (0..100_u8).collect() };
    let run = |script: &Script<(), u8>| {
        if script.events.contains(&17) && script.events.contains(&80) {
            fail("both".to_owned());
        }
    };
    let (script, why) = cut_down(run, script);
    assert_eq!((script.events, why.as_str()), (vec![17, 80], "both"));
}

#[test]
fn a_seed_that_fails_is_told_with_the_command_that_runs_it() {
    let explored = catch_unwind(|| {
        let script = |random: &mut fastrand::Rng| Script { setup: (), events: vec![random.u8(..8)] };
        explore_seeds(50..1_000, script, |script: &Script<(), u8>| {
            if script.events == [3] {
                fail("three".to_owned());
            }
        });
    });
    let why = text(&*explored.unwrap_err());
    let seed: u64 = why.split_once("MESH_MODEL_SEED=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(fastrand::Rng::with_seed(seed).u8(..8), 3, "{why}");
    assert!(why.starts_with("three\n()\n  3\nof the seeds 50..1000 it is "), "{why}");
    let this = "model::scripts::a_seed_that_fails_is_told_with_the_command_that_runs_it";
    assert_eq!(
        repeats(7, Some(this)),
        format!("MESH_MODEL_SEED=7 MESH_MODEL_CASES=1 cargo test -p mesh-xds --lib {this}")
    );
    assert!(repeats(7, Some("main")).ends_with(" --lib model"));
}
