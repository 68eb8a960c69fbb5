//! The budget of allocations on the request path, over a real control plane and real connections.

use mesh_bench::{
    arm::Arm,
    compare::Compared,
    count::{allocations, upload},
};

#[test]
fn a_mesh_call_allocates_less_than_one_without_the_mesh() {
    let arms: Vec<Arm> = Arm::ALL.iter().copied().filter(|arm| *arm != Arm::Mesh1000).collect();
    let results = allocations(&arms, |run| {
        let seen = allocation_counter::measure(run);
        (seen.count_total, seen.bytes_total)
    })
    .unwrap();
    let of = |arm: Arm| results.iter().find(|one| one.arm == arm).unwrap().count;
    let added = |arm: Arm, to: Arm| of(arm) - of(to);
    assert!(of(Arm::Plain) > 10.0, "nothing was counted: {results:?}");
    // The same arm twice: what the count itself is uncertain by.
    assert!(added(Arm::Again, Arm::Plain).abs() < 1.0, "{results:?}");
    for (arm, base, most) in [
        // The target is three more than hyper. hyper's own queue and tasks, which are not there, cost more.
        (Arm::Mesh, Arm::Raw, 0.0),
        (Arm::MeshRoutes, Arm::Mesh, 0.2),
        (Arm::MeshHosts, Arm::Mesh, 0.2),
        (Arm::Mesh10, Arm::Mesh, 0.2),
        (Arm::MeshTimeout, Arm::Mesh, 1.2),
        // Three more for a policy that is not needed.
        (Arm::MeshRetry, Arm::Mesh, 3.2),
        // A fault that happens to nobody costs the draw.
        (Arm::MeshFault, Arm::Mesh, 0.2),
        (Arm::MeshTls, Arm::Tls, 0.0),
        (Arm::TlsAgain, Arm::Tls, 1.0),
    ] {
        let added = added(arm, base);
        assert!(added <= most, "{}: {added} more than {}: {results:?}", arm.label(), base.label());
    }
}

/// Kept of a call that may be repeated.
const REPLAY: u64 = 64 << 10;

/// The target is the resident memory of a process; this is what both ends have allocated at most at one time, which
/// is in it and repeats.
#[test]
fn a_stream_of_a_gigabyte_keeps_no_more_than_one_without_the_mesh() {
    let arms = [Arm::Plain, Arm::Again, Arm::Mesh, Arm::MeshRetry];
    let results = upload(&arms, |run| allocation_counter::measure(run).bytes_max);
    let results = results.unwrap();
    let of = |arm: Arm| results.iter().find(|(of, _)| *of == arm).unwrap().1;
    assert!(of(Arm::Plain) > 64 << 10, "nothing was counted: {results:?}");
    // With the retry policy what may be replayed comes on top, until it is more than is kept for that.
    for (arm, more) in [(Arm::Again, 1 << 20), (Arm::Mesh, 1 << 20), (Arm::MeshRetry, (1 << 20) + REPLAY)] {
        assert!(of(arm) <= of(Arm::Plain) + more, "{}: {results:?}", arm.label());
    }
}
