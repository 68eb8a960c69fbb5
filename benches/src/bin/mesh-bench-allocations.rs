//! `mesh-bench-allocations`: what the mesh costs a call in allocations, as Markdown. Apart from the timing
//! binary, because counting takes time. `cargo xtask bench` runs both.

use mesh_bench::{
    Outcome,
    arm::Arm,
    count::{Allocations, allocations},
};

fn main() -> Outcome {
    let results = allocations(Arm::ALL, |run| {
        let seen = allocation_counter::measure(run);
        (seen.count_total, seen.bytes_total)
    })?;
    println!("### Allocations for a call, both ends: 64 bytes\n");
    println!("| | allocations | added by it | bytes | added by it |\n|---|---|---|---|---|");
    for Allocations { arm, count, bytes } in &results {
        let base = results.iter().find(|one| one.arm == arm.base()).ok_or("no arm to compare with")?;
        println!(
            "| {} | {count:.1} | {:+.1} | {bytes:.0} | {:+.0} |",
            arm.label(),
            count - base.count,
            bytes - base.bytes
        );
    }
    println!();
    Ok(())
}
