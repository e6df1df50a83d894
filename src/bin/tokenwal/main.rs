//! The command `tokenwal`: looks at stores, mends what can be mended, shows and measures.
//!
//! It sees the public API alone. A subcommand has a module of its own, with its `Args` and a `run`
//! that gives the exit code or a [`Failure`]; nothing else prints an error or decides a code.

mod activate;
mod apps;
mod bench;
mod claim;
mod compact;
mod demo;
mod exit;
mod export;
mod import;
mod indoubt;
mod key;
mod keys;
mod lineage;
mod look;
mod orphans;
mod output;
mod owner;
mod progress;
mod providers;
mod replay;
mod resolve;
mod reveal;
mod revoke;
mod salvage;
mod sandbox;
mod stat;
mod usage;
mod verify;
mod why;

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
    /// Show how the provider's cap is used, account by account
    Usage(usage::Args),
    /// Show grants that nobody depends on, and what keeps them from being revoked
    Orphans(orphans::Args),
    /// Show operations of which the outcome is not known, and what the provider's rules allow next
    Indoubt(indoubt::Args),
    /// Show how an account's grants came to be as they are
    Lineage(lineage::Args),
    /// Show why an integration's token died: the timeline, the probable cause, the evidence
    Why(why::Args),
    /// Take in pairs that were kept elsewhere, one a line of standard input
    Import(import::Args),
    /// Let imported grants be refreshed here, once whoever did it before has stopped
    Activate(activate::Args),
    /// Write living grants as lines that can be imported
    Export(export::Args),
    /// Decide about an operation in doubt
    Resolve(resolve::Args),
    /// Revoke a grant at its provider
    Revoke(revoke::Args),
    /// Take over a store that another host wrote
    Claim(claim::Args),
    /// Make keys
    Key(key::Args),
    /// Show what is known of providers, and how well
    Providers(providers::Args),
    /// Lose a token pair on loopback, then show how a journal keeps it
    Demo(demo::Args),
    /// Be a provider on loopback, to see an integration survive it
    Sandbox(sandbox::Args),
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
        Command::Usage(args) => usage::run(args),
        Command::Orphans(args) => orphans::run(args),
        Command::Indoubt(args) => indoubt::run(args),
        Command::Lineage(args) => lineage::run(args),
        Command::Why(args) => why::run(args),
        Command::Import(args) => import::run(args),
        Command::Activate(args) => activate::run(args),
        Command::Export(args) => export::run(args),
        Command::Resolve(args) => resolve::run(args),
        Command::Revoke(args) => revoke::run(args),
        Command::Claim(args) => claim::run(args),
        Command::Key(args) => key::run(args),
        Command::Providers(args) => providers::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Sandbox(args) => sandbox::run(args),
        Command::Bench(args) => bench::run(args),
    }
}
