//! The unit tests of `benches/end_to_end`, whose own target runs without the test harness.

#[path = "../benches/end_to_end/main.rs"]
mod end_to_end;
