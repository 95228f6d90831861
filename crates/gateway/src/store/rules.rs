//! The rules that keep copies right, and changes of the layout, by name, so that a simulation can show what happens
//! without each of them.
//!
//! Without the feature `mutations`, which only the simulation uses, all rules hold, and this costs nothing.

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A write is acknowledged only after the view it was made in turned out to be still the current one.
    WritesAreVerified,
    /// What the only node that is in has said counts only if it still is the only one.
    LoneReadsAreVerified,
    /// Before one of two different copies is chosen, the view is read again.
    DisagreementsRefreshTheView,
    /// A gateway that sees a copy from a later view than it knows of reads the view again.
    NewerCopiesRefreshTheView,
    /// A read whose copies differ makes them the same before it answers.
    ReadsCompleteWrites,
    /// Copies that a node has from before it was out do not count.
    OldCopiesDoNotCount,
    /// A node that has lost its record has lost everything.
    ANodeWithoutRecordJoins,
    /// A node is brought up to date with every key before it counts as in.
    JoiningNodesAreSwept,
    /// A joining node gets each write.
    JoiningNodesAreWritten,
    /// A node is taken out in two steps, with a look at it in between.
    LeavingTakesTwoSteps,
    /// That a node is not asked any more is recorded before the other one is used alone.
    LoneUseIsRecorded,
    /// A copy whose counterpart has expired is ended before a read says that there is none.
    ExpiryIsMadeCertain,
    /// A key that is created in the new layout is claimed in the old one.
    NewKeysAreClaimed,
    /// An old key says that its value is being moved before it is.
    MovesAreMarked,
    /// All is moved only when no gateway is left that puts sessions into the old layout.
    FirstStepsAreWaitedFor,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::WritesAreVerified,
        Self::LoneReadsAreVerified,
        Self::DisagreementsRefreshTheView,
        Self::NewerCopiesRefreshTheView,
        Self::ReadsCompleteWrites,
        Self::OldCopiesDoNotCount,
        Self::ANodeWithoutRecordJoins,
        Self::JoiningNodesAreSwept,
        Self::JoiningNodesAreWritten,
        Self::LeavingTakesTwoSteps,
        Self::LoneUseIsRecorded,
        Self::ExpiryIsMadeCertain,
        Self::NewKeysAreClaimed,
        Self::MovesAreMarked,
        Self::FirstStepsAreWaitedFor,
    ];

    /// Whether the rule is followed.
    #[cfg(not(feature = "mutations"))]
    #[expect(clippy::unused_self, reason = "with the feature, it depends on the rule")]
    pub(crate) const fn holds(self) -> bool {
        true
    }

    /// Whether the rule is followed.
    #[cfg(feature = "mutations")]
    pub(crate) fn holds(self) -> bool {
        BROKEN.with(std::cell::Cell::get) != Some(self)
    }
}

#[cfg(feature = "mutations")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Lets the stores of this thread break one rule, or none.
#[cfg(feature = "mutations")]
pub fn break_rule(rule: Option<Rule>) {
    BROKEN.with(|broken| broken.set(rule));
}
