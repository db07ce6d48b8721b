//! Steps of maintenance whose outcome is not known, because the connection was lost in the commit.
//!
//! What senders hold has to follow what the database holds, so the outcome is found out: each step
//! changes or deletes a row that nothing else does.

use sqlx::PgConnection;

use crate::model::HeldBySender;

/// A step of maintenance that may have been committed.
pub(super) struct UnresolvedStep {
    /// What senders hold more or less if it was.
    pub(super) changes: HeldBySender,
    /// What is still there if it was not.
    pub(super) row: Before,
}

/// A row as it was before a step.
pub(super) enum Before {
    /// How far a removal had come.
    Removal {
        queue: i64,
        up_to: i64,
        after: (String, i64),
    },
    /// A rejected message.
    Rejected { message_id: String, time: String },
}

impl UnresolvedStep {
    /// Whether the step was committed.
    pub(super) async fn is_committed(
        &self,
        session: &mut PgConnection,
    ) -> Result<bool, sqlx::Error> {
        let is_as_before: bool =
            match &self.row {
                Before::Removal {
                    queue,
                    up_to,
                    after,
                } => sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM removals WHERE queue_id = $1 AND up_to_seq = $2 \
                     AND after_receiver = $3 AND after_seq = $4)",
                )
                .bind(queue)
                .bind(up_to)
                .bind(&after.0)
                .bind(after.1)
                .fetch_one(session)
                .await?,
                Before::Rejected { message_id, time } => {
                    sqlx::query_scalar(
                        "SELECT EXISTS (SELECT 1 FROM rejected_messages WHERE message_id = $1 AND \
                     rejected_time = $2)",
                    )
                    .bind(message_id)
                    .bind(time)
                    .fetch_one(session)
                    .await?
                }
            };
        Ok(!is_as_before)
    }
}
