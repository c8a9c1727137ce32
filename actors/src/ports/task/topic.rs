//! Topics of codeQ: what a client of codeQ declared about a queue. A topic stands in the settings of its
//! queue.

use serde::{Deserialize, Serialize};

use crate::{ports::QueueSettings, time::Timestamp};

/// The longest time that an ended task is kept, whatever a policy says (a year, in seconds).
const RETENTION_MAX: u64 = 366 * 24 * 3_600;

/// What a client of codeQ wants of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicPolicy {
    /// The priorities that its tasks use. Only kept: a task has any priority.
    pub priority_tiers: Vec<u16>,
    /// After how many attempts a task is dead that says nothing else.
    pub max_attempts: Option<u32>,
    /// The topic for its dead tasks. Only kept: dead tasks stay in their queue.
    pub dead_letter_topic: Option<String>,
    /// How long a task is kept after its end, in seconds; `None` or 0: as every queue keeps its tasks.
    pub retention_seconds: Option<u64>,
    /// Most tasks that workers have at once; `None` or 0: no limit.
    pub max_consumers: Option<u64>,
}

/// A topic: the policy of a queue, with the history of its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// What the client wants.
    pub policy: TopicPolicy,
    /// Rises by one with each change of the policy; the first one is 1.
    pub version: u64,
    /// When the topic was declared.
    pub created_at: Timestamp,
    /// When its policy last changed.
    pub updated_at: Timestamp,
}

impl TopicPolicy {
    /// The settings that follow from the policy: attempts, retention in milliseconds, claims at once.
    fn settings(&self) -> (Option<u32>, Option<u64>, Option<u64>) {
        let some = |number: Option<u64>| number.filter(|number| *number > 0);
        let retention = some(self.retention_seconds).map(|seconds| seconds.min(RETENTION_MAX) * 1_000);
        (self.max_attempts, retention, some(self.max_consumers))
    }
}

impl QueueSettings {
    /// The settings with a topic of this policy. A setting that the policy names is the policy's; one that
    /// the policy before named, and this one does not, has its default again.
    #[must_use]
    pub fn with_topic(self, policy: TopicPolicy, at: Timestamp) -> Self {
        let before = self.topic.clone();
        let bare = self.without_topic();
        let (attempts, retention, claimed) = policy.settings();
        let topic = match before {
            Some(topic) if topic.policy == policy => topic,
            Some(Topic { version, created_at, .. }) => {
                Topic { policy, version: version + 1, created_at, updated_at: at }
            }
            None => Topic { policy, version: 1, created_at: at, updated_at: at },
        };
        Self {
            max_attempts: attempts.or(bare.max_attempts),
            retention_ms: retention.or(bare.retention_ms),
            max_claimed: claimed.or(bare.max_claimed),
            topic: Some(topic),
            ..bare
        }
    }

    /// The settings without a topic. A setting that still is as the topic named it has its default again.
    #[must_use]
    pub fn without_topic(self) -> Self {
        let Some(topic) = &self.topic else { return self };
        let (attempts, retention, claimed) = topic.policy.settings();
        Self {
            max_attempts: self.max_attempts.filter(|_| self.max_attempts != attempts),
            retention_ms: self.retention_ms.filter(|_| self.retention_ms != retention),
            max_claimed: self.max_claimed.filter(|_| self.max_claimed != claimed),
            topic: None,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_changes_what_it_names_and_takes_it_along() {
        let own = QueueSettings { rate: Some(9), max_attempts: Some(7), ..QueueSettings::default() };
        let policy =
            TopicPolicy { max_consumers: Some(3), retention_seconds: Some(60), ..TopicPolicy::default() };
        let first = own.clone().with_topic(policy.clone(), Timestamp(1));
        assert_eq!((first.max_claimed, first.retention_ms), (Some(3), Some(60_000)));
        assert_eq!((first.rate, first.max_attempts), (Some(9), Some(7)), "what it does not name stays");
        assert_eq!(first.clone().with_topic(policy, Timestamp(2)), first, "a replay changes nothing");

        let other =
            TopicPolicy { max_attempts: Some(2), retention_seconds: Some(0), ..TopicPolicy::default() };
        let second = first.with_topic(other, Timestamp(3));
        assert_eq!((second.max_claimed, second.retention_ms, second.max_attempts), (None, None, Some(2)));
        let topic = second.topic.clone().expect("a topic");
        let moments = (topic.created_at, topic.updated_at);
        assert_eq!((topic.version, moments), (2, (Timestamp(1), Timestamp(3))));

        let changed = QueueSettings { max_attempts: Some(4), ..second.clone() };
        assert_eq!(changed.without_topic().max_attempts, Some(4), "a person set it since");
        assert_eq!(second.without_topic(), QueueSettings { max_attempts: None, ..own });
    }
}
