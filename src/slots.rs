//! The cache's slots in Envoy's shared data, which all workers share. All plugins with the same `vm_id` share it, too,
//! and Istio sets no `vm_id`: hence the prefix.

use session_filter::cache::{self, SlotWrite, Slots};

use crate::host::Host;

/// How often to try a slot while other workers write to it. A copy that is not stored costs a lookup later, and nothing
/// else.
const ATTEMPTS: usize = 3;

/// The slots of a host.
pub(crate) struct SharedSlots<'a, H>(pub(crate) &'a H);

impl<H: Host> Slots for SharedSlots<'_, H> {
    fn read(&self, slot: u32) -> Option<Vec<u8>> {
        self.0.shared_data(&key(slot)).0
    }
}

impl<H: Host> SharedSlots<'_, H> {
    /// Puts a copy into its slot, unless there is a better one.
    pub(crate) fn write(&self, write: &SlotWrite) {
        let key = key(write.slot);
        for _ in 0..ATTEMPTS {
            let (existing, version) = self.0.shared_data(&key);
            if existing.is_some_and(|existing| !cache::replaces(&existing, &write.value)) {
                return;
            }
            if self.0.set_shared_data(&key, &write.value, version) {
                return;
            }
        }
    }
}

fn key(slot: u32) -> String {
    format!("session-mesh.slot.{slot}")
}
