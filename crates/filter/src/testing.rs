//! What tests, benches and fuzz targets share: messages in the form that an edge has, a cache in memory, a gateway with
//! the real records, and a world of all three with a clock that is set by hand.
//!
//! Compiled for this crate's own tests, and for others with the feature `testing`. Nothing here is part of the module.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a test that panics has failed, which is what it is for; clippy only sees that in functions marked #[test]"
)]

mod cached_visit;
mod gateway;
mod world;

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::cache::{self, SlotWrite, Slots};
use crate::config::Config;
use crate::edit::{Edit, Headers};
use crate::exchange::ResponseHeaders;

pub use cached_visit::CachedVisit;
pub use gateway::{FakeGateway, GatewayState, asked_id};
pub use world::{Visit, World};

/// The headers of one message.
pub type HeaderList = Vec<(String, Vec<u8>)>;

/// Makes a list of these names and values.
pub fn headers(list: &[(&str, &str)]) -> HeaderList {
    list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// As an edge has them: where they lie.
pub fn borrowed(headers: &[(String, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect()
}

/// Makes these changes to the headers, as the edge does.
pub fn apply(headers: &mut HeaderList, edits: Vec<Edit>) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                headers.retain(|(other, _)| *other != name);
                headers.push((name.into_owned(), value));
            }
            Edit::Add(name, value) => headers.push((name.to_owned(), value)),
            Edit::Remove(name) => headers.retain(|(other, _)| *other != name),
        }
    }
}

impl ResponseHeaders for HeaderList {
    fn contains(&self, name: &str) -> bool {
        self.iter().any(|(other, _)| other == name)
    }

    fn read<T>(&self, reader: impl FnOnce(&Headers<'_>) -> T) -> T {
        reader(&borrowed(self))
    }
}

/// A cache of any number of slots.
#[derive(Clone, Debug, Default)]
pub struct SlotMap(pub HashMap<u32, Vec<u8>>);

impl SlotMap {
    /// Puts a copy into its slot, unless there is a better one.
    pub fn keep(&mut self, write: &SlotWrite) {
        let existing = self.0.get(&write.slot);
        if existing.is_none_or(|existing| cache::replaces(existing, &write.value)) {
            self.0.insert(write.slot, write.value.clone());
        }
    }
}

impl Slots for SlotMap {
    fn read(&self, slot: u32) -> Option<Vec<u8>> {
        self.0.get(&slot).cloned()
    }
}

/// The configuration of most tests, with changes to it.
pub fn config(changes: Value) -> Rc<Config> {
    let mut config = json!({
        "gateway": {"cluster": "session_gateway"},
        "secrets": ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="],
        "cookie": {"name": "sid"},
        // Most tests look at what the store says; the cache has tests of its own.
        "cache": {"ttl": "0s"},
    });
    let (Value::Object(config), Value::Object(changes)) = (&mut config, changes) else {
        panic!("objects");
    };
    config.extend(changes);
    let json = serde_json::to_vec(&config).unwrap();
    Rc::new(Config::parse(&json, |_| Some("a gateway token".replace(' ', "-"))).unwrap())
}
