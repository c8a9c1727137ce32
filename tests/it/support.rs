//! Real parts for stories: Git hosts and the like.

pub(crate) mod git_host;
pub(crate) mod repository;
