//! The fields of a sink that sends mails: `kind`, `to`, and how the waits between tries grow. Everything
//! else is a matter of the server's settings.

use serde_json::{Map, Value};
use tidings_actors::{
    model::sink::SinkAddress,
    ports::{App, DeliverySettings, EndpointAccess, NewSink, OwnSink},
};
use tidings_entity::{id::SinkId, kind::SinkKind};

use super::delivery::read_delivery;
use crate::{
    http::{bodies::fields::Fields, front::Front},
    sinks::mail::{
        RECIPIENTS_MAX,
        address::{self, AllowList},
    },
};

/// The fields of a sink that sends mails.
const FIELDS: [&str; 5] = ["kind", "to", "retry_policy", "retry_base_ms", "retry_cap_ms"];

/// Whether a request body is about a sink that sends mails.
pub(super) fn is_meant(wish: &Map<String, Value>, now: Option<&OwnSink>) -> bool {
    match wish.get("kind") {
        Some(kind) => kind == SinkKind::Mail.as_str(),
        None if wish.contains_key("url") => false,
        None => wish.contains_key("to") || now.is_some_and(|now| now.address.kind() == SinkKind::Mail),
    }
}

/// Reads a sink that sends mails; `None`: a fault was recorded.
pub(super) fn read(
    front: &Front,
    fields: &mut Fields,
    mut wish: Map<String, Value>,
    (app, now): (&App, Option<&OwnSink>),
) -> Option<NewSink> {
    let mail = &front.settings.mail;
    if mail.server.is_none() {
        let text = "this server sends no mail: its operator sets mail.server and mail.from";
        fields.refuse("sink/kind", text);
        return None;
    }
    let foreign: Vec<String> = wish.keys().filter(|name| !FIELDS.contains(&name.as_str())).cloned().collect();
    for name in foreign {
        wish.remove(&name);
        fields.refuse(&format!("sink/{name}"), "is no field of a sink that sends mails");
    }
    wish.remove("kind");
    let now = now.filter(|now| now.address.kind() == SinkKind::Mail);
    let address = match wish.remove("to") {
        Some(to) => SinkAddress::of_mail(&recipients(fields, &to, app, &front.settings.mail_allow())),
        None => {
            let kept = now.map(|now| now.address.clone());
            if kept.is_none() {
                fields.refuse("sink/to", "is required: one to ten mail addresses");
            }
            kept?
        }
    };
    let begin = now.map_or_else(DeliverySettings::default, |now| now.delivery.clone());
    let mut inner = Map::new();
    inner.insert("delivery".to_owned(), Value::Object(wish));
    let mut inner = Fields::of_object(inner);
    let (delivery, _) = read_delivery(&mut inner, &address, &begin);
    fields.adopt(inner, |name| name.replacen("delivery", "sink", 1));
    Some(NewSink {
        id: SinkId::new(front.random.ulid(front.clock.now())),
        address,
        access: EndpointAccess::default(),
        delivery: delivery.unwrap_or(begin),
        signing_key: None,
    })
}

/// The named recipients, if all are allowed; faults are recorded.
fn recipients(fields: &mut Fields, to: &Value, app: &App, allow: &AllowList) -> Vec<String> {
    let one = [to.clone()];
    let all = match to {
        Value::Array(all) => all.as_slice(),
        _ => &one,
    };
    if all.is_empty() || all.len() > RECIPIENTS_MAX {
        fields.refuse("sink/to", format!("must name 1 to {RECIPIENTS_MAX} mail addresses"));
        return Vec::new();
    }
    let mut found: Vec<String> = Vec::new();
    for (at, value) in all.iter().enumerate() {
        let name = format!("sink/to/{at}");
        let Some(text) = value.as_str() else {
            fields.refuse(&name, "must be a text");
            continue;
        };
        if let Err(fault) = address::parsed(text) {
            fields.refuse(&name, fault.to_string());
        } else if !allow.permits(text, app.contact()) {
            let shown = text.chars().take(100).collect::<String>();
            fields.refuse(&name, format!("{shown} is no address that mails may go to (mail.allow: {allow})"));
        } else if !found.iter().any(|known| known.eq_ignore_ascii_case(text)) {
            found.push(text.to_owned());
        }
    }
    found
}
