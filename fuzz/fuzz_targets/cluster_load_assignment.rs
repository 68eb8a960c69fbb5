//! See `mesh_xds::fuzzing::cluster_load_assignment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::cluster_load_assignment(data));
