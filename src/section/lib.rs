//! What the sections of the settings share: faults, and how durations, rates, secrets and optional values
//! are written as text. Each room of the house keeps its own section beside the code that reads it.

mod fault;
mod rate;
mod text;

pub use self::{
    fault::Fault,
    rate::{InvalidRate, Rate},
    text::{duration, masked, optional, secret, secrets, word},
};
