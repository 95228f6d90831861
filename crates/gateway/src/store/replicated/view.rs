//! What the gateways have agreed on about the two nodes of a pair: the *view*.
//!
//! ```text
//! V1 1764201600125 in:0 joining:1764201600125
//! ```
//!
//! Both nodes keep the record of the latest view that could be written to them. The number grows with each view. A node
//! that has lost everything has no record either, which is how that is noticed.

/// The number of a view. The first is the time in milliseconds, each further one is larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ViewNumber(pub(super) u64);

/// One of the two nodes of a pair, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    One,
    Two,
}

/// The part that a node takes in its pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has every acknowledged write.
    In,
    /// It is in, but a gateway has found that it does not answer.
    Leaving,
    /// It gets every write, and is being brought up to date with the earlier ones.
    Joining,
    /// It is not asked for anything.
    Out,
}

/// A node's standing, and since when its copies count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) standing: Standing,
    /// Copies that were put on the node in an earlier view than this are as good as none.
    pub(super) since: ViewNumber,
}

/// What holds for a pair of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) number: ViewNumber,
    one: Part,
    two: Part,
}

/// Which nodes a view lets gateways use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Both have everything.
    Both,
    /// The named one has everything, the other is joining.
    OneJoins(Side),
    /// The named one has everything, the other is not asked.
    Alone(Side),
}

impl ViewNumber {
    /// Before all views.
    pub(super) const NONE: Self = Self(0);

    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::One, Self::Two];

    pub(super) const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

impl Standing {
    const ALL: [Self; 4] = [Self::In, Self::Leaving, Self::Joining, Self::Out];

    const fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Leaving => "leaving",
            Self::Joining => "joining",
            Self::Out => "out",
        }
    }
}

impl Part {
    fn read(text: &str) -> Option<Self> {
        let (word, since) = text.split_once(':')?;
        let standing = Standing::ALL.into_iter().find(|standing| standing.word() == word)?;
        Some(Self { standing, since: ViewNumber(since.parse().ok()?) })
    }
}

impl View {
    const KIND: &'static str = "V1 ";

    /// Of two nodes without a record: both count with all that they have.
    pub(super) const fn first(number: ViewNumber) -> Self {
        let part = Part { standing: Standing::In, since: ViewNumber::NONE };
        Self { number, one: part, two: part }
    }

    /// Whether no node has come or gone yet.
    pub(super) fn is_first(&self) -> bool {
        Side::BOTH.into_iter().all(|side| self.part(side).since == ViewNumber::NONE && self.is_in(side))
    }

    pub(super) const fn part(&self, side: Side) -> Part {
        match side {
            Side::One => self.one,
            Side::Two => self.two,
        }
    }

    pub(super) const fn is_in(&self, side: Side) -> bool {
        matches!(self.part(side).standing, Standing::In | Standing::Leaving)
    }

    /// Whether a node is about to leave.
    pub(super) fn is_leaving(&self, side: Side) -> bool {
        self.part(side).standing == Standing::Leaving
    }

    /// Which nodes may be used. Of the views that the functions below make, one node is always in.
    pub(super) const fn shape(&self) -> Shape {
        match (self.one.standing, self.two.standing) {
            (Standing::In | Standing::Leaving, Standing::In | Standing::Leaving) => Shape::Both,
            (Standing::In | Standing::Leaving, Standing::Joining) => Shape::OneJoins(Side::One),
            (Standing::In | Standing::Leaving, Standing::Out) => Shape::Alone(Side::One),
            (Standing::Joining, _) => Shape::OneJoins(Side::Two),
            (Standing::Out, _) => Shape::Alone(Side::Two),
        }
    }

    /// The next view, in which this node, which is in, is about to leave. Both are still needed.
    pub(super) fn leaving(&self, side: Side) -> Self {
        self.staying().with_number(self.number.next(), side, |part, _| Part { standing: Standing::Leaving, ..part })
    }

    /// The next view, in which no node is about to leave.
    pub(super) fn staying(&self) -> Self {
        let stay = |part: Part| match part.standing {
            Standing::Leaving => Part { standing: Standing::In, ..part },
            _ => part,
        };
        Self { number: self.number.next(), one: stay(self.one), two: stay(self.two) }
    }

    /// The next view, without this node. The other one has to be in.
    pub(super) fn without(&self, side: Side) -> Self {
        self.with(side, |part, _| Part { standing: Standing::Out, ..part })
    }

    /// The next view, in which this node joins: nothing that it has counts.
    pub(super) fn joining(&self, side: Side) -> Self {
        self.with(side, |_, number| Part { standing: Standing::Joining, since: number })
    }

    /// The next view, after the joining node was brought up to date.
    pub(super) fn joined(&self, side: Side) -> Self {
        self.with(side, |part, _| Part { standing: Standing::In, ..part })
    }

    /// The next view after the only node that was in has lost everything: what is left on the other counts.
    pub(super) fn after_loss_of(&self, lost: Side) -> Self {
        self.joined(lost.other()).joining(lost)
    }

    fn with(&self, side: Side, change: impl Fn(Part, ViewNumber) -> Part) -> Self {
        self.with_number(self.number.next(), side, change)
    }

    fn with_number(&self, number: ViewNumber, side: Side, change: impl Fn(Part, ViewNumber) -> Part) -> Self {
        let part = change(self.part(side), number);
        match side {
            Side::One => Self { number, one: part, ..*self },
            Side::Two => Self { number, two: part, ..*self },
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let part = |part: Part| format!("{}:{}", part.standing.word(), part.since.0);
        format!("{}{} {} {}", Self::KIND, self.number.0, part(self.one), part(self.two)).into_bytes()
    }

    /// `None` for what no gateway has written, and for a view in which neither node is in.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(bytes).ok()?.strip_prefix(Self::KIND)?.split(' ');
        let number = ViewNumber(words.next()?.parse().ok()?);
        let view = Self { number, one: Part::read(words.next()?)?, two: Part::read(words.next()?)? };
        let is_usable = Side::BOTH.into_iter().any(|side| view.is_in(side));
        (words.next().is_none() && is_usable).then_some(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = Vec<(Side, u8)>> {
        let side = any::<bool>().prop_map(|one| if one { Side::One } else { Side::Two });
        proptest::collection::vec((side, 0..6_u8), 0..20)
    }

    /// What gateways do, in whatever order.
    fn after(steps: Vec<(Side, u8)>) -> View {
        steps.into_iter().fold(View::first(ViewNumber(7)), |view, (side, step)| match step {
            0 if view.is_in(side.other()) => view.without(side),
            1 if view.is_in(side.other()) => view.joining(side),
            2 if view.part(side).standing == Standing::Joining => view.joined(side),
            3 if view.is_in(side) && !view.is_in(side.other()) => view.after_loss_of(side),
            4 if view.shape() == Shape::Both => view.leaving(side),
            5 => view.staying(),
            _ => view,
        })
    }

    proptest! {
        #[test]
        fn one_node_is_always_in_and_records_are_read_back(steps in steps()) {
            let view = after(steps);
            prop_assert_eq!(View::decode(&view.encode()), Some(view));
            match view.shape() {
                Shape::Both => prop_assert!(view.is_in(Side::One) && view.is_in(Side::Two)),
                Shape::OneJoins(side) | Shape::Alone(side) => {
                    prop_assert!(view.is_in(side) && !view.is_in(side.other()));
                }
            }
        }

        #[test]
        fn what_joins_has_nothing_that_counts(steps in steps()) {
            let view = after(steps);
            for side in Side::BOTH.into_iter().filter(|side| view.is_in(side.other())) {
                let joining = view.joining(side);
                prop_assert_eq!(joining.part(side).since, joining.number);
                prop_assert!(joining.number > view.number);
                prop_assert_eq!(joining.joined(side).part(side).since, joining.number);
            }
        }

        #[test]
        fn arbitrary_records_never_panic(bytes: Vec<u8>, text in "V1 [0-9]{0,21} (in|out|leaving|joining|x):[0-9]{0,3} in:[0-9]{0,3}.?") {
            let _ = View::decode(&bytes);
            let _ = View::decode(text.as_bytes());
        }
    }
}
