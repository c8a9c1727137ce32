//! The filter `q` of lists and bulk verbs: in a query, and in a body.

use tidings_actors::{
    filter::{BYTES_MAX, FieldSet, Filter},
    time::Timestamp,
};

use super::{fields::Fields, paging::Query, problem::Problem};

/// The filter of a query; `None` where nothing is said.
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

/// The filter of a body; what is wrong is noted. One that says nothing is none: who means every row says so.
pub(crate) fn of_fields(fields: &mut Fields, set: &'static FieldSet, now: Timestamp) -> Option<Filter> {
    let text = fields.text("q", 1..=BYTES_MAX)?;
    match Filter::parse(&text, set, now) {
        Ok(filter) => Some(filter).filter(|filter| !filter.is_empty()),
        Err(fault) => {
            fields.refuse("q", fault.to_string());
            None
        }
    }
}
