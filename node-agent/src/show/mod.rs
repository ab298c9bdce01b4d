//! What `vipd show` shows: one subject each, more of it than `vipd status`.

pub mod bgp;
