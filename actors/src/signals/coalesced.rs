//! Work that runs at most once at a time: requests during a run lead to one more run afterwards, however many
//! they are. The run may have read rows before a request, so its result does not answer that request.

/// Whether a run is under way, and whether another one is wanted after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coalesced {
    /// No run is under way.
    #[default]
    Idle,
    /// A piece is under way.
    Running,
    /// A run is under way and may miss the newest changes: another run is wanted after it.
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

    /// The run ended. `true`: another run is wanted.
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
