//! The page of a list of deliveries that a request asks for. The lists of one app and of all apps have the
//! same parameters.

use tidings_actors::{model::filter::sets::DELIVERIES, ports::ChangeState};

use super::{Mark, dead_letters::search, delivery_id, wanted::Wanted};
use crate::http::{
    bodies::{
        filters,
        paging::{Query, cursor_at},
        problem::Problem,
    },
    door::request::Request,
    front::Front,
};

/// The parameters of the list: filters, and its page.
const WORDS: [&str; 13] = [
    "limit",
    "cursor",
    "q",
    "status",
    "id",
    "repository_id",
    "path",
    "path_base64",
    "path_prefix",
    "path_glob",
    "kind",
    "from",
    "to",
];

/// The page of a list of deliveries, of one app or of all, that a request asks for.
pub(super) struct PageAsked {
    pub(super) wanted: Wanted,
    /// The most deliveries of the page.
    pub(super) limit: usize,
    /// Where the page begins; `None` at the newest change.
    pub(super) mark: Option<Mark>,
    /// The name of the list in its cursors.
    name: String,
}

impl PageAsked {
    /// Reads the query of the list `list`.
    ///
    /// # Errors
    /// 400 with the first invalid value.
    pub(super) fn of(front: &Front, request: &Request, list: &str) -> Result<Self, Problem> {
        let query = Query::of(&request.query, &WORDS)?;
        let limit = usize::try_from(query.limit()?).unwrap_or(usize::MAX);
        let (wanted, name) = of_query(front, &query, list)?;
        let mark = query.after(&name)?;
        Ok(Self { wanted, limit, mark, name })
    }

    /// The cursor behind a page that ended at `mark`. A search for one delivery ends where it is found.
    pub(super) fn next_cursor(&self, is_empty: bool, mark: Option<Mark>) -> Option<String> {
        let is_found = self.wanted.id.is_some() && !is_empty;
        mark.filter(|_| !is_found).map(|mark| cursor_at(&self.name, &mark.text()))
    }
}

/// The filter of a query, and the name of the list in its cursors.
fn of_query(front: &Front, query: &Query, list: &str) -> Result<(Wanted, String), Problem> {
    let status = query.get("status").map(state).transpose()?;
    let id = query.get("id").map(delivery_id).transpose()?;
    let filter = search::of_query(query)?;
    let q = filters::of_query(query, &DELIVERIES, front.clock.now())?;
    let wanted = Wanted::of(&filter, status, id, q)?;
    let mut name = format!("{list} {status:?} {:?} {filter:?}", wanted.id);
    if let Some(q) = query.get("q") {
        // As it is written: a time before now is another moment on each page.
        name.push_str(&format!(" {q:?}"));
    }
    Ok((wanted, name))
}

fn state(word: &str) -> Result<ChangeState, Problem> {
    ChangeState::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        let words: Vec<_> = ChangeState::ALL.iter().map(|state| state.as_str()).collect();
        Problem::malformed(format!("status is one of: {}", words.join(", ")))
    })
}
