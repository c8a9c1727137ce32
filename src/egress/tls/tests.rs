//! What a TLS setup of an app must be to be taken, and what is said where it is not.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidings_actors::model::secret::Secret;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

/// A certificate that is valid within these years, and who vouches for it.
fn made(from: i32, until: i32) -> Made {
    let mut root = CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("made");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec!["client".to_owned()]).expect("parameters");
    leaf.not_before = rcgen::date_time_ymd(from, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = leaf.signed_by(&key, &issuer).expect("signed").pem();
    Made { authority: issuer.pem(), certificate, key: key.serialize_pem() }
}

fn setup(chain: &str, key: &str) -> EndpointTls {
    let client = ClientCertificate { chain: chain.to_owned(), key: Secret::new(key.to_owned()) };
    EndpointTls { client: Some(client), ca: None }
}

fn trusting(ca: &str) -> EndpointTls {
    EndpointTls { client: None, ca: Some(ca.to_owned()) }
}

fn judged(tls: &EndpointTls) -> Result<(), (TlsPart, String)> {
    AppTls::read(tls).and_then(|read| read.check_validity(NOW)).map_err(|fault| (fault.part, fault.text))
}

#[test]
fn a_setup_that_fits_is_read_and_told_of() {
    let good = made(2020, 2999);
    let mut tls = setup(&good.certificate, &good.key);
    tls.ca = Some(format!("{}\n{}", good.authority, made(2020, 2999).authority));
    assert_eq!(judged(&tls), Ok(()));
    let (own, authorities) = AppTls::read(&tls).expect("read").facts();
    let own = own.expect("a certificate");
    assert_eq!((own.sha256.len(), authorities.len()), (64, 2));
    assert_eq!(own.not_after, Timestamp(32_472_144_000_000), "the first of January 2999");
    assert!(config(RootCertStore::empty(), Some(AppTls::read(&tls).expect("read"))).is_ok());
}

#[test]
fn every_fault_names_its_part_and_holds_nothing_of_it() {
    let (good, other) = (made(2020, 2999), made(2020, 2999));
    let (over, early) = (made(2020, 2021), made(2998, 2999));
    let broken = good.certificate.replacen("MI", "XX", 1);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let own = TlsPart::ClientCertificate;
    for (tls, part, word) in [
        (setup("", &good.key), own, "no certificate"),
        (setup("SECRET-text", &good.key), own, "no certificate"),
        (setup(&good.key, &good.key), own, "no certificate"),
        (setup(&broken, &good.key), own, "cannot be read"),
        (setup(&good.certificate, "SECRET-text"), TlsPart::ClientKey, "private key in PEM"),
        (setup(&good.certificate, encrypted), TlsPart::ClientKey, "not encrypted"),
        (setup(&good.certificate, &other.key), TlsPart::ClientKey, "does not belong"),
        (setup(&over.certificate, &over.key), own, "expired"),
        (setup(&early.certificate, &early.key), own, "not valid yet"),
        (trusting("SECRET-text"), TlsPart::Ca, "no certificate"),
        (trusting(&broken), TlsPart::Ca, "cannot be read"),
        (trusting(&over.certificate), TlsPart::Ca, "expired"),
    ] {
        let (found, text) = judged(&tls).expect_err(word);
        assert_eq!(found, part, "{text}");
        assert!(text.contains(word) && !text.contains("SECRET"), "{text}");
    }
}
