//! The Internet checksum (RFC 1071). Words are summed as they lie in memory:
//! the one's complement sum is the same in either byte order.

use core::ptr::null_mut;

use aya_ebpf::helpers::generated::bpf_csum_diff;

/// Folds a sum into a word.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// What a checksum becomes when one of the words that it covers changes
/// (RFC 1624, equation 3).
#[inline(always)]
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// Adds the words of `T`, which holds a multiple of four bytes, to a sum.
///
/// # Safety
///
/// `bytes` is valid.
#[inline(always)]
pub unsafe fn add<T>(bytes: *mut T, sum: u32) -> u32 {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    // SAFETY: the caller's promise; from nothing, so all of it counts.
    let sum = unsafe { bpf_csum_diff(null_mut(), 0, bytes.cast(), size_of::<T>() as u32, sum) };
    sum as u32
}
