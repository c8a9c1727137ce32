//! See `tidings::git::fuzzing::hook`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::hook(bytes));
