//! Connections other than HTTP: the same rules and the same roots, with addresses instead of a client.

use std::net::{IpAddr, SocketAddr};

use rustls::ClientConfig;
use tidings_actors::ports::EndpointTls;

use super::{
    Egress, EgressError,
    refused::Refused,
    resolver::Guard,
    tls::{self, AppTls},
};

impl Egress {
    /// Checks the rules that need no resolved name: the port, a literal address, and whether an unencrypted
    /// connection is allowed. Returns the literal address, if `host` is one.
    ///
    /// # Errors
    /// [`EgressError::Refused`], [`EgressError::PlainHttp`], and [`EgressError::Settings`] where settings do
    /// not name the server, or every request goes through a proxy, which speaks only HTTP.
    pub fn judged(&self, host: &str, port: u16, is_plain: bool) -> Result<Option<IpAddr>, EgressError> {
        let recipe = &self.shared.recipe;
        if recipe.settings.proxy.is_some() {
            return Err(EgressError::Settings("through egress.proxy goes HTTP only".into()));
        }
        if !recipe.settings.names_stream(host, port) {
            return Err(EgressError::Settings("egress.streams does not name this server".into()));
        }
        if is_plain && !recipe.settings.allow_http {
            return Err(EgressError::PlainHttp);
        }
        if port < 1024 {
            return Err(Refused::Port(port).into());
        }
        match host.parse() {
            Ok(address) if recipe.rules.is_own(address, Some(port)) => {
                Err(Refused::Own(address.to_string()).into())
            }
            Ok(address) if recipe.rules.admit(address, Some(port)) => Ok(Some(address)),
            Ok(address) => Err(recipe.rules.refused(address, Some(port)).into()),
            Err(_) => Ok(None),
        }
    }

    /// The addresses of a host that a connection may go to; the caller must use no others.
    ///
    /// # Errors
    /// As [`Egress::judged`], and [`EgressError::InvalidUrl`] for a name without addresses.
    pub async fn dialled(
        &self,
        host: &str,
        port: u16,
        is_plain: bool,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        let literal = self.judged(host, port, is_plain)?;
        let addresses = match literal {
            Some(address) => vec![address],
            None => {
                let recipe = &self.shared.recipe;
                let guard =
                    Guard { rules: recipe.rules.clone(), port: Some(port), lookup: recipe.lookup.clone() };
                guard.addresses(host).await.map_err(|error| match error.downcast::<Refused>() {
                    Ok(refused) => EgressError::Refused(*refused),
                    Err(_) => EgressError::Unresolved,
                })?
            }
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// TLS for a connection to one of these addresses; the certificate must be for `host`.
    ///
    /// # Errors
    /// [`EgressError::Tls`] for an unusable setup.
    pub fn tls_named(&self, app: Option<&EndpointTls>, host: &str) -> Result<ClientConfig, EgressError> {
        let app = app.map(AppTls::read).transpose();
        let app = app.map_err(|fault| EgressError::Tls(fault.to_string()))?;
        tls::config_named(self.shared.recipe.roots.clone(), app, host)
    }

    /// Whether secrets may go to this host unencrypted: only to this machine itself.
    #[must_use]
    pub fn may_carry_secrets_to(&self, host: &str) -> bool {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}
