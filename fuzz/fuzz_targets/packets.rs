//! See `tidings::git::fuzzing::packets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::packets(bytes));
