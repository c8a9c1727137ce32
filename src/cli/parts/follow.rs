//! Following a tail of the server until the process ends: a tail that breaks off is taken up where it was.

use std::time::Duration;

use serde_json::Value;

use crate::cli::{
    Code, Context, Failure,
    client::{Client, Event},
};

/// How long to wait before a tail that broke off is taken up again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A tail that cannot be taken up again so often in a row has ended.
const FAILURES_MAX: u32 = 10;

/// Prints the events of a tail, from behind the event `after`, each formatted by `line`.
///
/// # Errors
/// If the server refuses the first call; later, if the tail cannot be resumed.
pub(crate) async fn follow(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
    mut after: Option<String>,
    context: &Context,
    line: impl Fn(Option<&str>, &str, &Value) -> String,
) -> Result<(), Failure> {
    let (mut was_heard, mut failures) = (false, 0);
    loop {
        let seen = after.clone();
        let query: Vec<_> =
            query.iter().copied().chain(seen.iter().map(|seen| ("after", seen.as_str()))).collect();
        let heard = client.tail(path, &query, |event| {
            (was_heard, failures) = (true, 0);
            match event {
                Event::Heard => Ok(()),
                Event::Placed(id) => {
                    after = Some(id);
                    Ok(())
                }
                Event::Told { id, word, data } => {
                    after = id.or(after.take());
                    context.output.print_line(&data, || line(after.as_deref(), &word, &data))
                }
            }
        });
        match heard.await {
            // A tail that never delivered an event has a lasting fault, such as a wrong id or token.
            Err(failure) if !was_heard || failures >= FAILURES_MAX => return Err(failure),
            Err(failure) if matches!(failure.code, Code::Failed | Code::ClosedPipe) => return Err(failure),
            _ => failures += 1,
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
