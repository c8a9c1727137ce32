//! A step of the schema that rebuilds a table, killed again and again while it runs: each time the database
//! is as it was before, and at last every row is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use crate::support::{
    api::App, dice::Dice, kills, project::Project, server::Server, setting, subscriber::Subscriber,
};

/// Cursors below the table that is rebuilt; `TIDINGS_STORY_CURSORS` says otherwise, 100,000 by hand.
const CURSORS: u64 = 5_000;
/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 12;
/// The step that rebuilds `watch` on SQLite.
const STEP: &str = "add_sinks";

fn file_of(server: &Server) -> PathBuf {
    let names = fs::read_dir(server.data()).expect("the data directory").filter_map(Result::ok);
    names
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "db"))
        .expect("a file")
}

/// Runs statements on a database file, and then asks for numbers.
fn sql(file: &Path, statements: &[String], questions: &[&'static str]) -> Vec<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let url = format!("sqlite://{}", file.display());
        let mut connection = SqliteConnection::connect(&url).await.expect("it opens");
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut connection).await.expect("it changes");
        }
        let mut numbers = Vec::new();
        for question in questions {
            let row = sqlx::query(*question).fetch_one(&mut connection).await.expect("a row");
            numbers.push(row.get::<i64, _>(0));
        }
        connection.close().await.expect("it closes");
        numbers
    })
}

fn steps(server: &Server) -> Vec<(String, bool)> {
    let output = server.command(&["migrate", "status", "--json"]).output().expect("it ran");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let steps = shown["steps"].as_array().or_else(|| shown.as_array()).expect("steps").iter();
    steps.map(|step| (step["name"].as_str().expect("a name").to_owned(), step["applied"] == true)).collect()
}

/// Takes back the step and what was applied after it, which a kill may have cut off.
fn take_back(server: &Server) {
    let steps = steps(server);
    let at = steps.iter().position(|(name, _)| name.ends_with(STEP)).expect("the step");
    let back = steps[at..].iter().filter(|(_, is_applied)| *is_applied).count();
    let output = server.command(&["migrate", "down", "--yes", "--steps", &back.to_string()]).output();
    let output = output.expect("it ran");
    assert!(output.status.success(), "{back} steps: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies the one cursor so often, below the same watch.
fn multiply(file: &Path, count: u64) {
    let columns = "select group_concat(name) from pragma_table_info('cursor')";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let names: String = runtime.block_on(async {
        let mut connection =
            SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.expect("it opens");
        sqlx::query(columns).fetch_one(&mut connection).await.expect("a row").get(0)
    });
    let value = |name: &str| match name {
        "id" => "printf('cur_0%025d', n)".to_owned(),
        "slot" | "branch" => format!("{name} || n"),
        other => other.to_owned(),
    };
    let values: Vec<String> = names.split(',').map(value).collect();
    let text = format!(
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < {count}), c as (select * \
         from cursor limit 1) insert into cursor ({names}) select {} from c, t",
        values.join(",")
    );
    sql(file, &[text], &[]);
}

#[test]
fn a_table_that_is_made_anew_keeps_every_row_over_kills_in_the_middle() {
    let kills = kills(KILLS);
    let count = setting("TIDINGS_STORY_CURSORS").unwrap_or(CURSORS);
    let (project, subscriber, mut server) =
        (Project::with(&[("a", "1")]), Subscriber::start(), Server::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    server.terminate();
    let file = file_of(&server);
    multiply(&file, count);
    take_back(&server);
    let whole = |is_taken: bool| {
        let numbers = sql(
            &file,
            &[],
            &[
                "select count(*) from cursor",
                "select count(*) from watch",
                "select count(*) from pragma_foreign_key_check",
                "select count(*) from pragma_integrity_check where integrity_check <> 'ok'",
                "select count(*) from sqlite_schema where name = 'watch_made_anew'",
                "select count(*) from sqlite_schema where name = 'sink'",
            ],
        );
        assert_eq!(numbers, [count as i64 + 1, 1, 0, 0, 0, i64::from(is_taken)]);
    };
    whole(false);
    // One that is left alone says how long there is to kill in; then all is taken back again.
    let began = Instant::now();
    assert!(server.command(&["migrate", "up"]).output().expect("it ran").status.success());
    let took = began.elapsed();
    whole(true);
    take_back(&server);
    let mut dice = Dice::thrown("kills of the upgrade");
    let mut cut_off = 0;
    for _ in 0..kills {
        let mut command = server.command(&["migrate", "up"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        let micros = u64::try_from(took.as_micros()).expect("it is short");
        thread::sleep(Duration::from_micros(dice.below(micros * 3 / 4)));
        child.kill().expect("killed");
        let is_done = child.wait().expect("ended").success()
            || steps(&server).iter().any(|(name, applied)| *applied && name.ends_with(STEP));
        whole(is_done);
        if is_done {
            take_back(&server);
        } else {
            cut_off += 1;
        }
    }
    println!("{cut_off} of {kills} were cut off, each within {took:?}");
    assert!(cut_off > 0, "no kill met the steps");
    server.run();
    assert_eq!(app.repository(&server, &id)["repository_id"], *id);
    whole(true);
}
