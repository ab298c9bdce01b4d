//! What the programs share: access to a frame's bytes, and the headers in it.

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod anchor;
pub mod atomic;
/// What the programs of the benchmarks share.
pub mod bench {
    pub mod packet;
    pub mod plan;
}
pub mod checksum;
pub mod frame;
pub mod header;
