//! Stories: the product against real peers. One binary, so that it links once.

mod encrypted;
mod git_engine;
mod preparing;
mod receivers;
mod support;
