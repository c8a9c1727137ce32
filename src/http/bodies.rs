//! What requests and answers are made of, whatever the resource: fields and filters that are read, pages,
//! moments and names that are shown, problems.

pub(crate) mod body;
pub(crate) mod fields;
pub(crate) mod filters;
pub(crate) mod moment;
pub(crate) mod names;
pub(crate) mod paging;
pub mod problem;
