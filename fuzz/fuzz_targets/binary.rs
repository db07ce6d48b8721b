//! Fuzz target that runs `ciphermq_tests::fuzz::binary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ciphermq_tests::fuzz::binary(data));
