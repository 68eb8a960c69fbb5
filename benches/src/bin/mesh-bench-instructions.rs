//! `mesh-bench-instructions`: what the mesh costs a call in instructions of the client, as Markdown. Needs
//! valgrind. `cargo xtask bench` runs it.

use mesh_bench::{
    Outcome,
    arm::Arm,
    compare::Compared,
    instructions::{self, Instructions},
    server,
    stream::MESSAGES,
    window::Kind,
};
use std::env;

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        [] => table(),
        ["counted"] => instructions::counted(false),
        ["counted", "few"] => instructions::counted(true),
        ["serve", control_plane, _one] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(server::process(control_plane.parse()?))
        }
        _ => Err("it takes no arguments".into()),
    }
}

fn table() -> Outcome {
    println!("### Instructions for a call, client only, in user mode\n");
    if !instructions::is_possible() {
        println!("Not counted: valgrind is not installed.\n");
        return Ok(());
    }
    let results = instructions::instructions(&env::current_exe()?, false)?;
    println!("| | bytes | instructions | added to tonic | added to hyper |\n|---|---|---|---|---|");
    for &Instructions { arm, kind, payload, count } in &results {
        let added_to = |base: Arm| {
            let same = |one: &&Instructions| (one.arm, one.kind, one.payload) == (base, kind, payload);
            results.iter().find(same).map_or(String::new(), |base| format!("{:+.0}", count - base.count))
        };
        let what = match kind {
            Kind::Unary => payload.to_string(),
            Kind::Download => format!("{MESSAGES} messages of {payload}"),
        };
        let raw = if arm.base() == Arm::Plain { added_to(Arm::Raw) } else { String::new() };
        println!("| {} | {what} | {count:.0} | {} | {raw} |", arm.label(), added_to(arm.base()));
    }
    println!();
    Ok(())
}
