//! The properties of a connection.

use ciphermq_protocol::hello::HelloReply;

use crate::connector::TlsDetails;

/// Properties of the current connection, or of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The server's hello.
    pub server: HelloReply,
    /// The server's address, as `address:port`.
    pub address: String,
    /// The version of TLS, such as `TLSv1.3`.
    pub tls_version: String,
    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The key exchange, such as `X25519MLKEM768`.
    pub key_exchange: String,
}

impl Connection {
    pub(crate) fn new(server: HelloReply, tls: TlsDetails) -> Self {
        let TlsDetails {
            address,
            version,
            cipher_suite,
            key_exchange,
        } = tls;
        Self {
            server,
            address,
            tls_version: version,
            cipher_suite,
            key_exchange,
        }
    }
}
