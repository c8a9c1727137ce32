//! What an app changes of itself, as arguments: the fields of `PATCH /api/app`. Secrets come from
//! files, standard input (`-`) or the environment, never from the command line, which everybody on
//! the machine can read.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};
use tidings_entity::kind::RetryPolicy;

use super::super::{
    Code, Context, ENDPOINT_SECRET_VARIABLE, Failure,
    secret_file::{self, Purpose},
    words,
};

/// Most bytes of a secret on standard input.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// The changes.
#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    /// Where the app receives
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Receives nowhere; the app asks for what is pending
    #[arg(long, conflicts_with = "base_url")]
    pull: bool,
    /// Send header fields, credentials and client certificate to the new URL as well, although it is
    /// elsewhere
    #[arg(long, requires = "base_url")]
    keep_endpoint_access: bool,
    /// Change nothing unless the endpoint takes a test delivery
    #[arg(long)]
    test_first: bool,
    /// Send nothing to the app from now on
    #[arg(long)]
    disable: bool,
    /// Serve it again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// The fields of `delivery`.
#[derive(Args, Debug)]
struct DeliveryArgs {
    /// Whether sends of one branch may overlap
    #[arg(long, value_parser = PossibleValuesParser::new(["strict", "phased"]))]
    order: Option<String>,
    /// Most attempts in flight per branch (phased)
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<u32>,
    /// Most attempts in flight over all branches
    #[arg(long, value_name = "COUNT")]
    max_concurrent: Option<u32>,
    /// Most requests in any second
    #[arg(long, value_name = "COUNT", value_parser = words::rate)]
    rate: Option<u32>,
    /// What bodies look like
    #[arg(long, value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    format: Option<String>,
    /// How the wait between tries grows
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(RetryPolicy::ALL.iter().map(|policy| policy.as_str()))
    )]
    retry_policy: Option<String>,
    /// The first wait, in milliseconds
    #[arg(long, value_name = "MS")]
    retry_base_ms: Option<u64>,
    /// The longest wait, in milliseconds
    #[arg(long, value_name = "MS")]
    retry_cap_ms: Option<u64>,
    /// How long endpoint failures are retried, in milliseconds
    #[arg(long, value_name = "MS")]
    retry_window_ms: Option<u64>,
    /// Many changes in one request, at most so many
    #[arg(long, value_name = "COUNT")]
    batch_count: Option<u32>,
    /// Most bytes of a batch
    #[arg(long, value_name = "BYTES")]
    batch_bytes: Option<u64>,
    /// How long a batch that is not full waits, in milliseconds
    #[arg(long, value_name = "MS")]
    batch_linger_ms: Option<u64>,
    /// One change in each request
    #[arg(long, conflicts_with_all = ["batch_count", "batch_bytes", "batch_linger_ms"])]
    no_batch: bool,
    /// Whether /synced follows each round
    #[arg(long, value_name = "BOOL")]
    synced: Option<bool>,
    /// Whether /resync announces each resync
    #[arg(long, value_name = "BOOL")]
    resync: Option<bool>,
    /// Whether /sync_recovered is sent
    #[arg(long, value_name = "BOOL")]
    sync_recovered: Option<bool>,
    /// The app keeps branches apart (by event.cursor), so patterns may be watched
    #[arg(long, value_name = "BOOL")]
    multi_branch: Option<bool>,
    /// A header field of each request, its value in a file (`-`: standard input); may be repeated
    #[arg(long, value_name = "NAME=FILE")]
    header_file: Vec<String>,
    /// Takes a header field away; may be repeated
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// Takes all header fields away
    #[arg(long, conflicts_with_all = ["header_file", "remove_header"])]
    no_headers: bool,
}

/// `endpoint_auth`.
#[derive(Args, Debug)]
struct AuthArgs {
    /// User of HTTP basic authentication; the password is the auth secret
    #[arg(long, value_name = "USER", group = "auth")]
    basic: Option<String>,
    /// Bearer authentication; the token is the auth secret
    #[arg(long, group = "auth")]
    bearer: bool,
    /// Client of an OAuth 2.0 token server; its secret is the auth secret
    #[arg(long, value_name = "ID", group = "auth", requires = "oauth2_token_url")]
    oauth2_client: Option<String>,
    /// No authentication
    #[arg(long, group = "auth")]
    no_auth: bool,
    /// Where tokens are asked for
    #[arg(long, value_name = "URL", requires = "oauth2_client")]
    oauth2_token_url: Option<String>,
    /// What is asked for
    #[arg(long, value_name = "SCOPE", requires = "oauth2_client")]
    oauth2_scope: Option<String>,
    /// Whom tokens are for
    #[arg(long, value_name = "AUDIENCE", requires = "oauth2_client")]
    oauth2_audience: Option<String>,
    /// File that holds the auth secret (`-`: standard input); else the variable
    /// TIDINGS_ENDPOINT_SECRET has it
    #[arg(long, value_name = "FILE", requires = "auth", conflicts_with = "no_auth")]
    auth_secret_file: Option<PathBuf>,
}

/// `endpoint_tls`.
#[derive(Args, Debug)]
struct TlsArgs {
    /// File with the certificate that is shown to the endpoint, and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    client_certificate: Option<PathBuf>,
    /// File with its key, in PEM (`-`: standard input)
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key_file: Option<PathBuf>,
    /// File with the authorities to trust beside the public ones, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Neither certificate nor authorities of its own
    #[arg(long, conflicts_with_all = ["client_certificate", "ca_file"])]
    no_tls: bool,
}

/// Reads secrets; standard input can be read once.
struct Secrets {
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

impl UpdateArgs {
    /// The body of the change.
    ///
    /// # Errors
    /// A secret that cannot be read, or nothing to change.
    pub(super) fn body(&self, context: &Context) -> Result<Value, Failure> {
        let mut secrets = Secrets { has_read_input: false };
        let mut body = Map::new();
        if let Some(url) = &self.base_url {
            body.insert("base_url".to_owned(), json!(url));
        }
        if self.keep_endpoint_access {
            body.insert("keep_endpoint_access".to_owned(), json!(true));
        }
        if self.pull {
            body.insert("base_url".to_owned(), Value::Null);
        }
        if self.disable || self.enable {
            body.insert("disabled".to_owned(), json!(self.disable));
        }
        let delivery = self.delivery.fields(&mut secrets)?;
        if !delivery.is_empty() {
            body.insert("delivery".to_owned(), Value::Object(delivery));
        }
        if let Some(auth) = self.auth.field(context, &mut secrets)? {
            body.insert("endpoint_auth".to_owned(), auth);
        }
        if let Some(tls) = self.tls.field(&mut secrets)? {
            body.insert("endpoint_tls".to_owned(), tls);
        }
        if body.is_empty() {
            return Err(Failure::new(
                Code::Usage,
                "name something to change (see tidings app update --help)",
            ));
        }
        if self.test_first {
            body.insert("test_first".to_owned(), json!(true));
        }
        Ok(Value::Object(body))
    }
}

impl DeliveryArgs {
    fn fields(&self, secrets: &mut Secrets) -> Result<Map<String, Value>, Failure> {
        let mut fields = Map::new();
        for (name, value) in [
            ("order", self.order.as_ref().map(|text| json!(text))),
            ("max_in_flight", self.max_in_flight.map(|count| json!(count))),
            ("max_concurrent", self.max_concurrent.map(|count| json!(count))),
            ("rate", self.rate.map(|count| json!(count))),
            ("format", self.format.as_ref().map(|text| json!(text))),
            ("retry_policy", self.retry_policy.as_ref().map(|text| json!(text))),
            ("retry_base_ms", self.retry_base_ms.map(|wait| json!(wait))),
            ("retry_cap_ms", self.retry_cap_ms.map(|wait| json!(wait))),
            ("retry_window_ms", self.retry_window_ms.map(|wait| json!(wait))),
            ("synced", self.synced.map(|wanted| json!(wanted))),
            ("resync", self.resync.map(|wanted| json!(wanted))),
            ("sync_recovered", self.sync_recovered.map(|wanted| json!(wanted))),
            ("multi_branch", self.multi_branch.map(|wanted| json!(wanted))),
        ] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
        let mut batch = Map::new();
        for (name, value) in [
            ("count", self.batch_count.map(u64::from)),
            ("bytes", self.batch_bytes),
            ("linger_ms", self.batch_linger_ms),
        ] {
            if let Some(value) = value {
                batch.insert(name.to_owned(), json!(value));
            }
        }
        if self.no_batch {
            fields.insert("batch".to_owned(), Value::Null);
        } else if !batch.is_empty() {
            fields.insert("batch".to_owned(), Value::Object(batch));
        }
        let mut headers = Map::new();
        for given in &self.header_file {
            let (name, file) = given
                .split_once('=')
                .ok_or_else(|| Failure::new(Code::Usage, "--header-file is given as NAME=FILE"))?;
            headers
                .insert(name.to_owned(), Value::String(secrets.of(Path::new(file), Purpose::HeaderValue)?));
        }
        headers.extend(self.remove_header.iter().map(|name| (name.clone(), Value::Null)));
        if self.no_headers {
            fields.insert("headers".to_owned(), Value::Null);
        } else if !headers.is_empty() {
            fields.insert("headers".to_owned(), Value::Object(headers));
        }
        Ok(fields)
    }
}

impl AuthArgs {
    fn field(&self, context: &Context, secrets: &mut Secrets) -> Result<Option<Value>, Failure> {
        if self.no_auth {
            return Ok(Some(Value::Null));
        }
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
    fn field(&self, secrets: &mut Secrets) -> Result<Option<Value>, Failure> {
        if self.no_tls {
            return Ok(Some(Value::Null));
        }
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
