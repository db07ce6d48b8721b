//! Fuzz target that runs `ciphermq_tests::fuzz::line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ciphermq_tests::fuzz::line(data));
