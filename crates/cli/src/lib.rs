//! The command `alpine`: arguments, configuration, output, exit codes.
//!
//! A team that compiles its own provider in writes a `main` of one line: [`main_with`] and a [`Setup`] that names it.

mod agents;
mod args;
mod browser;
mod clean;
mod commands;
mod config;
pub mod docs;
mod ended;
mod log;
mod output;
mod parse;
mod plugin;
mod program;
mod progress;
mod run;
mod setup;
mod signals;
mod table;
mod time;
mod view;
mod work;

pub use run::{main, main_with};
pub use setup::{MakeProvider, ProviderSetup, Setup};
