//! codeQ's words for tasks, and the addresses whose messages have codeQ's form, pure.
//!
//! A task or a worker subscription that a client of codeQ made sends messages which that client can read. Its
//! address is stored with a word before it: the row alone says which form the messages have, and one address
//! can be used in both forms. The word is never shown and never part of a request.

use tidings_entity::kind::TaskState;

use super::task::RAN_OUT;

/// The word before an address whose messages have codeQ's form. No web address begins with it.
const WORD: &str = "codeq:";

/// An address whose messages have codeQ's form, as rows hold it.
#[must_use]
pub fn stored(address: &str) -> String {
    format!("{WORD}{address}")
}

/// Whether the messages to an address have codeQ's form.
#[must_use]
pub fn is_meant(stored: &str) -> bool {
    stored.starts_with(WORD)
}

/// The address as its owner wrote it, without the word before it.
#[must_use]
pub fn address(stored: &str) -> &str {
    stored.strip_prefix(WORD).unwrap_or(stored)
}

/// The word for a state.
#[must_use]
pub fn status(state: TaskState) -> &'static str {
    match state {
        TaskState::Waiting | TaskState::Ready | TaskState::Aside => "PENDING",
        TaskState::Claimed => "IN_PROGRESS",
        TaskState::Succeeded => "COMPLETED",
        TaskState::Failed | TaskState::Dead | TaskState::Cancelled => "FAILED",
    }
}

/// The error of a task in this state: the text of its worker, or codeQ's word for what ended the task.
#[must_use]
pub fn error(state: TaskState, error: Option<&str>) -> Option<String> {
    let word = |word: &str| Some(word.to_owned());
    match (state, error) {
        (TaskState::Cancelled, _) => word("CANCELLED"),
        (_, Some(RAN_OUT)) => word("LEASE_EXPIRED"),
        (TaskState::Dead, None) => word("MAX_ATTEMPTS"),
        (_, error) => error.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_in_which_form_its_messages_are() {
        let plain = "https://example.org/codeq:x";
        assert!(!is_meant(plain) && address(plain) == plain);
        let of_codeq = stored(plain);
        assert!(is_meant(&of_codeq) && address(&of_codeq) == plain);
    }

    #[test]
    fn errors_have_the_words_that_clients_compare() {
        for (state, known, word) in [
            (TaskState::Failed, Some("no such page"), Some("no such page")),
            (TaskState::Dead, Some("busy"), Some("busy")),
            (TaskState::Dead, Some(RAN_OUT), Some("LEASE_EXPIRED")),
            (TaskState::Dead, None, Some("MAX_ATTEMPTS")),
            (TaskState::Cancelled, Some("busy"), Some("CANCELLED")),
            (TaskState::Succeeded, None, None),
        ] {
            assert_eq!(error(state, known).as_deref(), word, "{state} {known:?}");
        }
    }
}
