//! How the broker ends a connection.

use ciphermq_protocol::ErrorReply;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The request to end a connection: at once, or with a last line that says why.
#[derive(Debug, Default)]
pub struct Closing {
    at_once: Notify,
    last_line: Mutex<Option<ErrorReply>>,
    has_last_line: Notify,
}

impl Closing {
    /// Ends the connection, whatever replies it still has to send.
    pub(super) fn at_once(&self) {
        self.at_once.notify_one();
    }

    /// Ends the connection with an error, after the replies to the commands that it has read. The
    /// first error stays.
    pub(crate) fn with_error(&self, error: ErrorReply) {
        self.last_line.lock().get_or_insert(error);
        self.has_last_line.notify_waiters();
    }

    /// Returns once the connection is to end at once. It is cancel safe.
    pub async fn requested_at_once(&self) {
        self.at_once.notified().await;
    }

    /// Returns the last line, once there is one. It is cancel safe.
    pub async fn last_line(&self) -> ErrorReply {
        loop {
            let notified = self.has_last_line.notified();
            if let Some(error) = self.last_line_now() {
                return error;
            }
            notified.await;
        }
    }

    /// Returns the last line, if there is one already.
    #[must_use]
    pub fn last_line_now(&self) -> Option<ErrorReply> {
        self.last_line.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use ciphermq_protocol::ErrorCode;
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn every_waiter_learns_the_first_error() {
        let closing = Closing::default();
        assert_eq!(closing.last_line_now(), None);
        let (early, late) = (closing.last_line(), closing.last_line());
        assert!(early.now_or_never().is_none());
        let first = ErrorReply::new(ErrorCode::Blocked, "first");
        closing.with_error(first.clone());
        closing.with_error(ErrorReply::new(ErrorCode::ConnectionClosed, "second"));
        assert_eq!(late.await, first);
        assert_eq!(closing.last_line().await, first);
        assert!(closing.requested_at_once().now_or_never().is_none());
    }
}
