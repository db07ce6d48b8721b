//! The revocation lists in force, and the authorities whose lists count.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use ciphermq_crypto::Authority;
use ciphermq_crypto::identity::{Intermediate, RevocationList, RevocationListError};
use jiff::{SignedDuration, Timestamp};

use super::CurrentCredentials;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::event::Event;
use crate::revocation::RevocationError;

/// How far a list may be dated in the future: clocks differ.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

impl CurrentCredentials {
    /// Puts the authorities in use in force, with the last lists of each that are kept. Waits for
    /// the disk.
    ///
    /// # Errors
    ///
    /// [`RevocationError::NotKept`] if the list of one of them cannot be read.
    pub(crate) fn refresh_authority(&self) -> Result<(), RevocationError> {
        let _turn = self.refreshing.lock();
        self.refresh_in_turn()
    }

    fn refresh_in_turn(&self) -> Result<(), RevocationError> {
        let authority = self.get().authority.refuse_unknown_issuers(true);
        let authority = authority.with_learned_of(&self.authority());
        let read = self.kept_lists.read(&authority, authority.signers());
        self.put_in_force(&authority);
        read
    }

    /// Takes the server's lists in DER, puts newer ones in force, and remembers those of unknown
    /// authorities. Waits for the disk.
    ///
    /// Returns an event for each list that is new or refused.
    pub(crate) fn take_lists(&self, lists: Vec<Vec<u8>>) -> Vec<Event> {
        let _turn = self.refreshing.lock();
        let authority = self.authority();
        let mut events = Vec::new();
        for der in lists {
            let mut known = authority.lists().iter();
            if known.any(|known| known.der() == der) {
                continue;
            }
            match authority.read_list(&der) {
                Ok(list) => events.extend(self.accept(&list, &authority)),
                Err(RevocationListError::OtherIssuer(issuer)) => {
                    tracing::debug!(issuer, "A revocation list is of an unknown authority");
                    self.unknown_lists.remember(der);
                }
                Err(error) => {
                    // An authority that is not known yet may have the same name.
                    if matches!(error, RevocationListError::Signature(_)) {
                        self.unknown_lists.remember(der);
                    }
                    events.push(RevocationError::from(error).into_event());
                }
            }
        }
        if let Err(reason) = self.refresh_in_turn() {
            events.push(reason.into_event());
        }
        events
    }

    /// Learns intermediate authorities above another client, and puts their lists in force: what is
    /// kept, and what the server has handed out. Waits for the disk.
    ///
    /// Returns an event for each list that is new or refused.
    pub(crate) fn learn(&self, issuers: &[Intermediate]) -> Vec<Event> {
        let _turn = self.refreshing.lock();
        let mut authority = self.authority();
        let learned = authority.learn(issuers);
        if learned.new.is_empty() {
            return Vec::new();
        }
        self.kept_lists.forget(&learned.forgotten);
        let mut events = Vec::new();
        if let Err(reason) = self.kept_lists.read(&authority, learned.new) {
            events.push(reason.into_event());
        }
        let handed_out = self.unknown_lists.take(|der| authority.read_list(der).ok());
        for list in handed_out {
            events.extend(self.accept(&list, &authority));
        }
        self.put_in_force(&authority);
        events
    }

    fn accept(&self, list: &RevocationList, authority: &Authority) -> Option<Event> {
        match self.kept_lists.accept(list, authority) {
            Ok(false) => None,
            Ok(true) => Some(Event::RevocationListUsed { list: list.clone() }),
            Err(reason) => Some(reason.into_event()),
        }
    }

    /// Puts authorities in force, with the lists that were accepted.
    fn put_in_force(&self, authority: &Authority) {
        let authority = authority.with_lists(self.kept_lists.of(authority));
        self.authority.send_if_modified(|current| {
            let ders = |authority: &Authority| {
                let lists = authority.lists().iter();
                lists.map(|list| list.der().to_vec()).collect::<Vec<_>>()
            };
            // What others have verified stays verified if there is merely one signer more.
            let are_known = current.signers().all(|signer| authority.knows(&signer));
            let is_same = are_known
                && current.has_same_anchors(&authority)
                && ders(current) == ders(&authority);
            *current = authority;
            if !is_same {
                // While nobody can read the authorities: a higher one is never seen before them.
                self.generation.fetch_add(1, Ordering::SeqCst);
            }
            !is_same
        });
    }

    /// Returns how often the authorities in use and their lists have changed. What is verified
    /// after this was read is verified by those of this generation, or of a later one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Returns the authorities in use, which require lists that are as new as this client requires.
    pub(crate) fn authority_at(&self, now: Timestamp) -> Authority {
        let mut authority = self.authority();
        authority.require_lists_made_in(self.lists_made_in(now));
        authority
    }

    /// Returns when lists must have been made; `None` if any will do.
    pub(crate) fn lists_made_in(&self, now: Timestamp) -> Option<RangeInclusive<Timestamp>> {
        let max_age = self.max_list_age?;
        let from = now.checked_sub(max_age).unwrap_or(Timestamp::MIN);
        let until = now.checked_add(SKEW).unwrap_or(Timestamp::MAX);
        Some(from..=until)
    }

    /// Whether the lists about another client's certificate are as new as this client requires.
    pub(crate) fn has_lists_of(&self, issuers: &[Intermediate], now: Timestamp) -> bool {
        self.max_list_age.is_none()
            || issuers.is_empty()
            || self.authority_at(now).check_lists_of(issuers).is_ok()
    }

    /// Checks that the lists of the client's own authorities are as new as this client requires.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: an authority has no list, or an older one.
    pub(crate) fn check_lists(&self, now: Timestamp) -> Result<(), ConnectError> {
        let (Some(max_age), Some(times)) = (self.max_list_age, self.lists_made_in(now)) else {
            return Ok(());
        };
        let made = self.authority.borrow().lists_made_at();
        let what = match made {
            Some(made) if times.contains(&made) => return Ok(()),
            Some(made) => format!("The last revocation list was made at {made}"),
            None => "There is no revocation list of every authority".to_owned(),
        };
        Err(ConnectError::new(
            ConnectErrorKind::OldRevocationList,
            format!("{what}, and this client requires one that is at most {max_age:?} old."),
        )
        .advise(
            "Put a new list of the authority in place at the server: `keygen crl`, `[tls] \
             crl_paths`, and `ciphermq-cli reload`.",
        ))
    }
}
