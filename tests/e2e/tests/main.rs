//! The promises of the contract, each tested on the whole program: real processes, real git, and a provider whose
//! calls can be made to fail.

mod acknowledged;
mod bad_input;
mod bad_ledger;
mod crash;
mod crowd;
mod faults;
mod git_http;
mod hostile;
mod local;
mod main_job;
mod matrix;
mod next_steps;
mod opencode;
mod output;
mod processes;
mod providers;
mod secrets;
mod support;
mod tables;
