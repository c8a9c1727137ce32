//! Topics: queues as clients of codeQ declare them. In codeQ no queue reads a topic; here the numbers of its
//! policy are settings of the queue with the same name.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidings_actors::ports::{Queue, StoreError, TopicPolicy};
use utoipa::ToSchema;

use super::{bodies::read, check_command, owner, texts};
use crate::http::{
    bodies::{
        moment::iso,
        paging::Query,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
    tasks::claims::nothing,
};

/// Most characters of a name: a DNS label.
const NAME_MAX: usize = 63;
/// Most priorities, and the highest one.
const TIERS_MAX: usize = 10;
const TIER_MAX: u16 = 10;
/// Most attempts, seconds of retention and consumers.
const ATTEMPTS_MAX: u32 = 100;
const RETENTION_MAX: u64 = 2_147_483_647;
const CONSUMERS_MAX: u64 = 10_000;
/// The word without which no topic is removed.
const DELETE: &str = "Delete";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route::<__path_set, _, _>(Access::App(Permission::QueuesUpdate), set),
        route::<__path_show, _, _>(Access::App(Permission::QueuesRead), show),
        route::<__path_remove, _, _>(Access::App(Permission::QueuesUpdate), remove),
    ]
}

/// The policy of a topic. Unknown fields are refused.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CodeqTopicPolicy)]
struct Policy {
    /// Priorities of its tasks, 1 to 10 different numbers from 0 to 10. Kept and shown, without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority_tiers: Option<Vec<u16>>,
    /// Number of attempts after which a task is dead, 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    /// Name of the topic for dead tasks. Kept and shown, without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_topic_ref: Option<String>,
    /// Seconds for which a task is kept after its end, at most 2,147,483,647. Missing or 0: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_seconds: Option<u64>,
    /// Most tasks that are claimed at once, at most 10,000. Missing or 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_consumers: Option<u64>,
}

impl Policy {
    /// Checks the policy of the topic with this name.
    fn checked(self, name: &str) -> Result<TopicPolicy, Problem> {
        let refused = |field: &str, reason: String| Err(Problem::invalid_field(field, reason));
        let mut tiers = self.priority_tiers.clone().unwrap_or_default();
        tiers.sort_unstable();
        tiers.dedup();
        let is_whole = self
            .priority_tiers
            .as_ref()
            .is_none_or(|asked| (1..=TIERS_MAX).contains(&asked.len()) && asked.len() == tiers.len());
        if !is_whole || tiers.last().is_some_and(|tier| *tier > TIER_MAX) {
            let reason = format!("must be 1 to {TIERS_MAX} different numbers from 0 to {TIER_MAX}");
            return refused("priorityTiers", reason);
        }
        if self.max_attempts.is_some_and(|most| !(1..=ATTEMPTS_MAX).contains(&most)) {
            return refused("maxAttempts", format!("must be 1 to {ATTEMPTS_MAX}"));
        }
        if self.dead_letter_topic_ref.as_deref().is_some_and(|other| !is_label(other) || other == name) {
            return refused("deadLetterTopicRef", "must be the name of another topic".to_owned());
        }
        if self.retention_seconds.is_some_and(|seconds| seconds > RETENTION_MAX) {
            return refused("retentionSeconds", format!("must be 0 to {RETENTION_MAX}"));
        }
        if self.max_consumers.is_some_and(|most| most > CONSUMERS_MAX) {
            return refused("maxConsumers", format!("must be 0 to {CONSUMERS_MAX}"));
        }
        Ok(TopicPolicy {
            priority_tiers: self.priority_tiers.unwrap_or_default(),
            max_attempts: self.max_attempts,
            dead_letter_topic: self.dead_letter_topic_ref,
            retention_seconds: self.retention_seconds,
            max_consumers: self.max_consumers,
        })
    }

    fn of(policy: &TopicPolicy) -> Self {
        let tiers = &policy.priority_tiers;
        Self {
            priority_tiers: (!tiers.is_empty()).then(|| tiers.clone()),
            max_attempts: policy.max_attempts,
            dead_letter_topic_ref: policy.dead_letter_topic.clone(),
            retention_seconds: policy.retention_seconds,
            max_consumers: policy.max_consumers,
        }
    }
}

/// A topic as clients of codeQ read it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqTopic)]
struct TopicShown {
    /// Id of the queue.
    topic_id: String,
    /// Id of the app.
    tenant_id: String,
    /// Name of the topic, which is the command of the queue.
    topic_name: String,
    policy: Policy,
    /// Rises by one with each change of the policy.
    version: u64,
    /// When the topic was declared.
    created_at: String,
    /// When the policy last changed.
    updated_at: String,
}

impl TopicShown {
    /// The topic of a queue; `None`: nobody declared one.
    fn of(queue: &Queue) -> Option<Self> {
        let topic = queue.settings.topic.as_ref()?;
        Some(Self {
            topic_id: queue.id.to_string(),
            tenant_id: queue.app.to_string(),
            topic_name: queue.command.clone(),
            policy: Policy::of(&topic.policy),
            version: topic.version,
            created_at: iso(topic.created_at),
            updated_at: iso(topic.updated_at),
        })
    }
}

/// Declares a topic, or changes its policy. The same policy again changes nothing.
#[utoipa::path(put, path = "/v1/codeq/admin/topics/{name}", tag = "codeq", params(("name" = String, Path)),
    request_body = Policy, responses(
        (status = 200, body = TopicShown, description = "The topic was there before."),
        (status = 201, body = TopicShown),
        (status = 409, description = "The app has reached its limit of queues.")
    ))]
async fn set(front: Arc<Front>, request: Request) -> Answer {
    let name = name(&request)?;
    let policy = read::<Policy>(&request.body)?.checked(name)?;
    let now = front.clock.now();
    let queue = front.tasks.set_topic(&owner(&request)?.id, name, Some(&policy), now).await;
    let shown = TopicShown::of(&queue.map_err(failed)?).ok_or_else(|| Problem::new(Kind::INTERNAL))?;
    let is_new = shown.version == 1 && shown.created_at == iso(now);
    Ok(json(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &shown))
}

/// Shows a topic with its policy.
#[utoipa::path(get, path = "/v1/codeq/admin/topics/{name}", tag = "codeq", params(("name" = String, Path)),
    responses((status = 200, body = TopicShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let queue = front.tasks.queue(&owner(&request)?.id, name(&request)?).await.map_err(failed)?;
    Ok(json(StatusCode::OK, &TopicShown::of(&queue).ok_or_else(missing)?))
}

/// Removes a topic. The queue and its tasks stay; the settings that the topic made have their defaults again.
#[utoipa::path(delete, path = "/v1/codeq/admin/topics/{name}", tag = "codeq",
    params(
        ("name" = String, Path),
        ("deletionPolicy" = String, Query, description = "`Delete`: without this word nothing is removed."),
    ),
    responses((status = 204)))]
async fn remove(front: Arc<Front>, request: Request) -> Answer {
    let name = name(&request)?;
    let query = Query::of(&request.query, &["deletionPolicy"])?;
    if query.get("deletionPolicy") != Some(DELETE) {
        return Err(super::bodies::invalid(format!("deletionPolicy must be {DELETE}")));
    }
    let removed = front.tasks.set_topic(&owner(&request)?.id, name, None, front.clock.now()).await;
    removed.map_err(failed)?;
    Ok(nothing())
}

fn missing() -> Problem {
    Problem::new(Kind::NO_QUEUE).saying(texts::NO_TOPIC)
}

fn failed(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound => missing(),
        error => Problem::of_store(error, Kind::NO_QUEUE),
    }
}

/// The name in the path.
fn name(request: &Request) -> Result<&str, Problem> {
    let name = request.parameters.first().map_or("", String::as_str);
    if !is_label(name) {
        return Err(super::bodies::invalid("the name of a topic must be a DNS label"));
    }
    check_command(request, name)?;
    Ok(name)
}

/// Whether this is a DNS label: lower-case letters, digits and hyphens within.
fn is_label(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (first, last) = (name.bytes().next(), name.bytes().last());
    name.len() <= NAME_MAX
        && first.is_some_and(is_plain)
        && last.is_some_and(is_plain)
        && name.bytes().all(|byte| is_plain(byte) || byte == b'-')
}
