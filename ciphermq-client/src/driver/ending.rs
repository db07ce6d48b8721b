//! Ends of a connection after which connecting again is of no use, until somebody acts at the
//! server.

use ciphermq_protocol::{ErrorCode, ErrorReply};

use crate::error::kinds::OperationKind;
use crate::error::{ConnectError, ConnectErrorKind, Error};

/// Whether an error of the server is the last line of its connection, and answers no command.
pub(super) fn is_last_line(error: &ErrorReply) -> bool {
    let ends = matches!(
        error.code,
        Some(ErrorCode::Blocked | ErrorCode::ConnectionClosed | ErrorCode::BadCertificate)
    );
    ends && error.message_id.is_none()
}

/// Whether the connection ends for good.
pub(super) fn is_final(reason: &ConnectError) -> bool {
    matches!(
        reason.kind(),
        ConnectErrorKind::Blocked | ConnectErrorKind::NotAuthorized
    )
}

/// Returns the error of a connection that the server has ended with a last line.
pub(super) fn ended_by_server(error: &ErrorReply) -> ConnectError {
    match error.code {
        Some(ErrorCode::Blocked) => blocked(&error.text),
        _ => {
            let what = format!("The server ended the connection: {}.", error.text);
            ConnectError::new(ConnectErrorKind::Broken, what)
        }
    }
}

/// Returns the error of a client that the server keeps out.
pub(super) fn blocked(text: &str) -> ConnectError {
    let what = format!("The server keeps this client out: {text}.");
    ConnectError::new(ConnectErrorKind::Blocked, what).advise(
        "Ask an administrator of the server why, and to unblock it: `ciphermq-cli clients unblock`.",
    )
}

/// Returns the error of an operation on a connection that has ended for good, because of `reason`
/// or because the owner has closed it.
pub(super) fn error<K: OperationKind>(reason: Option<&ConnectError>, closed: &str) -> Error<K> {
    let Some(reason) = reason else {
        return Error::new(K::CLOSED, closed);
    };
    let code = match reason.kind() {
        ConnectErrorKind::Blocked => ErrorCode::Blocked,
        _ => ErrorCode::NotAuthorized,
    };
    Error::new(K::of_code(Some(code)), reason.to_string())
        .advise_if(reason.advice())
        .caused_by(reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{AckErrorKind, Kind as _, PublishErrorKind, RequestErrorKind};

    #[test]
    fn an_end_for_good_is_definite_for_every_operation() {
        let reply = ErrorReply::new(ErrorCode::Blocked, "blocked by x");
        assert!(is_last_line(&reply));
        let reason = ended_by_server(&reply);
        assert!(is_final(&reason) && reason.advice().is_some());
        let publish: Error<PublishErrorKind> = error(Some(&reason), "closed");
        assert_eq!(publish.kind(), PublishErrorKind::Blocked);
        assert!(!publish.is_retryable() && publish.advice() == reason.advice());
        let request: Error<RequestErrorKind> = error(Some(&reason), "closed");
        assert_eq!(request.kind(), RequestErrorKind::Blocked);
        let ack: Error<AckErrorKind> = error(Some(&reason), "closed");
        assert_eq!(ack.kind(), AckErrorKind::Blocked);
        assert!(!AckErrorKind::Blocked.is_retryable());
        let ack: Error<AckErrorKind> = error(None, "closed");
        assert_eq!(ack.kind(), AckErrorKind::Closed);
    }

    #[test]
    fn a_closed_connection_is_followed_by_another() {
        let reply = ErrorReply::new(ErrorCode::ConnectionClosed, "by x");
        assert!(is_last_line(&reply));
        let reason = ended_by_server(&reply);
        assert!(!is_final(&reason) && reason.is_retryable());
        let other = ErrorReply::new(ErrorCode::ShuttingDown, "later");
        assert!(!is_last_line(&other));
        let of_message = reply.for_message("m".parse().unwrap());
        assert!(!is_last_line(&of_message));
    }
}
