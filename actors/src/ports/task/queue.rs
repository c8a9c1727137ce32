//! The settings of queues.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_entity::kind::RetryPolicy;

use crate::{
    model::task::TaskRules,
    ports::{CLAIM_MAX, PAYLOAD_DEFAULT, Topic},
};

/// The settings of a queue: how tasks are claimed, tried again and kept. A field that is `None` has its
/// default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueSettings {
    /// Most tasks of the queue that workers have at once; `None`: no limit.
    pub max_claimed: Option<u64>,
    /// Most claims in any second; `None`: no limit.
    pub rate: Option<u32>,
    /// After how many attempts a task is dead; 5.
    pub max_attempts: Option<u32>,
    /// How the wait grows with each attempt; `exp_full_jitter`.
    pub retry_policy: Option<RetryPolicy>,
    /// The wait after the first attempt, in milliseconds; 5,000.
    pub retry_base_ms: Option<u64>,
    /// The longest wait, in milliseconds; 900,000.
    pub retry_cap_ms: Option<u64>,
    /// The longest time of a claim with all its extensions, in milliseconds; 3,600,000.
    pub timeout_ms: Option<u64>,
    /// The age that counts as much as one step of priority, in milliseconds; `None`: the higher priority
    /// always goes first.
    pub ageing_ms: Option<u64>,
    /// How long a task is kept after its end, in milliseconds; 7 days.
    pub retention_ms: Option<u64>,
    /// How long a dead task is kept, in milliseconds; 30 days.
    pub dead_retention_ms: Option<u64>,
    /// Most bytes of a payload or a result; [`PAYLOAD_DEFAULT`].
    pub payload_bytes: Option<u64>,
    /// What a client of codeQ declared; other settings already say what follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
}

impl QueueSettings {
    /// The rules for the moves of its tasks.
    #[must_use]
    pub fn rules(&self) -> TaskRules {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        let or = |value: Option<u64>, default: u64| Duration::from_millis(value.unwrap_or(default));
        TaskRules {
            claim_max: CLAIM_MAX,
            timeout: or(self.timeout_ms, 3_600_000),
            retention: or(self.retention_ms, 7 * DAY_MS),
            dead_retention: or(self.dead_retention_ms, 30 * DAY_MS),
        }
    }

    /// The settings, with the default of each that is not set and has one.
    #[must_use]
    pub fn in_effect(&self) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).ok();
        let (rules, (policy, base, cap)) = (self.rules(), self.backoff());
        Self {
            max_claimed: self.max_claimed,
            rate: self.rate,
            max_attempts: Some(self.attempts()),
            retry_policy: Some(policy),
            retry_base_ms: milliseconds(base),
            retry_cap_ms: milliseconds(cap),
            timeout_ms: milliseconds(rules.timeout),
            ageing_ms: self.ageing_ms,
            retention_ms: milliseconds(rules.retention),
            dead_retention_ms: milliseconds(rules.dead_retention),
            payload_bytes: Some(self.payload_limit()),
            topic: self.topic.clone(),
        }
    }

    /// After how many attempts a task of the queue is dead that says nothing else.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(5)
    }

    /// Most bytes of a payload or a result.
    #[must_use]
    pub fn payload_limit(&self) -> u64 {
        self.payload_bytes.unwrap_or(PAYLOAD_DEFAULT)
    }

    /// The policy of waits, the wait after the first attempt, and the longest one.
    #[must_use]
    pub fn backoff(&self) -> (RetryPolicy, Duration, Duration) {
        (
            self.retry_policy.unwrap_or(RetryPolicy::ExpFullJitter),
            Duration::from_millis(self.retry_base_ms.unwrap_or(5_000)),
            Duration::from_millis(self.retry_cap_ms.unwrap_or(900_000)),
        )
    }
}
