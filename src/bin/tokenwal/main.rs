//! The command `tokenwal`: looks at stores, mends what can be mended, shows and measures.
//!
//! It sees the public API alone. A subcommand has a module of its own, with its `Args` and a `run`
//! that gives the exit code or a [`Failure`]; nothing else prints an error or decides a code.

mod bench;
mod compact;
mod demo;
mod exit;
mod key;
mod keys;
mod output;
mod progress;
mod replay;
mod reveal;
mod salvage;
mod stat;
mod verify;

use clap::{Parser, Subcommand};
use exit::{Exit, Failure};
use std::process::ExitCode;

/// Looks after journals of OAuth token pairs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check everything in a store, and change nothing
    Verify(verify::Args),
    /// Show what a store holds, as a service would see it at startup
    Replay(replay::Args),
    /// Sum a store up
    Stat(stat::Args),
    /// Fold a store's journal into a snapshot, and retire what it covers
    Compact(compact::Args),
    /// Copy what can be read of a damaged store into a new one
    Salvage(salvage::Args),
    /// Make keys
    Key(key::Args),
    /// Lose a token pair on loopback, then show how a journal keeps it
    Demo(demo::Args),
    /// Measure what this disk gives, raw and through the journal
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Verify(args) => verify::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Stat(args) => stat::run(args),
        Command::Compact(args) => compact::run(args),
        Command::Salvage(args) => salvage::run(args),
        Command::Key(args) => key::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
    }
}
