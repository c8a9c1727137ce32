//! See `tidings::fuzzing::packets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::packets(bytes));
