//! Filters on both databases: they mean the rows that they mean in memory, and a caller binds values and
//! nothing else.

use std::collections::BTreeSet;

use sea_orm::{DbBackend, Value};
use tidings_actors::{
    model::filter::{
        Field, FieldKind, FieldSet, Filter,
        sets::{APPS, LEDGER, LETTERS, REPOSITORIES},
    },
    ports::{
        Administration, DeadLetter, LedgerFilter, Ledgers, LetterFilter, LetterNames, Random, WatchFilter,
    },
};
use tidings_entity::{
    dead_letter,
    id::DeadLetterId,
    kind::{LetterStatus, Operation, ParkReason},
};

use super::*;
use crate::{
    apps,
    database::rows::{
        self,
        filter::{Columns, bounded, condition},
    },
    lanes::letters::letter_search::{self, LetterRange},
    ledger,
    watching::watches::watch_search,
};

/// When the filters of these tests are read.
const NOW: Timestamp = Timestamp(100_000_000);
/// Paths with all that databases and globs stumble over.
const PATHS: [&[u8]; 16] = [
    b"docs/a.md",
    b"docs/A.md",
    b"docs/deep/er/b.md",
    b"docs0",
    b"docs",
    b"Docs/a.md",
    b"src/100%.txt",
    b"src/100x.txt",
    b"src/_x",
    b"src/ax",
    b"src/\xff\xfe",
    b"src/\xc3\x9cber",
    b"src/it's",
    b"src/a\\b",
    b"x.md",
    b"[a]*?",
];
const ANSWERS: [&str; 5] =
    ["", "No such page", "100% wrong_answer", "Fehler: ÜBER", "it's \"quoted\" \\ back"];

/// Terms that SQL evaluates as they are.
const EXACT: [&str; 38] = [
    "state:open",
    "state:redriven",
    "kind:delete",
    "reason:failing",
    "status:500",
    "status:404",
    "since:-50s",
    "until:-50s",
    "since:1970-01-02T03:45:30Z",
    "path:docs/a.md",
    "path:docs/**",
    "path:docs/",
    "path:**",
    "path:~A.M",
    "path:~%",
    "path:~_",
    "path:~docs",
    "path:~über",
    "path:~\"it's\"",
    "path:~\"\\\\\"",
    "answer:\"\"",
    "answer:\"no SUCH page\"",
    "answer:~\"100%\"",
    "answer:~_",
    "answer:~ü",
    "answer:~Ü",
    "answer:~\"'\"",
    "app:\"docs % _ Büro\"",
    "app:~BÜRO",
    "app:~docs",
    "repository:reader",
    "repository:octo/Reader",
    "repository:~octo",
    "name:octo/reader",
    "name:~/",
    "page",
    "%",
    "\"' or 1 = 1 --\"",
];
/// Terms of which SQL knows less than they say.
const NARROWED: [&str; 8] = [
    "path:*.md",
    "path:docs/*",
    "path:docs/*.md",
    "path:**/*.md",
    "path:src/?x",
    "path:src/[!_]x",
    "path:src/{it's,100x}*",
    "path:\"src/a\\\\*\"",
];

/// A filter of some terms, and whether SQL evaluates all of them.
fn made_up(random: &SeededRandom, depth: u64) -> (String, bool) {
    let pick = |from: &[&str]| {
        let at = random.below(from.len() as u64);
        from[usize::try_from(at).expect("small")].to_owned()
    };
    let inner = || made_up(random, depth - 1);
    match random.below(if depth == 0 { 4 } else { 9 }) {
        0 => (pick(&NARROWED), false),
        1..=3 => (pick(&EXACT), true),
        4 | 5 => {
            let ((one, exact), (other, too)) = (inner(), inner());
            (format!("({one} {other})"), exact && too)
        }
        6 | 7 => {
            let ((one, exact), (other, too)) = (inner(), inner());
            (format!("({one} OR {other})"), exact && too)
        }
        _ => {
            let (one, exact) = inner();
            (format!("NOT {one}"), exact)
        }
    }
}

fn letter(number: usize, watch: &Watch, random: &SeededRandom) -> dead_letter::Model {
    fn pick<T: Copy>(random: &SeededRandom, from: &[T]) -> T {
        from[usize::try_from(random.below(from.len() as u64)).expect("small")]
    }
    let place = i64::try_from(number).expect("small");
    // A cursor has one open letter of a path at most.
    let states = if number < PATHS.len() { LetterStatus::ALL } else { &LetterStatus::ALL[2..] };
    dead_letter::Model {
        id: DeadLetterId::new(Ulid::from_parts(
            u64::try_from(number).expect("small"),
            u128::from(watch.is_private),
        )),
        app_id: watch.app.clone(),
        watch_id: watch.id.clone(),
        cursor_id: watch.cursors[0].id.clone(),
        round: 1,
        position: place,
        path: PATHS[number % PATHS.len()].to_vec(),
        operation: pick(random, Operation::ALL),
        delivery_id: format!("dlv_{number}"),
        reason: pick(random, ParkReason::ALL),
        status: pick(random, states),
        before_mode: None,
        before_blob: None,
        http_status: pick(random, &[None, Some(404), Some(500)]),
        excerpt: pick(random, &ANSWERS).to_owned(),
        counted: false,
        self_redriven: false,
        bound_round: None,
        redrive_id: None,
        task_id: None,
        created_at: NOW.0 - 1000 * place,
        closed_at: None,
    }
}

/// Two apps with a watch and letters each, and what filters call them.
async fn stocked(home: &Home) -> (SqlStore, Vec<(Watch, LetterNames)>) {
    let store = home.open(1).await.expect("opened");
    let (connection, random) = (home.raw().await, SeededRandom::new(7));
    let mut stocked = Vec::new();
    for (number, name) in [(1, "Docs % _ Büro"), (2, "other")] {
        let app = NewApp { name: name.into(), ..new_app(number) };
        store.create_app(&app).await.expect("created");
        let watch = watch(&store, &app.id, number, (number == 2).then_some("secret")).await;
        let text = "update watch set owner = 'Octo', name = 'Reader' where id = $1";
        rows::execute(&connection, "watch", text, vec![watch.id.clone().into()]).await.expect("renamed");
        let letters = (0..64).map(|number| letter(number, &watch, &random)).collect();
        rows::insert(&connection, "dead_letter", letters).await.expect("inserted");
        let names =
            LetterNames { app: app.id, app_name: name.into(), owner: "Octo".into(), name: "Reader".into() };
        stocked.push((watch, names));
    }
    (store, stocked)
}

fn read(text: &str, set: &'static FieldSet) -> Filter {
    Filter::parse(text, set, NOW).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn q(text: &str) -> LetterFilter {
    LetterFilter { q: Some(read(text, &LETTERS)), ..LetterFilter::default() }
}

async fn a_filter_means_in_sql_what_it_means_in_memory(home: Home) {
    let (store, stocked) = stocked(&home).await;
    let connection = home.raw().await;
    let (watch, names) = &stocked[0];
    let all =
        store.dead_letters(&watch.app, &LetterFilter::default(), None, 1_000).await.expect("read").letters;
    assert_eq!(all.len(), 64);
    let random = SeededRandom::new(11);
    let terms = EXACT.iter().map(|text| ((*text).to_owned(), true));
    let terms = terms.chain(NARROWED.iter().map(|text| ((*text).to_owned(), false)));
    let mut some = 0;
    for (text, is_exact) in terms.chain((0..300).map(|_| made_up(&random, 4))) {
        let Ok(filter) = Filter::parse(&text, &LETTERS, NOW) else {
            assert!(text.len() > 1_024 || text.matches(':').count() > 20, "{text}");
            continue;
        };
        let filter = LetterFilter { q: Some(filter), ..LetterFilter::default() };
        let matcher = filter.matcher().expect("it compiles");
        let meant: Vec<&DeadLetter> = all.iter().filter(|one| matcher.admits(one, Some(names))).collect();
        let found = store.dead_letters(&watch.app, &filter, None, 1_000).await.expect("read").letters;
        assert_eq!(found.iter().collect::<Vec<_>>(), meant, "{text}");
        let range = LetterRange {
            condition: "d.app_id = $1".into(),
            values: vec![watch.app.clone().into()],
            order: "desc",
            limit: 1_000,
            filter: filter.q.as_ref(),
        };
        let looked = letter_search::look(&connection, range).await.expect("read");
        let sql: BTreeSet<DeadLetterId> = looked.found.iter().map(|found| found.row.id.clone()).collect();
        let memory: BTreeSet<DeadLetterId> = meant.iter().map(|letter| letter.id.clone()).collect();
        assert!(sql.is_superset(&memory), "{text}");
        assert!(!is_exact || sql == memory, "{text}: {sql:?} is not {memory:?}");
        some += usize::from(!memory.is_empty() && memory.len() < all.len());
    }
    assert!(some > 100, "{some} filters mean some letters and not all");
}

async fn a_filter_of_one_app_shows_no_row_of_another(home: Home) {
    let (store, stocked) = stocked(&home).await;
    let (own, other) = (&stocked[0].0, &stocked[1].0);
    for text in ["NOT app:x OR app:other", "state:open OR NOT state:open", "app:other", "path:** OR a"] {
        let found = store.dead_letters(&own.app, &q(text), None, 1_000).await.expect("read").letters;
        assert!(found.iter().all(|letter| letter.watch == own.id), "{text}");
        let filter = WatchFilter {
            app: Some(own.app.clone()),
            q: Some(read("NOT app:x OR app:other", &REPOSITORIES)),
            ..WatchFilter::default()
        };
        let watches = store.all_watches(&filter, None, 100).await.expect("read");
        assert_eq!(watches.iter().map(|watch| &watch.id).collect::<Vec<_>>(), [&own.id]);
    }
    let step = store.dismiss_some(&own.app, &q("app:other OR NOT app:x"), None, NOW).await.expect("a step");
    assert!(step.dismissed > 0);
    let is_open = |letter: &&DeadLetter| letter.status == LetterStatus::Dismissed;
    let foreign = store.dead_letters(&other.app, &LetterFilter::default(), None, 1_000).await.expect("read");
    let before = foreign.letters.iter().filter(is_open).count();
    let none = store.dismiss_some(&own.app, &q("app:other"), None, NOW).await.expect("a step");
    assert_eq!(none.dismissed, 0);
    let foreign = store.dead_letters(&other.app, &LetterFilter::default(), None, 1_000).await.expect("read");
    assert_eq!(foreign.letters.iter().filter(is_open).count(), before);
}

async fn a_search_is_bounded_by_what_it_looks_at(home: Home) {
    let (store, stocked) = stocked(&home).await;
    let connection = home.raw().await;
    let (watch, _) = &stocked[0];
    let nothing = read("nowhere", &LETTERS);
    for order in ["asc", "desc"] {
        let range = |filter| LetterRange {
            condition: "d.app_id = $1".into(),
            values: vec![watch.app.clone().into()],
            order,
            limit: 10,
            filter,
        };
        let looked = letter_search::look(&connection, range(Some(&nothing))).await.expect("read");
        let plain = letter_search::look(&connection, range(None)).await.expect("read");
        assert_eq!((looked.found.len(), looked.count), (0, 10), "{order}");
        assert_eq!(looked.last, plain.found.last().map(|found| found.row.id.clone()), "{order}");
    }
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page =
            store.dead_letters(&watch.app, &q("path:docs/**"), before.as_ref(), 5).await.expect("read");
        pages.extend(page.letters.into_iter().map(|letter| letter.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let whole = store.dead_letters(&watch.app, &q("path:docs/**"), None, 1_000).await.expect("read").letters;
    assert_eq!(pages, whole.into_iter().map(|letter| letter.id).collect::<Vec<_>>());
    assert_eq!(pages.len(), 12);
}

/// A term over a field, with a value that fits.
fn term(field: &Field) -> Vec<String> {
    let name = field.name;
    match field.kind {
        FieldKind::Word(words) => words.iter().map(|word| format!("{name}:{word}")).collect(),
        FieldKind::Name | FieldKind::Text => vec![format!("{name}:a"), format!("{name}:~a")],
        FieldKind::EntryType => vec![format!("{name}:watch.blocked"), format!("{name}:~a")],
        FieldKind::Path => vec![format!("{name}:a*"), format!("{name}:~a")],
        FieldKind::Number => vec![format!("{name}:1")],
        FieldKind::Since | FieldKind::Until => vec![format!("{name}:-1s")],
    }
}

async fn every_field_of_a_list_is_asked_of_the_database(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    watch(&store, &app.id, 1, None).await;
    for text in REPOSITORIES.fields.iter().flat_map(term).chain(["a".into()]) {
        let filter = WatchFilter { q: Some(read(&text, &REPOSITORIES)), ..WatchFilter::default() };
        store.all_watches(&filter, None, 10).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for text in APPS.fields.iter().flat_map(term).chain(["a".into()]) {
        let found = store.filtered_apps(&read(&text, &APPS), None, 10).await;
        found.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for text in LEDGER.fields.iter().flat_map(term).chain(["a".into()]) {
        let filter = LedgerFilter { query: Some(read(&text, &LEDGER)), ..LedgerFilter::default() };
        let found = store.entries_of_all(&filter, None, 10).await;
        found.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for text in LETTERS.fields.iter().flat_map(term).chain(["a".into()]) {
        let found = store.dead_letters(&app.id, &q(&text), None, 10).await;
        found.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

async fn watches_and_apps_are_found_by_what_is_known_of_them(home: Home) {
    let store = home.open(1).await.expect("opened");
    for (number, name) in [(1, "Docs"), (2, "search")] {
        let app = NewApp { name: name.into(), email: format!("{name}@example.org"), ..new_app(number) };
        store.create_app(&app).await.expect("created");
        watch(&store, &app.id, number, None).await;
    }
    let patch = tidings_actors::ports::WatchPatch {
        state: Some((tidings_entity::kind::WatchState::Paused, None)),
        ..tidings_actors::ports::WatchPatch::default()
    };
    let second = store.all_watches(&WatchFilter::default(), None, 10).await.expect("read")[1].clone();
    store.patch_watch(&second.app, &second.id, &patch).await.expect("paused");
    let watches = async |text: &str| -> Vec<String> {
        let filter = WatchFilter { q: Some(read(text, &REPOSITORIES)), ..WatchFilter::default() };
        let found = store.all_watches(&filter, None, 10).await.expect("read");
        assert!(found.iter().all(|watch| !watch.cursors.is_empty()), "{text}");
        found.into_iter().map(|watch| watch.url).collect()
    };
    let (one, other) = ("https://git.example/a/b1", "https://git.example/a/b2");
    for (text, expected) in [
        ("", &[one, other][..]),
        ("app:docs", &[one]),
        ("app:~S", &[one, other]),
        ("name:a/b NOT url:~b2", &[one]),
        ("repository:b state:paused", &[other]),
        ("condition:paused", &[other]),
        ("condition:behind condition:paused", &[other]),
        ("NOT condition:paused mode:net sink:pull", &[one]),
        ("sink:endpoint", &[]),
        ("watch_name:\"\" b1", &[one]),
        ("error:~a", &[]),
        ("NOT error:~a", &[one, other]),
    ] {
        assert_eq!(watches(text).await, expected, "{text}");
    }
    let apps = async |text: &str| -> Vec<String> {
        let found = store.filtered_apps(&read(text, &APPS), None, 10).await.expect("read");
        found.into_iter().map(|app| app.name).collect()
    };
    for (text, expected) in [
        ("state:enabled", &["Docs", "search"][..]),
        ("state:disabled", &[]),
        ("app:docs", &["Docs"]),
        ("NOT email:~SEARCH@", &["Docs"]),
        ("url:~a OR description:~a", &[]),
        ("search since:-100000s", &["search"]),
        ("until:-100000s", &[]),
    ] {
        assert_eq!(apps(text).await, expected, "{text}");
    }
    let next = store.filtered_apps(&read("", &APPS), Some(&new_app(1).id), 10).await.expect("read");
    assert_eq!(next.len(), 1, "behind the first");
}

on_both! {
    a_filter_means_in_sql_what_it_means_in_memory
    a_filter_of_one_app_shows_no_row_of_another
    a_search_is_bounded_by_what_it_looks_at
    every_field_of_a_list_is_asked_of_the_database
    watches_and_apps_are_found_by_what_is_known_of_them
}

#[test]
fn every_field_has_a_column() {
    let lists: [(&FieldSet, Columns); 5] = [
        (&LETTERS, letter_search::column),
        (&REPOSITORIES, watch_search::column),
        (&APPS, apps::column),
        (&LEDGER, ledger::columns_of(DbBackend::Sqlite)),
        (&LEDGER, ledger::columns_of(DbBackend::Postgres)),
    ];
    for (set, columns) in lists {
        for field in set.fields {
            assert!(columns(field.name).is_some(), "{} of {}", field.name, set.list);
        }
    }
}

#[test]
fn a_filter_of_many_terms_looks_at_fewer_letters() {
    for (terms, expected) in [(0, 2_000), (1, 2_000), (4, 2_000), (5, 1_000), (16, 500), (32, 250)] {
        let text = vec!["a"; terms].join(" ");
        assert_eq!(bounded(2_000, Some(&read(&text, &LETTERS))), expected, "{terms}");
    }
    assert_eq!(bounded(2_000, None), 2_000);
}

/// Whatever a caller writes is a value: the text of the statement holds words of ours alone.
#[test]
fn no_text_of_a_caller_stands_in_the_statement() {
    let mark = "zzmarkzz";
    for text in [
        format!("{mark} app:{mark} repository:~{mark} name:\"{mark}' or 1 = 1 --\""),
        format!("path:{mark}/** path:{mark} path:~{mark} path:{mark}*"),
        format!("NOT (answer:~\"%{mark}_\" OR \"\\\"{mark}\\\\\")"),
    ] {
        for backend in [DbBackend::Sqlite, DbBackend::Postgres] {
            let mut values: Vec<Value> = vec!["before".into()];
            let filter = read(&text, &LETTERS);
            let condition = condition(backend, &filter, letter_search::column, &mut values);
            assert!(!condition.contains(mark) && !condition.contains("1 = 1 --"), "{condition}");
            assert!(condition.contains("$2") && !condition.contains("$1 "), "{condition}");
            let shown = format!("{values:?}");
            assert!(values.len() > 3 && shown.contains("before"), "{shown}");
        }
    }
}
