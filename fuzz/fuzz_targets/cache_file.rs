//! See `mesh_xds::fuzzing::cache_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzzing::cache_file(data));
