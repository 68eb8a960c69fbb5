//! See `mesh_xds::fuzzing::route_configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::route_configuration(data));
