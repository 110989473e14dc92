//! What the tests stand on.

#[allow(dead_code, reason = "each test file uses its part")]
pub mod registry;
