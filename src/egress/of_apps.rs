//! The client for each sink of each app. Sinks with their own TLS setup have their own clients and
//! connections; all others share the client of the settings.
//!
//! A client is built at its sink's first request and stays while the setup does. At most 1,024 are kept:
//! beyond that, the client that was unused for the longest time is dropped; its running requests end
//! normally.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidings_actors::ports::{EndpointTls, SinkKey};

use super::{
    Egress, EgressError,
    tls::{AppTls, fingerprint},
};

/// Clients for single sinks that are kept.
const CLIENTS_MAX: usize = 1_024;

/// The ways out of all apps.
pub struct AppEgress {
    shared: Egress,
    own: Mutex<Own>,
    most: usize,
}

#[derive(Default)]
struct Own {
    clients: HashMap<SinkKey, Kept>,
    /// Counts uses, to find the client that was used longest ago.
    uses: u64,
}

struct Kept {
    setup: [u8; 32],
    egress: Egress,
    used: u64,
}

impl AppEgress {
    /// Creates the cache of clients, empty.
    #[must_use]
    pub fn new(shared: Egress) -> Self {
        Self { shared, own: Mutex::default(), most: CLIENTS_MAX }
    }

    /// The way out to a sink with this setup.
    ///
    /// # Errors
    /// [`EgressError::Tls`] for a setup that cannot be used.
    pub fn of(&self, sink: &SinkKey, tls: Option<&EndpointTls>) -> Result<Egress, EgressError> {
        let Some(tls) = tls else {
            let mut own = self.own.lock();
            if !own.clients.is_empty() {
                own.clients.remove(sink);
            }
            return Ok(self.shared.clone());
        };
        let setup = fingerprint(tls);
        if let Some(kept) = self.own.lock().kept(sink, setup) {
            return Ok(kept);
        }
        // Built outside of the lock, so that other sinks do not wait. If two are built at once, the first one
        // stays.
        let read = AppTls::read(tls).map_err(|fault| EgressError::Tls(fault.to_string()))?;
        let egress = self.shared.with_tls(read)?;
        let mut own = self.own.lock();
        if let Some(kept) = own.kept(sink, setup) {
            return Ok(kept);
        }
        if own.clients.len() >= self.most && !own.clients.contains_key(sink) {
            let oldest = own.clients.iter().min_by_key(|(_, kept)| kept.used).map(|(sink, _)| sink.clone());
            oldest.map(|oldest| own.clients.remove(&oldest));
        }
        let used = own.uses;
        own.clients.insert(sink.clone(), Kept { setup, egress: egress.clone(), used });
        Ok(egress)
    }
}

impl Own {
    /// The client of a sink with this setup, which is used now.
    fn kept(&mut self, sink: &SinkKey, setup: [u8; 32]) -> Option<Egress> {
        self.uses += 1;
        let kept = self.clients.get_mut(sink).filter(|kept| kept.setup == setup)?;
        kept.used = self.uses;
        Some(kept.egress.clone())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use ulid::Ulid;

    use super::*;
    use crate::settings::EgressSettings;

    fn trusting() -> EndpointTls {
        let mut root = CertificateParams::new(Vec::new()).expect("parameters");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key"));
        EndpointTls { client: None, ca: Some(issuer.expect("an authority").pem()) }
    }

    fn app(number: u128) -> SinkKey {
        SinkKey::own(&tidings_entity::id::AppId::new(Ulid::from_parts(1, number)))
    }

    #[test]
    fn apps_without_a_setup_share_one_client_and_the_others_keep_theirs() {
        let shared = Egress::new(&EgressSettings::default()).expect("settings");
        let mut ways = AppEgress::new(shared.clone());
        ways.most = 2;
        for number in 0..10_000 {
            assert!(ways.of(&app(number), None).expect("shared").is_same(&shared));
        }
        assert_eq!(ways.own.lock().clients.len(), 0);

        let (one, two) = (trusting(), trusting());
        let first = ways.of(&app(1), Some(&one)).expect("built");
        assert!(!first.is_same(&shared));
        assert!(ways.of(&app(1), Some(&one)).expect("kept").is_same(&first));
        let second = ways.of(&app(2), Some(&one)).expect("built");
        assert!(!second.is_same(&first), "connections of another app are its own");
        assert!(ways.of(&app(1), Some(&one)).expect("kept").is_same(&first));
        ways.of(&app(3), Some(&one)).expect("built");
        assert!(ways.of(&app(1), Some(&one)).expect("kept").is_same(&first), "it was used of late");
        let rebuilt = ways.of(&app(2), Some(&one)).expect("built again");
        assert!(!rebuilt.is_same(&second), "the oldest went");

        let other = ways.of(&app(2), Some(&two)).expect("built");
        assert!(!other.is_same(&rebuilt), "another setup, another client");
        assert!(ways.of(&app(1), Some(&one)).expect("kept").is_same(&first), "that of another app stays");
        assert!(ways.of(&app(2), Some(&two)).expect("kept").is_same(&other));
        assert!(ways.of(&app(2), None).expect("shared").is_same(&shared));
        assert_eq!(ways.own.lock().clients.len(), 1, "what is not used any more goes");
    }
}
