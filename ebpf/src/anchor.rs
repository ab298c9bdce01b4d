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

/// A number that the compiler takes as it is: what it was made of, and what it
/// cannot be, is hidden.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub fn hidden(mut number: u64) -> u64 {
    // SAFETY: it is moved to where it is. (As above, some instruction it must be.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack)) };
    number
}

/// The same on the machine that lints these programs.
#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub fn hidden(number: u64) -> u64 {
    number
}

/// An index into a table of so many places, a power of two: out of range is
/// brought into it, which an agent that is right never needs.
///
/// The compiler must not know of the mask: it would leave out one that changes
/// nothing, and kernels before 6.3 then lose the bound.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub fn within<const PLACES: u32>(index: u32) -> usize {
    const { assert!(PLACES.is_power_of_two() && PLACES <= 1 << 31) };
    let mut index = u64::from(index);
    // SAFETY: it changes one register, and then the index is within the table.
    unsafe {
        core::arch::asm!(
            "{0} &= {1}",
            inout(reg) index,
            const PLACES - 1,
            options(nomem, nostack, pure),
        );
        core::hint::assert_unchecked(index < PLACES as u64);
    }
    index as usize
}

/// The same on the machine that lints these programs.
#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub fn within<const PLACES: u32>(index: u32) -> usize {
    (index & (PLACES - 1)) as usize
}
