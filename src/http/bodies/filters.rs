//! The filter `q` of lists and bulk verbs: in a query, and in a body.

use tidings_actors::{
    model::filter::{BYTES_MAX, FieldSet, Filter},
    time::Timestamp,
};

use super::{fields::Fields, paging::Query, problem::Problem};

/// The filter of a query; `None` if there is none.
///
/// # Errors
/// 400 with the column of the fault.
pub(crate) fn of_query(
    query: &Query,
    set: &'static FieldSet,
    now: Timestamp,
) -> Result<Option<Filter>, Problem> {
    let filter = query.get("q").map(|text| Filter::parse(text, set, now)).transpose();
    let filter = filter.map_err(|fault| Problem::malformed(format!("q, {fault}")))?;
    Ok(filter.filter(|filter| !filter.is_empty()))
}

/// The filter of a body; faults are recorded. A filter without a condition is a fault, also of a dry run: a
/// caller who means every row must say so.
pub(crate) fn of_fields(fields: &mut Fields, set: &'static FieldSet, now: Timestamp) -> Option<Filter> {
    let text = fields.free_text("q", 1..=BYTES_MAX)?;
    match Filter::parse(&text, set, now) {
        Ok(filter) if filter.is_empty() => {
            fields.refuse("q", "must have a condition; to choose without a filter, leave `q` out");
            None
        }
        Ok(filter) => Some(filter),
        Err(fault) => {
            fields.refuse("q", fault.to_string());
            None
        }
    }
}
