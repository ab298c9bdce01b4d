//! Fuzzes `vipd_fuzz::bgp::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vipd_fuzz::bgp::message(bytes));
