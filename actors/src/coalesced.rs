//! Work of which at most one piece is under way: what is asked for meanwhile is done once more afterwards,
//! however often it was asked for. What is under way may have read rows before the request, so its result
//! does not answer it.

/// Whether a piece of work is under way, and whether another one is wanted after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coalesced {
    /// Nothing is under way.
    #[default]
    Idle,
    /// A piece is under way.
    Running,
    /// A piece is under way and may be out of date when it ends: another one is wanted after it.
    RunningAndWanted,
}

impl Coalesced {
    /// Asks for a piece of work. `true`: nothing was under way, so the caller begins it now.
    #[must_use]
    pub(crate) fn begin(&mut self) -> bool {
        let begins = *self == Self::Idle;
        *self = if begins { Self::Running } else { Self::RunningAndWanted };
        begins
    }

    /// The piece that was under way ended. `true`: another one is wanted.
    #[must_use]
    pub(crate) fn end(&mut self) -> bool {
        std::mem::take(self) == Self::RunningAndWanted
    }

    /// Whether a piece is under way.
    pub(crate) fn is_running(self) -> bool {
        self != Self::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::Coalesced;

    #[test]
    fn work_that_is_asked_for_while_it_runs_is_done_once_more() {
        let mut work = Coalesced::default();
        assert!(work.begin());
        assert!(!work.begin() && !work.begin(), "one piece is under way");
        assert!(work.is_running());
        assert!(work.end(), "two requests are one more piece");
        assert!(!work.is_running());
        assert!(work.begin());
        assert!(!work.end(), "that piece answered both");
        assert_eq!(work, Coalesced::Idle);
    }

    #[test]
    fn an_end_without_a_beginning_wants_nothing() {
        assert!(!Coalesced::Idle.end());
    }
}
