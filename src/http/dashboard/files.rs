//! The files of the dashboard, which lie in `src/dashboard/`: they are part of the binary. A debug build
//! reads them from that folder at each request, so that a change of a page needs no build.

use bytes::Bytes;

macro_rules! files {
    ($($name:literal,)*) => {
        /// Every file with its name.
        pub(super) const ALL: &[(&str, &[u8])] =
            &[$(($name, include_bytes!(concat!("../../dashboard/", $name)))),*];
    };
}

files! {
    "base.css",
    "core/api.js",
    "core/format.js",
    "core/json.js",
    "core/live.js",
    "core/router.js",
    "core/session.js",
    "core/theme.js",
    "index.html",
    "layout.css",
    "main.js",
    "making.css",
    "pages/app.js",
    "pages/apps.js",
    "pages/audit.js",
    "pages/deliveries.js",
    "pages/delivery.js",
    "pages/ledger.js",
    "pages/letter.js",
    "pages/letters.js",
    "pages/overview.js",
    "pages/queue.js",
    "pages/queues.js",
    "pages/schedule.js",
    "pages/schedules.js",
    "pages/signin.js",
    "pages/start.js",
    "pages/subscription.js",
    "pages/system.js",
    "pages/task.js",
    "pages/tokens.js",
    "pages/tree.js",
    "pages/watch.js",
    "pages/watches.js",
    "parts.css",
    "parts/acts.js",
    "parts/audit-words.js",
    "parts/dialog.js",
    "parts/diff.js",
    "parts/fields.js",
    "parts/forms.js",
    "parts/hooks.js",
    "parts/plot.js",
    "parts/repository-form.js",
    "parts/request-body.js",
    "parts/shell.js",
    "parts/states.js",
    "parts/subscriptions.js",
    "parts/table.js",
    "parts/tries.js",
    "parts/words.js",
    "tasks/schedules.js",
    "tasks/tasks.js",
    "tasks/watch-tasks.js",
    "vendor/LICENSES",
    "vendor/lit-html.js",
    "vendor/uplot.css",
    "vendor/uplot.js",
}

/// A file, by its name below the folder.
pub(super) fn read(name: &str) -> Option<Bytes> {
    #[cfg(debug_assertions)]
    if let Some(fresh) = fresh(name) {
        return Some(fresh);
    }
    let (_, embedded) = ALL.iter().find(|(known, _)| *known == name)?;
    Some(Bytes::from_static(embedded))
}

/// The present content of a file in the folder.
#[cfg(debug_assertions)]
fn fresh(name: &str) -> Option<Bytes> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-./".contains(&byte);
    let is_within = name.bytes().all(is_plain) && !name.contains("..") && !name.starts_with('/');
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard"));
    is_within.then(|| std::fs::read(folder.join(name)).ok()).flatten().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use tidings_actors::model::permission::Permission;
    use tidings_entity::kind::EntryType;

    use super::*;

    /// The names below a folder, and the text of each.
    fn files_of(folder: &Path, within: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let name = format!("{within}{}", entry.file_name().to_str().expect("a name"));
            match entry.path().is_dir() {
                true => files_of(&entry.path(), &format!("{name}/"), found),
                false => found.push((name, fs::read_to_string(entry.path()).expect("a text"))),
            }
        }
    }

    fn all_files() -> Vec<(String, String)> {
        let mut found = Vec::new();
        files_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard"), "", &mut found);
        found
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_binary_and_no_other() {
        let here: BTreeSet<String> = all_files().into_iter().map(|(name, _)| name).collect();
        let embedded: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(here, embedded);
        let bytes: usize = ALL.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 500_000, "the binary grows by {bytes} bytes");
    }

    #[test]
    fn every_vendored_file_is_listed_with_its_licence() {
        let listed = read("vendor/LICENSES").expect("the file");
        let listed = String::from_utf8_lossy(&listed);
        for name in ALL.iter().filter_map(|(name, _)| name.strip_prefix("vendor/")) {
            assert!(name == "LICENSES" || listed.contains(name), "{name} has no licence");
        }
    }

    #[test]
    fn pages_ask_the_api_and_nothing_else() {
        for (name, text) in all_files().into_iter().filter(|(name, _)| name.ends_with(".js")) {
            let is_vendored = name.starts_with("vendor/");
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let asks = ["fetch(", "EventSource(", "XMLHttpRequest", "WebSocket(", "sendBeacon("];
                let is_asking = asks.iter().any(|word| line.contains(word));
                let is_of_api = name == "core/api.js" && line.contains("(`/api/${");
                assert!(!is_asking || is_of_api, "{name} asks something else than the API: {line}");
                let imported = line.split_once("import").and_then(|(_, rest)| rest.split('"').nth(1));
                let is_own = imported.is_none_or(|from| from.starts_with("./") || from.starts_with("../"));
                assert!(is_own, "{name} imports from elsewhere: {line}");
                let is_elsewhere = !is_vendored && line.contains("://");
                assert!(!is_elsewhere, "{name} names another server: {line}");
                let raw =
                    ["innerHTML", "unsafeHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("];
                let is_raw = !is_vendored && raw.iter().any(|word| line.contains(word));
                assert!(!is_raw, "{name} makes HTML of text: {line}");
            }
        }
    }

    #[test]
    fn pages_follow_every_type_of_entry() {
        let live = read("core/live.js").expect("the file");
        let live = String::from_utf8_lossy(&live);
        for known in EntryType::ALL {
            assert!(live.contains(&format!("\"{known}\"")), "the pages do not follow {known}");
        }
    }

    #[test]
    fn pages_name_permissions_that_there_are() {
        let known: BTreeSet<&str> = Permission::ALL.iter().map(|known| known.as_str()).collect();
        let mut named = 0;
        for (name, text) in all_files().into_iter().filter(|(name, _)| name.ends_with(".js")) {
            for mark in ["mayDo(\"", "ifMay(\"", "needs: \""] {
                for rest in text.split(mark).skip(1) {
                    let permission = rest.split('"').next().unwrap_or_default();
                    assert!(known.contains(permission), "{name} names {permission}");
                    named += 1;
                }
            }
        }
        assert!(named > 20, "{named}");
    }

    #[test]
    fn files_are_short_enough_to_be_read() {
        for (name, text) in all_files().into_iter().filter(|(name, _)| !name.starts_with("vendor/")) {
            assert!(text.lines().count() <= 500, "{name}");
            assert!(
                name.ends_with(".html") || text.starts_with("//") || text.starts_with("/*"),
                "{name}: no head"
            );
        }
    }
}
