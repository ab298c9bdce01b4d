//! The memory that a program sees: context, frame, stack, values of maps.

use std::ops::Range;

use anyhow::{Context as _, Result};

/// Pieces of memory, each at an address of its own.
pub struct Memory {
    /// With room in front and behind.
    packet: Vec<u8>,
    /// Where the frame lies in it.
    frame: Range<usize>,
    stacks: Vec<[u8; STACK]>,
    pieces: Vec<Vec<u8>>,
}

/// Bytes of a function's stack.
const STACK: usize = 512;
/// Room that XDP promises in front of a frame; here also behind it.
const ROOM: usize = 256;

/// Addresses of the packet fit into 32 bits, as the context holds them.
const PACKET: u64 = 1 << 24;
const STACKS: u64 = 1 << 40;
const PIECES: u64 = 1 << 41;
/// Distance of two pieces.
const APART: u64 = 1 << 32;

impl Memory {
    /// Where the context lies.
    pub const CONTEXT: u64 = 1 << 16;

    pub fn new(frame: &[u8]) -> Self {
        let room = [0; ROOM];
        Self {
            packet: [&room[..], frame, &room[..]].concat(),
            frame: ROOM..ROOM + frame.len(),
            stacks: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// A stack for another function; returns its upper end.
    pub fn push_frame(&mut self) -> u64 {
        self.stacks.push([0; STACK]);
        STACKS + (self.stacks.len() * STACK) as u64
    }

    pub fn pop_frame(&mut self) {
        self.stacks.pop();
    }

    /// Another piece; returns its address.
    pub fn add(&mut self, bytes: Vec<u8>) -> u64 {
        self.pieces.push(bytes);
        PIECES + (self.pieces.len() - 1) as u64 * APART
    }

    /// Returns 0, or an error as the kernel's helper does.
    pub fn move_head(&mut self, by: i32) -> u64 {
        let start = self.frame.start.wrapping_add_signed(by as isize);
        if start >= self.frame.end {
            return u64::MAX;
        }
        self.frame.start = start;
        0
    }

    /// As above.
    pub fn move_tail(&mut self, by: i32) -> u64 {
        let end = self.frame.end.wrapping_add_signed(by as isize);
        if end <= self.frame.start || end > self.packet.len() {
            return u64::MAX;
        }
        self.frame.end = end;
        0
    }

    pub fn bytes(&mut self, address: u64, length: usize) -> Result<Vec<u8>> {
        (0..length as u64)
            .map(|at| Ok(self.load(address + at, 1)? as u8))
            .collect()
    }

    pub fn load(&mut self, address: u64, size: usize) -> Result<u64> {
        if (Self::CONTEXT..Self::CONTEXT + 24).contains(&address) {
            return Ok(self.context(address - Self::CONTEXT));
        }
        let mut word = [0; 8];
        word[..size].copy_from_slice(self.place(address, size)?);
        Ok(u64::from_le_bytes(word))
    }

    pub fn store(&mut self, address: u64, size: usize, value: u64) -> Result<()> {
        self.place(address, size)?
            .copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    /// A word of `struct xdp_md`.
    fn context(&self, offset: u64) -> u64 {
        match offset {
            0 | 8 => PACKET + self.frame.start as u64,
            4 => PACKET + self.frame.end as u64,
            // The loopback device, as in test runs.
            12 => 1,
            _ => 0,
        }
    }

    fn place(&mut self, address: u64, size: usize) -> Result<&mut [u8]> {
        let (memory, offset) = if address >= PIECES {
            let offset = address - PIECES;
            let piece = self.pieces.get_mut((offset / APART) as usize);
            (piece.map(Vec::as_mut_slice), offset % APART)
        } else if address >= STACKS {
            let stacks = self.stacks.as_flattened_mut();
            (Some(stacks), address - STACKS)
        } else {
            (Some(&mut self.packet[..]), address.wrapping_sub(PACKET))
        };
        let offset = offset as usize;
        memory
            .and_then(|memory| memory.get_mut(offset..offset.checked_add(size)?))
            .with_context(|| format!("there is no memory at {address:#x}"))
    }
}
