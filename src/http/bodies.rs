//! The parts of requests and answers that all resources share: reading fields and filters, pages, moments and
//! names, problems.

pub(crate) mod body;
pub(crate) mod decoding;
pub(crate) mod fields;
pub(crate) mod filters;
pub(crate) mod moment;
pub(crate) mod names;
pub(crate) mod operation;
pub(crate) mod paging;
pub mod problem;
pub(crate) mod raw;
