//! Reading and writing the two copies of one key.
//!
//! A read *settles* the key: what it returns is on every node that is in, so nothing that was seen or acknowledged is
//! on one node only. A write replaces what was settled on one node by compare-and-swap, which decides it, then on the
//! other, and is acknowledged once the view it was made in has turned out to be still the current one.

use std::cmp::Ordering;

use futures_util::future::{join_all, try_join};
use session::time::Seconds;

use super::node::{NodeState, Replica, Written};
use super::pair::Pair;
use super::stamp::{self, Stamp};
use super::view::{Shape, Side, View};
use crate::store::rules::Rule;
use crate::store::{Key, ScanStore, StoreError, finishing};

/// The number of rounds that a call may lose against others before it is abandoned.
const ROUNDS: usize = 16;

/// A key whose copies are the same, or of which one node has the only one.
pub(super) struct Settled {
    view: View,
    /// `None` for a node that does not take part.
    one: Option<NodeState>,
    two: Option<NodeState>,
    /// The value, if there is one, with its longest time to live.
    pub(super) latest: Option<Replica>,
}

/// What a write puts under a key.
struct Write {
    stamp: Stamp,
    bytes: Vec<u8>,
    ttl: Seconds,
}

impl Settled {
    const fn state(&self, side: Side) -> Option<&NodeState> {
        match side {
            Side::One => self.one.as_ref(),
            Side::Two => self.two.as_ref(),
        }
    }
}

impl<S: ScanStore> Pair<S> {
    /// What is under the key, after it was made the same on all nodes that take part.
    pub(super) async fn settle(&self, key: &Key) -> Result<Settled, StoreError> {
        for _ in 0..ROUNDS {
            let view = self.view().await?;
            let settled = match view.shape() {
                Shape::Alone(side) => self.settle_alone(key, view, side).await?,
                Shape::Both | Shape::OneJoins(_) => self.settle_both(key, view).await?,
            };
            if let Some(settled) = settled {
                return Ok(settled);
            }
        }
        Err(StoreError::Unknown("a read kept losing races".to_owned()))
    }

    async fn settle_alone(&self, key: &Key, view: View, side: Side) -> Result<Option<Settled>, StoreError> {
        let state = self.node(side).look(key, Self::counts(&view, side)).await?;
        // Otherwise the other node may be back, and alone by now.
        if Rule::LoneReadsAreVerified.holds() && !self.is_current(&view).await? {
            return Ok(None);
        }
        let latest = state.replica.clone();
        let (one, two) = if side == Side::One { (Some(state), None) } else { (None, Some(state)) };
        Ok(Some(Settled { view, one, two, latest }))
    }

    /// `None` if the copies had to be made the same first, or the view has changed.
    async fn settle_both(&self, key: &Key, view: View) -> Result<Option<Settled>, StoreError> {
        let (one, two) = self.look(key, &view).await?;
        // This gateway has missed a change. In the view that it believes in, both nodes may have joined again since:
        // what it writes would not count, and would replace what does.
        let is_newer = |state: &NodeState| state.stamp().is_some_and(|stamp| stamp.view > view.number);
        if (is_newer(&one) || is_newer(&two)) && Rule::NewerCopiesRefreshTheView.holds() {
            self.refresh().await?;
            return Ok(None);
        }
        let is_same = match (one.stamp(), two.stamp()) {
            (Some(one), Some(two)) => one.is_same_write(two),
            (None, None) => true,
            _ => false,
        };
        // A node that is in now has what both have, whatever the view is by now.
        if is_same {
            let latest = longer(&one, &two).cloned();
            return Ok(Some(Settled { view, one: Some(one), two: Some(two), latest }));
        }
        if let Some(side) = expiring(&one, &two)
            && Rule::ExpiryIsMadeCertain.holds()
        {
            self.expire(key, side, if side == Side::One { &one } else { &two }).await?;
            return Ok(None);
        }
        // Where one of two copies has to be chosen, it matters which node is in.
        if Rule::DisagreementsRefreshTheView.holds() && self.refresh().await? != view {
            return Ok(None);
        }
        let winner = winner(&view, &one, &two);
        let (right, wrong) = if winner == Side::One { (&one, &two) } else { (&two, &one) };
        let Some(replica) = &right.replica else {
            // The copy that joined outlives the one it was made from.
            self.expire(key, winner.other(), wrong).await?;
            return Ok(None);
        };
        if Rule::ReadsCompleteWrites.holds() {
            self.copy(key, &view, replica, winner.other(), wrong).await?;
            return Ok(None);
        }
        let latest = Some(replica.clone());
        Ok(Some(Settled { view, one: Some(one), two: Some(two), latest }))
    }

    async fn look(&self, key: &Key, view: &View) -> Result<(NodeState, NodeState), StoreError> {
        let look = |side| self.node(side).look(key, Self::counts(view, side));
        match view.shape() {
            Shape::Both | Shape::Alone(_) => try_join(look(Side::One), look(Side::Two)).await,
            // The node that joins is never ahead. Looked at together, it might seem to be, and lose a write.
            Shape::OneJoins(Side::One) => {
                let two = look(Side::Two).await?;
                Ok((look(Side::One).await?, two))
            }
            Shape::OneJoins(Side::Two) => {
                let one = look(Side::One).await?;
                Ok((one, look(Side::Two).await?))
            }
        }
    }

    /// Puts a copy on a node, unless it has something else by now than was seen.
    async fn copy(
        &self,
        key: &Key,
        view: &View,
        replica: &Replica,
        to: Side,
        seen: &NodeState,
    ) -> Result<Written, StoreError> {
        let bytes = Stamp { view: view.number, ..replica.stamp }.encode(&replica.value);
        // Times are whole seconds: rounded up each time, two copies would keep each other alive for ever.
        let ttl = Seconds::new(replica.remaining.get().saturating_sub(1).max(1));
        let written = self.node(to).write(key, seen, &bytes, ttl).await?;
        if written == Written::Done {
            self.metrics.repaired(1);
        }
        Ok(written)
    }

    /// Ends a copy whose counterpart has ended already, unless it was replaced meanwhile. After that nobody finds it,
    /// and nobody can extend its life.
    async fn expire(&self, key: &Key, side: Side, seen: &NodeState) -> Result<Written, StoreError> {
        self.node(side).write(key, seen, stamp::EXPIRED, Seconds::new(1)).await
    }

    /// Replaces what was settled, if nothing else has been written since.
    pub(super) async fn write(
        &self,
        key: &Key,
        settled: Settled,
        first: Side,
        value: &[u8],
        ttl: Seconds,
    ) -> Result<Written, StoreError> {
        let view = settled.view;
        let base = settled.latest.as_ref().map(|replica| replica.stamp);
        let write = self.environment.random();
        let stamp = Stamp::next(base, view.number, self.environment.now_millis(), write);
        let write = Write { stamp, bytes: stamp.encode(value), ttl };
        let (first, second) = match view.shape() {
            Shape::Both => (first, Some(first.other())),
            Shape::OneJoins(side) => (side, Some(side.other()).filter(|_| Rule::JoiningNodesAreWritten.holds())),
            Shape::Alone(side) => (side, None),
        };
        // Better on no node than only on the one where it fits.
        for side in [Some(first), second].into_iter().flatten() {
            self.node(side).admit(key, write.bytes.len())?;
        }
        // What fails here has not happened, or says that it is not known.
        let Some(seen) = settled.state(first) else { return Ok(Written::Conflict) };
        if self.node(first).write(key, seen, &write.bytes, write.ttl).await? == Written::Conflict {
            return Ok(Written::Conflict);
        }
        // From here on it may become true whatever happens.
        let second = second.and_then(|side| Some((side, settled.state(side)?)));
        // Boxed: it is the larger part of a write.
        Box::pin(finishing(async {
            let is_carried = match second {
                Some((side, seen)) => self.carry(key, &view, side, seen, &write).await.map_err(undecided)?,
                None => true,
            };
            let is_verified = !Rule::WritesAreVerified.holds() || self.is_current(&view).await.map_err(undecided)?;
            if is_carried && is_verified {
                return Ok(Written::Done);
            }
            self.find_out(key, &write).await
        }))
        .await
    }

    /// Brings a write that the first node has decided to the second. `false` if that has something that neither is the
    /// write nor was made after it in this view.
    async fn carry(
        &self,
        key: &Key,
        view: &View,
        side: Side,
        seen: &NodeState,
        write: &Write,
    ) -> Result<bool, StoreError> {
        if self.node(side).write(key, seen, &write.bytes, write.ttl).await? == Written::Done {
            return Ok(true);
        }
        // A reader has brought it there, or another writer has replaced it already. In one view, every write replaces
        // what it finds on the first node.
        let there = self.node(side).look(key, Self::counts(view, side)).await?;
        Ok(there.stamp().is_some_and(|there| {
            there.is_same_write(write.stamp) || (there.version > write.stamp.version && there.view == view.number)
        }))
    }

    /// What has become of a write whose view has ended, or that met something else.
    async fn find_out(&self, key: &Key, write: &Write) -> Result<Written, StoreError> {
        let settled = self.settle(key).await.map_err(undecided)?;
        match settled.latest {
            Some(replica) if replica.stamp.is_same_write(write.stamp) => Ok(Written::Done),
            // It may have been made on top of the write, or beside it.
            Some(replica) if replica.stamp.version > write.stamp.version => {
                Err(StoreError::Unknown("a write was overtaken while a node came or went".to_owned()))
            }
            // What is settled now is not the write, and it will not come back.
            Some(_) | None => Ok(Written::Conflict),
        }
    }

    /// Brings the node that joins up to date with these keys. `false` if the view is over, or a node could not be
    /// asked.
    pub(super) async fn bring(&self, keys: &[Key], view: &View) -> Result<bool, StoreError> {
        let Shape::OneJoins(from) = view.shape() else { return Ok(false) };
        let looks = join_all(keys.iter().map(|key| self.look(key, view))).await;
        let mut behind = Vec::new();
        for (key, look) in keys.iter().zip(looks) {
            let (one, two) = look?;
            let (right, wrong) = if from == Side::One { (one, two) } else { (two, one) };
            let is_same = match (right.stamp(), wrong.stamp()) {
                (Some(right), Some(wrong)) => right.is_same_write(wrong),
                (None, _) => true,
                (Some(_), None) => false,
            };
            if !is_same && let Some(replica) = right.replica {
                behind.push((key, replica, wrong));
            }
        }
        // As for a read, but once for all of them: what was seen is from before this.
        if !behind.is_empty() && self.refresh().await? != *view {
            return Ok(false);
        }
        let copies = behind.iter().map(|(key, replica, seen)| self.copy(key, view, replica, from.other(), seen));
        for ((key, ..), copied) in behind.iter().zip(join_all(copies).await) {
            if copied? == Written::Conflict {
                self.settle(key).await?;
            }
        }
        Ok(true)
    }
}

/// Of two copies of the same write, the one that lives longer.
fn longer<'a>(one: &'a NodeState, two: &'a NodeState) -> Option<&'a Replica> {
    one.replica.iter().chain(&two.replica).max_by_key(|replica| replica.remaining)
}

/// The node with the only copy, if that ends within the second, as the other one has already. Copied once more, it
/// would come back for those who have found neither.
fn expiring(one: &NodeState, two: &NodeState) -> Option<Side> {
    let (only, side) = match (&one.replica, &two.replica) {
        (Some(only), None) => (only, Side::One),
        (None, Some(only)) => (only, Side::Two),
        _ => return None,
    };
    (only.remaining <= Seconds::new(1)).then_some(side)
}

/// The node whose copy counts if both have different ones.
fn winner(view: &View, one: &NodeState, two: &NodeState) -> Side {
    match (view.shape(), one.stamp(), two.stamp()) {
        (Shape::OneJoins(side) | Shape::Alone(side), ..) => side,
        (Shape::Both, Some(one), Some(two)) if one.precedence(two) == Ordering::Less => Side::Two,
        (Shape::Both, None, _) => Side::Two,
        (Shape::Both, ..) => Side::One,
    }
}

/// The write may have happened: an error that says otherwise is not passed on.
fn undecided(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(_) => error,
        other => StoreError::Unknown(other.to_string()),
    }
}
