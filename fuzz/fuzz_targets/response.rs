#![no_main]
//! Fuzzes `registry_core::fuzzing::response`.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry_core::fuzzing::response(bytes));
