//! Authorities by themselves: a root, and intermediate ones below it.
//!
//! The root's key can then stay offline: it signs intermediate authorities, and they sign
//! certificates. Below an intermediate authority there is no other (path length 0).

use std::path::PathBuf;

use ciphermq_crypto::text::Escaped;
use ciphermq_files::{Access, Existing, NewFiles};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::authority::{AUTHORITY_DAYS, Authority};
use crate::error::{Error, refuse_key};
use crate::files;
use crate::folders::NewFolders;
use crate::lifetime::Lifetime;
use crate::pair::{Pair, State};
use crate::report::Report;

/// The validity of a new intermediate authority, in days: five years.
const INTERMEDIATE_DAYS: u16 = 1826;
/// The number of intermediate authorities that may follow a root: its own, and none below that.
const ROOT_PATH_LENGTH: u8 = 1;

/// The arguments of `keygen authority`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct AuthorityArgs {
    /// The folder for the authority's ca.crt and ca.key
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// The folder with the ca.crt and ca.key of the root that signs it: it becomes an intermediate
    /// authority
    #[arg(long, value_name = "FOLDER")]
    pub under: Option<PathBuf>,
    /// How many days it is valid, but no longer than its root [default: 3653, and 1826 for an
    /// intermediate authority]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10958))]
    pub days: Option<u16>,
    /// Replace an existing authority, which invalidates all certificates that it has issued
    #[arg(long)]
    pub force: bool,
}

/// Creates a root authority, or an intermediate one.
///
/// A key without a certificate, which an interrupted run has left, gets one.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &AuthorityArgs, now: Timestamp) -> Result<Report, Error> {
    let mut report = Report::default();
    let (mut folders, mut files) = (NewFolders::default(), NewFiles::new());
    refuse_key(&args.out)?;
    let place = Pair::authority(&args.out);
    let (state, existing) = match args.force {
        true => (State::Nothing, Existing::Replace),
        false => (place.state(), Existing::Keep),
    };
    let key = match state {
        State::Nothing => files::new_key()?,
        State::KeyAlone => files::read_key(&place.key)?,
        State::Complete => return Err(place.already_exists()),
        State::CertificateAlone => return Err(place.incomplete()),
    };
    let pem = Zeroizing::new(key.serialize_pem());
    let default = args
        .under
        .as_ref()
        .map_or(AUTHORITY_DAYS, |_| INTERMEDIATE_DAYS);
    let lifetime = Lifetime::Days(args.days.unwrap_or(default));
    let issued = match &args.under {
        None => Authority::with_key(key, ROOT_PATH_LENGTH, lifetime, now)?.1,
        Some(folder) => {
            refuse_key(folder)?;
            let root = Pair::authority(folder);
            let root = Authority::read(&root.certificate, &root.key, now)?;
            root.intermediate(&key, lifetime, now)?
        }
    };
    folders.make(&args.out)?;
    if state == State::KeyAlone {
        report.kept.push(place.key.clone());
    } else {
        files.stage(&place.key, pem.as_bytes(), Access::Private, existing)?;
    }
    let chain = issued.chain.as_bytes();
    files.stage(&place.certificate, chain, Access::Public, existing)?;
    report.written = files.commit()?;
    folders.keep();
    report.next.push(format!(
        "Keep {} secret: it can issue a certificate for a client of any name. It does not belong \
         on the broker's machine.",
        Escaped(place.key.display())
    ));
    report.next.push(match &args.under {
        None => format!(
            "The server and the clients need {}. `keygen sign --out {}` signs their requests.",
            Escaped(place.certificate.display()),
            Escaped(args.out.display())
        ),
        Some(root) => format!(
            "The server and the clients need {}, not {}, which `keygen sign --out {}` puts behind \
             each certificate.",
            Escaped(Pair::authority(root).certificate.display()),
            Escaped(place.certificate.display()),
            Escaped(args.out.display())
        ),
    });
    Ok(report)
}
