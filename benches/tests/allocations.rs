//! The budget of allocations on the request path, over a real control plane and real connections.

use mesh_bench::{arm::Arm, count::allocations};

#[test]
fn the_mesh_adds_few_allocations_to_a_call() {
    let results = allocations(|run| {
        let seen = allocation_counter::measure(run);
        (seen.count_total, seen.bytes_total)
    })
    .unwrap();
    let of = |arm: Arm| results.iter().find(|one| one.arm == arm).unwrap().count;
    let added = |arm: Arm| of(arm) - of(arm.base());
    assert!(of(Arm::Plain) > 10.0, "nothing was counted: {results:?}");
    // The same arm twice: what the count itself is uncertain by.
    assert!(added(Arm::Again).abs() < 1.0, "{results:?}");
    // None of the mesh's own beyond the call's future, which tonic boxes too.
    for (arm, most) in [(Arm::Mesh, 2.0), (Arm::MeshRetry, 8.0), (Arm::MeshTls, 2.0)] {
        assert!(added(arm) <= most, "{}: {} more than tonic: {results:?}", arm.label(), added(arm));
    }
}
