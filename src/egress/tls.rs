//! What TLS is set up with: the bundled roots, the authorities of settings, and for one app the
//! authorities that it trusts beside them and the certificate that it shows.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls::{
    ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tidings_actors::{
    ports::{ClientCertificate, EndpointTls},
    time::Timestamp,
};
use x509_parser::parse_x509_certificate;

use super::EgressError;
use crate::settings::EgressSettings;

/// The part of a setup that something is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPart {
    /// The certificate that is shown.
    ClientCertificate,
    /// Its key.
    ClientKey,
    /// The authorities that are trusted.
    Ca,
}

/// Why a setup cannot be used; the text holds no part of it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct TlsFault {
    /// What it is about.
    pub part: TlsPart,
    /// The fault, in words.
    pub text: String,
}

/// What may be told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it names.
    pub subject: String,
    /// SHA-256 of its DER form, in hexadecimal digits.
    pub sha256: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A setup of one app, read.
pub struct AppTls {
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    authorities: Vec<CertificateDer<'static>>,
}

impl AppTls {
    /// Reads a setup.
    ///
    /// # Errors
    /// What cannot be read, or does not fit.
    pub fn read(tls: &EndpointTls) -> Result<Self, TlsFault> {
        let client = tls.client.as_ref().map(client).transpose()?;
        let authorities = tls.ca.as_deref().map_or(Ok(Vec::new()), authorities)?;
        Ok(Self { client, authorities })
    }

    /// Refuses what is not valid now: it was just given, so it was meant to be used.
    ///
    /// # Errors
    /// Which certificate is over, or has not begun.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), TlsFault> {
        let own =
            self.client.iter().flat_map(|(chain, _)| chain).map(|one| (TlsPart::ClientCertificate, one));
        let others = self.authorities.iter().map(|one| (TlsPart::Ca, one));
        for (part, certificate) in own.chain(others) {
            let (from, until) = validity(certificate, part)?;
            let seconds = now.0.div_euclid(1000);
            let fault = |what: &str| TlsFault { part, text: format!("holds a certificate that {what}") };
            if until < seconds {
                return Err(fault("has expired"));
            }
            if seconds < from {
                return Err(fault("is not valid yet"));
            }
        }
        Ok(())
    }

    /// What may be told: of the certificate that is shown, and of the authorities.
    #[must_use]
    pub fn facts(&self) -> (Option<CertificateFacts>, Vec<CertificateFacts>) {
        let own = self.client.as_ref().and_then(|(chain, _)| chain.first()).and_then(facts);
        (own, self.authorities.iter().filter_map(facts).collect())
    }
}

/// The roots that settings trust.
pub(super) fn roots(settings: &EgressSettings) -> Result<RootCertStore, EgressError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(path) = &settings.ca_file else { return Ok(roots) };
    let fault = |what: String| EgressError::Tls(format!("ca_file {}: {what}", path.display()));
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))? {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(fault("holds no certificate".into()));
    }
    Ok(roots)
}

/// A setup that trusts these roots, with what one app has of its own.
pub(super) fn config(roots: RootCertStore, app: Option<AppTls>) -> Result<ClientConfig, EgressError> {
    let mut config = config_of(roots, app, None)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The same for a client that is given an address and not the name: whom it meets there must be
/// `name`, whatever it thinks that it dialled.
pub(super) fn config_named(
    roots: RootCertStore,
    app: Option<AppTls>,
    name: &str,
) -> Result<ClientConfig, EgressError> {
    let name = ServerName::try_from(name.to_owned());
    let name = name.map_err(|_| EgressError::InvalidUrl("the host is no name that TLS knows".into()))?;
    config_of(roots, app, Some(name))
}

fn config_of(
    mut roots: RootCertStore,
    app: Option<AppTls>,
    name: Option<ServerName<'static>>,
) -> Result<ClientConfig, EgressError> {
    // Others (the database's client) take the process-wide provider; the first one stays.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // A lost race means that somebody else installed one: either serves.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    let unusable = |error: rustls::Error| EgressError::Tls(error.to_string());
    let (client, authorities) = app.map_or((None, Vec::new()), |app| (app.client, app.authorities));
    for authority in authorities {
        roots.add(authority).map_err(unusable)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match name {
        None => builder.with_root_certificates(roots),
        Some(name) => {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let inner = inner.map_err(|error| EgressError::Tls(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Named { inner, name }))
        }
    };
    Ok(match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(unusable)?,
    })
}

/// The usual verifier, for a name of its own.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Tells setups apart without keeping them.
#[must_use]
pub fn fingerprint(tls: &EndpointTls) -> [u8; 32] {
    let client = tls.client.as_ref();
    let mut hasher = Sha256::new();
    for part in [client.map(|one| one.chain.as_str()), client.map(|one| one.key.expose()), tls.ca.as_deref()]
    {
        hasher.update([u8::from(part.is_some())]);
        let part = part.unwrap_or_default();
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn client(
    given: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFault> {
    let part = TlsPart::ClientCertificate;
    let chain = certificates(&given.chain, part)?;
    let of_key = |text: &str| TlsFault { part: TlsPart::ClientKey, text: text.to_owned() };
    let key = PrivateKeyDer::from_pem_slice(given.key.expose().as_bytes())
        .map_err(|_| of_key("must be a private key in PEM (PKCS#8, SEC1 or PKCS#1), not encrypted"))?;
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
        Ok(_) => Ok((chain, key)),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(of_key("does not belong to the certificate"))
        }
        Err(rustls::Error::InvalidCertificate(_)) => {
            Err(TlsFault { part, text: "holds a certificate that cannot be read".to_owned() })
        }
        Err(_) => Err(of_key("is of a kind that is not supported: RSA, ECDSA (P-256, P-384) or Ed25519")),
    }
}

fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let part = TlsPart::Ca;
    let authorities = certificates(pem, part)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|_| TlsFault {
            part,
            text: "holds a certificate that cannot be trusted as an authority".to_owned(),
        })?;
    }
    Ok(authorities)
}

fn certificates(pem: &str, part: TlsPart) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let fault = |text: &str| TlsFault { part, text: text.to_owned() };
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| fault("must be certificates in PEM"))?;
    if all.is_empty() {
        return Err(fault("holds no certificate in PEM"));
    }
    all.iter().try_for_each(|one| validity(one, part).map(drop))?;
    Ok(all)
}

/// From when until when it is valid, in unix seconds.
fn validity(certificate: &CertificateDer<'_>, part: TlsPart) -> Result<(i64, i64), TlsFault> {
    let unreadable = || TlsFault { part, text: "holds a certificate that cannot be read".to_owned() };
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    let validity = parsed.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn facts(certificate: &CertificateDer<'static>) -> Option<CertificateFacts> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(CertificateFacts {
        subject: parsed.subject().to_string(),
        sha256: HEXLOWER.encode(&Sha256::digest(certificate)),
        not_after: Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000)),
    })
}

#[cfg(test)]
mod tests;
