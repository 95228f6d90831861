//! What happens to a pair of nodes when no request asks for it: nodes that are gone are recorded as out, and nodes that
//! are back are brought up to date.

use std::sync::Arc;
use std::time::Duration;

use session::time::Seconds;
use tokio::time::{Instant, sleep, timeout};

use super::pair::Pair;
use super::view::{Shape, Side, View, ViewNumber};
use crate::store::rules::Rule;
use crate::store::{Key, Keyspace, ScanStore, StoreError};

/// How fast gateways notice and act.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time between two pings of a node. Three in a row without an answer make a node count as gone.
    pub ping_every: Duration,
    /// How long a node has to answer all gateways before it joins again.
    pub steady: Duration,
    /// How long a node without a record of what was, whose second does not answer, waits for it.
    pub patience: Duration,
    /// The longest time for listing the keys of a node.
    pub listing: Duration,
}

impl Pace {
    /// A node is gone after 750 ms without an answer, and joins after 2 s with answers.
    pub const DEFAULT: Self = Self {
        ping_every: Duration::from_millis(250),
        steady: Duration::from_secs(2),
        patience: Duration::from_secs(10),
        listing: Duration::from_mins(1),
    };
}

/// A gateway that does not reach a node says so for this long. It says so once a second.
const HOLD_TTL: Seconds = Seconds::new(3);
/// One gateway at a time brings a node up to date. If it fails, another one follows after this time.
const LEASE_TTL: Seconds = Seconds::new(5);
/// How many keys are brought up to date at once.
const TOGETHER: usize = 32;

/// Looks after a pair until its store is gone.
pub(super) fn keep<S: ScanStore>(
    pair: &Arc<Pair<S>>,
    is_ours: impl Fn(&Key) -> bool + Send + Sync + 'static,
    keyspace: Keyspace,
    pace: Pace,
) {
    let pair = Arc::downgrade(pair);
    tokio::spawn(async move {
        let mut keeper =
            Keeper { pace, keyspace, is_ours, steady_since: None, leaving_since: None, lost_since: None, held: None };
        loop {
            let Some(pair) = pair.upgrade() else { return };
            if let Err(error) = keeper.turn(&pair).await {
                tracing::debug!(%error, "a pair of nodes could not be looked after");
            }
            let [one, two] = Side::BOTH.map(|side| Arc::clone(pair.node(side)));
            drop(pair);
            tokio::select! {
                biased;
                () = sleep(pace.ping_every) => {}
                () = one.changed.notified() => {}
                () = two.changed.notified() => {}
            }
        }
    });
}

/// What the gateway remembers about a pair between two turns.
struct Keeper<F> {
    pace: Pace,
    keyspace: Keyspace,
    /// Whether the pair has a key.
    is_ours: F,
    /// Since when a node that is out has answered.
    steady_since: Option<Instant>,
    /// The view in which a node is about to leave that answers, and since when this is known.
    leaving_since: Option<(ViewNumber, Instant)>,
    /// Since when neither the view nor the second node is known.
    lost_since: Option<Instant>,
    /// When this gateway last said that it does not reach a node.
    held: Option<Instant>,
}

impl<F: Fn(&Key) -> bool> Keeper<F> {
    async fn turn<S: ScanStore>(&mut self, pair: &Pair<S>) -> Result<(), StoreError> {
        let gone = Side::BOTH.map(|side| pair.node(side).is_gone());
        let view = match gone {
            [true, true] => return Ok(()),
            [false, false] => pair.refresh().await?,
            [true, false] => return self.without(pair, Side::One).await,
            [false, true] => return self.without(pair, Side::Two).await,
        };
        self.lost_since = None;
        match view.shape() {
            Shape::Both => {
                self.steady_since = None;
                self.let_stay(pair, view).await?;
            }
            Shape::Alone(side) => self.let_join(pair, view, side).await?,
            Shape::OneJoins(side) => self.bring_up_to_date(pair, view, side).await?,
        }
        Ok(())
    }

    /// One of the nodes does not answer this gateway.
    async fn without<S: ScanStore>(&mut self, pair: &Pair<S>, gone: Side) -> Result<(), StoreError> {
        self.steady_since = None;
        let rest = gone.other();
        let Ok(view) = pair.refresh().await else { return self.begin_alone(pair, rest).await };
        self.lost_since = None;
        match view.shape() {
            #[cfg(feature = "mutations")]
            Shape::Both if !Rule::LoneUseIsRecorded.holds() => pair.assume(view.without(gone)),
            Shape::Both => self.let_leave(pair, view, gone).await?,
            Shape::OneJoins(side) if side == rest => {
                pair.change(&view, view.without(gone), rest).await?;
            }
            Shape::Alone(side) if side == rest => {
                if self.held.is_none_or(|held| held.elapsed() >= Duration::from_secs(1)) {
                    pair.node(rest).set(&pair.key_beside(":hold"), b"1", HOLD_TTL).await?;
                    self.held = Some(Instant::now());
                }
            }
            // What counts is on the node that does not answer.
            Shape::OneJoins(_) | Shape::Alone(_) => {}
        }
        Ok(())
    }

    /// A node does not answer, and the other one is to go on without it. That takes two steps. A gateway that has hung,
    /// or whose message is late, can begin this on a node that nobody reaches meanwhile, but it can't complete it. So
    /// of two nodes of which each says that the other one is not in, the one with the later view was used.
    async fn let_leave<S: ScanStore>(&self, pair: &Pair<S>, view: View, gone: Side) -> Result<(), StoreError> {
        let rest = gone.other();
        let is_known = view.is_leaving(gone) || !Rule::LeavingTakesTwoSteps.holds();
        let leaving = if is_known { view } else { view.leaving(gone) };
        if leaving != view && !pair.change(&view, leaving, rest).await? {
            return Ok(());
        }
        // What was found before may be old.
        if pair.node(gone).ping().await.is_err() {
            pair.change(&leaving, leaving.without(gone), rest).await?;
        }
        Ok(())
    }

    /// A node was about to leave, but answers. Another gateway may not reach it, and gets some time to say so.
    async fn let_stay<S: ScanStore>(&mut self, pair: &Pair<S>, view: View) -> Result<(), StoreError> {
        let Some(leaving) = Side::BOTH.into_iter().find(|side| view.is_leaving(*side)) else {
            self.leaving_since = None;
            return Ok(());
        };
        let known = self.leaving_since.filter(|(number, _)| *number == view.number);
        let (_, since) = known.unwrap_or_else(|| (view.number, Instant::now()));
        self.leaving_since = Some((view.number, since));
        if since.elapsed() >= self.pace.ping_every * 4 {
            self.leaving_since = None;
            pair.change(&view, view.staying(), leaving.other()).await?;
        }
        Ok(())
    }

    /// A node has nothing that it could tell about its pair, and the other one does not answer. After some time, it is
    /// better to go on without what that one has.
    async fn begin_alone<S: ScanStore>(&mut self, pair: &Pair<S>, rest: Side) -> Result<(), StoreError> {
        let since = *self.lost_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.pace.patience {
            pair.begin_alone(rest).await?;
        }
        Ok(())
    }

    /// A node that was out answers: it joins once it has done so for some time, to all gateways.
    async fn let_join<S: ScanStore>(&mut self, pair: &Pair<S>, view: View, side: Side) -> Result<(), StoreError> {
        let since = *self.steady_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.pace.steady || pair.node(side).get(&pair.key_beside(":hold")).await?.is_some() {
            return Ok(());
        }
        self.steady_since = None;
        pair.change(&view, view.joining(side.other()), side).await?;
        Ok(())
    }

    /// Copies every key to the node that joins, and lets it in.
    async fn bring_up_to_date<S: ScanStore>(&self, pair: &Pair<S>, view: View, side: Side) -> Result<(), StoreError> {
        let from = pair.node(side);
        let lease = pair.key_beside(":lease");
        if Rule::JoiningNodesAreSwept.holds() {
            if !from.swap(&lease, None, b"1", LEASE_TTL).await? {
                return Ok(());
            }
            let Some(keys) = self.list(pair, side).await? else { return Ok(()) };
            let mut renewed = Instant::now();
            for some in keys.chunks(TOGETHER) {
                if !pair.bring(some, &view).await? {
                    return Ok(());
                }
                if renewed.elapsed() >= Duration::from_secs(1) {
                    renewed = Instant::now();
                    from.touch(&lease, LEASE_TTL).await?;
                }
            }
        }
        if pair.change(&view, view.joined(side.other()), side).await? {
            tracing::info!(node = pair.node(side.other()).name(), "a node is up to date again");
        }
        from.touch(&lease, Seconds::new(1)).await?;
        Ok(())
    }

    /// The keys of the pair that a node has. `None` if the list does not have a key that was just written: then it may
    /// lack others, too.
    async fn list<S: ScanStore>(&self, pair: &Pair<S>, side: Side) -> Result<Option<Vec<Key>>, StoreError> {
        let proof = pair.key_beside(&format!(":proof:{:016x}", pair.environment.random()));
        let node = pair.node(side);
        node.set(&proof, b"1", Seconds::new(self.pace.listing.as_secs().max(1))).await?;
        let listed = timeout(self.pace.listing, node.store().keys(&self.keyspace)).await;
        let mut keys = listed.map_err(|_| StoreError::Unknown("the list of keys took too long".to_owned()))??;
        if !keys.contains(&proof) {
            tracing::warn!(node = node.name(), "the list of a node's keys is not complete");
            return Ok(None);
        }
        keys.retain(|key| (self.is_ours)(key));
        Ok(Some(keys))
    }
}
