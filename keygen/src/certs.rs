//! Creates, keeps and replaces certificates.
//!
//! An existing authority and its certificate are kept, unless a new one is requested. An existing
//! server certificate is kept, unless `--force` comes with a `--server-name`. Existing
//! clients are replaced with `--force` only.
//!
//! The files are put in place in a fixed order, each durably before the next: the authority's key
//! and certificate, the server's, the clients' in the order of the command line. So an interrupted
//! run leaves a prefix of that order, and the same command completes it: a key without a
//! certificate gets one, and no key is ever replaced. Any other subset was not left by an
//! interruption, and is refused.

use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_crypto::text::Escaped;
use ciphermq_files::{Access, Existing, NewFiles, is_same_file, parent};
use jiff::Timestamp;
use rcgen::{KeyPair, SanType};
use zeroize::Zeroizing;

use crate::authority::{AUTHORITY_DAYS, Authority, Issued};
use crate::client_name::{ClientName, FieldArg};
use crate::error::{Error, refuse_key};
use crate::files;
use crate::folders::NewFolders;
use crate::lifetime::Lifetime;
use crate::names;
use crate::pair::{Pair, State, is_there};
use crate::profile::Profile;
use crate::report::Report;

pub use crate::names::{CA_CERT, CA_KEY, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY};

/// The arguments of `keygen certs`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CertsArgs {
    /// The folder for the certificates; each client gets a folder in it
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// A name or IP address by which clients reach the server; may be given more than once
    /// [default: localhost]
    #[arg(long = "server-name", value_name = "NAME")]
    pub server_names: Vec<String>,
    /// A client to issue a certificate for; may be given more than once
    #[arg(long = "client", value_name = "NAME")]
    pub clients: Vec<String>,
    /// Where the clients' names stand
    #[command(flatten)]
    pub field: FieldArg,
    /// How many days the certificates of server and clients are valid
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// Replace existing certificates of the named clients, and the server's if --server-name is
    /// given
    #[arg(long)]
    pub force: bool,
    /// Replace the authority as well, which invalidates all certificates that it has issued
    #[arg(long, requires = "force")]
    pub new_ca: bool,
}

/// Creates the requested certificates that do not exist.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &CertsArgs, now: Timestamp) -> Result<Report, Error> {
    refuse_key(&args.out)?;
    // Everything that can be refused is refused before anything is written.
    let mut clients: Vec<ClientName> = Vec::new();
    for name in &args.clients {
        let name = args.field.name(name)?;
        if !clients.contains(&name) {
            clients.push(name);
        }
    }
    let localhost = ["localhost".to_owned()];
    let hosts = if args.server_names.is_empty() {
        &localhost[..]
    } else {
        &args.server_names
    };
    let host_names = names::subject_alternative_names(hosts)?;
    let existing = if args.force {
        Existing::Replace
    } else {
        Existing::Keep
    };

    let server = Profile::Server(host_names.clone());
    let authority_place = Pair::authority(&args.out);
    let server_place = Pair::of(&server, &args.out);
    let client_place = |name: &ClientName| Pair::of(&Profile::Client(name.clone()), &args.out);
    let places: Vec<Pair> = clients.iter().map(client_place).collect();
    if !args.force {
        let has_server = [&authority_place, &server_place]
            .into_iter()
            .all(|place| place.state() == State::Complete);
        refuse_existing(&places, has_server)?;
        refuse_other_names(args, &places, &server_place, &host_names)?;
    }
    refuse_links(&authority_place, &server_place, &places)?;
    let is_in_use = has_clients(&args.out);

    let mut issuance = Issuance {
        args,
        now,
        existing,
        folders: NewFolders::default(),
        files: NewFiles::new(),
        report: Report::default(),
    };
    issuance.folders.make(&args.out)?;
    let is_alone = server_place.state() == State::Nothing && !is_in_use;
    let (authority, is_new_authority) = issuance.authority(&authority_place, is_alone)?;
    let replaces_server = args.force && (is_new_authority || !args.server_names.is_empty());
    let server_state = if replaces_server {
        State::Nothing
    } else {
        server_place.state()
    };
    if server_state == State::Complete {
        check_kept_server(&authority, &server_place, &authority_place)?;
        issuance.report.kept.push(server_place.certificate.clone());
    } else {
        let was_interrupted = !is_in_use && !is_new_authority;
        let key = issuance.key(&server_place, server_state, was_interrupted)?;
        let issued = authority.issue(&server, &key, Lifetime::Days(args.days), now)?;
        issuance.stage(&server_place, &key, &issued, server_state)?;
    }
    for (name, place) in clients.iter().zip(&places) {
        issuance.client(&authority, name, place)?;
    }

    let Issuance {
        folders,
        files,
        mut report,
        ..
    } = issuance;
    report.written = files.commit()?;
    folders.keep();
    report.next = next_steps(args, &clients, &report, is_new_authority);
    if authority.is_intermediate() {
        let what = "The authority is an intermediate one: instead of its ca.crt, the server and \
                    the clients need that of the root.";
        report.next.push(what.to_owned());
    }
    Ok(report)
}

/// The files of this run, none of which is in place yet.
struct Issuance<'a> {
    args: &'a CertsArgs,
    now: Timestamp,
    existing: Existing,
    // Before the folders: these must be empty when they are removed after a failure.
    files: NewFiles,
    folders: NewFolders,
    report: Report,
}

impl Issuance<'_> {
    /// Returns the existing authority, or a new one, and whether it is new. `is_alone`: nothing
    /// else exists, so a key without a certificate was left by an interruption.
    fn authority(&mut self, place: &Pair, is_alone: bool) -> Result<(Authority, bool), Error> {
        let state = if self.args.new_ca {
            State::Nothing
        } else {
            place.state()
        };
        if state == State::Complete {
            self.report.kept.push(place.certificate.clone());
            return Ok((
                Authority::read(&place.certificate, &place.key, self.now)?,
                false,
            ));
        }
        let key = self.key(place, state, is_alone)?;
        let lifetime = Lifetime::Days(AUTHORITY_DAYS);
        let (authority, issued) = Authority::with_key(key, 0, lifetime, self.now)?;
        self.stage(place, authority.key(), &issued, state)?;
        Ok((authority, true))
    }

    /// Issues a client's certificate, unless an interrupted run has left one.
    fn client(
        &mut self,
        authority: &Authority,
        name: &ClientName,
        place: &Pair,
    ) -> Result<(), Error> {
        let state = if self.args.force {
            State::Nothing
        } else {
            place.state()
        };
        if state == State::Complete {
            let (certificate, args) = (&place.certificate, self.args);
            if !authority.has_issued_client(certificate, name, self.now, args.days)?
                || files::is_mismatch(certificate, &place.key)
            {
                return Err(place.already_exists());
            }
            self.report.kept.push(certificate.clone());
            return Ok(());
        }
        self.folders.make(parent(&place.certificate))?;
        let key = self.key(place, state, true)?;
        let (profile, lifetime) = (
            Profile::Client(name.clone()),
            Lifetime::Days(self.args.days),
        );
        let issued = authority.issue(&profile, &key, lifetime, self.now)?;
        self.stage(place, &key, &issued, state)
    }

    /// Returns the key that an interrupted run has left, or a new one. Any other incomplete pair is
    /// refused.
    fn key(&self, place: &Pair, state: State, was_interrupted: bool) -> Result<KeyPair, Error> {
        match state {
            State::Nothing => files::new_key(),
            State::KeyAlone if was_interrupted => files::read_key(&place.key),
            _ => Err(place.incomplete()),
        }
    }

    /// Stages the files to write: only the certificate if the key exists.
    fn stage(
        &mut self,
        place: &Pair,
        key: &KeyPair,
        issued: &Issued,
        state: State,
    ) -> Result<(), Error> {
        let key = Zeroizing::new(key.serialize_pem());
        let existing = if state == State::KeyAlone {
            self.report.kept.push(place.key.clone());
            Existing::Keep
        } else {
            self.files
                .stage(&place.key, key.as_bytes(), Access::Private, self.existing)?;
            self.existing
        };
        Ok(self.files.stage(
            &place.certificate,
            issued.chain.as_bytes(),
            Access::Public,
            existing,
        )?)
    }
}

/// Refuses existing clients, except those that the same command has left, perhaps interrupted:
/// after the server, complete ones first, then perhaps one with a key alone, then none.
fn refuse_existing(places: &[Pair], has_server: bool) -> Result<(), Error> {
    let there = places.iter().find(|place| place.state() != State::Nothing);
    if let Some(place) = there.filter(|_| !has_server) {
        return Err(place.already_exists());
    }
    let complete = places
        .iter()
        .take_while(|place| place.state() == State::Complete)
        .count();
    let rest = places.get(complete..).unwrap_or_default();
    let Some((first, others)) = rest.split_first() else {
        return Ok(());
    };
    if first.state() == State::CertificateAlone {
        return Err(first.incomplete());
    }
    let taken = others.iter().find(|place| place.state() != State::Nothing);
    taken.map_or(Ok(()), |place| Err(place.already_exists()))
}

/// Refuses existing clients if the server's certificate has other names than the requested ones:
/// another command has made them.
fn refuse_other_names(
    args: &CertsArgs,
    clients: &[Pair],
    server: &Pair,
    names: &[SanType],
) -> Result<(), Error> {
    let existing = clients.iter().find(|place| place.state() != State::Nothing);
    match existing {
        Some(place)
            if !args.server_names.is_empty() && !files::has_names(&server.certificate, names)? =>
        {
            Err(place.already_exists())
        }
        _ => Ok(()),
    }
}

/// Refuses links between the files: replacing one would destroy the other.
fn refuse_links(authority: &Pair, server: &Pair, clients: &[Pair]) -> Result<(), Error> {
    let files: Vec<&PathBuf> = [authority, server]
        .into_iter()
        .chain(clients)
        .flat_map(|place| [&place.key, &place.certificate])
        .filter(|path| is_there(path))
        .collect();
    for (index, first) in files.iter().enumerate() {
        if let Some(second) = files
            .iter()
            .skip(index + 1)
            .find(|second| is_same_file(first, second))
        {
            return Err(Error::SameFile {
                first: (*first).clone(),
                second: (*second).clone(),
            });
        }
    }
    Ok(())
}

/// Returns whether any client has a key or a certificate, which implies that the authority and the
/// server were complete.
fn has_clients(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out) else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let folder = entry.path();
        is_there(&folder.join(CLIENT_KEY)) || is_there(&folder.join(CLIENT_CERT))
    })
}

/// Refuses a server certificate that this authority did not issue, or whose key does not match
/// because a run that replaced both was interrupted between the two.
fn check_kept_server(
    authority: &Authority,
    server: &Pair,
    authority_place: &Pair,
) -> Result<(), Error> {
    if !authority.has_issued(&server.certificate)? {
        return Err(Error::OtherAuthority {
            server: server.certificate.clone(),
            authority: authority_place.certificate.clone(),
        });
    }
    if files::is_mismatch(&server.certificate, &server.key) {
        return Err(Error::KeyMismatch {
            certificate: server.certificate.clone(),
            key: server.key.clone(),
        });
    }
    Ok(())
}

fn next_steps(
    args: &CertsArgs,
    clients: &[ClientName],
    report: &Report,
    is_new_authority: bool,
) -> Vec<String> {
    let file = |name: &str| Escaped(args.out.join(name).display()).to_string();
    let mut next = Vec::new();
    if args.new_ca {
        next.push(
            "The authority is new: certificates that the old one issued are no longer accepted."
                .to_owned(),
        );
    }
    if is_new_authority {
        next.push(format!(
            "Keep {} secret: it can issue a certificate for a client of any name. It does not \
             belong on the broker's machine.",
            file(CA_KEY)
        ));
    }
    if report.kept.contains(&args.out.join(SERVER_CERT)) {
        next.push(format!(
            "The server's certificate is kept; to replace it, use --force and --server-name ({}).",
            file(SERVER_CERT)
        ));
    } else {
        next.push(format!(
            "The server needs {}, {} and {}.",
            file(CA_CERT),
            file(SERVER_CERT),
            file(SERVER_KEY)
        ));
    }
    for name in clients {
        let (id, folder) = (name.id(), name.folder(&args.out));
        next.push(format!(
            "The client {id} needs {} and the folder {}.",
            file(CA_CERT),
            Escaped(folder.display())
        ));
    }
    if report.written.is_empty() && !clients.is_empty() {
        next.push(
            "Everything was there already; to replace the clients' certificates, use --force."
                .to_owned(),
        );
    }
    if clients.is_empty() {
        next.push("Clients need certificates as well: use --client NAME.".to_owned());
    }
    next
}
