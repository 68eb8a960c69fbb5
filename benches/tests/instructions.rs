//! The budget of instructions on the request path. Counted where valgrind is installed.

use mesh_bench::{
    arm::Arm,
    compare::Compared,
    instructions::{instructions, is_possible},
};
use std::path::Path;

#[test]
fn a_mesh_call_executes_fewer_instructions_than_a_call_over_hyper() {
    if !is_possible() {
        eprintln!("not counted: valgrind is not installed");
        return;
    }
    let results = instructions(Path::new(env!("CARGO_BIN_EXE_mesh-bench-instructions")), true).unwrap();
    let of = |arm: Arm| results.iter().find(|one| one.arm == arm).unwrap().count;
    let raw = of(Arm::Raw);
    assert!(raw > 1_000.0, "nothing was counted: {results:?}");
    // The target is 1,500 more, of optimised code. This holds for code that is not optimised, too.
    assert!(of(Arm::Mesh) < raw, "{results:?}");
    assert!(of(Arm::MeshRetry) < of(Arm::Plain), "{results:?}");
    // As many as with one, give or take a tenth.
    for many in [Arm::MeshRoutes, Arm::MeshHosts] {
        let ratio = of(many) / of(Arm::Mesh);
        assert!((0.9..=1.1).contains(&ratio), "{}: {ratio}: {results:?}", many.label());
    }
}
