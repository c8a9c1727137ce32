//! Stories: the product against real peers. One binary, so that it links once.

mod docora_clients;
mod draining;
mod durability;
mod encrypted;
mod git_engine;
mod git_hosts;
mod isolation;
mod keeping_on;
mod killing;
mod listening;
mod mid_round;
mod model_bites;
mod notices;
mod preparing;
mod private_addresses;
mod receivers;
mod refusals;
mod refused_starts;
mod same_tree;
mod supervision;
mod support;
mod watching;
