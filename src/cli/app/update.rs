//! Arguments for the fields of `PATCH /api/app`. Secrets come from files, standard input (`-`) or the
//! environment, never from the command line, which every user of the machine can read.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};
use tidings_entity::kind::RetryPolicy;

use super::{
    super::{Code, Context, Failure, words},
    endpoint_access::{AuthArgs, HeaderArgs, Secrets, TlsArgs},
};

/// The changes of an app that the arguments ask for.
#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    /// URL of the endpoint that receives the changes
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
    /// Send no credentials to the endpoint
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
    /// Whether attempts of one branch may overlap
    #[arg(long, value_parser = PossibleValuesParser::new(["strict", "phased"]))]
    order: Option<String>,
    /// Maximum number of attempts in flight per branch (phased)
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<u32>,
    /// Maximum number of attempts in flight over all branches
    #[arg(long, value_name = "COUNT")]
    max_concurrent: Option<u32>,
    /// Maximum number of requests in any second
    #[arg(long, value_name = "COUNT", value_parser = words::rate)]
    rate: Option<u32>,
    /// The format of bodies
    #[arg(long, value_parser = PossibleValuesParser::new(["docora", "cloudevents"]))]
    format: Option<String>,
    /// How the wait between attempts grows
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(RetryPolicy::ALL.iter().map(|policy| policy.as_str()))
    )]
    retry_policy: Option<String>,
    /// Wait after the first failed attempt, in milliseconds
    #[arg(long, value_name = "MS")]
    retry_base_ms: Option<u64>,
    /// Longest wait between attempts, in milliseconds
    #[arg(long, value_name = "MS")]
    retry_cap_ms: Option<u64>,
    /// How long failures of the endpoint are retried, in milliseconds
    #[arg(long, value_name = "MS")]
    retry_window_ms: Option<u64>,
    /// Send several changes in one request, at most this number
    #[arg(long, value_name = "COUNT")]
    batch_count: Option<u32>,
    /// Maximum size of a batch, in bytes
    #[arg(long, value_name = "BYTES")]
    batch_bytes: Option<u64>,
    /// How long a batch that is not full waits for more changes, in milliseconds
    #[arg(long, value_name = "MS")]
    batch_linger_ms: Option<u64>,
    /// Send one change in each request
    #[arg(long, conflicts_with_all = ["batch_count", "batch_bytes", "batch_linger_ms"])]
    no_batch: bool,
    /// Whether to send /synced after each round
    #[arg(long, value_name = "BOOL")]
    synced: Option<bool>,
    /// Whether to send /resync before each resync
    #[arg(long, value_name = "BOOL")]
    resync: Option<bool>,
    /// Whether to send /sync_recovered when a repository can be read again
    #[arg(long, value_name = "BOOL")]
    sync_recovered: Option<bool>,
    /// Whether the app tells branches apart (by event.cursor), so that it may watch patterns
    #[arg(long, value_name = "BOOL")]
    multi_branch: Option<bool>,
    #[command(flatten)]
    headers: HeaderArgs,
    /// Remove a header field; may be repeated
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// Remove all header fields
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
