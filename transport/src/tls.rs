//! TLS 1.3 with certificates on both sides, and nothing that is not needed: no resumption, no 0-RTT.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use crate::identity::Identity;
use crate::verifiers::Screened;

pub const ALPN_REPLICA: &[u8] = b"synod-replica/1";
pub const ALPN_CLIENT: &[u8] = b"synod-client/1";

/// For connections that are accepted: a certificate under the same CA is demanded; its name is checked by whoever
/// knows from the Hello what it has to be.
pub fn server_config(identity: &Identity) -> Result<QuicServerConfig, rustls::Error> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier = Screened::new(verifier, identity);
    let mut config =
        rustls::ServerConfig::builder_with_details(provider, Arc::new(identity.clock()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![ALPN_REPLICA.to_vec(), ALPN_CLIENT.to_vec()];
    // Links last for hours: a ticket per handshake would never be used.
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))
}

/// For connections that are dialled. The server's name is checked in the handshake.
pub fn client_config(identity: &Identity, alpn: &[u8]) -> Result<QuicClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(identity.roots(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = verifier;
    let verifier = Screened::new(verifier, identity);
    let mut config =
        rustls::ClientConfig::builder_with_details(provider, Arc::new(identity.clock()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))
}

/// The certificate with its key, checked to belong together.
pub fn certified_key(identity: &Identity) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(identity.chain(), identity.key(), &provider())
}

/// AES-128-GCM first: with AES instructions it costs a third of ChaCha20, and no attacker we know minds 128 bits.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}
