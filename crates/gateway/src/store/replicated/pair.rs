//! Two nodes, and what this gateway believes the gateways have agreed on about them.
//!
//! A view changes by compare-and-swap of its record on a node that is in before and after the change. So of two
//! gateways that want different changes, one has to look again.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join;
use session::time::Seconds;
use tokio::time::sleep;

use super::node::CopyNode;
use super::stamp::Stamp;
use super::view::{Shape, Side, Standing, View, ViewNumber};
use crate::environment::Environment;
use crate::metrics::Metrics;
use crate::store::rules::Rule;
use crate::store::{Cas, Key, ScanStore, StoreError};

/// The number of times that a change of the view may come too late before it is left to the next call.
const ROUNDS: usize = 8;

/// How long a record may be missing because a gateway is about to write it.
const SETTLING: Duration = Duration::from_millis(10);

/// Records outlive every session. If memcached evicts one all the same, its node joins again.
const RECORD_TTL: Seconds = Seconds::new(3650 * 24 * 3600);

/// Two nodes that share keys.
pub(super) struct Pair<S> {
    nodes: [Arc<CopyNode<S>>; 2],
    key: Key,
    believed: RwLock<Option<View>>,
    pub(super) environment: Environment,
    pub(super) metrics: Metrics,
}

/// A node's record of the view.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// `None` if nothing is there.
    cas: Option<Cas>,
    /// `None` also if what is there is no view.
    view: Option<View>,
}

impl<S: ScanStore> Pair<S> {
    /// The two nodes, in the order of their names, and the key of their record.
    pub(super) fn new(nodes: [Arc<CopyNode<S>>; 2], key: Key, environment: Environment, metrics: Metrics) -> Self {
        Self { nodes, key, believed: RwLock::new(None), environment, metrics }
    }

    pub(super) const fn node(&self, side: Side) -> &Arc<CopyNode<S>> {
        let [one, two] = &self.nodes;
        match side {
            Side::One => one,
            Side::Two => two,
        }
    }

    /// A key of this pair that is not a session's.
    pub(super) fn key_beside(&self, suffix: &str) -> Key {
        self.key.with_suffix(suffix)
    }

    /// The view as this gateway last saw it. It may be over by now.
    pub(super) async fn view(&self) -> Result<View, StoreError> {
        match self.believed() {
            Some(view) => Ok(view),
            None => self.refresh().await,
        }
    }

    pub(super) fn believed(&self) -> Option<View> {
        *self.believed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a copy on this node counts.
    pub(super) fn counts(view: &View, side: Side) -> impl Fn(Stamp) -> bool {
        let since = view.part(side).since;
        move |stamp| stamp.view >= since || !Rule::OldCopiesDoNotCount.holds()
    }

    /// Whether `view` is still the record of each node that takes part in it.
    pub(super) async fn is_current(&self, view: &View) -> Result<bool, StoreError> {
        let is_current = match view.shape() {
            Shape::Alone(side) => self.record(side).await?.view == Some(*view),
            Shape::Both | Shape::OneJoins(_) => {
                let (one, two) = join(self.record(Side::One), self.record(Side::Two)).await;
                one?.view == Some(*view) && two?.view == Some(*view)
            }
        };
        if !is_current {
            self.refresh().await?;
        }
        Ok(is_current)
    }

    /// Reads the records of both nodes, and writes down what follows if one of them has lost its own.
    ///
    /// What is returned was the view at some time during the call, if both nodes or the only one that is in have
    /// answered. Otherwise it is a view that needs a node that does not answer.
    pub(super) async fn refresh(&self) -> Result<View, StoreError> {
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(SETTLING).await;
            }
            let (one, two) = join(self.record(Side::One), self.record(Side::Two)).await;
            // A gateway that changes the view writes the records one after the other. The first one may still have to
            // connect to the second node.
            let found = || [&one, &two].into_iter().filter_map(|record| record.as_ref().ok()).map(|record| record.view);
            let is_incomplete = found().any(|view| view.is_none());
            let is_first = found().flatten().any(|view| view.is_first());
            if is_incomplete && round < if is_first { ROUNDS - 2 } else { 1 } {
                continue;
            }
            if let Some(view) = self.agree(one, two).await? {
                return Ok(view);
            }
        }
        Err(StoreError::Unavailable("the gateways do not agree on which nodes are up".to_owned()))
    }

    /// `None` if the records changed meanwhile.
    async fn agree(
        &self,
        one: Result<Record, StoreError>,
        two: Result<Record, StoreError>,
    ) -> Result<Option<View>, StoreError> {
        let (one, two) = match (one, two) {
            (Ok(one), Ok(two)) => (one, two),
            (Ok(record), Err(error)) | (Err(error), Ok(record)) => {
                // Without its record, a node can't tell whether the other one has something that counts.
                let found = record.view.ok_or(error)?;
                let latest = self.believed().filter(|believed| believed.number > found.number).unwrap_or(found);
                return Ok(Some(self.believe(latest)));
            }
            (Err(error), Err(_)) => return Err(error),
        };
        let by_number = |view: &View| (view.number, view.encode());
        let Some(latest) = one.view.into_iter().chain(two.view).max_by_key(by_number) else {
            let first = View::first(ViewNumber(self.environment.now_millis()));
            let is_recorded =
                self.write_record(Side::One, one, &first).await? && self.write_record(Side::Two, two, &first).await?;
            return Ok(is_recorded.then(|| self.believe(first)));
        };
        for (side, record) in [(Side::One, one), (Side::Two, two)] {
            let standing = latest.part(side).standing;
            let has_lost_all = record.view.is_none() && standing != Standing::Out;
            if has_lost_all && Rule::ANodeWithoutRecordJoins.holds() {
                tracing::warn!(node = self.node(side).name(), "a node has lost what it had");
                let next = if latest.is_in(side.other()) { latest.joining(side) } else { latest.after_loss_of(side) };
                let decider = if side == Side::One { two } else { one };
                let is_recorded = self.write_record(side.other(), decider, &next).await?
                    && self.write_record(side, record, &next).await?;
                return Ok(is_recorded.then(|| self.believe(next)));
            }
            // The last change did not get as far as here.
            let is_behind = record.view != Some(latest) && standing != Standing::Out;
            if is_behind && !self.write_record(side, record, &latest).await? {
                return Ok(None);
            }
        }
        Ok(Some(self.believe(latest)))
    }

    /// Makes `next` the view in place of `from`, if that is still the record of `decider`, which is in before and
    /// after. The record of the other node follows if that node takes part and answers.
    pub(super) async fn change(&self, from: &View, next: View, decider: Side) -> Result<bool, StoreError> {
        let record = self.record(decider).await?;
        if record.view != Some(*from) || !self.write_record(decider, record, &next).await? {
            self.refresh().await?;
            return Ok(false);
        }
        if matches!(next.part(decider.other()).standing, Standing::Out | Standing::Leaving) {
            self.believe(next);
            return Ok(true);
        }
        // It is a reason to look again, and not an error, if somebody was faster.
        self.refresh().await.map(|view| view == next)
    }

    /// Lets `side` begin alone, without knowing what the other node has.
    pub(super) async fn begin_alone(&self, side: Side) -> Result<(), StoreError> {
        let record = self.record(side).await?;
        if record.view.is_none() {
            let first = View::first(ViewNumber(self.environment.now_millis())).without(side.other());
            if self.write_record(side, record, &first).await? {
                self.believe(first);
            }
        }
        Ok(())
    }

    async fn record(&self, side: Side) -> Result<Record, StoreError> {
        let entry = self.node(side).get(&self.key).await?;
        Ok(entry.map_or(Record::default(), |entry| Record { cas: Some(entry.cas), view: View::decode(&entry.value) }))
    }

    async fn write_record(&self, side: Side, seen: Record, view: &View) -> Result<bool, StoreError> {
        self.node(side).swap(&self.key, seen.cas, &view.encode(), RECORD_TTL).await
    }

    fn believe(&self, view: View) -> View {
        let mut believed = self.believed.write().unwrap_or_else(PoisonError::into_inner);
        let before = believed.replace(view);
        drop(believed);
        let both_stay =
            |view: View| view.shape() == Shape::Both && !Side::BOTH.iter().any(|side| view.is_leaving(*side));
        let (was_whole, is_whole) = (before.is_none_or(both_stay), both_stay(view));
        if was_whole != is_whole {
            self.metrics.pair_degraded(!is_whole);
        }
        if before.is_none_or(|before| before.number != view.number) {
            let [one, two] = Side::BOTH.map(|side| self.node(side).name());
            match view.shape() {
                Shape::Both => tracing::info!(one, two, "two nodes have the same"),
                Shape::OneJoins(side) => {
                    tracing::info!(node = self.node(side.other()).name(), "a node is being brought up to date");
                }
                Shape::Alone(side) => {
                    tracing::warn!(node = self.node(side).name(), "a node is used without its second");
                }
            }
        }
        view
    }
}

#[cfg(feature = "mutations")]
impl<S: ScanStore> Pair<S> {
    /// Uses one node alone without a record of it: what a rule forbids.
    pub(super) fn assume(&self, view: View) {
        self.believe(view);
    }
}
