//! The pages that say which test shows a promise name tests and benchmarks that exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The Rust sources below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions below these folders.
fn functions(folders: &[PathBuf]) -> BTreeSet<String> {
    let mut found = Vec::new();
    folders.iter().for_each(|folder| sources(folder, &mut found));
    let mut names = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(&path).expect("a source");
        for (at, _) in text.match_indices("fn ") {
            let rest = &text[at + "fn ".len()..];
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            names.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    names
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let functions = functions(&[
        root.join("src"),
        root.join("actors/src"),
        root.join("actors/tests"),
        root.join("tests/it"),
    ]);
    let suite = fs::read_to_string(root.join("tests/README.md")).expect("the page");
    let guarantees = fs::read_to_string(root.join("docs/guarantees.md")).expect("the page");
    let (_, shown) = guarantees.split_once("## Which test shows it").expect("the table");
    let rows = suite.lines().chain(shown.lines());
    let is_promise =
        |row: &&str| row.starts_with("| ") && !row.starts_with("| what") && !row.starts_with("| promise");
    let mut named = 0;
    for row in rows.filter(is_promise) {
        let evidence = row.trim_end_matches('|').rsplit('|').next().expect("a last cell");
        let names: Vec<_> = evidence.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing shows: {row}");
        for name in names {
            let is_there = match name.strip_prefix("benches/") {
                Some(bench) => root.join("benches").join(bench).is_file(),
                None if name.starts_with(".ci/") => root.join(name).is_file(),
                None => functions.contains(name),
            };
            assert!(is_there, "no test is called {name}");
            named += 1;
        }
    }
    assert!(named > 40, "the tables were not found");
}

#[test]
fn every_benchmark_is_on_its_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("a text");
    let (page, manifest) = (read("docs/benchmarks.md"), read("Cargo.toml"));
    let targets: Vec<&str> = manifest
        .split("[[bench]]\nname = \"")
        .skip(1)
        .map(|rest| rest.split('"').next().expect("a name"))
        .collect();
    assert!(targets.len() > 8, "{targets:?}");
    for target in targets {
        assert!(page.contains(&format!("cargo bench --bench {target}`")), "{target} is on no page");
    }
    for program in ["benches/dashboard.py", "benches/side_by_side.py", "benches/peers/run"] {
        assert!(root.join(program).is_file() && page.contains(program), "{program}");
    }
    // Each part of the largest benchmark can be run alone, and the page says by which words.
    let tasks = read("benches/tasks.rs");
    for rest in tasks.split("is_wanted(\"").skip(1) {
        let part = rest.split('"').next().expect("words");
        let shown = [format!("--bench tasks -- {part}`"), format!("--bench tasks -- '{part}'`")];
        assert!(shown.iter().any(|command| page.contains(command)), "{part} is on no page");
    }
}
