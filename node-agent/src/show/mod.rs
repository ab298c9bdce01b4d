//! What `vipd show` shows: one subject each, more of it than `vipd status`; and
//! `vipd why`.

pub mod bgp;
mod timeline;
pub mod why;
