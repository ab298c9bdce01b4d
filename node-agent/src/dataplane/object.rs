//! The eBPF objects inside the binary.

/// The balancer's object; empty when the agent was built without it.
pub static BALANCER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer"));

/// The decapsulator's object; empty when the agent was built without it.
pub static DECAP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap"));
