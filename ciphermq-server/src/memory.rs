//! Returns free memory to the system when the server is idle.
//!
//! glibc keeps freed memory for later allocations, in a heap per thread: after a long queue has
//! been drained, that is several times the memory that an idle server needs.

/// Returns free memory to the system; does nothing with C libraries other than glibc.
///
/// It blocks for milliseconds, so call it only when no work is waiting.
pub(crate) fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    // SAFETY: it takes no pointers, and may be called by any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
