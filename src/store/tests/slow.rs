//! A statement that takes long is told, without what it was about.

use std::{
    env, io,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use tokio::{task::yield_now, time::timeout};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt};

use super::store;

/// Tells the test that it has a process to itself.
const ALONE: &str = "TIDINGS_TEST_IS_ALONE";

/// The log lines that were written, as bytes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_statement_that_takes_longer_than_a_second_is_a_line_without_its_values() {
    // SQLite works on a thread of its own: only the subscriber of a whole process hears it.
    if env::var_os(ALONE).is_none() {
        let mut child = Command::new(env::current_exe().expect("this program"));
        let name = "a_statement_that_takes_longer_than_a_second_is_a_line_without_its_values";
        child.args(["--exact", &format!("tests::slow::{name}")]).env(ALONE, "1");
        let output = child.output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone());
    let subscriber = tracing_subscriber::registry().with(EnvFilter::new("sqlx=warn")).with(layer);
    tracing::subscriber::set_global_default(subscriber).expect("nobody else is here");
    let (store, _home) = store().await;
    let text = "with recursive counted(number) as
        (select 1 union all select number + 1 from counted where number < $1)
        select count(*) as planted_name from counted where $2 <> ''";
    let mut count = 1_000_i64;
    loop {
        let values = [count.into(), "planted value".into()];
        let began = Instant::now();
        let statement = Statement::from_sql_and_values(DbBackend::Sqlite, text, values);
        store.readers.query_one_raw(statement).await.expect("counted");
        if began.elapsed() > Duration::from_millis(1_200) {
            break;
        }
        count *= 2;
    }
    let told = async {
        while !lines.text().contains("planted_name") {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), told).await.expect("a line");
    let text = lines.text();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("planted_name")).collect();
    assert!(told.iter().all(|line| line.contains("WARN")), "{text}");
    assert!(told.len() <= 2, "only those that take longer than a second: {text}");
    assert!(!text.contains("planted value"), "{text}");
}
