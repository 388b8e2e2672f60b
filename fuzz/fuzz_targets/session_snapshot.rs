#![no_main]
//! Fuzzes `registry_core::fuzzing::session_snapshot`.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry_core::fuzzing::session_snapshot(bytes));
