//! How the allocator of the C library is used: an agent that runs for months and
//! reads a large configuration once is another program than those it is tuned
//! for.

/// Has all threads take their memory from one heap. With one for each, what one
/// thread frees is of no use to the others, and an agent of a large farm holds
/// three times what it needs. Must come before any thread is started.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread runs yet that could allocate. A refusal is told by
    // the result and costs memory only.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // By default the heap learns from a large piece that is given back to keep
        // all of that size.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Pieces from this size on are the system's own, and go back to it at once.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 256 * 1024;

/// Gives back to the system what is free: after a configuration has been read,
/// which for a moment takes many times its size.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the heap's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
