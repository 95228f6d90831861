//! Exchanges from outside: what the upstream and the client see, and what is asked of the gateway.

mod access;
mod adoption;
mod cached;
mod cookies;
mod failures;
mod hostile;
mod in_use;
mod late;
mod manners;
mod rotation;
mod writes;

use super::*;
use crate::binding::Binding;
use session::id::SessionId;
