//! TLS of the server: TLS 1.2 and 1.3 with ring, HTTP/1.1 only. The certificate's files are read again every
//! minute and at SIGHUP, so that a renewed certificate needs no restart. A file that cannot be used then is
//! reported in the log, and the old certificate stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};
use zeroize::Zeroizing;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// No honest chain of certificates is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate cannot be shown; the text holds no part of the key.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The path of the certificate or key file.
        path: String,
        /// The error of the file system.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} {fault}")]
    Invalid {
        /// The path of the certificate or key file.
        path: String,
        /// The fault of the file, in words.
        fault: String,
    },
}

/// The present certificate, and the files that it is read from.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    shown: RwLock<Arc<CertifiedKey>>,
    /// The digest of the files that were looked at last.
    seen: RwLock<[u8; 32]>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Certificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().clone())
    }
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// [`TlsError`] says which file cannot be used, and why.
    pub fn open(chain: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(chain, key)?;
        let shown = RwLock::new(Arc::new(files.certified(chain, key)?));
        let seen = RwLock::new(files.digest());
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), shown, seen }))
    }

    /// The acceptor for TLS connections; it uses renewed certificates as well.
    #[must_use]
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Takes up changed files, as long as it is polled.
    pub async fn keep_fresh(&self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Without a handler SIGHUP ends the process; then there is nothing to wait for.
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = told(&mut hangup) => {}
            }
            match self.renew() {
                Ok(true) => info!("the certificate was renewed from {}", self.chain.display()),
                Ok(false) => {}
                Err(fault) => error!(error = %fault, "the certificate was not renewed, the old one is shown"),
            }
        }
    }

    /// Loads changed files; returns whether there were any. Unusable files are logged once.
    fn renew(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.chain, &self.key)?;
        let digest = files.digest();
        if std::mem::replace(&mut *self.seen.write(), digest) == digest {
            return Ok(false);
        }
        let renewed = files.certified(&self.chain, &self.key)?;
        *self.shown.write() = Arc::new(renewed);
        Ok(true)
    }
}

async fn told(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The content of the two files.
struct Files {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self { chain: read(chain)?, key: Zeroizing::new(read(key)?) })
    }

    fn digest(&self) -> [u8; 32] {
        let lengths = [self.chain.len(), self.key.len()].map(usize::to_be_bytes).concat();
        Sha256::new_with_prefix(lengths).chain_update(&self.chain).chain_update(&*self.key).finalize().into()
    }

    fn certified(&self, chain: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
        let invalid = |path: &Path, fault: &str| TlsError::Invalid {
            path: path.display().to_string(),
            fault: fault.to_owned(),
        };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<_, _>>()
            .map_err(|_| invalid(chain, "is not in PEM"))?;
        if certificates.is_empty() {
            return Err(invalid(chain, "holds no certificate in PEM"));
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            invalid(key, "holds no private key in PEM (PKCS#8, SEC1 or PKCS#1, not encrypted)")
        })?;
        CertifiedKey::from_der(certificates, private, &ring::default_provider()).map_err(
            |fault| match fault {
                rustls::Error::InconsistentKeys(_) => {
                    invalid(key, &format!("does not belong to the certificate in {}", chain.display()))
                }
                rustls::Error::InvalidCertificate(_) => {
                    invalid(chain, "holds a certificate that cannot be read")
                }
                _ => invalid(key, "holds a key of a kind that is not supported: RSA, ECDSA or Ed25519"),
            },
        )
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.display().to_string(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        let fault = format!("has {size} bytes, more than any certificate needs");
        return Err(TlsError::Invalid { path: path.display().to_string(), fault });
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        folder: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Self {
            let made = Self { folder: tempfile::tempdir().expect("a folder") };
            made.write(&rcgen::generate_simple_self_signed(["one.example".to_owned()]).expect("made"));
            made
        }

        fn write(&self, pair: &rcgen::CertifiedKey<rcgen::KeyPair>) {
            fs::write(self.chain(), pair.cert.pem()).expect("written");
            fs::write(self.key(), pair.signing_key.serialize_pem()).expect("written");
        }

        fn chain(&self) -> PathBuf {
            self.folder.path().join("chain.pem")
        }

        fn key(&self) -> PathBuf {
            self.folder.path().join("key.pem")
        }
    }

    fn shown(certificate: &Certificate) -> CertificateDer<'static> {
        certificate.shown.read().cert[0].clone()
    }

    #[test]
    fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_told_of_once() {
        let made = Made::new();
        let certificate = Certificate::open(&made.chain(), &made.key()).expect("usable");
        let first = shown(&certificate);
        assert!(!certificate.renew().expect("read"), "nothing changed");

        fs::write(made.chain(), "half of a").expect("written");
        assert!(certificate.renew().is_err());
        assert!(!certificate.renew().expect("told once"));
        assert_eq!(shown(&certificate), first);

        fs::remove_file(made.chain()).expect("removed");
        assert!(certificate.renew().is_err(), "files may be away for a moment");
        assert_eq!(shown(&certificate), first);

        made.write(&rcgen::generate_simple_self_signed(["two.example".to_owned()]).expect("made"));
        assert!(certificate.renew().expect("usable"));
        assert_ne!(shown(&certificate), first);
    }

    #[test]
    fn what_cannot_be_shown_is_named_without_the_key() {
        let made = Made::new();
        let key = fs::read_to_string(made.key()).expect("written");
        let cases = [
            (String::new(), key.clone(), "holds no certificate in PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                key.clone(),
                "cannot be read",
            ),
            (fs::read_to_string(made.chain()).expect("written"), "nothing".into(), "holds no private key"),
            (
                rcgen::generate_simple_self_signed(["other.example".to_owned()]).expect("made").cert.pem(),
                key.clone(),
                "does not belong to the certificate",
            ),
        ];
        for (chain, key, fault) in cases {
            fs::write(made.chain(), chain).expect("written");
            fs::write(made.key(), key).expect("written");
            let said = Certificate::open(&made.chain(), &made.key()).expect_err(fault).to_string();
            assert!(said.contains(fault), "{said}");
        }
        let said = Certificate::open(Path::new("/nowhere"), &made.key()).expect_err("no file").to_string();
        assert!(said.contains("/nowhere cannot be read"), "{said}");
    }
}
