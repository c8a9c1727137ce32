//! Filters over tasks against a naive filter: random expressions over random rows mean the same tasks.

use std::collections::BTreeSet;

use tidings_actors::{
    model::filter::{Filter, sets::TASKS},
    ports::{Random, TaskFilter, TaskStore},
    testing::SeededRandom,
};
use tidings_entity::{id::TaskId, kind::TaskState};

use super::{START, app, create, new, open};
use crate::{database::rows, tests::home::Home};

const ROWS: u64 = 80;
const FILTERS: u64 = 400;
const COMMANDS: [&str; 3] = ["embed", "Embed.docs", "x"];
const WORKERS: [Option<&str>; 3] = [None, Some("tok_a"), Some("tok_B")];
const ERRORS: [Option<&str>; 5] =
    [None, Some(""), Some("No memory"), Some("100% wrong_answer"), Some("it's no MEMORY")];
/// Parts of texts; databases have wildcards among them.
const PARTS: [&str; 8] = ["embed", "DOCS", "memory", "%", "_", "it's", "tok_", "nothing"];

/// A task as anybody would write it down.
struct Row {
    id: TaskId,
    command: &'static str,
    state: TaskState,
    number: u64,
    worker: Option<&'static str>,
    error: Option<&'static str>,
    created_at: i64,
}

type Means = Box<dyn Fn(&Row) -> bool>;

fn pick<T: Copy>(random: &SeededRandom, from: &[T]) -> T {
    from[usize::try_from(random.below(from.len() as u64)).expect("small")]
}

fn holds(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

/// A term, and what it means of a row.
fn term(random: &SeededRandom) -> (String, Means) {
    let part = pick(random, &PARTS);
    match random.below(9) {
        0 => {
            let state = pick(random, TaskState::ALL);
            (format!("state:{state}"), Box::new(move |row| row.state == state))
        }
        1 => {
            let command = pick(random, &COMMANDS);
            let text = command.to_ascii_uppercase();
            (format!("command:{text}"), Box::new(move |row| row.command.eq_ignore_ascii_case(command)))
        }
        2 => (format!("command:~\"{part}\""), Box::new(move |row| holds(row.command, part))),
        3 => {
            let number = random.below(4);
            (format!("priority:{number}"), Box::new(move |row| row.number == number))
        }
        4 => {
            let number = random.below(4);
            (format!("attempts:{number}"), Box::new(move |row| row.number + 1 == number))
        }
        5 => (
            format!("worker:~\"{part}\""),
            Box::new(move |row| row.worker.is_some_and(|worker| holds(worker, part))),
        ),
        6 => (
            format!("error:~\"{part}\""),
            Box::new(move |row| row.error.is_some_and(|error| holds(error, part))),
        ),
        7 => (
            format!("\"{part}\""),
            Box::new(move |row| {
                holds(row.command, part) || row.error.is_some_and(|error| holds(error, part))
            }),
        ),
        _ => {
            let seconds = i64::try_from(random.below(ROWS)).expect("small");
            let moment = START.0 - 1_000 * seconds;
            if random.below(2) == 0 {
                (format!("since:-{seconds}s"), Box::new(move |row| row.created_at >= moment))
            } else {
                (format!("until:-{seconds}s"), Box::new(move |row| row.created_at < moment))
            }
        }
    }
}

fn made_up(random: &SeededRandom, depth: u64) -> (String, Means) {
    match random.below(if depth == 0 { 3 } else { 8 }) {
        0..=2 => term(random),
        3 | 4 => {
            let ((one, meant), (other, too)) = (made_up(random, depth - 1), made_up(random, depth - 1));
            (format!("({one} {other})"), Box::new(move |row| meant(row) && too(row)))
        }
        5 | 6 => {
            let ((one, meant), (other, too)) = (made_up(random, depth - 1), made_up(random, depth - 1));
            (format!("({one} OR {other})"), Box::new(move |row| meant(row) || too(row)))
        }
        _ => {
            let (one, meant) = made_up(random, depth - 1);
            (format!("NOT {one}"), Box::new(move |row| !meant(row)))
        }
    }
}

pub(super) async fn a_filter_over_tasks_means_what_a_naive_filter_means(home: Home) {
    let (store, _clock) = open(&home).await;
    let (raw, random) = (home.raw().await, SeededRandom::new(13));
    let mut all = Vec::new();
    for place in 1..=ROWS {
        let command = pick(&random, &COMMANDS);
        create(&store, vec![new(place, command)]).await.expect("created");
        let row = Row {
            id: new(place, command).id,
            command,
            state: pick(&random, TaskState::ALL),
            number: random.below(4),
            worker: pick(&random, &WORKERS),
            error: pick(&random, &ERRORS),
            created_at: START.0 - 1_000 * i64::try_from(ROWS - place).expect("small"),
        };
        let number = i64::try_from(row.number).expect("small");
        let text = "update task set state = $2, priority = $3, attempts = $4, worker = $5, error = $6,
                      created_at = $7 where id = $1";
        let values = vec![
            row.id.clone().into(),
            row.state.into(),
            number.into(),
            (number + 1).into(),
            row.worker.map(str::to_owned).into(),
            row.error.map(str::to_owned).into(),
            row.created_at.into(),
        ];
        assert_eq!(rows::execute(&raw, "task", text, values).await.expect("written"), 1);
        all.push(row);
    }
    let mut some = 0;
    for _ in 0..FILTERS {
        let (text, is_meant) = made_up(&random, 4);
        // Too many terms, or too long.
        let Ok(query) = Filter::parse(&text, &TASKS, START) else { continue };
        let filter = TaskFilter { query: Some(query), ..TaskFilter::default() };
        let page = store.list_tasks(&app(), &filter, None, 1_000).await.expect("listed");
        assert!(page.next.is_none(), "{text}");
        let found: BTreeSet<TaskId> = page.found.into_iter().map(|task| task.id).collect();
        let meant: BTreeSet<TaskId> =
            all.iter().filter(|row| is_meant(row)).map(|row| row.id.clone()).collect();
        assert_eq!(found, meant, "{text}");
        some += usize::from(!meant.is_empty() && meant.len() < all.len());
    }
    assert!(some > 150, "{some} filters mean some tasks and not all");
}
