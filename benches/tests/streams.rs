//! What a stream costs a control plane, whatever the size of the mesh, in counts: `cargo xtask bench --scale` tells the
//! times and the resident memory.

use mesh_bench::scale::{Counted, Mesh, counted_streams};

const STREAMS: usize = 100;

#[test]
fn a_stream_holds_little_and_a_change_costs_it_the_same_in_a_mesh_of_ten_times_as_many_services() {
    let counted = |services| -> Vec<Counted> {
        let counted = counted_streams(Mesh { services, endpoints: 10 }, STREAMS, |run| {
            let seen = allocation_counter::measure(run);
            (seen.count_total, seen.bytes_current)
        });
        counted.unwrap()
    };
    let (small, large) = (counted(60), counted(600));
    for (small, large) in small.iter().zip(&large) {
        let both = format!("{small:?} {large:?}");
        assert!(small.held > 4096.0 && small.change > 10.0, "nothing was counted: {both}");
        // The target is of resident memory; this is what is in it and repeats.
        assert!(small.held <= 65_536.0 && large.held <= 65_536.0, "{both}");
        // Buffers of the connection are larger or smaller by how the threads meet: a tenth, in some twenty runs.
        assert!((0.8..1.25).contains(&(large.held / small.held)), "{both}");
        assert!((0.9..1.1).contains(&(large.change / small.change)), "{both}");
    }
}
