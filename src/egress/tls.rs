//! The TLS setup: the bundled roots, the authorities of settings, and for one app its own authorities and its
//! client certificate.

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

/// The part of a TLS setup that is faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPart {
    /// The certificate that is shown to the endpoint.
    ClientCertificate,
    /// The private key of the certificate.
    ClientKey,
    /// The authorities that are trusted in addition to the public ones.
    Ca,
}

/// Why a setup cannot be used; the text holds no part of it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct TlsFault {
    /// The part of the setup with the fault.
    pub part: TlsPart,
    /// The fault, in words.
    pub text: String,
}

/// The facts about a certificate that may be shown: nothing about its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The subject of the certificate, as text.
    pub subject: String,
    /// SHA-256 of its DER form, in hexadecimal digits.
    pub sha256: String,
    /// When the certificate expires.
    pub not_after: Timestamp,
}

/// The parsed TLS setup of one app.
pub struct AppTls {
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    authorities: Vec<CertificateDer<'static>>,
}

impl AppTls {
    /// Parses the certificates and the key that an app set for its endpoint, in PEM.
    ///
    /// # Errors
    /// For a part that cannot be parsed, or does not match another part.
    pub fn read(tls: &EndpointTls) -> Result<Self, TlsFault> {
        let client = tls.client.as_ref().map(client).transpose()?;
        let authorities = tls.ca.as_deref().map_or(Ok(Vec::new()), authorities)?;
        Ok(Self { client, authorities })
    }

    /// Refuses certificates that are not valid now: they were just given, so they are meant for use now.
    ///
    /// # Errors
    /// Names the certificate that has expired, or is not valid yet.
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

    /// The facts that may be shown: those of the client certificate, and of the authorities.
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

/// A TLS configuration with these roots, and the authorities and certificate of one app.
pub(super) fn config(roots: RootCertStore, app: Option<AppTls>) -> Result<ClientConfig, EgressError> {
    let mut config = config_of(roots, app, None)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The setup for a client that connects to an address instead of a name: the certificate of the other side
/// must be for `name`.
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
    // The database's client uses the process-wide provider; the first one installed stays.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // A failure means that another thread installed a provider: either one works.
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

/// The usual verifier, but for a fixed name.
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

/// A hash that tells setups apart without storing them.
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

/// The first and the last moment of a certificate's validity, in Unix seconds.
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
