//! `tidings healthcheck`: asks the local server whether it is alive, for container runtimes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use http::Method;
use serde_json::json;
use url::Url;

use crate::cli::{
    Code, Context, Failure,
    client::{Client, server_url},
};
use crate::settings::ServerSettings;

#[derive(Args, Debug)]
pub(crate) struct HealthcheckArgs {
    /// Address of the server; if missing, the listen address of the settings
    #[arg(long, value_name = "URL", value_parser = server_url)]
    server: Option<Url>,
}

pub(crate) async fn run(arguments: &HealthcheckArgs, context: &Context) -> Result<(), Failure> {
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => local(&context.settings()?.server),
    };
    let client = Client::of_this_machine(server)?;
    // One exit code for every failure: container runtimes know only 0 and 1.
    client
        .call(Method::GET, &["livez"], None)
        .await
        .map_err(|failure| Failure::new(Code::Failed, failure.message))?;
    context.output.print(&json!({ "alive": true }), &["alive".to_owned()])
}

/// The address of a server of this machine with these settings.
fn local(settings: &ServerSettings) -> Url {
    let scheme =
        if settings.ops_listen.is_none() && settings.tls_cert_file.is_some() { "https" } else { "http" };
    let listen = settings.ops_listen.unwrap_or(settings.listen);
    let address = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    let text = format!("{scheme}://{}", SocketAddr::new(address, listen.port()));
    Url::parse(&text).expect("a socket address makes a web address")
}
