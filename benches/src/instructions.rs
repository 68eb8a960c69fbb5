//! Instructions for each call: the client under callgrind, the server in a process of its own, so that only what
//! the client executes is counted. A count, not a timing: it repeats to within a percent.

use crate::{
    Outcome,
    arm::{Arm, Arms},
    server::ServerProcess,
    window::{Kind, Length, Load},
    world::World,
};
use std::{fs, path::Path, process::Command};
use tokio::runtime::{Builder, Runtime};

/// The functions whose instructions are counted, as callgrind knows them.
const COUNTED: &str = "*counted_window_*";
/// Enough to make what happens once in a while vanish.
const CALLS: u32 = 400;
/// Before that: until every connection and every table has been used.
const WARM_UP: u32 = 50;
/// Copied bytes must not count one by one: of glibc's two ways of copying, the one that callgrind can weigh.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// What the client executes for a call through one arm.
#[derive(Clone, Copy, Debug)]
pub struct Instructions {
    /// The arm.
    pub arm: Arm,
    /// What is called.
    pub kind: Kind,
    /// Bytes of the message, each way.
    pub payload: usize,
    /// User mode only: the kernel is invisible.
    pub count: f64,
}

/// Whether callgrind can be run.
pub fn is_possible() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs `program` with the argument `counted`, and `few` if not every arm is wanted, under callgrind; it must call
/// [`counted`].
pub fn instructions(program: &Path, few: bool) -> Outcome<Vec<Instructions>> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg("counted")
        .args(few.then_some("few"))
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()?;
    if !output.status.success() {
        return Err(format!("callgrind failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let dump = fs::read_to_string(out)?;
    windows(few)
        .map(|&Window { name, arm, kind, payload, .. }| {
            let total = inclusive(&dump, name).ok_or_else(|| format!("nothing of {name}"))?;
            Ok(Instructions { arm, kind, payload, count: total as f64 / f64::from(CALLS) })
        })
        .collect()
}

/// What a function that was called once cost, with all that it called: in the dump, a line that names the callee,
/// one with the number of calls, and one with position and cost. A name is written out once, with a number that
/// stands for it elsewhere.
fn inclusive(dump: &str, function: &str) -> Option<u64> {
    let number = dump.lines().find_map(|line| {
        let (number, name) =
            line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="))?.split_once(' ')?;
        name.ends_with(&format!("::{function}")).then_some(number)
    })?;
    let callee = format!("cfn={number}");
    let mut lines = dump.lines();
    lines.find(|line| line.split(' ').next() == Some(&callee))?;
    lines.next().filter(|line| line.starts_with("calls=1 "))?;
    lines.next()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

struct Window {
    name: &'static str,
    arm: Arm,
    kind: Kind,
    payload: usize,
    run: fn(&Runtime, &Arms) -> Outcome,
}

/// What a test needs: the base, and what is compared with it.
const FEW: [Arm; 6] = [Arm::Plain, Arm::Raw, Arm::Mesh, Arm::MeshRetry, Arm::MeshRoutes, Arm::MeshHosts];

fn windows(few: bool) -> impl Iterator<Item = &'static Window> {
    let wanted = move |window: &&Window| {
        !few || (FEW.contains(&window.arm) && window.kind == Kind::Unary && window.payload == 64)
    };
    WINDOWS.iter().filter(wanted)
}

fn load(kind: Kind, payload: usize, calls: u32) -> Load {
    Load { kind, callers: 1, payload, length: Length::Calls(u64::from(calls)) }
}

/// Functions that exist as such: their names are what callgrind looks for.
macro_rules! windows {
    ($($name:ident: $arm:ident, $kind:ident, $payload:literal;)*) => {
        $(
            #[inline(never)]
            fn $name(runtime: &Runtime, arms: &Arms) -> Outcome {
                runtime.block_on(arms.run(Arm::$arm, load(Kind::$kind, $payload, CALLS))).map(drop)
            }
        )*
        const WINDOWS: &[Window] = &[$(Window {
            name: stringify!($name),
            arm: Arm::$arm,
            kind: Kind::$kind,
            payload: $payload,
            run: $name,
        },)*];
    };
}

windows! {
    counted_window_plain: Plain, Unary, 64;
    counted_window_again: Again, Unary, 64;
    counted_window_raw: Raw, Unary, 64;
    counted_window_mesh: Mesh, Unary, 64;
    counted_window_mesh_timeout: MeshTimeout, Unary, 64;
    counted_window_mesh_retry: MeshRetry, Unary, 64;
    counted_window_mesh_fault: MeshFault, Unary, 64;
    counted_window_mesh_routes: MeshRoutes, Unary, 64;
    counted_window_mesh_hosts: MeshHosts, Unary, 64;
    counted_window_mesh_ten: Mesh10, Unary, 64;
    counted_window_mesh_thousand: Mesh1000, Unary, 64;
    counted_window_tls: Tls, Unary, 64;
    counted_window_tls_again: TlsAgain, Unary, 64;
    counted_window_mesh_tls: MeshTls, Unary, 64;
    counted_window_plain_long: Plain, Unary, 16384;
    counted_window_again_long: Again, Unary, 16384;
    counted_window_raw_long: Raw, Unary, 16384;
    counted_window_mesh_long: Mesh, Unary, 16384;
    counted_window_mesh_retry_long: MeshRetry, Unary, 16384;
    counted_window_tls_long: Tls, Unary, 16384;
    counted_window_tls_again_long: TlsAgain, Unary, 16384;
    counted_window_mesh_tls_long: MeshTls, Unary, 16384;
    counted_window_plain_stream: Plain, Download, 64;
    counted_window_again_stream: Again, Download, 64;
    counted_window_raw_stream: Raw, Download, 64;
    counted_window_mesh_stream: Mesh, Download, 64;
    counted_window_mesh_retry_stream: MeshRetry, Download, 64;
}

/// The process that callgrind watches.
pub fn counted(few: bool) -> Outcome {
    let world = World::start()?;
    let server = ServerProcess::start(world.address(), 1)?;
    world.list(server.addresses)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let arms = if few { &FEW } else { Arm::ALL };
    let arms = runtime.block_on(Arms::connect(arms, world.address(), server.addresses))?;
    for window in windows(few) {
        // Every endpoint's connection must have been used.
        let warm_up = if window.arm == Arm::Mesh1000 { 5000 } else { WARM_UP };
        runtime.block_on(arms.run(window.arm, load(window.kind, window.payload, warm_up)))?;
        (window.run)(&runtime, &arms)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_function_is_read_with_all_that_it_called() {
        let dump = "fn=(3) bench::counted_window_mesh\n0 14\n\nfn=(1) main\n\
                    cfn=(2) bench::counted_window_mesh_long\ncalls=1 0 \n0 9\n\
                    cfn=(3)\ncalls=1 0 \n0 509754512\n";
        assert_eq!(inclusive(dump, "counted_window_mesh"), Some(509_754_512));
        assert_eq!(inclusive(dump, "counted_window_raw"), None);
    }
}
