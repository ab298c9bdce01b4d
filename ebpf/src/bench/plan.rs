//! What the wrapper and the benchmark must agree on; compiled by both.

/// What packets the wrapper makes: the one entry of its map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Plan {
    /// First bytes of the frame: up to and with the ports. The last byte of
    /// the source address and the source port are filled from the flow, those
    /// of the destination (zero when there are several services) from the
    /// service.
    pub template: [u8; 64],
    /// Packets made so far.
    pub made: u64,
    /// Length of the frame.
    pub length: u32,
    /// How many flows there are; 0 when every packet is a flow of its own.
    pub flows: u32,
    /// How many services they go to.
    pub services: u32,
    /// 1 for IPv6.
    pub is_ipv6: u32,
    /// 1 when the target may cut the frame's end off.
    pub is_cut: u32,
    /// Zero.
    pub reserved: u32,
    /// For frames that may be cut: where the first one started, 0 before.
    pub start: u64,
    /// Where the present one starts.
    pub place: u64,
}

// SAFETY: repr(C), bytes, three u64 and six u32, 112 bytes without padding.
unsafe impl vipd_abi::Plain for Plan {}

/// A flow as it differs from the template. There are 2^24: 8 bits of the
/// address and 16 of the port.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Last byte of the source address.
    pub source: u8,
    /// Last byte of the destination address.
    pub destination: u8,
    /// Source and destination port.
    pub ports: (u16, u16),
}

impl Plan {
    /// How the packets of a flow look.
    #[inline(always)]
    pub const fn flow(&self, number: u32) -> Flow {
        let service = share(number.wrapping_mul(0x9e37_79b1), self.services);
        Flow {
            source: number as u8,
            destination: service as u8,
            ports: (
                1024_u16.wrapping_add((number >> 8) as u16),
                service_port(service),
            ),
        }
    }
}

/// The port of a service: 256 of them have the same.
#[inline(always)]
pub const fn service_port(service: u32) -> u16 {
    80 + (service >> 8) as u16
}

/// A number below `of`, for a word with even bits.
#[inline(always)]
pub const fn share(word: u32, of: u32) -> u32 {
    ((word as u64 * of as u64) >> 32) as u32
}
