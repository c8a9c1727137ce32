//! Listens to notifications of other processes through the server.

use std::time::Duration;

use sqlx::{
    Executor,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use crate::database::address::Server;

/// After this much silence the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);
/// The deadline for opening the connection.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A connection that listens.
pub(crate) struct Listener(PgListener);

impl Listener {
    /// Opens a connection of its own and listens on `channel`.
    pub(crate) async fn open(server: &Server, channel: &str) -> Result<Self, sqlx::Error> {
        let options = PgPoolOptions::new().max_connections(1);
        let pool = options.connect_with(server.options.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        // By default the listener reconnects by itself, and could then miss notifications silently.
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok(Self(listener))
    }

    /// The next notification; `None`: the connection broke, and some may be missing.
    pub(crate) async fn hear(&mut self) -> Option<String> {
        loop {
            match timeout(SILENCE, self.0.try_recv()).await {
                Ok(Ok(Some(told))) => return Some(told.payload().to_owned()),
                Ok(Ok(None) | Err(_)) => return None,
                Err(_) => {
                    let alive = timeout(ANSWER_MAX, self.0.execute("select 1")).await;
                    alive.ok()?.ok()?;
                }
            }
        }
    }
}
