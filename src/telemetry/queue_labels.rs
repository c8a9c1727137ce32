//! The label `queue` of metrics about tasks. Anybody who may create tasks makes queues, so only queues that
//! `telemetry.queues` names have a label of their own; the tasks of all others are counted under one.

use std::{collections::HashMap, sync::Arc};

use opentelemetry::KeyValue;
use tidings_actors::model::queue_name::QueueName;

/// The name of the label.
pub(super) const QUEUE: &str = "queue";
/// The value for queues that the settings do not name. No queue is called so: a name has a slash.
pub(super) const OTHER: &str = "other";

/// The labels of queues.
#[derive(Debug)]
pub(super) struct QueueLabels {
    named: HashMap<QueueName, KeyValue>,
    other: KeyValue,
}

impl QueueLabels {
    pub(super) fn of(queues: &[QueueName]) -> Self {
        let label = |name: &QueueName| KeyValue::new(QUEUE, Arc::<str>::from(name.to_string()));
        let named = queues.iter().map(|name| (name.clone(), label(name))).collect();
        Self { named, other: KeyValue::new(QUEUE, OTHER) }
    }

    /// The label of a queue.
    pub(super) fn label(&self, queue: &QueueName) -> &KeyValue {
        self.named.get(queue).unwrap_or(&self.other)
    }

    /// The labels of all queues that the settings name, and of the others.
    pub(super) fn all(&self) -> impl Iterator<Item = &KeyValue> {
        self.named.values().chain([&self.other])
    }
}
