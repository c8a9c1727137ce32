//! Stories against real parts.

mod git_engine;
mod support;
