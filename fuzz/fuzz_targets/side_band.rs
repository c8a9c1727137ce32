//! See `tidings::fuzzing::side_band`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::side_band(bytes));
