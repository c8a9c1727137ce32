//! See `tidings::git::fuzzing::side_band`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::side_band(bytes));
