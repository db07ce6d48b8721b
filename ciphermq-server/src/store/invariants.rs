//! What must be true of a database whatever happens to its server, as statements for both
//! databases.
//!
//! Each reads its rows as a stream. Where the two differ, a statement is put together from the
//! pieces of a [`Dialect`].

use super::batch::check::NEEDLESS;
use super::offline::Fault;

/// The version of the schema from which on queues are emptied after they were deleted.
const REMOVALS: i64 = 3;
/// The version of the schema from which on a batch has its size.
const SIZES: i64 = 6;

/// What the two databases spell differently.
pub(super) struct Dialect {
    /// The dispositions of the batch `b`, as a JSON list.
    pub(super) dispositions: &'static str,
    /// The number up to which a deleted queue is emptied.
    pub(super) all: i64,
}

/// A statement that returns the keys of rows that break a rule.
pub(super) struct Rule {
    table: &'static str,
    /// The first version of the schema that it can be asked of.
    since: i64,
    /// Returns one text for each row.
    pub(super) statement: String,
    what: &'static str,
    advice: &'static str,
}

impl Rule {
    /// Returns the fault of a row.
    pub(super) fn fault(&self, key: String) -> Fault {
        Fault {
            table: self.table,
            key,
            what: self.what.to_owned(),
            advice: self.advice,
        }
    }
}

impl Dialect {
    /// Selects each batch in the order of their numbers, with everything that belongs to it.
    pub(super) fn batches(&self, schema: i64) -> String {
        let bytes = if schema < SIZES { "NULL" } else { "b.bytes" };
        format!(
            "SELECT b.first_seq, b.messages, b.queues, b.id_stream, b.id_position, \
             b.receiver_client_id, b.sent_time, b.digests, CAST({bytes} AS BIGINT), {}, e.ends, \
             e.envelopes, e.shared, COALESCE(w.lanes, 0) \
             FROM batches b LEFT JOIN envelopes e ON e.first_seq = b.first_seq \
             LEFT JOIN (SELECT first_seq, COUNT(*) AS lanes FROM waiting GROUP BY first_seq) w \
             ON w.first_seq = b.first_seq ORDER BY b.first_seq",
            self.dispositions
        )
    }

    /// Selects each row of `waiting`, with what it refers to.
    pub(super) fn lanes(schema: i64) -> String {
        let removed = if schema < REMOVALS {
            ""
        } else {
            " OR EXISTS (SELECT 1 FROM removals r WHERE r.queue_id = w.queue_id)"
        };
        format!(
            "SELECT w.queue_id, w.receiver_client_id, w.first_seq, w.copy, b.queues, \
             b.receiver_client_id, \
             EXISTS (SELECT 1 FROM envelopes e WHERE e.first_seq = w.first_seq), \
             EXISTS (SELECT 1 FROM queues q WHERE q.queue_id = w.queue_id){removed} \
             FROM waiting w LEFT JOIN batches b ON b.first_seq = w.first_seq"
        )
    }

    /// Returns the rules that need no more than a statement.
    pub(super) fn rules(&self, schema: i64) -> Vec<Rule> {
        let delete = "stop the server and delete the row, or restore the database from a backup";
        let restore = "restore the database from a backup";
        let all = self.all;
        let mut rules = vec![
            Rule {
                table: "server_state",
                since: 1,
                statement: "SELECT CAST(COUNT(*) AS TEXT) || ' rows' FROM server_state HAVING \
                            COUNT(*) <> 1"
                    .into(),
                what: "it must have one row",
                advice: restore,
            },
            Rule {
                table: "fates",
                since: 1,
                statement: orphans("fates", &["first_seq", "from_index"]),
                what: "its batch is missing",
                advice: NEEDLESS,
            },
            Rule {
                table: "envelopes",
                since: 1,
                statement: orphans("envelopes", &["first_seq"]),
                what: "its batch is missing, and with it where the messages go",
                advice: restore,
            },
            Rule {
                table: "batches",
                since: 1,
                statement: "SELECT 'first_seq ' || CAST(first_seq AS TEXT) FROM (SELECT \
                            first_seq, id_position, LAG(id_position + messages) OVER (PARTITION \
                            BY id_stream ORDER BY id_position) AS next FROM batches) b WHERE \
                            id_position < next"
                    .into(),
                what: "its messages' ids are also those of the batch before it in their stream",
                advice: restore,
            },
            Rule {
                table: "bindings",
                since: 1,
                statement: format!(
                    "SELECT {} FROM bindings b WHERE NOT EXISTS (SELECT 1 FROM queues q WHERE \
                     q.queue_id = b.queue_id)",
                    key("b", &["exchange_name", "routing_key", "queue_id"])
                ),
                what: "its queue does not exist",
                advice: delete,
            },
            Rule {
                table: "bindings",
                since: 1,
                statement: format!(
                    "SELECT {} FROM bindings b WHERE NOT EXISTS (SELECT 1 FROM exchanges x WHERE \
                     x.exchange_name = b.exchange_name)",
                    key("b", &["exchange_name", "routing_key", "queue_id"])
                ),
                what: "its exchange does not exist",
                advice: delete,
            },
            Rule {
                table: "certificates",
                since: 1,
                statement: format!(
                    "SELECT {} FROM certificates c WHERE c.commit_number > (SELECT \
                     MAX(commit_number) FROM server_state)",
                    key("c", &["client_id", "fingerprint"])
                ),
                what: "its commit number is greater than the last one in server_state",
                advice: restore,
            },
            Rule {
                table: "removals",
                since: REMOVALS,
                statement: format!(
                    "SELECT {} FROM removals r WHERE r.up_to_seq <> {all} AND r.up_to_seq > \
                     (SELECT MAX(last_seq) FROM server_state)",
                    key("r", &["queue_id", "up_to_seq"])
                ),
                what: "it would take messages that do not exist yet",
                advice: restore,
            },
            Rule {
                table: "removals",
                since: REMOVALS,
                statement: format!(
                    "SELECT {} FROM removals r WHERE r.up_to_seq = {all} AND EXISTS (SELECT 1 \
                     FROM queues q WHERE q.queue_id = r.queue_id)",
                    key("r", &["queue_id", "up_to_seq"])
                ),
                what: "the queue was deleted, and exists",
                advice: restore,
            },
        ];
        rules.retain(|rule| rule.since <= schema);
        rules
    }
}

/// Selects the rows of a table that belong to no batch.
fn orphans(table: &str, columns: &[&str]) -> String {
    format!(
        "SELECT {} FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM batches b WHERE b.first_seq = \
         t.first_seq)",
        key("t", columns)
    )
}

/// Selects a row's key as a text: each column's name and value.
fn key(table: &str, columns: &[&str]) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|name| format!("'{name} ' || CAST({table}.{name} AS TEXT)"))
        .collect();
    columns.join(" || ', ' || ")
}
