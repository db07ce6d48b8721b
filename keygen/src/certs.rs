//! Which certificates are made, kept and replaced.
//!
//! An authority that is there is used, and its certificate stays, unless a new one is asked for. A server's
//! certificate that is there stays, unless `--force` comes with a `--server-name`. Clients that are there are
//! replaced with `--force` only.

use std::path::{Path, PathBuf};

use ciphermq_crypto::ClientId;
use ciphermq_crypto::file::{Access, Existing, NewFiles};
use jiff::Timestamp;

use crate::authority::{Authority, Pem};
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

    /// Whether both files are there; one alone is an error.
    fn is_there(&self) -> Result<bool, Error> {
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let half = |there: &PathBuf, missing: &PathBuf| Error::Half {
            there: there.clone(),
            missing: missing.clone(),
        };
        match (is_there(&self.certificate), is_there(&self.key)) {
            (true, false) => Err(half(&self.certificate, &self.key)),
            (false, true) => Err(half(&self.key, &self.certificate)),
            (both, _) => Ok(both),
        }
    }

    /// Refuses if one of the files is there.
    fn must_be_free(&self) -> Result<(), Error> {
        match [&self.certificate, &self.key]
            .into_iter()
            .find(|path| path.symlink_metadata().is_ok())
        {
            Some(path) => Err(Error::Exists(path.clone())),
            None => Ok(()),
        }
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
    if !args.force {
        clients
            .iter()
            .try_for_each(|id| client_place(id).must_be_free())?;
    }

    let mut folders = NewFolders::default();
    let mut files = NewFiles::new();
    let mut report = Report::default();
    folders.make(&args.out, false)?;

    let is_new_authority = args.new_ca || !authority_place.is_there()?;
    let authority = if is_new_authority {
        let (authority, pem) = Authority::generate(now)?;
        authority_place.stage(&mut files, &pem, existing)?;
        authority
    } else {
        report.kept.push(authority_place.certificate.clone());
        Authority::read(&authority_place.certificate, &authority_place.key, now)?
    };

    let replaces_server = args.force && (is_new_authority || !args.server_names.is_empty());
    if replaces_server || !server_place.is_there()? {
        let common_name = hosts.first().map_or("localhost", String::as_str);
        let pem = authority.server(common_name, host_names, now, args.days)?;
        server_place.stage(&mut files, &pem, existing)?;
    } else if authority.has_issued(&server_place.certificate)? {
        report.kept.push(server_place.certificate.clone());
    } else {
        return Err(Error::OtherAuthority {
            server: server_place.certificate,
            authority: authority_place.certificate,
        });
    }

    for id in &clients {
        folders.make(&client_folder(id), true)?;
        client_place(id).stage(&mut files, &authority.client(id, now, args.days)?, existing)?;
    }

    report.written = files.commit()?;
    folders.keep();
    report.next = next_steps(args, &clients, &report, is_new_authority);
    Ok(report)
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
