//! What the stories stand on: real repositories, the real binary, a real receiver that checks
//! everything it is told.

pub(crate) mod api;
pub(crate) mod churn;
pub(crate) mod dice;
pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod patience;
pub(crate) mod subscriber;
pub(crate) mod project;
pub(crate) mod server;

/// A number from the environment that makes a story longer, shorter or the same again.
#[expect(clippy::disallowed_methods, reason = "stories have no settings file; these are their dials")]
pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
