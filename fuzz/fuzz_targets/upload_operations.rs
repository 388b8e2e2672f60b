#![no_main]
//! Fuzzes `registry_core::fuzzing::upload_operations`.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry_core::fuzzing::upload_operations(bytes));
