//! Fuzzes `vipd_fuzz::bfd::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vipd_fuzz::bfd::packet(bytes));
