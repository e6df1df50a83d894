//! `tokenwal providers [NAME]`: what is known of providers, and how well.

use crate::exit::{Exit, Failure};
use crate::output::{columns, harmless, json, stdout};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use tokenwal::profile::{Line, Profile, Recovery, Status};

/// What is read of a file; a profile is shorter.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The provider; all of them if none is named
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Read a profile of your own
    #[arg(long, value_name = "TOML", conflicts_with = "name")]
    file: Option<PathBuf>,
    /// Print one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let (profiles, whole) = match (&args.name, &args.file) {
        (Some(name), _) => (vec![named(name)?], true),
        (None, Some(file)) => (vec![read(file)?], true),
        (None, None) => {
            (Profile::names().into_iter().filter_map(Profile::builtin).collect(), false)
        }
    };
    let mut out = stdout();
    if args.json {
        profiles.iter().try_for_each(|profile| json(&mut out, profile))?;
    } else if whole {
        profiles.iter().try_for_each(|profile| show(&mut out, profile))?;
    } else {
        overview(&mut out, &profiles)?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}

/// Returns the profile of a name that comes with the command.
pub(crate) fn named(name: &str) -> Result<Profile, Failure> {
    Profile::builtin(name).ok_or_else(|| {
        let known = Profile::names().join(", ");
        let error = format!("no provider is named {}; there are {known}", harmless(name));
        Failure::new(error, "name one of these, or give a profile of your own with --file")
    })
}

/// Reads the profile in a file.
pub(crate) fn read(path: &Path) -> Result<Profile, Failure> {
    let shown = harmless(&path.display().to_string());
    let text = text_of(path).map_err(|error| {
        Failure::new(format!("{shown}: {error}"), "give a file in TOML that you can read")
    })?;
    Profile::from_toml(&text).map_err(|error| {
        let advice = "correct that line; `tokenwal providers NAME --json` shows a profile's facts";
        Failure::new(format!("{shown}: {error}"), advice)
    })
}

#[expect(clippy::disallowed_methods, reason = "a profile is no part of a store")]
fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Prints a line for each provider: what decides whether a grant survives.
fn overview(out: &mut impl Write, profiles: &[Profile]) -> io::Result<()> {
    let head = ["name", "cap", "rotation", "lost answer", "spent token", "revokes"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for profile in profiles {
        let lines = profile.lines();
        let cell =
            |name| lines.iter().find(|line| line.name == name).map_or_else(String::new, brief);
        let cap = profile.cap().known().map(|cap| cap.number.to_string());
        let recovery = profile.recovery();
        let lost = match recovery.known() {
            Some(Recovery::Replay { seconds }) => {
                marked(&format!("again for {seconds} s"), recovery.status())
            }
            _ => cell("recovery"),
        };
        rows.push(vec![
            profile.name().to_owned(),
            cap.map_or_else(|| "unknown".to_owned(), |cap| marked(&cap, profile.cap().status())),
            cell("rotation"),
            lost,
            cell("reuse"),
            cell("revoke"),
        ]);
    }
    columns(out, "", &rows)?;
    writeln!(
        out,
        "\n? is not verified, and not acted on; `tokenwal providers NAME` shows the sources"
    )
}

fn brief(line: &Line<'_>) -> String {
    line.value.as_ref().map_or_else(|| "unknown".to_owned(), |value| marked(value, line.status))
}

fn marked(value: &str, status: Status) -> String {
    if status.is_verified() { value.to_owned() } else { format!("{value} ?") }
}

/// Prints all that is known of a provider.
fn show(out: &mut impl Write, profile: &Profile) -> io::Result<()> {
    writeln!(out, "{}: {}", harmless(profile.name()), harmless(profile.title()))?;
    if let Some(base) = profile.extends() {
        writeln!(out, "what is not stated for it is that of {base}")?;
    }
    let lines = profile.lines();
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or_default();
    for line in &lines {
        let value = line.value.as_deref().unwrap_or("unknown");
        writeln!(out, "\n{:width$}  {}", line.name, harmless(value))?;
        if line.value.is_some() {
            writeln!(out, "{:width$}  {}", "", evidence(line.status, line.on, line.source))?;
        }
        if !line.note.is_empty() {
            writeln!(out, "{:width$}  {}", "", harmless(line.note.trim()))?;
        }
    }
    writeln!(out, "\nerrors, of which the first that fits decides")?;
    let head = ["asked", "status", "error", "description", "means", "cause", "known"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for rule in profile.errors() {
        let asked: Vec<&str> = rule.asked().iter().map(|asked| asked.word()).collect();
        rows.push(vec![
            if asked.is_empty() { "any".to_owned() } else { asked.join(", ") },
            rule.http().map_or_else(|| "any".to_owned(), |status| status.to_string()),
            harmless(rule.error()),
            harmless(if rule.description().is_empty() { "any" } else { rule.description() }),
            rule.meaning().word().replace('_', " "),
            rule.cause().map_or_else(String::new, |cause| cause.to_string()),
            evidence(rule.status(), rule.on(), rule.source()),
        ]);
    }
    columns(out, "  ", &rows)
}

fn evidence(status: Status, on: &str, source: &str) -> String {
    let text = match status {
        Status::Memory => "from memory".to_owned(),
        status => status.to_string(),
    };
    let on = if on.is_empty() { String::new() } else { format!(" {on}") };
    let source = if source.is_empty() { String::new() } else { format!(", {}", harmless(source)) };
    format!("{text}{}{source}", harmless(&on))
}
