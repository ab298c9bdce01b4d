//! The types that may be shared with the kernel as raw bytes.

/// Marks a type that can live in a map.
///
/// # Safety
///
/// The type is `repr(C)` or `repr(transparent)`, has no padding, no pointers,
/// and every bit pattern is a valid value.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: integers have no padding and no illegal values.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
