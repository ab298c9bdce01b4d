//! AS_PATH and AS4_PATH (RFC 4271 section 4.3, RFC 6793).

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{AS_TRANS, Reader};

/// The ASes a route came through, nearest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsPath {
    /// Segments in the order of the attribute.
    pub segments: Vec<Segment>,
}

/// A part of an AS path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Whether the order of `asns` means anything.
    pub kind: SegmentKind,
    /// AS numbers, 1 to 255 of them.
    pub asns: Vec<u32>,
}

/// Segment types of RFC 4271 and RFC 5065.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentKind {
    /// AS_SET: unordered.
    Set = 1,
    /// AS_SEQUENCE: ordered.
    Sequence = 2,
    /// AS_CONFED_SEQUENCE.
    ConfedSequence = 3,
    /// AS_CONFED_SET.
    ConfedSet = 4,
}

const MAX_SEGMENT: usize = 255;

impl AsPath {
    /// `asn` in sequence, `times` times; empty for 0.
    #[must_use]
    pub fn repeated(asn: u32, times: usize) -> Self {
        Self::sequence(&vec![asn; times])
    }

    /// These ASes in sequence, nearest first.
    #[must_use]
    pub fn sequence(asns: &[u32]) -> Self {
        let segments = asns
            .chunks(MAX_SEGMENT)
            .map(|asns| Segment {
                kind: SegmentKind::Sequence,
                asns: asns.to_vec(),
            })
            .collect();
        Self { segments }
    }

    /// Whether a two-octet path would lose something.
    #[must_use]
    pub fn needs_four_octets(&self) -> bool {
        let mut asns = self.segments.iter().flat_map(|segment| &segment.asns);
        asns.any(|&asn| u16::try_from(asn).is_err())
    }

    /// Appends the value; AS numbers that do not fit two octets become
    /// [`AS_TRANS`].
    pub(super) fn emit(&self, out: &mut BytesMut, four_octets: bool) {
        for Segment { kind, asns } in &self.segments {
            for asns in asns.chunks(MAX_SEGMENT) {
                out.put_u8(*kind as u8);
                out.put_u8(u8::try_from(asns.len()).unwrap_or(u8::MAX));
                for &asn in asns {
                    if four_octets {
                        out.put_u32(asn);
                    } else {
                        out.put_u16(u16::try_from(asn).unwrap_or(AS_TRANS));
                    }
                }
            }
        }
    }

    /// Reads the value; `None` if it is malformed (RFC 7606 section 7.2).
    pub(super) fn parse(value: &[u8], four_octets: bool) -> Option<Self> {
        let mut reader = Reader::new(value);
        let mut segments = Vec::new();
        while let Some(kind) = reader.u8() {
            let kind = match kind {
                1 => SegmentKind::Set,
                2 => SegmentKind::Sequence,
                3 => SegmentKind::ConfedSequence,
                4 => SegmentKind::ConfedSet,
                _ => return None,
            };
            let len = reader.u8().filter(|&len| len > 0)?;
            let asns = (0..len)
                .map(|_| {
                    if four_octets {
                        reader.u32()
                    } else {
                        reader.u16().map(u32::from)
                    }
                })
                .collect::<Option<_>>()?;
            segments.push(Segment { kind, asns });
        }
        Some(Self { segments })
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for Segment { kind, asns } in &self.segments {
            let asns = asns
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(" ");
            match kind {
                SegmentKind::Sequence => write!(f, "{gap}{asns}")?,
                SegmentKind::Set => write!(f, "{gap}{{{asns}}}")?,
                SegmentKind::ConfedSequence => write!(f, "{gap}({asns})")?,
                SegmentKind::ConfedSet => write!(f, "{gap}[{asns}]")?,
            }
            gap = " ";
        }
        Ok(())
    }
}
