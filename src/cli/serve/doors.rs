//! The doors of a server: one for the API, and one for operators where the settings name it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use tokio::{net::TcpListener, sync::watch};
use tracing::info;
use url::Url;

use super::{Code, Failure, ServeArgs};
use crate::{
    http::{
        self, Front, Served,
        listener::{self, Door, tls::Certificate},
    },
    settings::ServerSettings,
};

/// The certificate that the settings name.
///
/// # Errors
/// Files that cannot be used.
pub(super) fn certificate(settings: &ServerSettings) -> Result<Option<Arc<Certificate>>, Failure> {
    let files = settings.tls_cert_file.as_ref().zip(settings.tls_key_file.as_ref());
    let certificate = files.map(|(chain, key)| Certificate::open(chain, key)).transpose();
    certificate.map_err(|error| Failure::of_error(Code::Config, &error))
}

/// Doors that listen, and serve nobody yet.
pub(super) struct Doors {
    api: (TcpListener, SocketAddr),
    ops: Option<(TcpListener, SocketAddr)>,
    certificate: Option<Arc<Certificate>>,
}

impl Doors {
    /// Listens where the settings say.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub(super) async fn open(
        settings: &ServerSettings,
        certificate: Option<Arc<Certificate>>,
    ) -> Result<Self, Failure> {
        let api = bound(settings.listen).await?;
        let ops = match settings.ops_listen {
            Some(listen) => Some(bound(listen).await?),
            None => None,
        };
        Ok(Self { api, ops, certificate })
    }

    /// Tells where they are: the log, and the files that were asked for.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn announce(&self, args: &ServeArgs) -> Result<(), Failure> {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let (_, address) = &self.api;
        info!(server.address = %address, "listening on {scheme}://{address}");
        if let Some(path) = &args.address_file {
            write_address(path, *address)?;
        }
        let Some((_, address)) = &self.ops else { return Ok(()) };
        info!(server.address = %address, "health and metrics on http://{address}");
        args.ops_address_file.as_ref().map_or(Ok(()), |path| write_address(path, *address))
    }

    /// Where other replicas reach this one: as the settings say, or at the first door if that is no address
    /// of all networks.
    pub(super) fn reached_at(&self, settings: &ServerSettings) -> Option<Url> {
        if let Some(url) = &settings.replica_url {
            return Some(url.clone());
        }
        let (_, address) = &self.api;
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let is_usable = !address.ip().is_unspecified();
        is_usable.then(|| Url::parse(&format!("{scheme}://{address}")).ok()).flatten()
    }

    /// Serves until `stopping` says so, and lets begun requests end.
    pub(super) async fn serve(
        self,
        front: &Arc<Front>,
        settings: &ServerSettings,
        stopping: watch::Receiver<bool>,
    ) {
        let first = Served::of(settings.role, self.ops.is_some());
        let door = |(tcp, _), served: &[Served], certificate| {
            let edge = front.edge.clone();
            let door = Door { tcp, routes: http::routes(front.clone(), served), certificate, edge };
            let mut stopping = stopping.clone();
            let stopped = async move {
                // A sender that is gone means stop, too.
                drop(stopping.wait_for(|stopping| *stopping).await);
            };
            listener::serve(door, settings, stopped)
        };
        match self.ops {
            None => door(self.api, first, self.certificate).await,
            Some(ops) => {
                let (api, ops) = (door(self.api, first, self.certificate), door(ops, &[Served::Ops], None));
                tokio::join!(api, ops);
            }
        }
    }
}

async fn bound(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = async {
        let tcp = TcpListener::bind(listen).await?;
        let address = tcp.local_addr()?;
        Ok::<_, std::io::Error>((tcp, address))
    };
    bound.await.map_err(|reason| {
        Failure::new(Code::Unavailable, format!("{listen} cannot be listened on: {reason}"))
    })
}

/// Writes the address under another name first, so that whoever waits for the file reads all of it.
fn write_address(path: &Path, address: SocketAddr) -> Result<(), Failure> {
    let whole = path.with_extension("new");
    fs::write(&whole, address.to_string()).and_then(|()| fs::rename(&whole, path)).map_err(|reason| {
        Failure::new(Code::CannotCreate, format!("{} cannot be written: {reason}", path.display()))
    })
}
