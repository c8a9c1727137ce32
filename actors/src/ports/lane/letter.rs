//! Searches for dead letters, and the progress of redrives of many letters.

use serde::{Deserialize, Serialize};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::{ContentRule, LetterStatus, Operation, ParkReason},
};

use crate::{
    model::{
        filter::{Filter, Record, Value},
        view::{InvalidView, MAX_SIZE_DEFAULT, View, ViewFilter},
    },
    ports::DeadLetter,
    time::Timestamp,
};

/// The number of letters that one step of a redrive, or of its cancellation, reads. A step is one
/// transaction, so this is how long deliveries wait for it: some milliseconds.
pub const REDRIVE_STEP: u64 = 2_000;
/// Letters that one page of a search looks at; fewer may be found.
pub const SEARCH_STEP: u64 = 10_000;
/// Letters that a [`LaneSnapshot`](crate::ports::LaneSnapshot) holds at most, and that one redrive binds.
pub const LANE_LETTERS: usize = 1_000;

/// Selects the paths of letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathFilter {
    /// The path with these raw bytes.
    Exact(Vec<u8>),
    /// All paths that begin with these bytes.
    Prefix(Vec<u8>),
    /// All that match this glob, by the rules of a view.
    Glob(String),
}

/// A [`PathFilter`], compiled for matching many paths.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// Matches every path of a letter.
    Any,
    /// Matches the path that equals these bytes.
    Exact(Vec<u8>),
    /// Matches paths that begin with these bytes.
    Prefix(Vec<u8>),
    /// Matches the paths of this view.
    Glob(Box<ViewFilter>),
}

impl PathMatcher {
    /// Compiles a filter; `None` matches every path.
    ///
    /// # Errors
    /// [`InvalidView`] for a glob that does not parse.
    pub fn new(filter: Option<&PathFilter>) -> Result<Self, InvalidView> {
        Ok(match filter {
            None => Self::Any,
            Some(PathFilter::Exact(path)) => Self::Exact(path.clone()),
            Some(PathFilter::Prefix(path)) => Self::Prefix(path.clone()),
            Some(PathFilter::Glob(glob)) => {
                let view =
                    View::new(vec![glob.clone()], Vec::new(), false, ContentRule::Inline, MAX_SIZE_DEFAULT)?;
                Self::Glob(Box::new(view.filter()?))
            }
        })
    }

    /// Whether the filter matches a path.
    #[must_use]
    pub fn admits(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Glob(glob) => glob.admits(path, 0o100_644),
        }
    }
}

/// A filter for dead letters: a letter must match all fields. The default matches every letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterFilter {
    /// Only letters of this watch.
    pub watch: Option<WatchId>,
    /// No letters of these watches.
    pub except: Vec<WatchId>,
    /// Only letters of these paths.
    pub path: Option<PathFilter>,
    /// Only letters of creates, of updates or of deletes.
    pub operation: Option<Operation>,
    /// Only changes that were parked for this reason.
    pub reason: Option<ParkReason>,
    /// Only letters of this status. A redrive always takes open letters, whatever this is set to.
    pub status: Option<LetterStatus>,
    /// Only changes that were parked at this moment or later, in Unix milliseconds.
    pub from: Option<i64>,
    /// Given up before, in unix milliseconds.
    pub to: Option<i64>,
    /// Only letters that match this filter over [`LETTERS`](crate::model::filter::sets::LETTERS). In rows it
    /// is a text in which each moment is written in full.
    #[serde(default, with = "written", skip_serializing_if = "Option::is_none")]
    pub q: Option<Filter>,
}

impl LetterFilter {
    /// All letters of this status.
    #[must_use]
    pub fn standing(status: LetterStatus) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Compiles the globs of the filter, for matching many letters.
    ///
    /// # Errors
    /// [`InvalidView`] for a glob that does not parse.
    pub fn matcher(&self) -> Result<LetterMatcher, InvalidView> {
        Ok(LetterMatcher { path: PathMatcher::new(self.path.as_ref())?, filter: self.clone() })
    }
}

/// A [`LetterFilter`], compiled for matching many letters.
#[derive(Clone, Debug)]
pub struct LetterMatcher {
    filter: LetterFilter,
    path: PathMatcher,
}

impl LetterMatcher {
    /// Whether a letter matches. A letter whose names are not known matches if the filter asks for no name.
    #[must_use]
    pub fn admits(&self, letter: &DeadLetter, names: Option<&LetterNames>) -> bool {
        let filter = &self.filter;
        filter.watch.as_ref().is_none_or(|watch| *watch == letter.watch)
            && !filter.except.contains(&letter.watch)
            && filter.operation.is_none_or(|operation| operation == letter.operation)
            && filter.reason.is_none_or(|reason| reason == letter.reason)
            && filter.status.is_none_or(|status| status == letter.status)
            && filter.from.is_none_or(|from| from <= letter.created_at.0)
            && filter.to.is_none_or(|to| letter.created_at.0 < to)
            && self.path.admits(&letter.path)
            && filter.q.as_ref().is_none_or(|q| q.admits(&NamedLetter { letter, names }))
    }
}

/// The names of the app and the repository of a letter, for people and filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterNames {
    /// Id of the app that did not get the change.
    pub app: AppId,
    /// The name of that app.
    pub app_name: String,
    /// The owner of the repository.
    pub owner: String,
    /// The name of the repository.
    pub name: String,
}

impl LetterNames {
    /// The name of the repository as `owner/name`.
    fn whole(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// A letter as filters see it.
struct NamedLetter<'l> {
    letter: &'l DeadLetter,
    names: Option<&'l LetterNames>,
}

impl Record for NamedLetter<'_> {
    fn value(&self, field: &str) -> Value<'_> {
        let Self { letter, names } = self;
        match (field, names) {
            ("app" | "repository" | "name", None) => Value::Unknown,
            ("app", Some(names)) => {
                Value::Texts(vec![names.app.as_str().into(), names.app_name.as_str().into()])
            }
            ("repository", Some(names)) => {
                let (id, name) = (letter.watch.as_str().into(), names.name.as_str().into());
                Value::Texts(vec![id, name, names.whole().into()])
            }
            ("name", Some(names)) => Value::Texts(vec![names.whole().into()]),
            ("path", _) => Value::Path(&letter.path),
            ("kind", _) => Value::text(letter.operation.as_str()),
            ("reason", _) => Value::text(letter.reason.as_str()),
            ("state", _) => Value::text(letter.status.as_str()),
            ("status", _) => Value::number(letter.http_status),
            ("answer", _) => Value::text(&letter.excerpt),
            ("since" | "until", _) => Value::Moment(letter.created_at),
            _ => Value::Nothing,
        }
    }
}

/// A filter as a text, in rows.
mod written {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::filter::{Filter, sets::LETTERS};

    pub(super) fn serialize<S: Serializer>(
        filter: &Option<Filter>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match filter {
            Some(filter) => serializer.collect_str(filter),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Filter>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Filter::reread(&text, &LETTERS)).transpose().map_err(D::Error::custom)
    }
}

/// One page of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPage {
    /// The letters that were found, newest first.
    pub letters: Vec<DeadLetter>,
    /// The last letter that was looked at; `None`: there are no older ones.
    pub next: Option<DeadLetterId>,
}

/// Selects open letters of a cursor.
#[derive(Clone, Debug)]
pub enum LetterPick {
    /// The letters of these ids, at most 1,000.
    Ids(Vec<DeadLetterId>),
    /// The letters of these paths, at most 1,000.
    Paths(Vec<Vec<u8>>),
    /// The next 1,000 by path, after this one.
    After(Option<Vec<u8>>),
}

/// The result of one step of dismissing letters by a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dismissed {
    /// Letters that are closed now.
    pub dismissed: u64,
    /// The number of matching letters that stay open, because an open round sends them.
    pub bound: u64,
    /// The last letter that was looked at; `None`: there are no older ones.
    pub next: Option<DeadLetterId>,
}

/// Why a letter cannot be dismissed while the open round of its cursor sends it. Public.
#[must_use]
pub fn bound_to_open_round(id: &DeadLetterId) -> String {
    format!("{id} is being sent by the open round of its branch; dismiss it once that round has ended")
}

/// Dead letters that were selected to be sent again together, and the results so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// Id of the redrive, `rdv_` and a ULID.
    pub id: RedriveId,
    /// The filter that selects the letters; `None`: letters that were named one by one.
    pub filter: Option<LetterFilter>,
    /// Whether letters are still being marked: `asked` still grows.
    pub is_marking: bool,
    /// The number of letters that were marked.
    pub asked: u64,
    /// The number of marked letters that were sent again and acknowledged.
    pub sent: u64,
    /// The number of marked letters whose change was parked again, each with a new letter.
    pub refused: u64,
    /// The number of marked letters that a later change of their path superseded, or whose watch was deleted.
    pub superseded: u64,
    /// The number of marked letters that were taken back.
    pub cancelled: u64,
    /// The number of marked letters that are still to be sent, or are being sent.
    pub left: u64,
    /// When the redrive was asked for.
    pub created_at: Timestamp,
}

/// The result of one step of marking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedriveStep {
    /// The redrive that marked letters.
    pub redrive: RedriveId,
    /// The app whose letters were marked.
    pub app: AppId,
    /// The number of letters that this step marked.
    pub marked: u64,
    /// The cursors of the marked letters.
    pub cursors: Vec<CursorId>,
    /// Whether there may be more letters to mark.
    pub more: bool,
}
