//! The queries of lists: `limit`, `cursor` and filters. A cursor is opaque: it names the last item seen, and
//! is valid only for the list and the app that it was made for.

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use tidings_actors::ports::Searched;
use tidings_entity::id::Sha256Hash;
use url::form_urlencoded;
use utoipa::ToSchema;

use super::problem::Problem;

/// The number of items of a page where the request gives none.
pub(crate) const LIMIT_DEFAULT: u64 = 50;
/// Most items of a list.
const LIMIT_MAX: u64 = 100;
/// Most items that a [`Window`] passes over.
const SKIP_MAX: u64 = 1_000_000;
/// Bytes of the mark that binds a cursor to its list.
const MARK_BYTES: usize = 8;

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items of this page, in the order of the list.
    pub(crate) items: Vec<T>,
    /// Value of `cursor` for the next page. Missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// The parameters of a query.
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses a query that may hold these keys, each once.
    ///
    /// # Errors
    /// 400 for another key, or a key that occurs twice.
    pub(crate) fn of(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&key.as_ref()) {
                return Err(Problem::malformed(format!("the query may hold: {}", known.join(", "))));
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(Problem::malformed("the query holds a key twice"));
            }
            pairs.push((key.into_owned(), value.into_owned()));
        }
        Ok(Self { pairs })
    }

    /// The text of a key.
    #[must_use]
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == key).map(|(_, value)| value.as_str())
    }

    /// The query without one key, encoded.
    #[must_use]
    pub(crate) fn without(&self, key: &str) -> String {
        let rest = self.pairs.iter().filter(|(other, _)| other != key);
        form_urlencoded::Serializer::new(String::new()).extend_pairs(rest).finish()
    }

    /// How many items are asked for.
    ///
    /// # Errors
    /// 400 outside 1 to 100.
    pub(crate) fn limit(&self) -> Result<u64, Problem> {
        match self.get("limit").map(str::parse) {
            None => Ok(LIMIT_DEFAULT),
            Some(Ok(limit @ 1..=LIMIT_MAX)) => Ok(limit),
            Some(_) => Err(Problem::malformed(format!("limit is a whole number from 1 to {LIMIT_MAX}"))),
        }
    }

    /// The last item seen, from the cursor of the list `list` (its name and its owner).
    ///
    /// # Errors
    /// 400 for a cursor that was not made for this list.
    pub(crate) fn after<T: FromStr>(&self, list: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.get("cursor") else { return Ok(None) };
        let opened = BASE64URL_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| {
            let (found, id) = bytes.split_at_checked(MARK_BYTES)?;
            (found == mark(list)).then(|| str::from_utf8(id).ok()?.parse().ok()).flatten()
        });
        opened.map(Some).ok_or_else(|| Problem::malformed("the cursor was not made by this list"))
    }
}

/// The requested part of a list that is computed completely for each request: the cursor says how many items
/// came before. If such a list changes between two pages, an item may come twice or be left out.
pub(crate) struct Window {
    list: &'static str,
    skip: u64,
    limit: u64,
}

impl Window {
    /// Reads `limit` and `cursor` of the list `list`; `usual` items where no limit is given.
    ///
    /// # Errors
    /// As [`Query::limit`] and [`Query::after`].
    pub(crate) fn of(query: &Query, list: &'static str, usual: u64) -> Result<Self, Problem> {
        let limit = if query.get("limit").is_some() { query.limit()? } else { usual };
        let skip = query.after::<u64>(list)?.unwrap_or(0).min(SKIP_MAX);
        Ok(Self { list, skip, limit })
    }

    /// How many items from the beginning are needed to fill the page and to know whether it is the last.
    pub(crate) fn needed(&self) -> u64 {
        self.skip + self.limit + 1
    }

    /// The rows of the page, and the cursor behind them.
    pub(crate) fn cut<Row>(&self, rows: Vec<Row>) -> (Vec<Row>, Option<String>) {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (end, known) = (self.skip + self.limit, rows.len());
        let next = (known > count(end)).then(|| cursor_at(self.list, &end.to_string()));
        (rows.into_iter().skip(count(self.skip)).take(count(self.limit)).collect(), next)
    }
}

/// Makes a page from up to one item more than were requested.
pub(crate) fn page<Row, T: Serialize>(
    mut rows: Vec<Row>,
    limit: u64,
    list: &str,
    id: impl Fn(&Row) -> String,
    show: impl FnMut(&Row) -> T,
) -> Page<T> {
    let next_cursor = cut(&mut rows, limit, list, id);
    Page { items: rows.iter().map(show).collect(), next_cursor }
}

/// Cuts rows off that are more than were requested. Returns the cursor behind the last row that stays; `None`
/// if these rows are the last of the list.
pub(crate) fn cut<Row>(
    rows: &mut Vec<Row>,
    limit: u64,
    list: &str,
    id: impl Fn(&Row) -> String,
) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(|row| cursor_at(list, &id(row)))
}

/// The page of a search of the list `list`.
pub(crate) fn searched<Row, Place: ToString, T: Serialize>(
    search: &Searched<Row, Place>,
    list: &str,
    show: impl FnMut(&Row) -> T,
) -> Page<T> {
    let next_cursor = search.next.as_ref().map(|place| cursor_at(list, &place.to_string()));
    Page { items: search.found.iter().map(show).collect(), next_cursor }
}

/// The cursor of the list `list` behind the item `id`.
pub(crate) fn cursor_at(list: &str, id: &str) -> String {
    BASE64URL_NOPAD.encode(&[mark(list).as_slice(), id.as_bytes()].concat())
}

fn mark(list: &str) -> [u8; MARK_BYTES] {
    let hash = Sha256Hash::of(list.as_bytes());
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&hash.as_bytes()[..MARK_BYTES]);
    mark
}
