//! What happened, as the subject of a mail: one short sentence for each type of entry, so that a person who
//! reads the subject alone knows whether to get up.

use tidings_entity::kind::EntryType;

use super::{compose::one_line, facts::Data};

/// Most characters of a path, a command or a host in a headline.
const NAME_CHARACTERS_MAX: usize = 60;
/// Digits of a commit that are shown.
const COMMIT_DIGITS: usize = 7;

/// The sentence about an entry; `place` is where it happened.
pub(super) fn of(entry_type: EntryType, place: &str, data: &Data) -> String {
    use EntryType as E;
    let name = |key: &str| data.text(key).map(|text| one_line(&text, NAME_CHARACTERS_MAX));
    let round = data.text("round").map(|round| format!("round {round}"));
    let round = round.unwrap_or_else(|| "a round".to_owned());
    match entry_type {
        E::SourceFailing => format!("{place} cannot be read"),
        E::SourceRecovered => format!("{place} can be read again"),
        E::WatchBlocked => format!("{place} is blocked"),
        E::WatchRecovered => format!("{place} is not blocked any more"),
        E::WatchPaused => format!("{place} is paused"),
        E::WatchResumed => format!("{place} is resumed"),
        E::RoundBegan => format!("{place}: {round} began"),
        E::RoundEnded => format!("{place}: {round} ended"),
        E::LetterParked => format!("{place}: {}", given_up(data.text("count").as_deref(), name("path"))),
        E::SinkDisabled => format!("nothing is sent to {place} any more: it is disabled"),
        E::SinkEnabled => format!("{place} is sent to again"),
        E::SinkOpened => format!("the endpoint of {place} fails"),
        E::SinkClosed => format!("the endpoint of {place} works again"),
        E::StatusEnded => {
            let commit: String =
                data.text("commit").unwrap_or_default().chars().take(COMMIT_DIGITS).collect();
            let host = name("host").unwrap_or_else(|| "the Git host".to_owned());
            format!("{host} is told no more statuses of the commit {commit}")
        }
        E::TaskDead => {
            let command = name("command").map(|command| format!("{command} ")).unwrap_or_default();
            format!("the task {command}{place} has no attempts left")
        }
        E::TaskEnded => {
            let command = name("command").map(|command| format!("{command} ")).unwrap_or_default();
            let state = name("state").unwrap_or_else(|| "ended".to_owned());
            format!("the task {command}{place} is {state}")
        }
        E::ScheduleMissed => {
            let ticks = match data.text("count") {
                Some(count) if count != "1" => format!("{count} ticks"),
                _ => "a tick".to_owned(),
            };
            format!("the schedule {place} missed {ticks}")
        }
        E::LedgerRestored if data.text("backup_taken_ms").is_none() => {
            format!("the database of {place} may have lost entries: its ledger has another name")
        }
        E::LedgerRestored => format!("the database of {place} was restored from a backup"),
        E::SubscriptionBlocked
        | E::SubscriptionRecovered
        | E::SubscriptionSkipped
        | E::SubscriptionGap
        | E::MailSent
        | E::MailFailed => format!("{}: {place}", entry_type.as_str()),
    }
}

/// Changes that became dead letters.
fn given_up(count: Option<&str>, path: Option<String>) -> String {
    match (count, path) {
        (None | Some("1"), Some(path)) => format!("the change of {path} was given up"),
        (None | Some("1"), None) => "a change was given up".to_owned(),
        (Some(count), _) => format!("{count} changes were given up"),
    }
}
