//! The filter for dead letters: the same field names in a query, in a body and in the display of a redrive.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::{Map, Value};
use tidings_actors::{
    model::filter::sets::LETTERS,
    model::view::View,
    ports::{LetterFilter, PathFilter},
    time::Timestamp,
};
use tidings_entity::{id::DeadLetterId, kind::LetterStatus};
use utoipa::ToSchema;

use crate::http::{
    bodies::{
        fields::Fields,
        filters,
        moment::{iso, parsed},
        paging::Query,
        problem::{Problem, sentence},
    },
    door::request::Request,
    front::Front,
};

/// The field names of a filter, in queries and in bodies.
const WORDS: [&str; 9] =
    ["repository_id", "path", "path_base64", "path_prefix", "path_glob", "kind", "reason", "from", "to"];

/// The page of a list of dead letters, of one app or of all, that a request asks for.
pub(in crate::http) struct PageOfLetters {
    pub(in crate::http) query: Query,
    pub(in crate::http) limit: u64,
    pub(in crate::http) filter: LetterFilter,
    /// The last dead letter that the earlier pages looked at.
    pub(in crate::http) before: Option<DeadLetterId>,
}

impl PageOfLetters {
    /// Reads the query of the list `list`. Beside the keys of every such list, the query may hold `more`.
    ///
    /// # Errors
    /// 400 with the first invalid value.
    pub(in crate::http) fn of(
        front: &Front,
        request: &Request,
        list: &str,
        more: &[&str],
    ) -> Result<Self, Problem> {
        let known = [&["limit", "cursor", "q", "status"][..], more, &WORDS[..]].concat();
        let query = Query::of(&request.query, &known)?;
        let (limit, filter) = (query.limit()?, of_letters(&query, front.clock.now())?);
        let before = query.after(list)?;
        Ok(Self { query, limit, filter, before })
    }
}

/// A filter for dead letters. A dead letter must match all fields.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct FilterShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_id: Option<String>,
    /// Only dead letters of this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Only dead letters of the path with these bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// Only dead letters of paths that begin with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_prefix: Option<String>,
    /// Only dead letters of paths that match this glob, in the syntax of `include`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_glob: Option<String>,
    /// Only dead letters of this operation: `create`, `update` or `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Only changes parked for this reason: `rejected`, `failing`, `content_unavailable` or `skipped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Only changes parked at this moment (RFC 3339) or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Only changes parked before this moment (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The filter `q`, with each moment written in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
}

impl FilterShown {
    pub(super) fn of(filter: &LetterFilter) -> Self {
        let moment = |at: i64| iso(Timestamp(at));
        let mut shown = Self {
            repository_id: filter.watch.as_ref().map(ToString::to_string),
            kind: filter.operation.map(|operation| operation.as_str()),
            reason: filter.reason.map(|reason| reason.as_str()),
            from: filter.from.map(moment),
            to: filter.to.map(moment),
            q: filter.q.as_ref().map(ToString::to_string),
            ..Self::default()
        };
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        match &filter.path {
            None => {}
            Some(PathFilter::Exact(path)) if str::from_utf8(path).is_err() => {
                shown.path_base64 = Some(BASE64.encode(path));
            }
            Some(PathFilter::Exact(path)) => shown.path = Some(text(path)),
            Some(PathFilter::Prefix(path)) => shown.path_prefix = Some(text(path)),
            Some(PathFilter::Glob(glob)) => shown.path_glob = Some(glob.clone()),
        }
        shown
    }
}

/// The filter of a query for dead letters, `q` and `status` among it.
///
/// # Errors
/// 400 with the first word that is wrong.
fn of_letters(query: &Query, now: Timestamp) -> Result<LetterFilter, Problem> {
    let q = filters::of_query(query, &LETTERS, now)?;
    Ok(LetterFilter { status: status_of(query)?, q, ..of_query(query)? })
}

/// The status that a query asks for.
///
/// # Errors
/// 400 for another word.
fn status_of(query: &Query) -> Result<Option<LetterStatus>, Problem> {
    query.get("status").map(str::parse::<LetterStatus>).transpose().map_err(|_| {
        let words: Vec<_> = LetterStatus::ALL.iter().map(|status| status.as_str()).collect();
        Problem::malformed(format!("status is one of: {}", words.join(", ")))
    })
}

/// The filter of a query, without its `q`, because the fields of `q` differ between lists.
///
/// # Errors
/// 400 with the first invalid value.
pub(in crate::http) fn of_query(query: &Query) -> Result<LetterFilter, Problem> {
    read(|word| query.get(word).map(str::to_owned))
        .map_err(|(word, detail)| Problem::malformed(sentence(word, &detail)))
}

/// The filter of a body; faults are recorded.
pub(super) fn of_fields(fields: &mut Fields, now: Timestamp) -> LetterFilter {
    let q = filters::of_fields(fields, &LETTERS, now);
    let mut said: Map<String, Value> = Map::new();
    for word in WORDS {
        if let Some(text) = fields.text(word, 1..=4096) {
            said.insert(word.to_owned(), Value::String(text));
        }
    }
    let found = read(|word| said.get(word).and_then(Value::as_str).map(str::to_owned));
    let filter = found.unwrap_or_else(|(word, detail)| {
        fields.refuse(word, detail);
        LetterFilter::default()
    });
    LetterFilter { q, ..filter }
}

type Wrong = (&'static str, Cow<'static, str>);

fn read(said: impl Fn(&str) -> Option<String>) -> Result<LetterFilter, Wrong> {
    let mut paths = Vec::new();
    paths.extend(said("path").map(|path| PathFilter::Exact(path.into_bytes())));
    if let Some(text) = said("path_base64") {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| ("path_base64", "must be base64".into()))?;
        paths.push(PathFilter::Exact(bytes));
    }
    paths.extend(said("path_prefix").map(|path| PathFilter::Prefix(path.into_bytes())));
    if let Some(glob) = said("path_glob") {
        View::check_spelling(&glob).map_err(|fault| ("path_glob", fault.to_string().into()))?;
        paths.push(PathFilter::Glob(glob));
    }
    if paths.len() > 1 {
        return Err(("path", "must be given in one of its forms only".into()));
    }
    let moment = |word: &'static str| match said(word) {
        None => Ok(None),
        Some(text) => parsed(&text).map(|at| Some(at.0)).ok_or((word, "must be a moment of RFC 3339".into())),
    };
    let filter = LetterFilter {
        watch: word(&said, "repository_id", "must be the id of a repository")?,
        except: Vec::new(),
        path: paths.pop(),
        operation: word(&said, "kind", "must be one of: create, update, delete")?,
        reason: word(&said, "reason", "must be one of: rejected, failing, content_unavailable, skipped")?,
        status: None,
        from: moment("from")?,
        to: moment("to")?,
        q: None,
    };
    filter.matcher().map_err(|fault| ("path_glob", fault.to_string().into()))?;
    Ok(filter)
}

fn word<T: std::str::FromStr>(
    said: impl Fn(&str) -> Option<String>,
    name: &'static str,
    rule: &'static str,
) -> Result<Option<T>, Wrong> {
    said(name).map(|text| text.parse()).transpose().map_err(|_| (name, rule.into()))
}
