//! Integration tests: the program and its rooms against real registries, runtimes and packages. One binary, so
//! that it is linked once. `tests/run.sh` installs what they need.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod accepted;
mod bad_input;
mod bases;
mod build;
mod cache;
mod catalog;
mod common;
mod condarc;
mod copy;
mod credentials;
mod doctor;
mod facts;
mod faults;
mod from;
mod from_pip;
mod image;
mod killed;
mod lock;
mod lock_files;
mod logins;
mod older;
mod oracle;
mod partial;
mod pins;
mod pip;
mod plan;
mod platforms;
mod project_file;
mod project_files;
mod proxies;
mod push;
mod referrers;
mod registry;
mod reproducible;
mod resolve;
mod runs;
mod secrets;
mod stability;
mod unsolvable;
mod warm;
mod wheels;
