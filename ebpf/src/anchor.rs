//! Places in the tables, in a form that the verifier follows.

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

/// An index into a table of `places`, a power of two: out of range is brought
/// into it, which an agent that is right never needs.
///
/// The compiler must not know what the index is made of: it would leave out a
/// mask that changes nothing, and kernels before 6.3 then lose the bound.
#[inline(always)]
pub fn within(index: u32, places: u32) -> usize {
    (opaque(index) & (u64::from(places) - 1)) as usize
}

#[inline(always)]
#[cfg(target_arch = "bpf")]
fn opaque(index: u32) -> u64 {
    let mut index = u64::from(index);
    // SAFETY: a move to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) index, options(nomem, nostack, pure));
    }
    index
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
fn opaque(index: u32) -> u64 {
    index.into()
}
