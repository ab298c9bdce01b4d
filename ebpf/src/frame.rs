//! The frame as the driver shows it: bounds-checked access to its bytes.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes},
};

use crate::anchor::hidden;
use crate::header::{ETHERNET, ETHERTYPE, ETHERTYPE_PROVIDER, ETHERTYPE_VLAN, VLAN_TAG};

/// Destination and source as the first twelve bytes of a frame.
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub struct Addresses(pub u64, pub u32);

/// A received frame.
pub struct Frame {
    ctx: *mut xdp_md,
}

impl Frame {
    /// The frame of a program's context.
    ///
    /// The context is the kernel's, valid while the program runs.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    /// The context, for a function of its own in the program.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.ctx
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { (*self.ctx).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.ctx).data_end as usize }
    }

    /// Bytes from the Ethernet header to the end, padding included.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> u64 {
        (self.data_end() - self.data()) as u64
    }

    /// Pointer to a `T` at `offset`, if the frame holds all of it. It may be
    /// read and written, unaligned, until the head is moved.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data() + offset;
        if start + size_of::<T>() > self.data_end() {
            return None;
        }
        Some(start as *mut T)
    }

    /// As [`Frame::at`], for an offset that is known at run time only: the
    /// compiler must not split it, or the verifier does not see that what was
    /// checked is what is used.
    #[inline(always)]
    pub fn at_variable<T>(&self, offset: usize) -> Option<*mut T> {
        let start = hidden((self.data() + offset) as u64) as usize;
        if start + size_of::<T>() > self.data_end() {
            return None;
        }
        Some(start as *mut T)
    }

    /// Whether the frame has so many bytes. Of [`Frame::len`] the compiler may
    /// make a subtraction of half pointers, which the verifier does not take.
    #[inline(always)]
    pub fn reaches(&self, bytes: usize) -> bool {
        self.at_variable::<()>(bytes).is_some()
    }

    /// As [`Frame::read`], for an offset that is known at run time only.
    #[inline(always)]
    pub fn read_variable<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: as in `read`.
        self.at_variable::<T>(offset)
            .map(|p| unsafe { p.read_unaligned() })
    }

    /// Reads a `T` of plain integers at `offset`.
    #[inline(always)]
    pub fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked the bounds; T is plain integers.
        self.at::<T>(offset).map(|p| unsafe { p.read_unaligned() })
    }

    /// Whom the frame is for on this link, as the lower 48 bits of a word.
    #[inline(always)]
    pub fn destination(&self) -> u64 {
        self.mac(0)
    }

    /// Who sent it on this link.
    #[inline(always)]
    pub fn source(&self) -> u64 {
        self.mac(6)
    }

    #[inline(always)]
    fn mac(&self, offset: usize) -> u64 {
        self.read::<u64>(offset).unwrap_or(0) & 0xffff_ffff_ffff
    }

    /// Where the packet starts, behind at most two VLAN tags, and its EtherType.
    #[inline(always)]
    pub fn network(&self) -> Option<(usize, u16)> {
        let kind = self.read_variable(ETHERTYPE)?;
        if !is_tag(kind) {
            return Some((ETHERNET, kind));
        }
        let kind = self.read_variable(ETHERTYPE + VLAN_TAG)?;
        if !is_tag(kind) {
            return Some((ETHERNET + VLAN_TAG, kind));
        }
        let kind = self.read_variable(ETHERTYPE + 2 * VLAN_TAG)?;
        Some((ETHERNET + 2 * VLAN_TAG, kind))
    }

    /// The VLAN tags between the Ethernet addresses and the EtherType of a
    /// packet that starts at `network`: at most two (IEEE 802.1Q).
    #[inline(always)]
    pub fn tags(&self, network: usize) -> Option<[u32; 2]> {
        let mut tags = [0; 2];
        if network > ETHERNET {
            tags[0] = self.read(ETHERTYPE)?;
        }
        if network > ETHERNET + VLAN_TAG {
            tags[1] = self.read(ETHERTYPE + VLAN_TAG)?;
        }
        Some(tags)
    }

    /// Writes addresses, tags and EtherType in front of a packet that starts at
    /// `network`.
    #[inline(always)]
    pub fn write_link(
        &self,
        network: usize,
        addresses: Addresses,
        tags: [u32; 2],
        ethertype: u16,
    ) -> Option<()> {
        let place = self.at::<Addresses>(0)?;
        let mut at = ETHERTYPE;
        // SAFETY: `at` has checked the bounds of each.
        unsafe {
            place.write_unaligned(addresses);
            if network > ETHERNET {
                self.at::<u32>(at)?.write_unaligned(tags[0]);
                at += VLAN_TAG;
            }
            if network > ETHERNET + VLAN_TAG {
                self.at::<u32>(at)?.write_unaligned(tags[1]);
                at += VLAN_TAG;
            }
            self.at::<u16>(at)?.write_unaligned(ethertype);
        }
        Some(())
    }

    /// Makes room for `bytes` in front, or with a negative number takes bytes
    /// away. All pointers become invalid.
    #[inline(always)]
    pub fn grow_head(&mut self, bytes: i32) -> bool {
        // SAFETY: the context is valid; the verifier has all pointers into
        // the frame checked anew.
        unsafe { bpf_xdp_adjust_head(self.ctx, -bytes) == 0 }
    }

    /// Cuts the frame off behind its first `length` bytes; it has more. All
    /// pointers become invalid.
    #[inline(always)]
    pub fn cut(&mut self, length: usize) -> bool {
        // Hidden from the compiler, which would subtract half pointers, as the
        // verifier sees it.
        let present = core::hint::black_box(self.len()) as i32;
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_tail(self.ctx, length as i32 - present) == 0 }
    }

    /// Copies as much of the frame as fits; at least an Ethernet header, or
    /// nothing.
    #[inline(always)]
    pub fn copy_head<const N: usize>(&self, into: &mut [u8; N]) {
        // Compared as 64 bits: of 32 the verifier forgets the bound.
        let length = self.len().min(N as u64);
        if length < ETHERNET as u64 {
            return;
        }
        // SAFETY: the context is valid, and so many bytes fit.
        unsafe { bpf_xdp_load_bytes(self.ctx, 0, into.as_mut_ptr().cast(), length as u32) };
    }

    /// Index of the interface the frame came by.
    #[inline(always)]
    pub fn ingress(&self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// Names the interface that a frame with the verdict `Redirected` leaves by.
    #[inline(always)]
    pub fn redirect(&self, ifindex: u32) {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(ifindex, 0) };
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_PROVIDER
}
