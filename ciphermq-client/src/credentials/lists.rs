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

/// The most authorities that wait for an answer of the server. Further ones are learned when
/// something below them is verified again.
const MAX_UNANSWERED: usize = 256;

/// What came of lists of the server, or of what is kept.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// An event for each list that is new or refused.
    pub(crate) events: Vec<Event>,
    /// The authorities that were not learned.
    pub(crate) unknown: Vec<Intermediate>,
}

impl CurrentCredentials {
    /// Puts the authorities in use in force, with the last lists of each that are kept. Waits for
    /// the disk.
    ///
    /// # Errors
    ///
    /// [`RevocationError::NotKept`] if the list of one of them cannot be read.
    pub(crate) fn refresh_authority(&self) -> Result<(), RevocationError> {
        let _turn = self.refreshing.lock();
        self.refresh_in_turn(&self.authority(), false)
    }

    fn refresh_in_turn(&self, learned: &Authority, retry: bool) -> Result<(), RevocationError> {
        let authority = self.get().authority.refuse_unknown_issuers(true);
        let authority = authority.with_learned_of(learned);
        let read = self.kept_lists.read(&authority, authority.signers());
        self.put_in_force(&authority, retry);
        read
    }

    /// Takes the server's lists in DER, puts newer ones in force, and remembers those of unknown
    /// authorities. Learns `issuers`, for which the server was asked, and those that
    /// [wait](Self::learn_later) for an answer. Waits for the disk.
    pub(crate) fn take_lists(&self, lists: Vec<Vec<u8>>, issuers: &[Intermediate]) -> Taken {
        let _turn = self.refreshing.lock();
        let mut authority = self.authority();
        let waiting = std::mem::take(&mut *self.unanswered.lock());
        // Those that are in use now last, so that no other is learned in their place.
        let issuers = [&waiting, issuers].concat();
        let Taken {
            mut events,
            unknown,
        } = self.learn_in_turn(&mut authority, &issuers, true);
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
                Err(RevocationListError::Signature(issuer)) => {
                    // An authority that is not known yet may have the same name: a department with
                    // a new key has.
                    self.unknown_lists.remember(der);
                    let mut anchors = authority.validities().iter();
                    if anchors.any(|anchor| anchor.subject == issuer) {
                        let reason = RevocationListError::Signature(issuer);
                        events.push(RevocationError::from(reason).into_event());
                    }
                }
                Err(error) => events.push(RevocationError::from(error).into_event()),
            }
        }
        let (later, learned): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|issuer| unknown.contains(issuer));
        self.learn_later(&later);
        if let Err(reason) = self.refresh_in_turn(&authority, !learned.is_empty()) {
            events.push(reason.into_event());
        }
        Taken { events, unknown }
    }

    /// Learns those intermediate authorities above another client of which a list is kept, or was
    /// handed out by the server, and puts their lists in force. Waits for the disk.
    pub(crate) fn learn(&self, issuers: &[Intermediate]) -> Taken {
        let _turn = self.refreshing.lock();
        let mut authority = self.authority();
        let taken = self.learn_in_turn(&mut authority, issuers, false);
        self.put_in_force(&authority, false);
        taken
    }

    /// Learns these authorities once the server has answered.
    pub(crate) fn learn_later(&self, issuers: &[Intermediate]) {
        let mut unanswered = self.unanswered.lock();
        for issuer in issuers {
            if unanswered.len() < MAX_UNANSWERED && !unanswered.contains(issuer) {
                unanswered.push(issuer.clone());
            }
        }
    }

    /// Learns authorities, apart from those of which nobody can say what they have revoked: the
    /// kept list cannot be read, or there is none and the server `has_answered` nothing.
    fn learn_in_turn(
        &self,
        authority: &mut Authority,
        issuers: &[Intermediate],
        has_answered: bool,
    ) -> Taken {
        let mut taken = Taken::default();
        for issuer in issuers {
            let signer = issuer.signer();
            if authority.knows(signer) {
                continue;
            }
            let mut more = authority.clone();
            let learned = more.learn(std::slice::from_ref(issuer));
            if let Err(reason) = self.kept_lists.read(&more, [signer.clone()]) {
                taken.events.push(reason.into_event());
                if !self.kept_lists.has(signer) {
                    taken.unknown.push(issuer.clone());
                    continue;
                }
            }
            for list in self.unknown_lists.take(|der| more.read_list(der).ok()) {
                taken.events.extend(self.accept(&list, &more));
            }
            if !has_answered && !self.kept_lists.has(signer) {
                taken.unknown.push(issuer.clone());
                continue;
            }
            self.kept_lists.forget(&learned.forgotten);
            *authority = more;
        }
        taken
    }

    fn accept(&self, list: &RevocationList, authority: &Authority) -> Option<Event> {
        match self.kept_lists.accept(list, authority) {
            Ok(false) => None,
            Ok(true) => Some(Event::RevocationListUsed { list: list.clone() }),
            Err(reason) => Some(reason.into_event()),
        }
    }

    /// Puts authorities in force, with the lists that were accepted. With `retry`, what was refused
    /// before is tried again, even if that changes nothing else.
    fn put_in_force(&self, authority: &Authority, retry: bool) {
        let authority = authority.with_lists(self.kept_lists.of(authority));
        self.authority.send_if_modified(|current| {
            let ders = |authority: &Authority| {
                let lists = authority.lists().iter();
                lists.map(|list| list.der().to_vec()).collect::<Vec<_>>()
            };
            // What others have verified stays verified if there is merely one signer more.
            let are_known = current.signers().all(|signer| authority.knows(&signer));
            let is_same = !retry
                && are_known
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
