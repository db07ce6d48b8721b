//! Which certificates are made, kept and replaced.
//!
//! An authority that is there is used, and its certificate stays, unless a new one is asked for. A server's
//! certificate that is there stays, unless `--force` comes with a `--server-name`. Clients that are there are
//! replaced with `--force` only.
//!
//! The files take their places in one order, each durably before the next: the authority's key and certificate, the
//! server's, the clients' as they are named. So what a run that was cut has left is the beginning of that order, and the
//! same command completes it: a key without a certificate gets one, and no key is ever replaced. What is no such
//! beginning was not left by a cut, and is refused.

use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_crypto::ClientId;
use ciphermq_files::{Access, Existing, NewFiles, is_same_file};
use jiff::Timestamp;
use rcgen::KeyPair;

use crate::authority::{self, Authority, Pem};
use crate::error::Error;
use crate::folders::NewFolders;
use crate::names;
use crate::report::Report;

/// The authority's certificate.
pub const CA_CERT: &str = "ca.crt";
/// The authority's private key.
pub const CA_KEY: &str = "ca.key";
/// The server's certificate.
pub const SERVER_CERT: &str = "server.crt";
/// The server's private key.
pub const SERVER_KEY: &str = "server.key";
/// A client's certificate, in the client's folder.
pub const CLIENT_CERT: &str = "client.crt";
/// A client's private key, in the client's folder.
pub const CLIENT_KEY: &str = "client.key";

/// What `keygen certs` is asked for.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CertsArgs {
    /// The folder for the certificates; each client gets a folder in it
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// A name or IP address by which clients reach the server; may be given more than once [default: localhost]
    #[arg(long = "server-name", value_name = "NAME")]
    pub server_names: Vec<String>,
    /// A client to make a certificate for; may be given more than once
    #[arg(long = "client", value_name = "NAME")]
    pub clients: Vec<String>,
    /// How many days the certificates of server and clients are valid
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// Replace certificates of the named clients that are there, and the server's if --server-name is given
    #[arg(long)]
    pub force: bool,
    /// Replace the authority, too: all certificates that it issued are worthless then
    #[arg(long, requires = "force")]
    pub new_ca: bool,
}

/// A certificate's and its key's place.
struct Place {
    certificate: PathBuf,
    key: PathBuf,
}

impl Place {
    fn new(folder: &Path, certificate: &str, key: &str) -> Self {
        Self {
            certificate: folder.join(certificate),
            key: folder.join(key),
        }
    }

    /// Which of the files are there.
    fn state(&self) -> State {
        match (is_there(&self.certificate), is_there(&self.key)) {
            (false, false) => State::Nothing,
            (false, true) => State::KeyAlone,
            (true, false) => State::CertificateAlone,
            (true, true) => State::Complete,
        }
    }

    /// Of the pair only one file is there, and no cut can have left it so.
    fn half(&self) -> Error {
        let (there, missing) = match self.state() {
            State::CertificateAlone => (&self.certificate, &self.key),
            _ => (&self.key, &self.certificate),
        };
        Error::Half {
            there: there.clone(),
            missing: missing.clone(),
        }
    }

    /// One of the files is there and is not to be replaced.
    fn taken(&self) -> Error {
        let path = if is_there(&self.certificate) {
            &self.certificate
        } else {
            &self.key
        };
        Error::Exists(path.clone())
    }

    /// The key of a run that was cut, or a new one.
    fn key(&self, is_there: bool) -> Result<KeyPair, Error> {
        if is_there {
            authority::read_key(&self.key)
        } else {
            authority::new_key()
        }
    }

    /// Stages what is to be written: for a key that is there, the certificate alone.
    fn complete(
        &self,
        files: &mut NewFiles,
        report: &mut Report,
        pem: &Pem,
        key_is_there: bool,
        existing: Existing,
    ) -> Result<(), Error> {
        if !key_is_there {
            return self.stage(files, pem, existing);
        }
        report.kept.push(self.key.clone());
        let certificate = pem.certificate.as_bytes();
        Ok(files.stage(&self.certificate, certificate, Access::Public, Existing::Keep)?)
    }

    fn stage(&self, files: &mut NewFiles, pem: &Pem, existing: Existing) -> Result<(), Error> {
        files.stage(&self.key, pem.key.as_bytes(), Access::Private, existing)?;
        files.stage(
            &self.certificate,
            pem.certificate.as_bytes(),
            Access::Public,
            existing,
        )?;
        Ok(())
    }
}

/// Which files of a pair are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Nothing,
    KeyAlone,
    CertificateAlone,
    Complete,
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Makes the certificates that are asked for and not there.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &CertsArgs, now: Timestamp) -> Result<Report, Error> {
    // Everything that can be refused is refused before anything is written.
    let mut clients: Vec<ClientId> = Vec::new();
    for name in &args.clients {
        let id = names::client(name)?;
        if !clients.contains(&id) {
            clients.push(id);
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

    let authority_place = Place::new(&args.out, CA_CERT, CA_KEY);
    let server_place = Place::new(&args.out, SERVER_CERT, SERVER_KEY);
    let client_folder = |id: &ClientId| args.out.join(id.as_str());
    let client_place = |id: &ClientId| Place::new(&client_folder(id), CLIENT_CERT, CLIENT_KEY);
    let places: Vec<Place> = clients.iter().map(client_place).collect();
    if !args.force {
        let has_server = [&authority_place, &server_place]
            .into_iter()
            .all(|place| place.state() == State::Complete);
        refuse_taken(&places, has_server)?;
    }
    refuse_shared(&authority_place, &server_place, &places)?;
    let is_in_use = has_clients(&args.out);

    let mut folders = NewFolders::default();
    let mut files = NewFiles::new();
    let mut report = Report::default();
    folders.make(&args.out)?;

    let is_empty_but_for_the_authority = server_place.state() == State::Nothing && !is_in_use;
    let (is_new_authority, has_key) = match authority_place.state() {
        _ if args.new_ca => (true, false),
        State::Nothing => (true, false),
        State::KeyAlone if is_empty_but_for_the_authority => (true, true),
        State::Complete => (false, true),
        State::KeyAlone | State::CertificateAlone => return Err(authority_place.half()),
    };
    let authority = if is_new_authority {
        let (authority, pem) = Authority::with_key(authority_place.key(has_key)?, now)?;
        authority_place.complete(&mut files, &mut report, &pem, has_key, existing)?;
        authority
    } else {
        report.kept.push(authority_place.certificate.clone());
        Authority::read(&authority_place.certificate, &authority_place.key, now)?
    };

    let replaces_server = args.force && (is_new_authority || !args.server_names.is_empty());
    match server_place.state() {
        State::Complete if !replaces_server => {
            keep_server(&authority, &server_place, &authority_place)?;
            report.kept.push(server_place.certificate.clone());
        }
        State::CertificateAlone if !replaces_server => return Err(server_place.half()),
        State::KeyAlone if !replaces_server && (is_in_use || is_new_authority) => {
            return Err(server_place.half());
        }
        state => {
            let has_key = state == State::KeyAlone && !replaces_server;
            let common_name = hosts.first().map_or("localhost", String::as_str);
            let key = server_place.key(has_key)?;
            let pem = authority.server(&key, common_name, host_names, now, args.days)?;
            server_place.complete(&mut files, &mut report, &pem, has_key, existing)?;
        }
    }

    for (id, place) in clients.iter().zip(&places) {
        let state = place.state();
        if state == State::Complete && !args.force {
            if !authority.has_issued(&place.certificate)? {
                return Err(place.taken());
            }
            report.kept.push(place.certificate.clone());
            continue;
        }
        let has_key = state == State::KeyAlone && !args.force;
        folders.make(&client_folder(id))?;
        let pem = authority.client(&place.key(has_key)?, id, now, args.days)?;
        place.complete(&mut files, &mut report, &pem, has_key, existing)?;
    }

    report.written = files.commit()?;
    folders.keep();
    report.next = next_steps(args, &clients, &report, is_new_authority);
    Ok(report)
}

/// Refuses clients that are there, but for those that a cut of the same command has left: after the server, complete
/// ones first, then perhaps one with a key alone, then none.
fn refuse_taken(places: &[Place], has_server: bool) -> Result<(), Error> {
    let there = places.iter().find(|place| place.state() != State::Nothing);
    if let Some(place) = there.filter(|_| !has_server) {
        return Err(place.taken());
    }
    let complete = places
        .iter()
        .take_while(|place| place.state() == State::Complete)
        .count();
    let (complete, rest) = places.split_at_checked(complete).unwrap_or((places, &[]));
    match (complete, rest) {
        ([place, ..], []) => Err(place.taken()),
        (_, []) => Ok(()),
        (_, [first, others @ ..]) => {
            if first.state() == State::CertificateAlone {
                return Err(first.half());
            }
            let taken = others.iter().find(|place| place.state() != State::Nothing);
            taken.map_or(Ok(()), |place| Err(place.taken()))
        }
    }
}

/// Refuses links that make one file of two: replacing the one would destroy the other.
fn refuse_shared(authority: &Place, server: &Place, clients: &[Place]) -> Result<(), Error> {
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
            return Err(Error::Shared {
                first: (*first).clone(),
                second: (*second).clone(),
            });
        }
    }
    Ok(())
}

/// Whether any client has a key or a certificate: then the authority and the server were complete once.
fn has_clients(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out) else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let folder = entry.path();
        is_there(&folder.join(CLIENT_KEY)) || is_there(&folder.join(CLIENT_CERT))
    })
}

/// Refuses a server that does not go with the authority, or whose key is not its certificate's: replacing both was cut
/// between the two then.
fn keep_server(authority: &Authority, server: &Place, authority_place: &Place) -> Result<(), Error> {
    if !authority.has_issued(&server.certificate)? {
        return Err(Error::OtherAuthority {
            server: server.certificate.clone(),
            authority: authority_place.certificate.clone(),
        });
    }
    if authority::is_mismatch(&server.certificate, &server.key) {
        return Err(Error::KeyMismatch {
            certificate: server.certificate.clone(),
            key: server.key.clone(),
        });
    }
    Ok(())
}

fn next_steps(
    args: &CertsArgs,
    clients: &[ClientId],
    report: &Report,
    is_new_authority: bool,
) -> Vec<String> {
    let file = |name: &str| args.out.join(name).display().to_string();
    let mut next = Vec::new();
    if args.new_ca {
        next.push(
            "The authority is new: no certificate that the old one issued is accepted any more.".to_owned(),
        );
    }
    if is_new_authority {
        next.push(format!(
            "Keep {} secret: whoever has it can make a client of any name. It does not belong on the broker's machine.",
            file(CA_KEY)
        ));
    }
    if report.kept.contains(&args.out.join(SERVER_CERT)) {
        next.push(format!(
            "The server's certificate stays; for another one say --force and --server-name ({}).",
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
    for id in clients {
        let folder = args.out.join(id.as_str());
        next.push(format!(
            "The client {id} needs {} and the folder {}.",
            file(CA_CERT),
            folder.display()
        ));
    }
    if clients.is_empty() {
        next.push("Clients need certificates, too: say --client NAME.".to_owned());
    }
    next
}
