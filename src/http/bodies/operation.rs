//! The operation of a change, as answers name it.

use tidings_entity::kind::Operation;

/// The word for a round that is one task. Only its change has no path.
pub(crate) const ROUND: &str = "round";

/// `create`, `update` or `delete`; `round` for the change that stands for a whole round.
pub(crate) fn operation(operation: Operation, path: &[u8]) -> &'static str {
    if path.is_empty() { ROUND } else { operation.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_is_one_task_is_no_update() {
        assert_eq!(operation(Operation::Update, b"docs/a.md"), "update");
        assert_eq!(operation(Operation::Update, b""), "round");
    }
}
