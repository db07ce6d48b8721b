//! Returns free memory to the system when the server is idle.
//!
//! glibc keeps what was freed for the next allocation, each thread in a heap of its own: after a
//! long queue was drained that is several times what an idle server needs.

/// Returns free memory to the system. It takes milliseconds, so call it when nothing waits. Does
/// nothing with other C libraries.
pub(crate) fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "there is no safe way to say it")]
    // SAFETY: it takes no pointers, and may be called by any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
