//! The doors (listeners) of a server: one for the API, and one for operators if the settings name it. Their
//! addresses are bound before anything else begins, so that a start at a busy address creates nothing;
//! connections are refused until the doors open.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use tidings_entity::kind::ReplicaRole;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};
use tracing::info;
use url::Url;

use super::{Code, Failure, ServeArgs};
use crate::{
    http::{
        self, Served,
        door::{
            auth::admin_token,
            listener::{self, Door, tls::Certificate},
            pipeline::Pipeline,
        },
    },
    settings::{ServerSettings, Settings},
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

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Addresses that are taken, and not listened on yet.
pub(super) struct Addresses {
    api: Address,
    ops: Option<Address>,
}

/// An address that a setting names.
struct Address {
    setting: &'static str,
    listen: SocketAddr,
    socket: TcpSocket,
}

impl Addresses {
    /// Binds the addresses in the settings.
    ///
    /// # Errors
    /// If an address is in use, or is not one of this machine.
    pub(super) fn take(settings: &ServerSettings) -> Result<Self, Failure> {
        let ops = settings.ops_listen.map(|listen| Address::take("server.ops_listen", listen));
        Ok(Self { api: Address::take("server.listen", settings.listen)?, ops: ops.transpose()? })
    }

    /// The addresses of this process: its own requests never go there.
    pub(super) fn own(&self) -> Vec<SocketAddr> {
        let taken = std::iter::once(&self.api).chain(&self.ops);
        taken.map(|address| address.socket.local_addr().unwrap_or(address.listen)).collect()
    }
}

impl Address {
    fn take(setting: &'static str, listen: SocketAddr) -> Result<Self, Failure> {
        let bound = || {
            let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Connections of a server that ended do not hold its address.
            socket.set_reuseaddr(true)?;
            socket.bind(listen)?;
            Ok(socket)
        };
        let socket = bound().map_err(|reason| refused(setting, listen, &reason))?;
        Ok(Self { setting, listen, socket })
    }

    fn open(self) -> Result<(TcpListener, SocketAddr), Failure> {
        let Self { setting, listen, socket } = self;
        let opened = socket.listen(BACKLOG).and_then(|tcp| Ok((tcp.local_addr()?, tcp)));
        opened.map(|(address, tcp)| (tcp, address)).map_err(|reason| refused(setting, listen, &reason))
    }
}

fn refused(setting: &str, listen: SocketAddr, reason: &io::Error) -> Failure {
    let variable = format!("TIDINGS__{}", setting.to_uppercase().replace('.', "__"));
    let text = match reason.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{listen} is in use by another process: stop that one, or name another address in {setting} \
             ({variable})"
        ),
        _ => format!("{listen} cannot be listened on: {reason}; {setting} ({variable}) names it"),
    };
    Failure::new(Code::Unavailable, text)
}

/// Listeners that are bound to their addresses, but serve no request yet.
pub(super) struct Doors {
    api: (TcpListener, SocketAddr),
    ops: Option<(TcpListener, SocketAddr)>,
    certificate: Option<Arc<Certificate>>,
}

impl Doors {
    /// Begins to listen on the bound addresses.
    ///
    /// # Errors
    /// If another process began to listen on an address in between.
    pub(super) fn open(addresses: Addresses, certificate: Option<Arc<Certificate>>) -> Result<Self, Failure> {
        let Addresses { api, ops } = addresses;
        Ok(Self { api: api.open()?, ops: ops.map(Address::open).transpose()?, certificate })
    }

    /// Writes the addresses to the log, and to the files named in `args`.
    ///
    /// # Errors
    /// If a file cannot be written.
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

    /// Logs the address of the dashboard, and the file with the token for it.
    pub(super) fn tell_dashboard(&self, settings: &Settings) {
        if settings.server.role == ReplicaRole::Worker {
            return;
        }
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let (_, mut address) = self.api;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let token = match settings.server.admin_token {
            Some(_) => "server.admin_token".to_owned(),
            None => format!("the token in {}", settings.data_dir.join(admin_token::FILE_NAME).display()),
        };
        info!("dashboard on {scheme}://{address}/dashboard/; sign in with {token}");
    }

    /// The address at which other replicas reach this one: that of the settings, or else of the first door,
    /// unless it listens on all networks.
    pub(super) fn reached_at(&self, settings: &ServerSettings) -> Option<Url> {
        if let Some(url) = &settings.replica_url {
            return Some(url.clone());
        }
        let (_, address) = &self.api;
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let is_usable = !address.ip().is_unspecified();
        is_usable.then(|| Url::parse(&format!("{scheme}://{address}")).ok()).flatten()
    }

    /// Serves until `stopping` is ready, and lets running requests end.
    pub(super) async fn serve(
        self,
        pipeline: &Arc<Pipeline>,
        settings: &ServerSettings,
        stopping: watch::Receiver<bool>,
    ) {
        let first = Served::of(settings.role, self.ops.is_some());
        let door = |(tcp, _), served: &[Served], certificate| {
            let edge = pipeline.edge();
            let door = Door { tcp, routes: http::routes(pipeline, served), certificate, edge };
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

/// Writes the address into a temporary file and renames it, so that a program that waits for the file reads
/// all of it. An address is no secret: another user may wait for it.
fn write_address(path: &Path, address: SocketAddr) -> Result<(), Failure> {
    let whole = path.with_extension("new");
    let written = fs::write(&whole, address.to_string())
        .and_then(|()| fs::set_permissions(&whole, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&whole, path));
    written.map_err(|reason| {
        Failure::new(Code::CannotCreate, format!("{} cannot be written: {reason}", path.display()))
    })
}
