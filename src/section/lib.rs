//! The shared parts of settings sections: faults, and the text forms of durations, rates, secrets and
//! optional values. Each crate has its own section beside the code that reads it.

mod fault;
mod rate;
mod text;

pub use self::{
    fault::Fault,
    rate::{InvalidRate, Rate},
    text::{duration, masked, optional, secret, secrets, text_or_number, word},
};
