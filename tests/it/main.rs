//! Stories: the product against real peers. One binary, so that it links once.

mod receivers;
mod support;
