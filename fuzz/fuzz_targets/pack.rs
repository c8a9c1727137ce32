//! See `tidings::git::fuzzing::pack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::pack(bytes));
