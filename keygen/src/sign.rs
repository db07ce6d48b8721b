//! Certificates for requests, issued where the authority's key is.

use std::path::PathBuf;

use ciphermq_certificates::Validity;
use ciphermq_crypto::ClientId;
use ciphermq_crypto::text::Escaped;
use ciphermq_files::{Access, Existing, NewFiles, parent};
use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authority::{Authority, Issued};
use crate::client_name::{ClientName, FieldArg};
use crate::csr::key_fingerprint;
use crate::error::{Error, refuse_key};
use crate::folders::NewFolders;
use crate::issued;
use crate::lifetime::LifetimeArgs;
use crate::names;
use crate::pair::{Pair, is_there};
use crate::profile::{Profile, hosts};
use crate::report::Report;
use crate::request::{Refusal, Request};

/// The arguments of `keygen sign`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct SignArgs {
    /// The request, as `keygen csr` makes it
    #[arg(value_name = "FILE")]
    pub request: PathBuf,
    /// The client that it must be for; otherwise it is signed for the client that it names
    #[arg(long, value_name = "NAME", conflicts_with = "server_names")]
    pub client: Option<String>,
    /// Where the client's name stands; otherwise in the first of Common Name, URI and DNS name that
    /// the request has
    #[command(flatten)]
    pub field: FieldArg,
    /// A name of the server that it must be for; each of them has to be given
    #[arg(long = "server-name", value_name = "NAME")]
    pub server_names: Vec<String>,
    /// The folder with the authority's ca.crt and ca.key; the certificate is written in it, a
    /// client's in the client's folder
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// How long the certificate is valid
    #[command(flatten)]
    pub lifetime: LifetimeArgs,
    /// Replace an existing certificate, which is kept until it ends, to be revoked as well
    #[arg(long)]
    pub force: bool,
}

/// Checks a request, and issues a certificate for it.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &SignArgs, now: Timestamp) -> Result<Report, Error> {
    refuse_key(&args.out)?;
    let expected = args.client.as_deref().map(names::client_id).transpose()?;
    let authority = Pair::authority(&args.out);
    let authority = Authority::read(&authority.certificate, &authority.key, now)?;
    let mut request = Request::read(&args.request)?;
    let profile = profile(args, &mut request, expected.as_ref())?;
    let place = Pair::of(&profile, &args.out);
    if is_there(&place.certificate) && !args.force {
        return Err(Error::Exists(place.certificate));
    }
    issued::refuse_other_key(&place, &request.key)?;
    let certificate = authority.issue(&profile, &request.key, args.lifetime.into(), now)?;
    let existing = match args.force {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let (mut folders, mut files) = (NewFolders::default(), NewFiles::new());
    folders.make(parent(&place.certificate))?;
    if args.force {
        issued::keep(&place.certificate, &profile, now, &mut files)?;
    }
    let chain = certificate.chain.as_bytes();
    files.stage(&place.certificate, chain, Access::Public, existing)?;
    let mut report = Report {
        written: files.commit()?,
        ..Report::default()
    };
    folders.keep();
    report.next = vec![
        format!(
            "Signed for {profile}. The key is {}, its fingerprint {}.",
            request.kind,
            key_fingerprint(&request.key)
        ),
        details(&certificate)?,
    ];
    if !request.left_out.is_empty() {
        let left_out = request.left_out.join("; ");
        report
            .next
            .push(format!("Left out of the certificate: {left_out}."));
    }
    report.next.push(format!(
        "Take {} back to where the request was made.",
        Escaped(place.certificate.display())
    ));
    Ok(report)
}

/// Returns what the request is for, which must be what the arguments say.
fn profile(
    args: &SignArgs,
    request: &mut Request,
    expected: Option<&ClientId>,
) -> Result<Profile, Error> {
    let refused = |reason: Refusal| reason.of(&args.request);
    if args.server_names.is_empty() {
        let field = args.field.client_id_in;
        let (id, field) = request.client(field, expected).map_err(refused)?;
        return Ok(Profile::Client(ClientName::new(id.as_str(), field)?));
    }
    let allowed = hosts(&names::subject_alternative_names(&args.server_names)?);
    let mut wanted = Vec::new();
    for name in &args.server_names {
        let names = names::subject_alternative_names(std::slice::from_ref(name))?;
        wanted.extend(hosts(&names).into_iter().next());
    }
    let found = request.hosts(&wanted, &allowed).map_err(refused)?;
    Ok(Profile::Server(names::subject_alternative_names(found)?))
}

/// Returns the serial number and the validity of a certificate, as a sentence.
pub(crate) fn details(issued: &Issued) -> Result<String, Error> {
    let (_, parsed) = X509Certificate::from_der(&issued.der)
        .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    let Validity {
        not_before,
        not_after,
        ..
    } = Validity::of(&parsed);
    Ok(format!(
        "The serial number is {}. It is valid from {not_before} to {not_after}.",
        parsed.raw_serial_as_string()
    ))
}
