//! See `mesh_xds::fuzzing::expression`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::expression(data));
