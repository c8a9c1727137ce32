//! See `tidings::fuzzing::credential`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::credential(bytes));
