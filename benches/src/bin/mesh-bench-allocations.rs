//! `mesh-bench-allocations`: what the mesh costs a call in allocations, as Markdown. Apart from the timing
//! binary, because counting takes time. `cargo xtask bench` runs both.

use mesh_bench::{
    Outcome,
    arm::Arm,
    compare::Compared,
    count::{Allocations, allocations},
};

fn main() -> Outcome {
    let results = allocations(Arm::ALL, |run| {
        let seen = allocation_counter::measure(run);
        (seen.count_total, seen.bytes_total)
    })?;
    println!("### Allocations for a call, both ends: 64 bytes\n");
    println!("| | allocations | added to tonic | added to hyper | bytes | added to tonic |");
    println!("|---|---|---|---|---|---|");
    let of = |arm: Arm| results.iter().find(|one| one.arm == arm).ok_or("no arm to compare with");
    for Allocations { arm, count, bytes } in &results {
        let base = of(arm.base())?;
        let raw = match arm.base() {
            Arm::Plain => format!("{:+.1}", count - of(Arm::Raw)?.count),
            _ => String::new(),
        };
        println!(
            "| {} | {count:.1} | {:+.1} | {raw} | {bytes:.0} | {:+.0} |",
            arm.label(),
            count - base.count,
            bytes - base.bytes
        );
    }
    println!();
    Ok(())
}
