//! Work that waits for a disk or a lock, apart from the tasks that drive connections.

/// Why work has not ended: it panicked, or the runtime is shutting down.
#[derive(Debug)]
pub(crate) struct NotEnded(tokio::task::JoinError);

impl std::fmt::Display for NotEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Runs a function that waits for a disk or a lock on a blocking thread.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<NotEnded> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(NotEnded(error).into()))
}
