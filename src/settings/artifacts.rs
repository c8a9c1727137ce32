//! Artifacts of tasks: where their bytes are kept, and how many.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Fault, optional};

/// Section `[artifacts]`: files that belong to tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtifactsSettings {
    /// The folder of artifacts; not set: `artifacts` in the data directory.
    #[serde(with = "optional")]
    pub dir: Option<PathBuf>,
    /// Most bytes of one artifact.
    pub bytes_max: u64,
    /// Most bytes of all artifacts of an app.
    pub app_bytes_max: u64,
}

impl Default for ArtifactsSettings {
    fn default() -> Self {
        Self { dir: None, bytes_max: 1 << 30, app_bytes_max: 10 << 30 }
    }
}

impl ArtifactsSettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        [
            Fault::of_range("artifacts.bytes_max", self.bytes_max, 1 << 10..=1 << 40),
            Fault::of_range("artifacts.app_bytes_max", self.app_bytes_max, 1 << 10..=1 << 50),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
