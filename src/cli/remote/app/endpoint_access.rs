//! Arguments for the access data of an endpoint: header fields, credentials, certificates. Secrets come from
//! files, standard input (`-`) or the environment, never from the command line, which every user of the
//! machine can read.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::{
    Code, Context, ENDPOINT_SECRET_VARIABLE, Failure,
    secret_file::{self, Purpose},
};

/// Most bytes of a secret on standard input.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// Arguments for header fields of the app's choice (`headers`).
#[derive(Args, Debug)]
pub(in crate::cli) struct HeaderArgs {
    /// Header field to send with each request to the endpoint, its value in a file (`-`: standard input); may
    /// be repeated
    #[arg(long, value_name = "NAME=FILE")]
    header_file: Vec<String>,
}

/// Arguments for the credentials of the endpoint (`endpoint_auth` of an app, `auth` of a sink).
#[derive(Args, Debug)]
pub(in crate::cli) struct AuthArgs {
    /// User name for HTTP basic authentication at the endpoint; the password is the auth secret
    #[arg(long, value_name = "USER", group = "auth")]
    basic: Option<String>,
    /// Use bearer authentication at the endpoint; the token is the auth secret
    #[arg(long, group = "auth")]
    bearer: bool,
    /// Client id at an OAuth 2.0 token server; the client secret is the auth secret
    #[arg(long, value_name = "ID", group = "auth", requires = "oauth2_token_url")]
    oauth2_client: Option<String>,
    /// Address (https://) of the OAuth 2.0 token server that --oauth2-client asks
    #[arg(long, value_name = "URL", requires = "oauth2_client")]
    oauth2_token_url: Option<String>,
    /// Scope to request tokens for, with --oauth2-client; if missing, none is named
    #[arg(long, value_name = "SCOPE", requires = "oauth2_client")]
    oauth2_scope: Option<String>,
    /// Audience to request tokens for, with --oauth2-client; if missing, none is named
    #[arg(long, value_name = "AUDIENCE", requires = "oauth2_client")]
    oauth2_audience: Option<String>,
    /// File that holds the auth secret (`-`: standard input); without this option the variable
    /// TIDINGS_ENDPOINT_SECRET holds it
    #[arg(long, value_name = "FILE", requires = "auth")]
    auth_secret_file: Option<PathBuf>,
}

/// Arguments for the TLS setup of the endpoint (`endpoint_tls` of an app, `tls` of a sink).
#[derive(Args, Debug)]
pub(in crate::cli) struct TlsArgs {
    /// File with the certificate that is presented to the endpoint, and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    client_certificate: Option<PathBuf>,
    /// File with the certificate's private key, in PEM (`-`: standard input)
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key_file: Option<PathBuf>,
    /// File with certificate authorities to trust in addition to the public ones, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Arguments for all access data of the sink of a watch or a subscription.
#[derive(Args, Debug)]
pub(in crate::cli) struct SinkAccessArgs {
    #[command(flatten)]
    headers: HeaderArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Arguments that remove access data of the sink of a watch or a subscription.
#[derive(Args, Debug)]
pub(in crate::cli) struct RemovedArgs {
    /// Remove a header field; may be repeated
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// Remove all header fields: requests to the sink carry none of the app's choice
    #[arg(long, conflicts_with_all = ["header_file", "remove_header"])]
    no_headers: bool,
    /// Send no credentials to the sink
    #[arg(long, group = "auth", conflicts_with = "auth_secret_file")]
    no_auth: bool,
    /// Remove the client certificate and the additional certificate authorities
    #[arg(long, conflicts_with_all = ["client_certificate", "ca_file"])]
    no_tls: bool,
}

/// Reads secrets; standard input can be read once.
#[derive(Default)]
pub(in crate::cli) struct Secrets {
    has_read_input: bool,
}

impl Secrets {
    fn of(&mut self, path: &Path, purpose: Purpose) -> Result<String, Failure> {
        if path != Path::new("-") {
            return Ok(secret_file::read(path, purpose)?.expose().to_owned());
        }
        if std::mem::replace(&mut self.has_read_input, true) {
            return Err(Failure::new(Code::Usage, "standard input holds one secret only"));
        }
        let mut text = String::new();
        let read = io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::new(Code::NoInput, format!("standard input cannot be read: {error}")))?;
        match text.trim() {
            "" => Err(Failure::new(
                Code::Data,
                format!("standard input is empty; the {purpose} is read from it"),
            )),
            text => Ok(text.to_owned()),
        }
    }
}

impl SinkAccessArgs {
    /// Enters the access data into the field `sink` of a body.
    ///
    /// # Errors
    /// If a secret is missing or a file cannot be read.
    pub(in crate::cli) fn enter(
        &self,
        context: &Context,
        sink: &mut Map<String, Value>,
    ) -> Result<(), Failure> {
        let mut secrets = Secrets::default();
        let headers = self.headers.fields(&mut secrets)?;
        sink.extend((!headers.is_empty()).then(|| ("headers".to_owned(), Value::Object(headers))));
        sink.extend(self.auth.field(context, &mut secrets)?.map(|auth| ("auth".to_owned(), auth)));
        sink.extend(self.tls.field(&mut secrets)?.map(|tls| ("tls".to_owned(), tls)));
        Ok(())
    }
}

impl RemovedArgs {
    /// Enters the removals into the field `sink` of a body.
    pub(in crate::cli) fn enter(&self, sink: &mut Map<String, Value>) {
        if self.no_headers {
            sink.insert("headers".to_owned(), Value::Null);
        } else if !self.remove_header.is_empty() {
            let headers = sink.entry("headers").or_insert_with(|| json!({}));
            for name in &self.remove_header {
                headers[name] = Value::Null;
            }
        }
        for (is_removed, name) in [(self.no_auth, "auth"), (self.no_tls, "tls")] {
            sink.extend(is_removed.then(|| (name.to_owned(), Value::Null)));
        }
    }
}

impl HeaderArgs {
    /// The fields with their values.
    ///
    /// # Errors
    /// If a value cannot be read.
    pub(in crate::cli) fn fields(&self, secrets: &mut Secrets) -> Result<Map<String, Value>, Failure> {
        let mut headers = Map::new();
        for given in &self.header_file {
            let (name, file) = given
                .split_once('=')
                .ok_or_else(|| Failure::new(Code::Usage, "--header-file is given as NAME=FILE"))?;
            headers
                .insert(name.to_owned(), Value::String(secrets.of(Path::new(file), Purpose::HeaderValue)?));
        }
        Ok(headers)
    }
}

impl AuthArgs {
    /// The field of the request body for these arguments; `None`: no argument is given.
    ///
    /// # Errors
    /// If a secret is missing or cannot be read.
    pub(in crate::cli) fn field(
        &self,
        context: &Context,
        secrets: &mut Secrets,
    ) -> Result<Option<Value>, Failure> {
        if self.basic.is_none() && !self.bearer && self.oauth2_client.is_none() {
            return Ok(None);
        }
        let secret = match &self.auth_secret_file {
            Some(path) => secrets.of(path, Purpose::EndpointSecret)?,
            None => {
                let secret = context.environment.get(ENDPOINT_SECRET_VARIABLE);
                secret.filter(|secret| !secret.is_empty()).ok_or_else(|| {
                    let text =
                        format!("give the secret with --auth-secret-file or {ENDPOINT_SECRET_VARIABLE}");
                    Failure::new(Code::Usage, text)
                })?
            }
        };
        Ok(Some(if let Some(user) = &self.basic {
            json!({ "basic": { "username": user, "password": secret } })
        } else if let Some(client) = &self.oauth2_client {
            let mut oauth = json!({
                "token_url": self.oauth2_token_url, "client_id": client, "client_secret": secret,
            });
            for (name, value) in [("scope", &self.oauth2_scope), ("audience", &self.oauth2_audience)] {
                if let Some(value) = value {
                    oauth[name] = json!(value);
                }
            }
            json!({ "oauth2": oauth })
        } else {
            json!({ "bearer": { "token": secret } })
        }))
    }
}

impl TlsArgs {
    /// The field of the request body for these arguments; `None`: no argument is given.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(in crate::cli) fn field(&self, secrets: &mut Secrets) -> Result<Option<Value>, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| {
                Failure::new(Code::NoInput, format!("{} cannot be read: {error}", path.display()))
            })
        };
        let mut tls = Map::new();
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key_file) {
            tls.insert("client_certificate".to_owned(), Value::String(read(certificate)?));
            tls.insert("client_key".to_owned(), Value::String(secrets.of(key, Purpose::ClientKey)?));
        }
        if let Some(ca) = &self.ca_file {
            tls.insert("ca".to_owned(), Value::String(read(ca)?));
        }
        Ok((!tls.is_empty()).then_some(Value::Object(tls)))
    }
}
