//! Captured packets as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark
//! opens: each frame with a comment that tells its verdict.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Tells readers the byte order.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Options, by block.
const COMMENT: u16 = 1;
const HARDWARE: u16 = 2;
const USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Which way a frame goes, as the packet's flags say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// As it came.
    In = 1,
    /// As it left.
    Out = 2,
}

/// A frame to be written.
pub struct Frame<'a> {
    /// The interface.
    pub interface: &'a str,
    /// Which way.
    pub direction: Direction,
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Its length on the link.
    pub length: u32,
    /// What is to be said of it.
    pub comment: &'a str,
}

/// A file being written.
pub struct Writer<W> {
    out: W,
    /// Number of each interface that has been described: one for each way, so
    /// that they can be told apart by interface alone.
    interfaces: BTreeMap<(String, Direction), u32>,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0, length of the section not known.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, HARDWARE, std::env::consts::ARCH.as_bytes());
        let program = concat!("vipd ", env!("CARGO_PKG_VERSION"));
        option(&mut body, USER_APPLICATION, program.as_bytes());
        end_options(&mut body);
        block(&mut out, SECTION_HEADER, &body)?;
        Ok(Self {
            out,
            interfaces: BTreeMap::new(),
        })
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let interface = self.interface(frame.interface, frame.direction)?;
        let mut body = Vec::new();
        body.extend(interface.to_le_bytes());
        // The time's upper half comes first.
        body.extend(((frame.nanos >> 32) as u32).to_le_bytes());
        body.extend((frame.nanos as u32).to_le_bytes());
        body.extend(length(frame.bytes).to_le_bytes());
        body.extend(frame.length.to_le_bytes());
        body.extend(frame.bytes);
        pad(&mut body);
        option(&mut body, COMMENT, frame.comment.as_bytes());
        option(
            &mut body,
            PACKET_FLAGS,
            &(frame.direction as u32).to_le_bytes(),
        );
        end_options(&mut body);
        block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// Hands on what has been written.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The number of an interface, which is described when it is met first.
    fn interface(&mut self, name: &str, direction: Direction) -> io::Result<u32> {
        let next = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let key = (name.to_owned(), direction);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let way = match direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0, 0]);
        // No limit to a frame's length.
        body.extend([0; 4]);
        option(
            &mut body,
            INTERFACE_NAME,
            format!("{name} ({way})").as_bytes(),
        );
        // 10^-9 seconds.
        option(&mut body, TIME_RESOLUTION, &[9]);
        end_options(&mut body);
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces.insert(key, next);
        Ok(next)
    }
}

/// Type, length, body, length again.
fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let whole = (length(body) + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&whole)?;
    out.write_all(body)?;
    out.write_all(&whole)
}

/// One option; its length is that without padding.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(&value[..usize::from(length)]);
    pad(body);
}

fn end_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and body of each block.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = word(&file[4..]) as usize;
            assert_eq!(length % 4, 0, "a block of {length} bytes");
            assert_eq!(
                word(&file[length - 4..]) as usize,
                length,
                "the length at its end"
            );
            blocks.push((word(file), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn each_interface_and_way_is_described_once_before_its_frames() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        let frame = |interface, direction, bytes| Frame {
            interface,
            direction,
            nanos: 0x0102_0304_0506_0708,
            bytes,
            length: 1514,
            comment: "forwarded to b1",
        };
        for direction in [Direction::In, Direction::Out, Direction::In] {
            writer.write(&frame("eth0", direction, &[1, 2, 3])).unwrap();
        }
        writer.write(&frame("eth1", Direction::Out, &[])).unwrap();
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, 1, 6, 1, 6, 6, 1, 6]);
        let interfaces: Vec<_> = blocks
            .iter()
            .filter(|(kind, _)| *kind == ENHANCED_PACKET)
            .map(|(_, body)| body[0])
            .collect();
        assert_eq!(interfaces, [0, 1, 0, 2]);
        let (_, packet) = &blocks[2];
        assert_eq!(
            packet[4..12],
            [4, 3, 2, 1, 8, 7, 6, 5],
            "the upper half of the time first"
        );
        assert_eq!(
            packet[12..20],
            [3, 0, 0, 0, 0xea, 5, 0, 0],
            "captured and whole length"
        );
        assert_eq!(packet[20..24], [1, 2, 3, 0], "padded");
        assert_eq!(packet[24..43], *b"\x01\x00\x0f\x00forwarded to b1");
    }
}
