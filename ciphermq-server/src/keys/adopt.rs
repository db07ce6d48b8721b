//! Adopts rows that older servers have sealed, once, when the server starts.
//!
//! The oldest rows are bound to no client: whoever can write to the database could give one
//! client's row to another. So all of them are sealed anew in one transaction, which also records
//! in the database that this was done. A note beside the key records it as well, where the
//! database's operator cannot undo it. From then on such rows are refused.

use std::io;

use crate::at_rest::adopted::{AdoptionRecord, key_id};
use crate::at_rest::{AtRestCipher, OlderRows};
use crate::model::{AdoptedRow, Change, RowKind, SealedKeys, Transaction};
use crate::store::{self, CommitError, Store};

/// Seals the rows of older servers anew, unless that was done before.
///
/// # Errors
///
/// [`store::Error`] if the rows cannot be read or written: none was replaced then.
pub async fn adopt(
    store: &mut Store,
    at_rest_cipher: &AtRestCipher,
    record: &AdoptionRecord,
    older_rows: OlderRows,
) -> Result<(), store::Error> {
    let rows = store.reader.sealed_keys().await?;
    let key_id = key_id(at_rest_cipher.key());
    let noted = record.has(&key_id).unwrap_or_else(|error| {
        let path = record.path().display();
        tracing::warn!("Cannot read {path}: {error}; move it away if it is not the server's");
        true
    });
    let classified = classify(&rows, at_rest_cipher);
    // A row that is bound to its kind was written after the older ones were adopted.
    let was_adopted = noted || rows.is_adopted || classified.current > 0;
    let accept = match older_rows {
        OlderRows::Once => !was_adopted,
        OlderRows::Refuse => false,
        OlderRows::Accept => true,
    };
    let older = if accept {
        classified.resealed
    } else {
        Vec::new()
    };
    if !accept && classified.older > 0 {
        tracing::warn!(
            rows = classified.older,
            "Public keys that an older server has sealed are not taken over again: their clients \
             must register them anew. If an older server's database was restored, start once with \
             [encryption] older_rows = \"accept\""
        );
    }
    // A key that opens nothing may be the wrong one: the right one is still to come.
    let is_wrong_key =
        classified.unreadable > 0 && classified.current == 0 && classified.older == 0;
    if is_wrong_key {
        return Ok(());
    }
    let count = older.len();
    if !rows.is_adopted || count > 0 {
        let changes = vec![Change::Adopt(older)];
        let transaction = Transaction {
            changes,
            ..Transaction::default()
        };
        match store.committer.commit(&transaction).await {
            Ok(_) => {}
            // Messages that wait can still be acknowledged, and the next start records it.
            Err(CommitError::Failed(store::Error::Full(_))) if count == 0 => {}
            Err(CommitError::Failed(error)) => return Err(error),
            Err(CommitError::Unknown { source, .. }) => {
                return Err(store::Error::Unavailable(source));
            }
        }
    }
    if count > 0 {
        tracing::info!(
            rows = count,
            "Public keys that an older server had sealed are sealed anew"
        );
    }
    if !noted {
        record_adoption(record, &key_id, count);
    }
    Ok(())
}

fn record_adoption(record: &AdoptionRecord, key_id: &str, count: usize) {
    let Err(error) = record.add(key_id) else {
        return;
    };
    let path = record.path().display();
    let text = format!(
        "Cannot note beside the key that older rows were taken over: {path}: {error}. Whoever may \
         write to the database \
         could have them taken over again: set [encryption] older_rows = \"refuse\""
    );
    // Where nothing can be written, as in many containers, a warning would repeat at every start.
    if count > 0 || error.kind() == io::ErrorKind::InvalidData {
        tracing::warn!("{text}");
    } else {
        tracing::debug!("{text}");
    }
}

/// The rows of the key directory, classified by who sealed them.
#[derive(Default)]
struct ClassifiedRows {
    /// Older servers' rows, sealed anew.
    resealed: Vec<AdoptedRow>,
    /// The number of older servers' rows.
    older: usize,
    /// The number of this version's rows.
    current: usize,
    /// The number of rows that cannot be opened.
    unreadable: usize,
}

fn classify(rows: &SealedKeys, at_rest_cipher: &AtRestCipher) -> ClassifiedRows {
    let mut classified = ClassifiedRows::default();
    let public = rows.public.iter().map(|row| (RowKind::PublicKey, row));
    let signed = rows.signed.iter().map(|row| (RowKind::SignedKey, row));
    for (kind, (client_id, row)) in public.chain(signed) {
        if at_rest_cipher.open(kind, client_id, row).is_ok() {
            classified.current += 1;
        } else if let Ok(bytes) = at_rest_cipher.open_older(kind, client_id, row) {
            classified.older += 1;
            match at_rest_cipher.seal(kind, client_id, &bytes) {
                Ok(sealed) => classified.resealed.push(AdoptedRow {
                    kind,
                    client_id: client_id.clone(),
                    row: sealed,
                }),
                Err(error) => tracing::error!(%client_id, %error, "Cannot seal a public key anew"),
            }
        } else {
            classified.unreadable += 1;
        }
    }
    classified
}
