//! A hand in the database of a server that does not run.

use std::{fs, path::Path};

use sqlx::{Connection, SqliteConnection};

use super::server::Server;

/// Runs one SQL statement on the database of a server.
pub(crate) fn change(server: &Server, statement: &'static str) {
    change_with(server, statement, &[]);
}

/// The same with values for its places.
pub(crate) fn change_with(server: &Server, statement: &'static str, values: &[i64]) {
    change_below(&server.data(), statement, values);
}

/// The same for the database in this data directory.
pub(crate) fn change_below(data_dir: &Path, statement: &'static str, values: &[i64]) {
    let file = fs::read_dir(data_dir)
        .expect("the data directory")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "db" || extension == "sqlite"))
        .expect("a database file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let url = format!("sqlite://{}", file.display());
        let mut connection = SqliteConnection::connect(&url).await.expect("it opens");
        let query =
            values.iter().fold(sqlx::query::<sqlx::Sqlite>(statement), |query, value| query.bind(*value));
        query.execute(&mut connection).await.expect("it changes");
        connection.close().await.expect("it closes");
    });
}
