//! Arguments for the attempts at one sink: how failed ones are repeated, and how many changes go at once.
//! They are fields of `delivery` of an app and of `sink` of a watch or a subscription.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};
use tidings_entity::kind::RetryPolicy;

/// Arguments for the waits between attempts.
#[derive(Args, Debug)]
pub(in crate::cli) struct RetryArgs {
    /// How the wait between attempts grows from --retry-base-ms to --retry-cap-ms; exp_full_jitter if never
    /// set
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(RetryPolicy::ALL.iter().map(|policy| policy.as_str()))
    )]
    retry_policy: Option<String>,
    /// Wait after the first failed attempt, in milliseconds; if never set, delivery.retry_base of the server
    #[arg(long, value_name = "MS")]
    retry_base_ms: Option<u64>,
    /// Longest wait between attempts, in milliseconds; if never set, delivery.retry_cap of the server
    #[arg(long, value_name = "MS")]
    retry_cap_ms: Option<u64>,
}

/// Arguments for the number of attempts in flight, for batches, and for the end of the retries.
#[derive(Args, Debug)]
pub(in crate::cli) struct LimitArgs {
    /// Maximum number of attempts in flight per branch with the order phased, 1 to 64; 8 if never set
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<u32>,
    /// How long failures of the endpoint are retried before the branch is blocked, in milliseconds; if never
    /// set, delivery.retry_window of the server
    #[arg(long, value_name = "MS")]
    retry_window_ms: Option<u64>,
    /// Send several changes in one request (/batch), at most this number, 2 to 1000
    #[arg(long, value_name = "COUNT")]
    batch_count: Option<u32>,
    /// Maximum size of a batch, in bytes, 65536 to 8388608; 1048576 if never set
    #[arg(long, value_name = "BYTES")]
    batch_bytes: Option<u64>,
    /// How long a batch that is not full waits for more changes, in milliseconds, 0 to 10000; 50 if never set
    #[arg(long, value_name = "MS")]
    batch_linger_ms: Option<u64>,
    /// Send one change in each request, which is the default
    #[arg(long, conflicts_with_all = ["batch_count", "batch_bytes", "batch_linger_ms"])]
    no_batch: bool,
}

impl RetryArgs {
    /// The fields of the request body for the arguments that are given.
    pub(in crate::cli) fn fields(&self) -> Map<String, Value> {
        given([
            ("retry_policy", self.retry_policy.as_ref().map(|policy| json!(policy))),
            ("retry_base_ms", self.retry_base_ms.map(|wait| json!(wait))),
            ("retry_cap_ms", self.retry_cap_ms.map(|wait| json!(wait))),
        ])
    }
}

impl LimitArgs {
    /// The fields of the request body for the arguments that are given.
    pub(in crate::cli) fn fields(&self) -> Map<String, Value> {
        let mut fields = given([
            ("max_in_flight", self.max_in_flight.map(|count| json!(count))),
            ("retry_window_ms", self.retry_window_ms.map(|wait| json!(wait))),
        ]);
        let batch = given([
            ("count", self.batch_count.map(|count| json!(count))),
            ("bytes", self.batch_bytes.map(|bytes| json!(bytes))),
            ("linger_ms", self.batch_linger_ms.map(|wait| json!(wait))),
        ]);
        if self.no_batch {
            fields.insert("batch".to_owned(), Value::Null);
        } else if !batch.is_empty() {
            fields.insert("batch".to_owned(), Value::Object(batch));
        }
        fields
    }
}

fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
