//! What stories are told with: real repositories and Git hosts, the real binary, real receivers
//! that can be told to misbehave or that check everything they are told, and small stand-ins.

pub(crate) mod alphabet;
pub(crate) mod api;
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

/// A number from the environment that makes a story longer, shorter or the same again.
pub(crate) fn setting(name: &str) -> Option<u64> {
    text_setting(name).map(|text| text.parse().expect("a number"))
}

/// A text from the environment.
#[expect(clippy::disallowed_methods, reason = "stories have no settings file; these are their dials")]
pub(crate) fn text_setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
