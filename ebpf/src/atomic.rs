//! Atomic operations that the compiler does not offer for this target.

/// Puts `new` at `place` if `old` is there; says whether it was.
///
/// # Safety
///
/// `place` is valid, aligned to 8, and in a map.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub unsafe fn compare_and_swap(place: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's promise. Rust has no compare-and-swap for BPF
    // (`atomic_cas` is off in the target), the machine has (since Linux 5.12).
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inout("r0") old => found,
            options(nostack)
        );
    }
    found == old
}

/// The same on the machine that lints these programs.
///
/// # Safety
///
/// `place` is valid and aligned to 8.
#[cfg(not(target_arch = "bpf"))]
pub unsafe fn compare_and_swap(place: *mut u64, old: u64, new: u64) -> bool {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
    // SAFETY: the caller's promise.
    let word = unsafe { AtomicU64::from_ptr(place) };
    word.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
}
