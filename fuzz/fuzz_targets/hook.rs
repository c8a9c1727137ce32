//! See `tidings::fuzzing::hook`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::hook(bytes));
