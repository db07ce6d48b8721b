//! Reports of messages that were set aside: those about senders once a sender, others each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ciphermq_client::text::Escaped;
use ciphermq_client::{ClientId, OpenError, Unopenable, UnopenableReason};

use crate::console::{Console, Count};

/// The number of senders that are reported by name. Further ones are counted together: whoever
/// delivers messages can invent any number of names.
const MAX_NAMED: usize = 100;

/// The number of senders in the list at the end.
const MAX_LISTED: usize = 10;

/// Reports and counts what was set aside.
#[derive(Debug)]
pub(super) struct SetAsideReport {
    console: Console,
    quarantine: PathBuf,
    /// The messages that were set aside because of their senders, by claimed sender.
    counts: BTreeMap<(SenderFlaw, Option<ClientId>), u64>,
    /// The number of messages of senders beyond [`MAX_NAMED`].
    unnamed: u64,
    /// Whether the last message did not fit into the quarantine.
    is_full: bool,
    /// The number of messages that did not fit.
    left_to_server: u64,
}

/// A flaw of a message's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SenderFlaw {
    /// The sender is not one of `--from`.
    NotAllowed,
    /// The sender has not proved its identity.
    Unproven,
    /// The sender's certificate is missing or not valid.
    Certificate,
}

impl SenderFlaw {
    fn of(reason: &UnopenableReason) -> Option<Self> {
        match reason {
            UnopenableReason::Sealed(OpenError::OtherSender(_) | OpenError::NoSender) => {
                Some(Self::NotAllowed)
            }
            UnopenableReason::Sealed(OpenError::OlderClient | OpenError::UnsignedSession) => {
                Some(Self::Unproven)
            }
            UnopenableReason::Sealed(OpenError::Sender(_))
            | UnopenableReason::NoCertificate { .. } => Some(Self::Certificate),
            _ => None,
        }
    }
}

impl SetAsideReport {
    pub(super) fn new(console: Console, quarantine: PathBuf) -> Self {
        Self {
            console,
            quarantine,
            counts: BTreeMap::new(),
            unnamed: 0,
            is_full: false,
            left_to_server: 0,
        }
    }

    /// Reports a message. `is_kept` says whether the quarantine has it; if not, it was full.
    pub(super) fn record(&mut self, unopenable: &Unopenable, is_kept: bool) {
        let first_of_sender = self.count(unopenable);
        if !is_kept {
            self.left_to_server += 1;
        }
        if self.is_full == is_kept {
            self.is_full = !is_kept;
            self.report_full();
        }
        let id = unopenable.message_id();
        let place = match is_kept {
            true => format!("in {}", self.quarantine.display()),
            false => "by the server".to_owned(),
        };
        let reason = &unopenable.reason;
        match first_of_sender {
            None => self.console.warn(format_args!(
                "Message {id} cannot be opened: {reason}. It is set aside {place}{}",
                advice(reason)
            )),
            Some(true) => self.console.warn(format_args!(
                "Message {id} is not accepted: {reason}. It is set aside {place}{}. Further \
                 messages of this sender are set aside without a warning, and counted",
                advice(reason)
            )),
            Some(false) => self.console.message(format_args!(
                "Message {id} is not accepted: {reason}. It is set aside {place}"
            )),
        }
    }

    /// Counts a message if it was set aside because of its sender. Returns whether it is to be
    /// reported as the sender's first.
    fn count(&mut self, unopenable: &Unopenable) -> Option<bool> {
        let flaw = SenderFlaw::of(&unopenable.reason)?;
        let sender = (flaw, unopenable.claimed_sender());
        if let Some(count) = self.counts.get_mut(&sender) {
            *count += 1;
            return Some(false);
        }
        if self.counts.len() >= MAX_NAMED {
            self.unnamed += 1;
            if self.unnamed == 1 {
                self.console.warn(format_args!(
                    "Messages of more than {MAX_NAMED} senders are set aside: further senders are \
                     counted together"
                ));
            }
            return Some(false);
        }
        self.counts.insert(sender, 1);
        Some(true)
    }

    /// Reports that the quarantine is full, or that it has space again.
    fn report_full(&self) {
        let quarantine = self.quarantine.display();
        if self.is_full {
            self.console.warn(format_args!(
                "The quarantine {quarantine} is full: from now on what is set aside is kept by the \
                 server alone, with its envelope, among the rejected messages (`ciphermq-cli \
                 rejected`). Move the file away, or raise --quarantine-max-mb"
            ));
        } else {
            self.console.info(format_args!(
                "The quarantine {quarantine} has space again, and is used"
            ));
        }
    }

    /// Reports the counts by sender. Returns what is to follow the number of messages that were set
    /// aside in the summary.
    pub(super) fn finish(&self) -> String {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rest = counts.split_off(counts.len().min(MAX_LISTED));
        for ((flaw, sender), count) in counts {
            let sender = sender
                .as_ref()
                .map_or("a sender without a name".to_owned(), |sender| {
                    format!("`{sender}`")
                });
            let why = match flaw {
                SenderFlaw::NotAllowed => "not admitted by --from",
                SenderFlaw::Unproven => "which did not prove who it is",
                SenderFlaw::Certificate => "which has no valid certificate",
            };
            self.console.info(format_args!(
                "Set aside: {} of {}, {why}",
                Count::messages(*count),
                Escaped(sender)
            ));
        }
        let others = rest
            .iter()
            .fold(self.unnamed, |sum, (_, count)| sum + **count);
        if others > 0 {
            self.console.info(format_args!(
                "Set aside: {} of other senders",
                Count::messages(others)
            ));
        }
        match self.left_to_server {
            0 => String::new(),
            left => format!(" ({left} by the server alone)"),
        }
    }
}

/// The advice for a message that cannot be opened, as the end of a sentence; may be empty.
fn advice(reason: &UnopenableReason) -> &'static str {
    match reason {
        UnopenableReason::Sealed(OpenError::OlderClient | OpenError::UnsignedSession) => {
            ". If you trust such senders, run the receiver with --allow-unverified-senders and \
             have the message sent again"
        }
        UnopenableReason::Sealed(OpenError::OtherSender(_)) => {
            ". If you want messages of this sender, name it with --from as well and have the \
             message sent again"
        }
        UnopenableReason::Sealed(OpenError::NoPrivateKey(_)) => {
            ". If you have that key, name its file with --private-key and have the message sent \
             again"
        }
        UnopenableReason::Sealed(OpenError::Sender(_)) | UnopenableReason::NoCertificate { .. } => {
            ". Have the sender send it again with a certificate of the authority that this \
             receiver trusts"
        }
        _ => "",
    }
}
