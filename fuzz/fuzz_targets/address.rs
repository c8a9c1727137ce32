//! See `tidings::fuzzing::address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::address(bytes));
