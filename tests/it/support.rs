//! What stories are told with: real repositories and Git hosts, the real binary, real receivers
//! that can be told to misbehave or that check everything they are told, and small stand-ins.

pub(crate) mod alphabet;
pub(crate) mod api;
pub(crate) mod balancer;
pub(crate) mod browser;
pub(crate) mod bucket;
pub(crate) mod cable;
pub(crate) mod churn;
pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod content;
pub(crate) mod database;
pub(crate) mod dice;
pub(crate) mod fleet;
pub(crate) mod forge;
pub(crate) mod git_host;
pub(crate) mod github_api;
pub(crate) mod http;
pub(crate) mod inbox;
pub(crate) mod leaks;
pub(crate) mod mail_server;
pub(crate) mod misdeeds;
pub(crate) mod model;
pub(crate) mod oidc;
pub(crate) mod pack;
pub(crate) mod patience;
pub(crate) mod peer;
pub(crate) mod project;
pub(crate) mod puller;
pub(crate) mod python_server;
pub(crate) mod receiver;
pub(crate) mod remote;
pub(crate) mod repository;
pub(crate) mod sender;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod subscriber;
pub(crate) mod tail;
pub(crate) mod workers;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// What a short story has of kills at most.
const KILLS_OF_A_SHORT_STORY: u64 = 8;

/// Writes a file that only its owner may read. Returns its path.
pub(crate) fn private_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("private");
    path.display().to_string()
}

/// A number from the environment that makes a story longer, shorter or the same again.
pub(crate) fn setting(name: &str) -> Option<u64> {
    text_setting(name).map(|text| text.parse().expect("a number"))
}

/// How long a story is: the number that its variable says, else `whole`, or `short` where
/// `TIDINGS_STORY_SHORT` is set, as in `.ci/run`.
pub(crate) fn length(name: &str, whole: u64, short: u64) -> u64 {
    let usual = if text_setting("TIDINGS_STORY_SHORT").is_some() { short.min(whole) } else { whole };
    setting(name).unwrap_or(usual)
}

/// Kills of a story, unless `TIDINGS_STORY_KILLS` says otherwise.
pub(crate) fn kills(whole: u64) -> u64 {
    length("TIDINGS_STORY_KILLS", whole, KILLS_OF_A_SHORT_STORY)
}

/// A text from the environment.
#[expect(clippy::disallowed_methods, reason = "stories have no settings file; these are their dials")]
pub(crate) fn text_setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
