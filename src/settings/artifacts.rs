//! Artifacts of tasks: where their bytes are kept, and how many.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidings_actors::model::secret::Secret;
use url::Url;

use super::{Fault, optional, secret};

/// Most characters of the prefix of keys.
const PREFIX_MAX: usize = 256;
/// Most parts of an object, by the rules of S3.
const PARTS_MAX: u64 = 10_000;

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
    /// The address of an S3-compatible server that keeps artifacts in place of the folder.
    #[serde(with = "optional")]
    pub s3_endpoint: Option<Url>,
    /// The bucket, which must exist.
    #[serde(with = "optional")]
    pub s3_bucket: Option<String>,
    /// The region that requests are signed for.
    pub s3_region: String,
    /// The prefix of the keys of all objects.
    pub s3_prefix: String,
    /// Whether the bucket stands in the path, and not in the name of the host.
    pub s3_path_style: bool,
    /// The id of the key that signs requests.
    #[serde(with = "optional")]
    pub s3_access_key: Option<String>,
    /// The key that signs requests.
    #[serde(with = "secret")]
    pub s3_secret_key: Option<Secret>,
    /// A file that holds that key.
    #[serde(with = "optional")]
    pub s3_secret_key_file: Option<PathBuf>,
    /// Objects above this size are uploaded in parts of this size.
    pub s3_part_bytes: u64,
}

impl Default for ArtifactsSettings {
    fn default() -> Self {
        Self {
            dir: None,
            bytes_max: 1 << 30,
            app_bytes_max: 10 << 30,
            s3_endpoint: None,
            s3_bucket: None,
            s3_region: "us-east-1".to_owned(),
            s3_prefix: String::new(),
            s3_path_style: true,
            s3_access_key: None,
            s3_secret_key: None,
            s3_secret_key_file: None,
            s3_part_bytes: 1 << 30,
        }
    }
}

impl ArtifactsSettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = [
            Fault::of_range("artifacts.bytes_max", self.bytes_max, 1 << 10..=1 << 40),
            Fault::of_range("artifacts.app_bytes_max", self.app_bytes_max, 1 << 10..=1 << 50),
            Fault::of_range("artifacts.s3_part_bytes", self.s3_part_bytes, 5 << 20..=5 << 30),
        ]
        .into_iter()
        .flatten()
        .collect();
        faults.extend(self.faults_of_s3());
        faults
    }

    fn faults_of_s3(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |part: &str, message: String| {
            faults.push(Fault::new(format!("artifacts.s3_{part}"), message));
        };
        let needed = [
            ("bucket", self.s3_bucket.is_some()),
            ("access_key", self.s3_access_key.is_some()),
            ("secret_key", self.s3_secret_key.is_some()),
        ];
        let Some(endpoint) = &self.s3_endpoint else {
            for (part, _) in needed.into_iter().filter(|(_, is_set)| *is_set) {
                fault(part, "is for a server that artifacts.s3_endpoint names, which is not set".to_owned());
            }
            return faults;
        };
        for (part, _) in needed.into_iter().filter(|(_, is_set)| !is_set) {
            fault(part, "is needed with artifacts.s3_endpoint".to_owned());
        }
        let is_bare = endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.query().is_none()
            && endpoint.fragment().is_none();
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host().is_none() || !is_bare {
            fault("endpoint", "must be an address https://HOST without a user or a query".to_owned());
        }
        if self.dir.is_some() {
            fault("endpoint", "artifacts.dir is set as well; give one of the two".to_owned());
        }
        let is_name = |name: &str| {
            (3..=63).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
        };
        if self.s3_bucket.as_deref().is_some_and(|name| !is_name(name)) {
            fault("bucket", "must have 3 to 63 small letters, digits, dots and -".to_owned());
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let prefix = &self.s3_prefix;
        let is_prefix = prefix.is_empty() || prefix.ends_with('/') && !prefix.starts_with('/');
        if prefix.len() > PREFIX_MAX || !is_prefix || !prefix.bytes().all(is_plain) || prefix.contains("..") {
            fault(
                "prefix",
                format!("must have at most {PREFIX_MAX} letters, digits and ._-/, and end with /"),
            );
        }
        if self.s3_region.is_empty() || !self.s3_region.bytes().all(is_plain) {
            fault("region", "must be a name such as us-east-1".to_owned());
        }
        if self.bytes_max > self.s3_part_bytes.saturating_mul(PARTS_MAX) {
            fault("part_bytes", format!("an object has at most {PARTS_MAX} parts: too small for bytes_max"));
        }
        faults
    }
}
