//! Instructions for each call: the client under callgrind, the server in a process of its own, so that only what
//! the client executes is counted. A count, not a timing: it repeats to within a percent.

use crate::{
    Outcome,
    arm::{Arm, Arms},
    server::ServerProcess,
    window::{Length, Load},
    world::World,
};
use std::{fs, path::Path, process::Command};
use tokio::runtime::{Builder, Runtime};

/// The functions whose instructions are counted, as callgrind knows them.
const COUNTED: &str = "*counted_window_*";
/// Enough to make what happens once in a while vanish.
const CALLS: u32 = 400;
/// Copied bytes must not count one by one: of glibc's two ways of copying, the one that callgrind can weigh.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// What the client executes for a call through one arm.
#[derive(Clone, Copy, Debug)]
pub struct Instructions {
    /// The arm.
    pub arm: Arm,
    /// Bytes of the message, each way.
    pub payload: usize,
    /// User mode only: the kernel is invisible.
    pub count: f64,
}

/// Whether callgrind can be run.
pub fn is_possible() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs `program` with the argument `counted` under callgrind; it must call [`counted`].
pub fn instructions(program: &Path) -> Outcome<Vec<Instructions>> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg("counted")
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()?;
    if !output.status.success() {
        return Err(format!("callgrind failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let dump = fs::read_to_string(out)?;
    WINDOWS
        .iter()
        .map(|window| {
            let total = inclusive(&dump, window.name).ok_or_else(|| format!("nothing of {}", window.name))?;
            let count = total as f64 / f64::from(CALLS);
            Ok(Instructions { arm: window.arm, payload: window.payload, count })
        })
        .collect()
}

/// What a function that was called once cost, with all that it called: in the dump, a line that names the callee,
/// one with the number of calls, and one with position and cost.
fn inclusive(dump: &str, function: &str) -> Option<u64> {
    let mut lines = dump.lines();
    lines.find(|line| line.starts_with("cfn=") && line.ends_with(function))?;
    lines.next().filter(|line| line.starts_with("calls=1 "))?;
    lines.next()?.split_whitespace().nth(1)?.parse().ok()
}

struct Window {
    name: &'static str,
    arm: Arm,
    payload: usize,
    run: fn(&Runtime, &Arms) -> Outcome,
}

fn load(payload: usize, calls: u32) -> Load {
    Load { callers: 1, payload, length: Length::Calls(u64::from(calls)) }
}

/// Functions that exist as such: their names are what callgrind looks for.
macro_rules! windows {
    ($($name:ident: $arm:ident, $payload:literal;)*) => {
        $(
            #[inline(never)]
            fn $name(runtime: &Runtime, arms: &Arms) -> Outcome {
                runtime.block_on(arms.run(Arm::$arm, load($payload, CALLS))).map(drop)
            }
        )*
        const WINDOWS: &[Window] = &[
            $(Window { name: stringify!($name), arm: Arm::$arm, payload: $payload, run: $name },)*
        ];
    };
}

windows! {
    counted_window_plain: Plain, 64;
    counted_window_again: Again, 64;
    counted_window_raw: Raw, 64;
    counted_window_mesh: Mesh, 64;
    counted_window_mesh_retry: MeshRetry, 64;
    counted_window_tls: Tls, 64;
    counted_window_mesh_tls: MeshTls, 64;
    counted_window_plain_long: Plain, 16384;
    counted_window_raw_long: Raw, 16384;
    counted_window_mesh_long: Mesh, 16384;
    counted_window_mesh_retry_long: MeshRetry, 16384;
}

/// The process that callgrind watches.
pub fn counted() -> Outcome {
    let world = World::start()?;
    let server = ServerProcess::start(world.address())?;
    world.list(server.addresses)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let arms = runtime.block_on(Arms::connect(world.address(), server.addresses))?;
    for window in WINDOWS {
        runtime.block_on(arms.run(window.arm, load(window.payload, 50)))?;
        (window.run)(&runtime, &arms)?;
    }
    Ok(())
}
