//! A hand in the database of a server that does not run.

use std::fs;

use sqlx::{Connection, SqliteConnection};

use super::server::Server;

/// Runs one statement.
pub(crate) fn change(server: &Server, statement: &'static str) {
    let file = fs::read_dir(server.data())
        .expect("the data directory")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "db" || extension == "sqlite"))
        .expect("a database file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let url = format!("sqlite://{}", file.display());
        let mut connection = SqliteConnection::connect(&url).await.expect("it opens");
        sqlx::query(statement).execute(&mut connection).await.expect("it changes");
        connection.close().await.expect("it closes");
    });
}
