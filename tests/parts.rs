//! The unit tests of the programs' parts. They run here, once, because an example that is built with its tests is not built
//! as a program, which `tests/programs.rs` runs.
#![allow(dead_code)]

#[path = "../examples/decode_bench/bandwidth.rs"]
mod bandwidth;
#[path = "../examples/trace/page.rs"]
mod page;
#[path = "../examples/sweep/plot.rs"]
mod plot;
#[path = "../examples/support/mod.rs"]
mod support;
