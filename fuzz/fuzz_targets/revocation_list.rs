//! Fuzz target that runs `ciphermq_tests::fuzz::revocation_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ciphermq_tests::fuzz::revocation_list(data));
