//! Dead letters as they are searched, and redrives of many of them as they go on.

use serde::{Deserialize, Serialize};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::{ContentRule, LetterStatus, Operation, ParkReason},
};

use super::DeadLetter;
use crate::{
    filter::{Filter, Record, Value},
    time::Timestamp,
    view::{InvalidView, MAX_SIZE_DEFAULT, View, ViewFilter},
};

/// Letters that one step of a redrive, or of taking one back, looks at. A step is one transaction,
/// so this is how long deliveries wait for it: some milliseconds.
pub const REDRIVE_STEP: u64 = 2_000;
/// Letters that one page of a search looks at; fewer may be found.
pub const SEARCH_STEP: u64 = 10_000;
/// Letters that a [`LaneSnapshot`](super::LaneSnapshot) holds at most, and that one redrive binds.
pub const LANE_LETTERS: usize = 1_000;

/// Which paths are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathFilter {
    /// This one, by its raw bytes.
    Exact(Vec<u8>),
    /// All that begin with these bytes.
    Prefix(Vec<u8>),
    /// All that match this glob, by the rules of a view.
    Glob(String),
}

/// A [`PathFilter`], compiled.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// Every path.
    Any,
    /// This path.
    Exact(Vec<u8>),
    /// Paths that begin so.
    Prefix(Vec<u8>),
    /// Paths of this view.
    Glob(Box<ViewFilter>),
}

impl PathMatcher {
    /// Compiles; `None` admits every path.
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

    /// Whether a path is meant.
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

/// Which letters are meant: those that meet everything that is said. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterFilter {
    /// Of this watch.
    pub watch: Option<WatchId>,
    /// Of none of these watches.
    pub except: Vec<WatchId>,
    /// Of these paths.
    pub path: Option<PathFilter>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// Given up for this reason.
    pub reason: Option<ParkReason>,
    /// That stand there. A redrive takes open ones whatever is said here.
    pub status: Option<LetterStatus>,
    /// Given up then or later, in unix milliseconds.
    pub from: Option<i64>,
    /// Given up before, in unix milliseconds.
    pub to: Option<i64>,
    /// That this filter over [`LETTERS`](crate::filter::sets::LETTERS) means as well. Where rows hold it,
    /// it is a text in which each moment is named in full.
    #[serde(default, with = "written", skip_serializing_if = "Option::is_none")]
    pub q: Option<Filter>,
}

impl LetterFilter {
    /// Letters that stand there.
    #[must_use]
    pub fn standing(status: LetterStatus) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Compiles.
    ///
    /// # Errors
    /// [`InvalidView`] for a glob that does not parse.
    pub fn matcher(&self) -> Result<LetterMatcher, InvalidView> {
        Ok(LetterMatcher { path: PathMatcher::new(self.path.as_ref())?, filter: self.clone() })
    }
}

/// A [`LetterFilter`], compiled.
#[derive(Clone, Debug)]
pub struct LetterMatcher {
    filter: LetterFilter,
    path: PathMatcher,
}

impl LetterMatcher {
    /// Whether a letter is meant. A letter without names is meant where they do not matter.
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

/// What people call the app and the repository of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterNames {
    /// The app.
    pub app: AppId,
    /// Its name.
    pub app_name: String,
    /// The owner of the repository.
    pub owner: String,
    /// The name of the repository.
    pub name: String,
}

impl LetterNames {
    /// `owner/name`.
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

    use crate::filter::{Filter, sets::LETTERS};

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
    /// What was found, newest first.
    pub letters: Vec<DeadLetter>,
    /// The last letter that was looked at; `None`: there are no older ones.
    pub next: Option<DeadLetterId>,
}

/// Which open letters of a cursor are asked for.
#[derive(Clone, Debug)]
pub enum LetterPick {
    /// These, at most 1,000.
    Ids(Vec<DeadLetterId>),
    /// Of these paths, at most 1,000.
    Paths(Vec<Vec<u8>>),
    /// The next 1,000 by path, after this one.
    After(Option<Vec<u8>>),
}

/// What one step of dismissing letters by a filter did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dismissed {
    /// Letters that are closed now.
    pub dismissed: u64,
    /// Letters that are meant and stay open, because an open round sends them.
    pub bound: u64,
    /// The last letter that was looked at; `None`: there are no older ones.
    pub next: Option<DeadLetterId>,
}

/// Why a letter cannot be dismissed while the open round of its cursor sends it. Public.
#[must_use]
pub fn bound_to_open_round(id: &DeadLetterId) -> String {
    format!("{id} is being sent by the open round of its branch; dismiss it once that round has ended")
}

/// Letters that were asked to be sent again together, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// Its id.
    pub id: RedriveId,
    /// Which letters; `None`: some that were named one by one.
    pub filter: Option<LetterFilter>,
    /// Letters are still being marked: `asked` grows.
    pub is_marking: bool,
    /// Letters that were marked.
    pub asked: u64,
    /// Of them: sent again and acknowledged.
    pub sent: u64,
    /// Of them: sent again and given up again, each with a new letter.
    pub refused: u64,
    /// Of them: made moot by a later change of their path, or gone with their watch.
    pub superseded: u64,
    /// Of them: taken back.
    pub cancelled: u64,
    /// Of them: still to be sent, or being sent.
    pub left: u64,
    /// The moment it was asked for.
    pub created_at: Timestamp,
}

/// What one step of a redrive did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedriveStep {
    /// Which redrive.
    pub redrive: RedriveId,
    /// Whose.
    pub app: AppId,
    /// Letters that it marked.
    pub marked: u64,
    /// Their cursors.
    pub cursors: Vec<CursorId>,
    /// There may be more to mark.
    pub more: bool,
}
