//! What the programs share: access to a frame's bytes, and the headers in it.

#![no_std]

pub mod frame;
pub mod header;
