//! The fields of a sink whose changes become tasks: `kind`, `command`, `per`, `window` and `format`.

use serde_json::{Map, Value};
use tidings_actors::{
    model::sink::SinkAddress,
    ports::{COMMAND_MAX, DeliverySettings, EndpointAccess, NewSink, OwnSink, WINDOW_MAX},
};
use tidings_entity::{id::SinkId, kind::SinkKind};

use crate::http::{bodies::fields::Fields, front::Front, tasks::check_command};

/// One task for each change, or one for each round.
const PER: [&str; 2] = ["change", "round"];

/// What each task of a sink is about.
pub(super) fn per(delivery: &DeliverySettings) -> &'static str {
    PER[usize::from(delivery.per_round)]
}

/// Whether a request body is about a sink whose changes become tasks.
pub(super) fn is_meant(wish: &Map<String, Value>, now: Option<&OwnSink>) -> bool {
    match wish.get("kind") {
        Some(kind) => kind == SinkKind::Tasks.as_str(),
        None if wish.contains_key("url") => false,
        None => wish.contains_key("command") || now.is_some_and(|now| now.address.command().is_some()),
    }
}

/// Reads a sink whose changes become tasks; `None`: a fault was recorded.
pub(super) fn read(
    front: &Front,
    fields: &mut Fields,
    mut wish: Map<String, Value>,
    now: Option<&OwnSink>,
) -> Option<NewSink> {
    wish.remove("kind");
    let now = now.filter(|now| now.address.command().is_some());
    let mut inner = Fields::of_object(wish);
    let command = read_command(&mut inner, now);
    let mut delivery = now.map_or_else(DeliverySettings::default, |now| now.delivery.clone());
    if let Some(format) = inner.word("format", "docora, cloudevents") {
        delivery.format = format;
    }
    if let Some(window) = inner.number_within("window", 1..=WINDOW_MAX.into()) {
        delivery.window = u32::try_from(window).ok();
    }
    if let Some(word) = inner.text("per", 0..=usize::MAX) {
        match PER.iter().position(|known| *known == word) {
            Some(index) => delivery.per_round = index == 1,
            None => inner.refuse("per", format!("must be one of: {}", PER.join(", "))),
        }
    }
    fields.adopt(inner, |name| format!("sink/{name}"));
    Some(NewSink {
        id: SinkId::new(front.random.ulid(front.clock.now())),
        address: SinkAddress::Tasks(command?),
        access: EndpointAccess::default(),
        delivery,
        signing_key: None,
    })
}

fn read_command(inner: &mut Fields, now: Option<&OwnSink>) -> Option<String> {
    let kept = now.and_then(|now| now.address.command()).map(str::to_owned);
    if !inner.has("command") {
        if kept.is_none() {
            inner.refuse("command", "is required: the command of the tasks, which workers name");
        }
        return kept;
    }
    let command = inner.text("command", 0..=COMMAND_MAX)?;
    if let Err(fault) = check_command(&command) {
        inner.refuse("command", fault);
        return None;
    }
    Some(command)
}
