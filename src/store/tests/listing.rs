//! How SQLite carries out the listing of rounds.

use tidings_actors::ports::{RoundFilter, RoundPlace};
use tidings_entity::id::CursorId;

use super::*;
use crate::{lanes::history, rows};

/// However many rounds there are, none is read but by its key, and they are not sorted.
#[tokio::test]
async fn rounds_are_listed_by_their_key() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    let app = new_app(1).id;
    let cursor = CursorId::new(Ulid::from_parts(3, 1));
    for place in [
        RoundPlace::Newest,
        RoundPlace::At(5, cursor.clone()),
        RoundPlace::Before(5, cursor),
        RoundPlace::From(5),
    ] {
        let filter = RoundFilter { place, ..RoundFilter::default() };
        let (text, values) = history::listing(&app, &filter, 33);
        let plan = rows::mixed(&connection, "test", &format!("explain query plan {text}"), values).await;
        let steps: Vec<String> =
            plan.expect("a plan").iter().map(|row| row.try_get("", "detail").expect("a text")).collect();
        let of = |table: &str| -> Vec<&String> {
            steps.iter().filter(|step| step.split(' ').nth(1) == Some(table)).collect()
        };
        let (inner, outer) = (of("n"), of("r"));
        assert!(inner.len() >= 2 && outer.len() == 1, "{steps:#?}");
        assert!(
            inner.iter().all(|step| step.starts_with("SEARCH n") && step.contains("(cursor_id=?")),
            "{steps:#?}"
        );
        assert!(outer[0].contains("(cursor_id=? AND number=?)"), "{steps:#?}");
        let sorts = steps.iter().filter(|step| step.contains("TEMP B-TREE")).count();
        assert!(sorts <= 3, "cursors, and what is shown: {steps:#?}");
    }
}
