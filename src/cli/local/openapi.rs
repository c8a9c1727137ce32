//! `tidings openapi`: the document of the API, always as JSON.

use crate::cli::{Code, Context, Failure, Output};
use crate::http::{document::document, table};

pub(crate) fn run(_context: &Context) -> Result<(), Failure> {
    let document =
        serde_json::to_value(document(table())).map_err(|error| Failure::of_error(Code::Software, &error))?;
    Output { json: true }.print(&document, &[])
}
