//! Certificates of clients, for receivers that verify their messages later.

use ciphermq_protocol::{CertificateChain, ClientId, ErrorCode, ErrorReply, Fingerprint, Reply};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::broker::{Broker, ClientSession};
use crate::keys::{MAX_CHAIN, MAX_CHAIN_BYTES, is_short_enough};
use crate::model::{Change, Time};
use crate::tls::Peer;

fn stored(peer: &Peer) -> Change {
    Change::Certificate {
        client_id: peer.client_id.clone(),
        fingerprint: peer.fingerprint,
        chain: peer.chain.clone(),
        seen: Time::now(),
    }
}

impl Broker {
    /// Stores the chain that a client has connected with, for receivers that verify its messages
    /// later.
    pub async fn remember_certificate(&self, peer: &Peer) {
        let key = (peer.client_id.clone(), peer.fingerprint);
        if self.known_certificates.contains(&key) {
            return;
        }
        let writer = self.writer.client(&peer.client_id);
        match self.change(&writer, stored(peer)).await {
            Ok(_) => {
                // The latest chain counts: an older certificate that comes back is recorded again.
                self.known_certificates
                    .retain(|(client_id, _)| *client_id != peer.client_id);
                self.known_certificates.insert(key);
            }
            Err(error) => {
                tracing::error!(client_id = %peer.client_id, %error, "Cannot store a client's \
                    certificate");
            }
        }
    }
}

impl ClientSession {
    /// Executes `get_certificate`.
    pub(in crate::broker) async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Reply, ErrorReply> {
        let chain = self
            .query(self.broker.reader.certificate(client_id, fingerprint))
            .await?;
        Ok(chain.map_or(Reply::CertificateNotFound, Reply::Certificate))
    }

    /// Executes `register_certificate`.
    pub(in crate::broker) async fn register_certificate(
        &self,
        chain: &CertificateChain,
    ) -> Result<Reply, ErrorReply> {
        let bad = |code, text: String| Err(ErrorReply::new(code, text));
        let ders = chain.to_der().unwrap_or_default().into_iter();
        let ders: Vec<_> = ders.map(CertificateDer::from).collect();
        if ders.is_empty() || !is_short_enough(&ders) {
            let text = format!(
                "a certificate chain is base64 of 1 to {MAX_CHAIN} certificates in DER, of at most \
                 {MAX_CHAIN_BYTES} bytes together, separated by commas"
            );
            return bad(ErrorCode::BadArgument, text);
        }
        let credentials = self.broker.tls.get();
        let trust = credentials.trust();
        if let Some(flaw) = trust.refusal(&ders, Timestamp::now()) {
            return bad(ErrorCode::BadKey, format!("the certificate {flaw}"));
        }
        let peer = match Peer::from_chain(&ders, trust.client_id_from()) {
            Ok(peer) => peer,
            Err(error) => return bad(ErrorCode::BadKey, error.to_string()),
        };
        if peer.client_id != self.client_id {
            let text = format!(
                "only the client itself registers its certificate, and this connection is {}'s",
                self.client_id
            );
            return bad(ErrorCode::NotAuthorized, text);
        }
        let reader = &self.broker.reader;
        let known = self.query(reader.certificate(&self.client_id, Some(&peer.fingerprint)));
        // Another chain of the same certificate is of no use as long as the stored one leads to an
        // authority.
        let is_usable = |chain: CertificateChain| {
            let ders = chain.to_der().unwrap_or_default().into_iter();
            let ders: Vec<_> = ders.map(CertificateDer::from).collect();
            !ders.is_empty() && trust.refusal(&ders, Timestamp::now()).is_none()
        };
        if !known.await?.is_some_and(is_usable) {
            self.change(stored(&peer)).await?;
        }
        Ok(Reply::CertificateRegistered)
    }
}
