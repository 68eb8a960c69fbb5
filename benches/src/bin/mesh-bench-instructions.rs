//! `mesh-bench-instructions`: what the mesh costs a call in instructions of the client, as Markdown. Needs
//! valgrind. `cargo xtask bench` runs it.

use mesh_bench::{
    Outcome,
    arm::Arm,
    instructions::{self, Instructions},
    server,
};
use std::env;

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        [] => table(),
        ["counted"] => instructions::counted(),
        ["serve", control_plane] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(server::process(control_plane.parse()?))
        }
        _ => Err("it takes no arguments".into()),
    }
}

fn table() -> Outcome {
    if !instructions::is_possible() {
        println!("Instructions were not counted: valgrind is not installed.\n");
        return Ok(());
    }
    let results = instructions::instructions(&env::current_exe()?)?;
    for payload in [64, 16 << 10] {
        println!("### Instructions for a call, client only: {payload} bytes\n");
        println!("| | instructions | added to tonic | added to hyper |\n|---|---|---|---|");
        let of = |arm| {
            let found = results.iter().find(|one| one.arm == arm && one.payload == payload);
            found.map(|one| one.count).ok_or("an arm is missing")
        };
        for Instructions { arm, count, .. } in results.iter().filter(|one| one.payload == payload) {
            let raw = match arm.base() {
                Arm::Plain => format!("{:+.0}", count - of(Arm::Raw)?),
                _ => String::new(),
            };
            println!("| {} | {count:.0} | {:+.0} | {raw} |", arm.label(), count - of(arm.base())?);
        }
        println!();
    }
    Ok(())
}
