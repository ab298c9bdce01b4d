//! The eBPF objects inside the binary.

/// The balancer's object; empty when the agent was built without it.
pub static BALANCER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer"));

/// The balancer that explains, and changes nothing.
pub static EXPLAIN: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer-explain"));

/// The balancer that captures.
pub static CAPTURE: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer-capture"));

/// The decapsulator's object; empty when the agent was built without it.
pub static DECAP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap"));
