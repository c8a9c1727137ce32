//! The filter `q` of lists and bulk verbs, through the API.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use tidings_actors::model::filter::{FieldKind, sets};
use tidings_entity::id::AppId;

use super::{ADMIN, House};

/// What is asked for, with all in it that a web address cannot hold spelt out.
fn at(path: &str, q: &str) -> String {
    let q: String = url::form_urlencoded::byte_serialize(q.as_bytes()).collect();
    format!("{path}{}q={q}", if path.contains('?') { '&' } else { '?' })
}

/// Two apps with a repository and letters each.
struct Two {
    house: House,
    mine: String,
    other: String,
}

impl Two {
    async fn open() -> Self {
        let house = House::open().await;
        let (mine, other) = (house.app().await, house.app().await);
        for (token, name) in [(&mine, "reader"), (&other, "writer")] {
            let app = house.call("GET", "/api/app", Some(token), None).await.json();
            let app: AppId = app["app_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            house.repository(token, &format!("https://github.com/o/{name}")).await;
            house.plant(&format!("update app set name = '{name}s' where id = '{app}'")).await;
            for path in [&b"docs/a.md"[..], b"docs/deep/b.md", b"src/x"] {
                house.park(&app, path).await;
            }
        }
        Self { house, mine, other }
    }

    /// A field of each item of a list, over all its pages.
    async fn listed(&self, token: &str, path: &str, field: &str) -> Vec<String> {
        let (mut found, mut next) = (Vec::new(), path.to_owned());
        loop {
            let page = self.house.call("GET", &next, Some(token), None).await;
            assert_eq!(page.status, 200, "{next}: {page:?}");
            let page = page.json();
            let items = page["items"].as_array().expect("items").clone();
            found.extend(items.iter().map(|item| item[field].as_str().expect("a text").to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { return found };
            next = format!("{path}&cursor={cursor}");
        }
    }

    async fn ask(&self, verb: &str, body: &Value) -> super::house::Answered {
        let path = format!("/api/dead-letters/{verb}");
        self.house.call("POST", &path, Some(&self.mine), Some(body)).await
    }
}

#[tokio::test]
async fn letters_are_listed_by_a_filter_beside_the_other_words() {
    let two = Two::open().await;
    let list = "/api/dead-letters?limit=1";
    for (q, expected) in [
        ("", &["src/x", "docs/deep/b.md", "docs/a.md"][..]),
        ("path:docs/**", &["docs/deep/b.md", "docs/a.md"]),
        ("path:docs/* OR x", &["src/x", "docs/a.md"]),
        ("NOT path:docs/*", &["src/x", "docs/deep/b.md"]),
        (
            "state:open status:400 answer:no kind:delete reason:rejected name:~READ",
            &["src/x", "docs/deep/b.md", "docs/a.md"],
        ),
        ("state:redriven", &[]),
        ("since:-1h", &[]),
        ("until:-1h repository:o/reader app:readers", &["src/x", "docs/deep/b.md", "docs/a.md"]),
    ] {
        assert_eq!(two.listed(&two.mine, &at(list, q), "path").await, expected, "{q}");
    }
    let both = at("/api/dead-letters?limit=1&path_prefix=docs/&status=open", "NOT a.md");
    assert_eq!(two.listed(&two.mine, &both, "path").await, ["docs/deep/b.md"]);
}

#[tokio::test]
async fn no_filter_shows_an_app_what_belongs_to_another() {
    let two = Two::open().await;
    for q in ["NOT app:x OR app:writers", "app:writers OR name:~/", "NOT (app:readers) OR o", ""] {
        let own = two.listed(&two.mine, &at("/api/dead-letters?limit=100", q), "dead_letter_id").await;
        let foreign = two.listed(&two.other, &at("/api/dead-letters?limit=100", q), "dead_letter_id").await;
        let (own, foreign): (BTreeSet<_>, BTreeSet<_>) =
            (own.into_iter().collect(), foreign.into_iter().collect());
        assert!(own.is_disjoint(&foreign) && !own.is_empty(), "{q}");
        let names = two.listed(&two.mine, &at("/api/repositories?limit=100", q), "name").await;
        assert!(names.iter().all(|name| name == "reader"), "{q}: {names:?}");
    }
    assert_eq!(
        two.listed(&two.mine, &at("/api/repositories?limit=1", "NOT app:x"), "name").await,
        ["reader"]
    );
    assert!(two.listed(&two.mine, &at("/api/dead-letters?limit=1", "app:writers"), "path").await.is_empty());
    let dry = two.ask("redrive", &json!({ "q": "NOT app:readers", "dry_run": true })).await.json();
    assert_eq!(dry["would_request"], 0);
    assert_eq!(two.ask("dismiss", &json!({ "q": "NOT app:x OR app:writers" })).await.json()["dismissed"], 3);
    assert_eq!(two.listed(&two.other, "/api/dead-letters?status=open", "path").await.len(), 3);
}

#[tokio::test]
async fn the_staff_filters_over_all_apps() {
    let two = Two::open().await;
    let letters = "/api/admin/dead-letters?limit=1";
    for (q, expected) in [
        ("app:readers path:docs/*", &["reader"][..]),
        ("app:~ers path:docs/*", &["writer", "reader"]),
        ("repository:o/writer src", &["writer"]),
        ("NOT app:~ers", &[]),
    ] {
        let named = two.listed(ADMIN, &at(letters, q), "repository").await;
        let named: Vec<_> = named.iter().filter_map(|name| name.strip_prefix("o/")).collect();
        assert_eq!(named, expected, "{q}");
    }
    for (q, expected) in
        [("name:~read", 1), ("state:active condition:paused", 0), ("app:~ers sink:endpoint", 2)]
    {
        let found = two.listed(ADMIN, &at("/api/admin/watches?limit=1", q), "name").await;
        assert_eq!(found.len(), expected, "{q}");
    }
    for (q, expected) in
        [("writ", &["writers"][..]), ("state:disabled", &[]), ("email:a@b.c", &["readers", "writers"])]
    {
        assert_eq!(two.listed(ADMIN, &at("/api/admin/apps?limit=1", q), "app_name").await, expected, "{q}");
    }
}

#[tokio::test]
async fn a_fault_is_told_with_its_column_and_what_works() {
    let two = Two::open().await;
    for (path, token, q, said) in [
        ("/api/dead-letters", two.mine.as_str(), "stat:open", "q, column 1: dead letters have no field"),
        (
            "/api/dead-letters",
            &two.mine,
            "\u{fc} stat:open",
            "column 3: dead letters have no field \"stat\" (did you mean state?)",
        ),
        (
            "/api/dead-letters",
            &two.mine,
            "state:opn",
            "column 7: state takes one of: open, redrive_requested",
        ),
        ("/api/deliveries", &two.mine, "reason:failing", "column 1: deliveries have no field \"reason\""),
        ("/api/deliveries", &two.mine, "(a", "column 1: no `)` closes this `(`"),
        ("/api/repositories", &two.mine, "path:docs/**", "repositories have no field \"path\""),
        ("/api/admin/dead-letters", ADMIN, "since:yesterday", "column 7: since takes a moment of RFC 3339"),
        ("/api/admin/watches", ADMIN, "condition:late", "behind, blocked, paused, failing"),
        ("/api/admin/apps", ADMIN, "reason:failing", "apps have no field"),
    ] {
        let answered = two.house.call("GET", &at(path, q), Some(token), None).await;
        let problem = answered.problem();
        assert_eq!(answered.status, 400, "{path}: {problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(said), "{path}: {detail}");
    }
    for verb in ["redrive", "dismiss"] {
        let answered = two.ask(verb, &json!({ "q": "a stat:open" })).await;
        assert_eq!(answered.status, 422);
        let problem = answered.problem();
        assert!(problem.to_string().contains("column 3: dead letters have no field"), "{problem}");
    }
    assert_eq!(
        two.listed(&two.mine, "/api/dead-letters?status=open", "path").await.len(),
        3,
        "nothing happened"
    );
}

#[tokio::test]
async fn a_dry_run_counts_what_the_same_filter_then_changes() {
    let two = Two::open().await;
    let open = async || two.listed(&two.mine, "/api/dead-letters?status=open", "path").await;
    let docs = json!({ "q": "path:docs/** NOT b.md" });
    let dry = |body: &Value| {
        let mut body = body.clone();
        body["dry_run"] = json!(true);
        body
    };
    for verb in ["redrive", "dismiss"] {
        let answered = two.ask(verb, &dry(&docs)).await;
        let told = answered.json();
        assert_eq!(
            (answered.status, &told["dry_run"], &told["would_request"]),
            (200, &json!(true), &json!(1))
        );
        assert_eq!(told["sample"][0]["path"], "docs/a.md");
        assert_eq!(open().await.len(), 3, "{verb}");
    }
    let all = two.ask("dismiss", &json!({ "q": "  " })).await;
    assert_eq!(all.status, 422, "a filter that says nothing is not all: {all:?}");
    assert_eq!(
        two.ask("redrive", &json!({ "q": "a", "ids": ["dead_00000000000000000000000000"] })).await.status,
        422
    );
    let asked = two.ask("redrive", &docs).await;
    assert_eq!((asked.status, &asked.json()["requested"]), (202, &json!(1)));
    let redrive = asked.json()["redrive_id"].as_str().expect("an id").to_owned();
    let shown =
        two.house.call("GET", &format!("/api/dead-letters/redrives/{redrive}"), Some(&two.mine), None).await;
    assert_eq!(shown.json()["filter"]["q"], "path:docs/** NOT b.md");
    assert_eq!(open().await, ["src/x", "docs/deep/b.md"]);
    let done = two.ask("dismiss", &json!({ "q": "b.md OR a.md", "kind": "delete" })).await;
    assert_eq!(done.json()["dismissed"], 2);
    assert_eq!(open().await, ["src/x"]);
}

#[tokio::test]
async fn a_dry_run_shows_twenty_letters_at_most() {
    let house = House::open().await;
    let token = house.app().await;
    house.repository(&token, "https://github.com/o/r").await;
    let app = house.call("GET", "/api/app", Some(&token), None).await.json();
    let app: AppId = app["app_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    for number in 0..25 {
        house.park(&app, format!("docs/{number:02}").as_bytes()).await;
    }
    let body = json!({ "q": "path:docs/**", "dry_run": true });
    let told = house.call("POST", "/api/dead-letters/redrive", Some(&token), Some(&body)).await.json();
    assert_eq!((&told["would_request"], told["sample"].as_array().map(Vec::len)), (&json!(25), Some(20)));
}

/// The tables of the guide.
fn tables() -> String {
    let mut page = String::new();
    for set in sets::ALL {
        let (first, rest) = set.list.split_at(1);
        page.push_str(&format!(
            "### {}{rest}\n\n| field | kind | meaning |\n|---|---|---|\n",
            first.to_uppercase()
        ));
        for field in set.fields {
            let kind = match field.kind {
                FieldKind::Word(words) => {
                    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
                }
                FieldKind::Name => "id or name".to_owned(),
                FieldKind::Text => "text".to_owned(),
                FieldKind::EntryType => "type of entry".to_owned(),
                FieldKind::Path => "path".to_owned(),
                FieldKind::Number => "number".to_owned(),
                FieldKind::Since | FieldKind::Until => "moment".to_owned(),
            };
            page.push_str(&format!("| `{}` | {kind} | {} |\n", field.name, field.help));
        }
        let searched: Vec<_> = set.searched.iter().map(|name| format!("`{name}`")).collect();
        page.push_str(&format!("\nA text without a field is searched in {}.\n\n", searched.join(", ")));
    }
    page
}

#[test]
fn the_guide_lists_the_fields_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/filters.md");
    let page = fs::read_to_string(path).expect("the guide");
    let (before, rest) = page.split_once("## Fields\n\n").expect("a chapter of fields");
    let (_, after) = rest.split_once("## Many at once").expect("a chapter behind it");
    let expected = format!("{before}## Fields\n\n{}## Many at once{after}", tables());
    expect_test::expect_file!["../../../docs/filters.md"].assert_eq(&expected);
}
