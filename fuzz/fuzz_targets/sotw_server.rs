//! See `mesh_xds::fuzzing::sotw_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::sotw_server(data));
