//! Arguments for the fields of `PATCH /api/app`. Secrets come from files, standard input (`-`) or the
//! environment, never from the command line, which every user of the machine can read.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};

use super::{
    attempts::{LimitArgs, RetryArgs},
    endpoint_access::{AuthArgs, HeaderArgs, Secrets, TlsArgs},
};
use crate::cli::{Code, Context, Failure, words};

/// The changes of an app that the arguments ask for.
#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    /// Address that receives the changes (https:// or nats://)
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Let the app pull its changes: Tidings sends nothing
    #[arg(long, conflicts_with = "base_url")]
    pull: bool,
    /// Also send header fields, credentials and client certificate to the new URL if it has another scheme,
    /// host or port
    #[arg(long, requires = "base_url")]
    keep_endpoint_access: bool,
    /// Change nothing unless the endpoint accepts a test delivery
    #[arg(long)]
    test_first: bool,
    /// Send nothing to the app from now on
    #[arg(long)]
    disable: bool,
    /// Send deliveries to the app again after --disable
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    auth: AuthArgs,
    /// Remove the credentials: requests to the endpoint carry none
    #[arg(long, group = "auth", conflicts_with = "auth_secret_file")]
    no_auth: bool,
    #[command(flatten)]
    tls: TlsArgs,
    /// Remove the client certificate and the additional certificate authorities
    #[arg(long, conflicts_with_all = ["client_certificate", "ca_file"])]
    no_tls: bool,
}

/// The fields of `delivery`.
#[derive(Args, Debug)]
struct DeliveryArgs {
    /// Whether attempts of one branch may overlap: strict (one at a time; the default) or phased
    #[arg(long, value_parser = PossibleValuesParser::new(["strict", "phased"]))]
    order: Option<String>,
    /// Maximum number of attempts in flight over all branches, 1 to 1024; if never set,
    /// delivery.app_max_concurrent of the server, which is also the upper limit
    #[arg(long, value_name = "COUNT")]
    max_concurrent: Option<u32>,
    /// Maximum number of requests in any second, 1 to 10000; if never set, delivery.app_rate of the server,
    /// which is also the upper limit
    #[arg(long, value_name = "COUNT", value_parser = words::rate)]
    rate: Option<u32>,
    /// The format of bodies: docora (the default) or cloudevents
    #[arg(long, value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    format: Option<String>,
    #[command(flatten)]
    retries: RetryArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// Whether to send /synced after each round: true or false
    #[arg(long, value_name = "BOOL")]
    synced: Option<bool>,
    /// Whether to send /resync before each resync: true or false
    #[arg(long, value_name = "BOOL")]
    resync: Option<bool>,
    /// Whether to send /sync_recovered when a repository can be read again: true or false
    #[arg(long, value_name = "BOOL")]
    sync_recovered: Option<bool>,
    /// Whether the app tells branches apart (by event.cursor), so that it may watch patterns: true or false
    #[arg(long, value_name = "BOOL")]
    multi_branch: Option<bool>,
    #[command(flatten)]
    headers: HeaderArgs,
    /// Remove the header field of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// Remove all header fields that requests to the endpoint carry
    #[arg(long, conflicts_with_all = ["header_file", "remove_header"])]
    no_headers: bool,
}

impl UpdateArgs {
    /// The body of the change.
    ///
    /// # Errors
    /// A secret that cannot be read, or nothing to change.
    pub(super) fn body(&self, context: &Context) -> Result<Value, Failure> {
        let mut secrets = Secrets::default();
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
        let auth = self.no_auth.then_some(Value::Null);
        if let Some(auth) =
            auth.map_or_else(|| self.auth.field(context, &mut secrets), |none| Ok(Some(none)))?
        {
            body.insert("endpoint_auth".to_owned(), auth);
        }
        let tls = self.no_tls.then_some(Value::Null);
        if let Some(tls) = tls.map_or_else(|| self.tls.field(&mut secrets), |none| Ok(Some(none)))? {
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
            ("max_concurrent", self.max_concurrent.map(|count| json!(count))),
            ("rate", self.rate.map(|count| json!(count))),
            ("format", self.format.as_ref().map(|text| json!(text))),
            ("synced", self.synced.map(|wanted| json!(wanted))),
            ("resync", self.resync.map(|wanted| json!(wanted))),
            ("sync_recovered", self.sync_recovered.map(|wanted| json!(wanted))),
            ("multi_branch", self.multi_branch.map(|wanted| json!(wanted))),
        ] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
        fields.extend(self.retries.fields());
        fields.extend(self.limits.fields());
        let mut headers = self.headers.fields(secrets)?;
        headers.extend(self.remove_header.iter().map(|name| (name.clone(), Value::Null)));
        if self.no_headers {
            fields.insert("headers".to_owned(), Value::Null);
        } else if !headers.is_empty() {
            fields.insert("headers".to_owned(), Value::Object(headers));
        }
        Ok(fields)
    }
}
