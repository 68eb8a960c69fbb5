//! See `mesh_xds::fuzzing::delta_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::delta_response(data));
