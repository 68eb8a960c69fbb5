//! See `mesh_xds::fuzzing::client_machine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::client_machine(data));
