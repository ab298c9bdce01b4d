//! The packet tier: the real programs, run on packets by the kernel's
//! `BPF_PROG_TEST_RUN`, what comes out compared byte by byte.
//!
//! Expected packets are built by another library than ours would be, from
//! scratch, checksums included. Needs root and the eBPF objects; both are
//! asked for loudly.

mod adoption;
mod balancer;
mod bench;
mod capture;
mod captures;
mod carry;
mod decapsulator;
mod explain;
mod fragments;
mod frames;
mod icmp;
mod killed;
mod kinds;
mod learning;
mod phases;
mod pinning;
mod random;
mod spread;
mod too_big;
mod world;
