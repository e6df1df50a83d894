//! `tokenwal key new FILE`: a key for new stores.

use crate::exit::{Exit, Failure};
use crate::output::{json, stdout};
use std::io::Write as _;
use std::path::PathBuf;
use tokenwal::{KeyFile, SystemEntropy};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Draw a key and write it to a new file that only you can read
    New {
        /// The file; an existing one is never overwritten
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print one object
        #[arg(long)]
        json: bool,
    },
}

/// What `--json` prints: where the key is, and never the key.
#[derive(serde::Serialize)]
struct Made {
    file: String,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let Command::New { file, json: as_json } = args.command;
    let made = KeyFile::create_new(file, &SystemEntropy)?;
    let mut out = stdout();
    if as_json {
        json(&mut out, &Made { file: made.path().display().to_string() })?;
        out.flush()?;
        return Ok(Exit::Sound);
    }
    writeln!(out, "wrote a new key to {}", made.path().display())?;
    writeln!(
        out,
        "do next: back it up, away from the stores that will be made with it; without it nobody \
         can read a pair in them"
    )?;
    out.flush()?;
    Ok(Exit::Sound)
}
