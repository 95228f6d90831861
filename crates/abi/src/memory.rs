//! How bytes come out of the host: it asks the module for memory, fills it, and says where and how much it was.

use std::alloc::{Layout, alloc};
use std::ptr::{null_mut, slice_from_raw_parts_mut};

/// The host's way to memory for what a hostcall returns. Null if there is none left, which the host answers with an
/// error.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout has a size.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => null_mut(),
    }
}

/// What a hostcall writes about the bytes that it returns.
pub(crate) struct Returned {
    pub(crate) bytes: *mut u8,
    pub(crate) length: usize,
}

impl Returned {
    pub(crate) const NOTHING: Self = Self { bytes: null_mut(), length: 0 };

    /// Takes the bytes over.
    ///
    /// # Safety
    ///
    /// A hostcall has written this, and was successful.
    pub(crate) unsafe fn take(self) -> Vec<u8> {
        // Nothing is returned as no memory at all.
        if self.bytes.is_null() || self.length == 0 {
            return Vec::new();
        }
        let bytes = slice_from_raw_parts_mut(self.bytes, self.length);
        // SAFETY: the host got this memory from `proxy_on_memory_allocate`, which made it for exactly `length` bytes of
        // alignment 1, filled it, and has forgotten it.
        unsafe { Box::from_raw(bytes) }.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_fills_is_taken_over() {
        let text = b"session-mesh";
        let bytes = proxy_on_memory_allocate(text.len());
        assert!(!bytes.is_null());
        // SAFETY: as the host does: as many bytes as it has asked for.
        unsafe { bytes.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
        // SAFETY: as the host does.
        let taken = unsafe { Returned { bytes, length: text.len() }.take() };
        assert_eq!(taken, text);
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(proxy_on_memory_allocate(0).is_null());
        assert!(proxy_on_memory_allocate(usize::MAX).is_null());
        // SAFETY: what the host writes when it returns nothing.
        assert_eq!(unsafe { Returned::NOTHING.take() }, Vec::<u8>::new());
    }
}
