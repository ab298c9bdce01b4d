//! Fuzzes `vipd_fuzz::agent::http_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vipd_fuzz::agent::http_answer(bytes));
