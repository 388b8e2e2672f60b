#![no_main]
//! Fuzzes `registry_core::fuzzing::forwarded`.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| registry_core::fuzzing::forwarded(bytes));
