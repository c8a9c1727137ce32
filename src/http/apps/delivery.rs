//! The delivery settings of an app: the schemas of the OpenAPI document, which a test compares with the
//! settings themselves, and reading them from a body.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidings_actors::{
    model::sink::SinkAddress,
    ports::{BatchSettings, DeliverySettings},
};
use tidings_entity::kind::{OrderMode, PayloadFormat, RetryPolicy, SinkKind};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Type},
};

use crate::http::bodies::{
    body::body,
    decoding::{in_words, unknown_field},
    fields::{Fields, shown_name},
};

/// Most attempts of one cursor in flight (`phased`).
const IN_FLIGHT_MAX: u32 = 64;
/// Most attempts in flight that an app may ask for over all its cursors.
const CONCURRENT_MAX: u32 = 1_024;
/// Most requests a second that an app may ask for.
const RATE_MAX: u32 = 10_000;

body! {
    /// Delivery settings of an app. A setting that is missing keeps its value; in a registration it gets its
    /// default.
    pub(super) struct DeliverySettingsRequest {
        #[schema(schema_with = orders, required = false)]
        order: String,
        /// Most attempts of one branch in flight at once with `order: phased`, 1 to 64. Default 8.
        #[schema(nullable = false)]
        max_in_flight: Option<u32>,
        /// Most attempts in flight at once over all branches, 1 to 1,024. Null: the server's setting, which
        /// is also the upper limit.
        max_concurrent: Option<u32>,
        /// Most requests per second, including chunks, retries and notices, 1 to 10,000. Null: the server's
        /// setting, which is also the upper limit.
        rate: Option<u32>,
        /// Settings for sending many changes in one request (`/batch`). Null (default): one change per
        /// request.
        batch: Option<BatchSettingsRequest>,
        #[schema(schema_with = formats, required = false)]
        format: String,
        #[schema(schema_with = policies, required = false)]
        retry_policy: String,
        /// Wait before the first retry, in milliseconds. Null: the server's setting.
        retry_base_ms: Option<u64>,
        /// Longest wait between two attempts, in milliseconds. Null: the server's setting.
        retry_cap_ms: Option<u64>,
        /// How long failures of the endpoint are retried before the branch is blocked, in milliseconds. Null:
        /// the server's setting.
        retry_window_ms: Option<u64>,
        /// Whether `/synced` is sent after each round.
        #[schema(nullable = false)]
        synced: Option<bool>,
        /// Whether `/resync` is sent before each resync.
        #[schema(nullable = false)]
        resync: Option<bool>,
        /// Whether `/sync_recovered` is sent when a source can be scanned again.
        #[schema(nullable = false)]
        sync_recovered: Option<bool>,
        /// Whether the app keeps files of different branches apart. Only such an app may watch patterns of
        /// branches and tags.
        #[schema(nullable = false)]
        multi_branch: Option<bool>,
        /// At most 16 header fields, 8 KiB with their values, that are sent with each request. A text sets a
        /// field, null removes the field; `headers: null` removes all. Stored sealed and not shown again.
        headers: Option<BTreeMap<String, Option<String>>>,
    }
}

body! {
    /// Size of a batch. A field that is missing has its default.
    struct BatchSettingsRequest {
        /// Most changes in one request, 2 to 1,000. Default 100.
        #[schema(nullable = false)]
        count: Option<u32>,
        /// Most bytes of the bodies of all changes in one request, 65,536 to 8,388,608. Default 1,048,576. A
        /// larger change is sent alone.
        #[schema(nullable = false)]
        bytes: Option<u64>,
        /// How long a batch that is not full waits for changes that are still being read, in milliseconds, 0
        /// to 10,000. Default 50.
        #[schema(nullable = false)]
        linger_ms: Option<u64>,
    }
}

/// Delivery settings of an app. The schema `DeliverySettingsRequest` explains each field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the settings themselves are written as")]
pub(super) struct DeliverySettingsShown {
    #[schema(schema_with = orders)]
    order: String,
    max_in_flight: u32,
    #[schema(required = true)]
    max_concurrent: Option<u32>,
    #[schema(required = true)]
    rate: Option<u32>,
    #[schema(required = true)]
    batch: Option<BatchSettingsShown>,
    #[schema(schema_with = formats)]
    format: String,
    #[schema(schema_with = policies)]
    retry_policy: String,
    #[schema(required = true)]
    retry_base_ms: Option<u64>,
    #[schema(required = true)]
    retry_cap_ms: Option<u64>,
    #[schema(required = true)]
    retry_window_ms: Option<u64>,
    synced: bool,
    resync: bool,
    sync_recovered: bool,
    multi_branch: bool,
}

/// Size of a batch. The schema `BatchSettingsRequest` explains each field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the settings themselves are written as")]
struct BatchSettingsShown {
    count: u32,
    bytes: u64,
    linger_ms: u64,
}

fn orders() -> ObjectBuilder {
    let meaning = "`strict` (default): one change at a time. `phased`: deletes, then creates, then updates; \
        at most `max_in_flight` changes of one kind at once.";
    words(OrderMode::ALL.iter().map(|word| word.as_str()), meaning)
}

fn formats() -> ObjectBuilder {
    let meaning = "Format of the bodies, from the next round of each branch on. Default `docora`. A stream \
        has `cloudevents`, and an app that leaves a stream has its own format again. A `base_url` of another \
        kind (web address, stream, none) applies to open rounds as well.";
    words(PayloadFormat::ALL.iter().map(|word| word.as_str()), meaning)
}

fn policies() -> ObjectBuilder {
    let meaning = "Growth of the wait between attempts. Default `exp_full_jitter`.";
    words(RetryPolicy::ALL.iter().map(|word| word.as_str()), meaning)
}

fn words(all: impl Iterator<Item = &'static str>, meaning: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(all)).description(Some(meaning))
}

/// The present settings with those of the body applied; and `headers`, separately because they are secret.
/// The settings are for this address, which the body may change as well.
pub(super) fn read_delivery(
    fields: &mut Fields,
    receives_at: &SinkAddress,
    now: &DeliverySettings,
) -> (Option<DeliverySettings>, Option<Value>) {
    let Some(mut named) = fields.object::<Map<String, Value>>("delivery") else { return (None, None) };
    let headers = named.remove("headers");
    if named.remove("window").is_some() {
        fields.refuse("delivery/window", "is only for sinks of the kind tasks");
    }
    let is_plain = named.get("format").is_some_and(|format| format == PayloadFormat::Docora.as_str());
    if is_plain && receives_at.kind() == SinkKind::Stream {
        fields.refuse("delivery/format", "must be cloudevents, which streams carry");
    }
    (read_settings(fields, named, now), headers)
}

fn read_settings(
    fields: &mut Fields,
    named: Map<String, Value>,
    now: &DeliverySettings,
) -> Option<DeliverySettings> {
    let each = named.clone();
    match laid_over(now, named) {
        Ok(delivery) => {
            check_delivery(fields, &delivery);
            return Some(delivery);
        }
        // The decoder names no field: each is tried alone.
        Err(_) => {
            for (name, value) in each {
                if let Err(error) = laid_over(now, Map::from_iter([(name.clone(), value)])) {
                    let is_unknown = unknown_field(&error).as_ref() == Some(&name);
                    let fault =
                        if is_unknown { "there is no such field".to_owned() } else { in_words(&error) };
                    fields.refuse(&format!("delivery/{}", shown_name(&name)), fault);
                }
            }
        }
    }
    None
}

/// The present settings with the settings of the body applied.
fn laid_over(
    now: &DeliverySettings,
    named: Map<String, Value>,
) -> Result<DeliverySettings, serde_json::Error> {
    let mut all = serde_json::to_value(now)?;
    if let Some(all) = all.as_object_mut() {
        lay_over(all, named);
    }
    serde_json::from_value(all)
}

/// Applies the named settings to the present ones; limits of batches that are not named stay as they are.
fn lay_over(all: &mut Map<String, Value>, named: Map<String, Value>) {
    for (name, value) in named {
        match value {
            Value::Object(value) if all.get(&name).is_some_and(Value::is_object) => {
                if let Some(inner) = all.get_mut(&name).and_then(Value::as_object_mut) {
                    lay_over(inner, value);
                }
            }
            value => drop(all.insert(name, value)),
        }
    }
}

fn check_delivery(fields: &mut Fields, delivery: &DeliverySettings) {
    if !(1..=IN_FLIGHT_MAX).contains(&delivery.max_in_flight) {
        fields.refuse("delivery/max_in_flight", format!("must lie between 1 and {IN_FLIGHT_MAX}"));
    }
    if delivery.max_concurrent.is_some_and(|most| !(1..=CONCURRENT_MAX).contains(&most)) {
        fields.refuse("delivery/max_concurrent", format!("must lie between 1 and {CONCURRENT_MAX}"));
    }
    if delivery.rate.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate)) {
        fields.refuse("delivery/rate", format!("must lie between 1 and {RATE_MAX}"));
    }
    if let Some(BatchSettings { count, bytes, linger_ms }) = delivery.batch {
        let mut check = |name: &str, is_within: bool, from: u64, to: u64| {
            if !is_within {
                fields.refuse(&format!("delivery/batch/{name}"), format!("must lie between {from} and {to}"));
            }
        };
        let (counts, sizes, lingers) = (BatchSettings::COUNT, BatchSettings::BYTES, BatchSettings::LINGER_MS);
        check("count", counts.contains(&count), (*counts.start()).into(), (*counts.end()).into());
        check("bytes", sizes.contains(&bytes), *sizes.start(), *sizes.end());
        check("linger_ms", lingers.contains(&linger_ms), *lingers.start(), *lingers.end());
    }
    for (name, wait) in [
        ("retry_base_ms", delivery.retry_base_ms),
        ("retry_cap_ms", delivery.retry_cap_ms),
        ("retry_window_ms", delivery.retry_window_ms),
    ] {
        if wait == Some(0) {
            fields.refuse(&format!("delivery/{name}"), "must be 1 or more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use utoipa::PartialSchema;

    fn fields(value: &Value) -> BTreeSet<String> {
        value.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect()
    }

    fn documented<S: PartialSchema>() -> BTreeSet<String> {
        let schema = serde_json::to_value(S::schema()).expect("JSON");
        fields(&schema["properties"])
    }

    #[test]
    fn each_setting_is_documented_and_nothing_else_is() {
        let all = DeliverySettings { batch: Some(BatchSettings::default()), ..DeliverySettings::default() };
        let settings = serde_json::to_value(all).expect("JSON");
        assert_eq!(documented::<DeliverySettingsShown>(), fields(&settings));
        let mut names = documented::<DeliverySettingsRequest>();
        assert!(names.remove("headers"), "kept apart, because it is secret");
        assert_eq!(names, fields(&settings));
        assert_eq!(documented::<BatchSettingsShown>(), fields(&settings["batch"]));
        assert_eq!(documented::<BatchSettingsRequest>(), fields(&settings["batch"]));
    }

    #[test]
    fn a_wish_requires_nothing() {
        for schema in [DeliverySettingsRequest::schema(), BatchSettingsRequest::schema()] {
            let schema = serde_json::to_value(schema).expect("JSON");
            assert!(schema["required"].is_null(), "{}", schema["required"]);
        }
    }
}
