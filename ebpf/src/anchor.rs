//! Keeping the compiler from undoing an address.

/// The same reference, of which the compiler does not know where it comes from.
///
/// The tables are larger than the offset of a load can be. Left alone, the
/// compiler computes the address of each field from the start of them all; from
/// an anchored reference it is one load.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub fn anchor<T>(place: &T) -> &T {
    let mut place: *const T = place;
    // SAFETY: a move to itself; the reference stays what it was. (With no
    // instruction at all the line information would be refused.)
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) place, options(nomem, nostack, pure));
        &*place
    }
}

/// The same on the machine that lints these programs.
#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub fn anchor<T>(place: &T) -> &T {
    place
}
