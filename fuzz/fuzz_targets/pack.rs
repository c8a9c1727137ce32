//! See `tidings::fuzzing::pack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::pack(bytes));
