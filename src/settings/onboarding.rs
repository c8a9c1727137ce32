//! Who may register an app, and how many.

use serde::{Deserialize, Serialize};

use super::Fault;

/// The default number of apps that one address may register in an hour.
const APPS_PER_HOUR: u32 = 100;

/// Who may register an app, and how many.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnboardingSettings {
    /// Who may register an app.
    #[serde(deserialize_with = "tidings_section::word")]
    pub mode: OnboardingMode,
    /// Apps that one address registers in an hour, where anyone may.
    pub apps_per_hour: u32,
}

impl Default for OnboardingSettings {
    fn default() -> Self {
        Self { mode: OnboardingMode::default(), apps_per_hour: APPS_PER_HOUR }
    }
}

impl OnboardingSettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let per_hour = u64::from(self.apps_per_hour);
        Fault::of_range("onboarding.apps_per_hour", per_hour, 1..=1_000_000).into_iter().collect()
    }
}

/// Who may register an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnboardingMode {
    /// Only callers with the admin token.
    #[default]
    Admin,
    /// Anyone, without a token.
    Open,
}
