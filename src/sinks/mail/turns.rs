//! Turns at the mail server: a few mails at the same time over all apps. Waiting apps take turns, so that an
//! app whose recipients are slow delays another app by one mail at most.
//!
//! A wait for a turn is no attempt and has no deadline: otherwise slow recipients of one app would count as
//! failures of the sinks of others.

use tidings_actors::{
    limits::turns::{TurnPermit, Turns},
    ownership::shards::ShardHold,
};
use tidings_entity::id::AppId;

/// Conversations with the mail server at the same time.
const AT_ONCE: usize = 4;

/// The turns of all apps.
pub(in super::super) struct MailTurns(Turns);

impl Default for MailTurns {
    fn default() -> Self {
        Self(Turns::new(AT_ONCE))
    }
}

impl MailTurns {
    /// Waits for a turn.
    pub(super) async fn take(&self, app: &AppId) -> TurnPermit {
        self.0.take(app).await
    }

    /// Waits for a turn of a subscription; `None`: another replica has the subscription now. A wait may be
    /// long, so the right to send is checked at its end.
    pub(in super::super) async fn take_under(&self, app: &AppId, hold: &ShardHold) -> Option<TurnPermit> {
        loop {
            hold.confirmed().await;
            let turn = self.take(app).await;
            if !hold.stands() {
                return None;
            }
            if hold.is_confirmed() {
                return Some(turn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{
        task::{JoinSet, yield_now},
        time::{Instant, sleep},
    };
    use ulid::Ulid;

    use super::*;

    /// How long a mail to a slow recipient takes.
    const SLOW: Duration = Duration::from_secs(30);

    fn app(number: u128) -> AppId {
        AppId::new(Ulid::from_parts(1, number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_with_slow_recipients_delays_another_app_by_one_mail_and_its_own_mails_only_wait() {
        let turns = Arc::new(MailTurns::default());
        let mut slow = JoinSet::new();
        for _ in 0..60 {
            let turns = Arc::clone(&turns);
            slow.spawn(async move {
                let turn = turns.take_under(&app(1), &ShardHold::sole()).await;
                sleep(SLOW).await;
                turn.is_some()
            });
        }
        yield_now().await;
        for _ in 0..5 {
            let asked = Instant::now();
            let turn = turns.take_under(&app(2), &ShardHold::sole()).await;
            let waited = asked.elapsed();
            assert!(turn.is_some() && waited <= SLOW + Duration::from_secs(1), "it waited {waited:?}");
        }
        let mut sent = 0;
        while let Some(had_turn) = slow.join_next().await {
            assert!(had_turn.expect("it ends"), "a wait is no failure");
            sent += 1;
        }
        assert_eq!(sent, 60, "each mail has its turn");
    }
}
