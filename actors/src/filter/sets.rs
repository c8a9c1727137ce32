//! Which fields each list has. docs/filters.md shows them to people; a test holds the two equal.

/// The fields of one list.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldSet {
    /// The list, as people call it.
    pub list: &'static str,
    /// The fields that a filter of this list may name.
    pub fields: &'static [Field],
    /// The fields that a text without a field is searched in.
    pub searched: &'static [&'static str],
}

/// A field of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// How a filter calls it.
    pub name: &'static str,
    /// What is asked of it.
    pub kind: FieldKind,
    /// What it is, for people.
    pub help: &'static str,
}

/// What is asked of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// One of these words.
    Word(&'static [&'static str]),
    /// An id or a name; or with `~` a part of one.
    Name,
    /// The whole text; or with `~` a part of it.
    Text,
    /// A glob, as in a view; or with `~` a part of the path.
    Path,
    /// A whole number, compared for equality.
    Number,
    /// A moment; the row's is that one or a later one.
    Since,
    /// A moment; the row's is an earlier one.
    Until,
}

/// Names that are no longer than this are compared with those of fields: comparing costs length times length.
const NAME_MAX: usize = 64;
/// Characters that are shown of what somebody gave.
const SHOWN: usize = 64;
/// How like a name is to one that is meant, between 0 and 1.
const ALIKE: f64 = 0.7;

impl FieldSet {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// What is said of a field that the list lacks.
    pub(super) fn without(&self, name: &str) -> String {
        let likeness = |field: &&Field| strsim::normalized_damerau_levenshtein(field.name, name);
        let near = self.fields.iter().filter(|_| name.len() <= NAME_MAX);
        let near = near.filter(|field| likeness(field) >= ALIKE);
        let near = near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        let hint = near.map_or_else(String::new, |field| format!(" (did you mean {}?)", field.name));
        let names: Vec<_> = self.fields.iter().map(|field| field.name).collect();
        format!(
            "{} have no field {}{hint}; they have: {}. In quotation marks it is a text to search for",
            self.list,
            shown(name),
            names.join(", ")
        )
    }
}

/// What somebody gave, not longer than a line.
pub(super) fn shown(text: &str) -> String {
    let some: String = text.chars().take(SHOWN).collect();
    if some.len() < text.len() { format!("{some:?}...") } else { format!("{some:?}") }
}

const fn field(name: &'static str, kind: FieldKind, help: &'static str) -> Field {
    Field { name, kind, help }
}

const APP: Field = field("app", FieldKind::Name, "the app");
const REPOSITORY: Field = field(
    "repository",
    FieldKind::Name,
    "the repository: its `repository_id`, `owner/name` or the name alone",
);
const NAME: Field = field("name", FieldKind::Text, "`owner/name` of the repository");
const PATH: Field = field("path", FieldKind::Path, "the path of the file");
const KIND: Field =
    field("kind", FieldKind::Word(&["create", "update", "delete"]), "what happened to the file");
const STATUS: Field = field("status", FieldKind::Number, "the last status code of the receiver");

/// What `GET /api/deliveries` may be filtered by.
pub static DELIVERIES: FieldSet = FieldSet {
    list: "deliveries",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        field("branch", FieldKind::Name, "the branch: its full name, or the name without `refs/heads/`"),
        PATH,
        KIND,
        field(
            "state",
            FieldKind::Word(&["delivered", "parked", "failed", "pending", "dropped"]),
            "what became of it",
        ),
        STATUS,
        field("attempts", FieldKind::Number, "how often it was tried"),
        field("since", FieldKind::Since, "settled, or tried last, then or later"),
        field("until", FieldKind::Until, "settled, or tried last, before"),
    ],
    searched: &["name", "branch", "path"],
};

/// What lists, redrives and dismissals of dead letters may be filtered by.
pub static LETTERS: FieldSet = FieldSet {
    list: "dead letters",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        PATH,
        KIND,
        field(
            "reason",
            FieldKind::Word(&["rejected", "failing", "content_unavailable", "skipped"]),
            "why it was given up",
        ),
        field(
            "state",
            FieldKind::Word(&["open", "redrive_requested", "redriven", "superseded", "dismissed"]),
            "where it stands",
        ),
        STATUS,
        field("answer", FieldKind::Text, "the beginning of the receiver's last answer"),
        field("since", FieldKind::Since, "given up then or later"),
        field("until", FieldKind::Until, "given up before"),
    ],
    searched: &["name", "path", "answer"],
};

/// What lists of watches may be filtered by; on the wire a watch is a repository.
pub static REPOSITORIES: FieldSet = FieldSet {
    list: "repositories",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        field("url", FieldKind::Text, "the address, as it is normalised"),
        field("watch_name", FieldKind::Text, "what tells the watch from others of the same refs"),
        field("state", FieldKind::Word(&["active", "paused"]), "what was chosen"),
        field(
            "condition",
            FieldKind::Word(&["behind", "blocked", "paused", "failing"]),
            "how it is; several may hold at once",
        ),
        field("mode", FieldKind::Word(&["net", "every"]), "how commits are delivered"),
        field("sink", FieldKind::Word(&["endpoint", "stream", "pull", "print"]), "where its changes go"),
        field("error", FieldKind::Text, "what the last scan said, if it failed"),
        field("since", FieldKind::Since, "registered then or later"),
        field("until", FieldKind::Until, "registered before"),
    ],
    searched: &["name", "url", "watch_name", "error"],
};

/// What the list of apps may be filtered by.
pub static APPS: FieldSet = FieldSet {
    list: "apps",
    fields: &[
        APP,
        field("name", FieldKind::Text, "the name"),
        field("email", FieldKind::Text, "the contact address"),
        field("url", FieldKind::Text, "where it receives"),
        field("description", FieldKind::Text, "what it is"),
        field("state", FieldKind::Word(&["enabled", "disabled"]), "whether it is served"),
        field("since", FieldKind::Since, "registered then or later"),
        field("until", FieldKind::Until, "registered before"),
    ],
    searched: &["name", "email", "url", "description"],
};

/// What lists and tails of ledgers may be filtered by.
pub static LEDGER: FieldSet = FieldSet {
    list: "entries",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        field("type", FieldKind::Text, "what happened: `watch.blocked`, or with `~` a part of it"),
        field("subject", FieldKind::Text, "the id of what changed"),
        field("origin", FieldKind::Word(&["commit", "tick", "person", "outside"]), "what caused it"),
        field(
            "by",
            FieldKind::Text,
            "the origin by its name: a token, `<cursor>/<round>`, `git`, `endpoint`",
        ),
        field("data", FieldKind::Text, "with `~` a part of the data, which is JSON"),
        field("since", FieldKind::Since, "written then or later"),
        field("until", FieldKind::Until, "written before"),
    ],
    searched: &["name", "type", "data"],
};

/// What `GET /api/subscriptions` may be filtered by.
pub static SUBSCRIPTIONS: FieldSet = FieldSet {
    list: "subscriptions",
    fields: &[
        field("name", FieldKind::Name, "the subscription: its name or its `subscription_id`"),
        field("state", FieldKind::Word(&["active", "paused", "blocked", "expired"]), "how it stands"),
        field("sink", FieldKind::Word(&["endpoint", "stream"]), "the kind of its sink"),
        field("filter", FieldKind::Text, "the text of its filter; with `~` a part of it"),
        field("reason", FieldKind::Text, "why it is blocked; with `~` a part of it"),
        field("since", FieldKind::Since, "made then or later"),
        field("until", FieldKind::Until, "made before"),
    ],
    searched: &["name", "filter", "reason"],
};

/// Every list that takes a filter.
pub static ALL: [&FieldSet; 6] = [&DELIVERIES, &LETTERS, &REPOSITORIES, &APPS, &LEDGER, &SUBSCRIPTIONS];
