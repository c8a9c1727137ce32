//! Who may register an app.

use serde::{Deserialize, Serialize};

/// Who may register an app.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnboardingSettings {
    /// Who.
    pub mode: OnboardingMode,
}

/// Who may register an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnboardingMode {
    /// Whoever has the admin token.
    #[default]
    Admin,
    /// Anyone.
    Open,
}
