//! `tokenwal salvage DIR INTO`: a new store of what can be read of a damaged one.

use crate::exit::{Exit, Failure};
use crate::keys::KeyArgs;
use crate::output::{Facts, counted, heard, json, stdout};
use crate::progress::{Bar, Spinner};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use tokenwal::Error;
use tokenwal::inspect::{self, Loss, Salvage, Salvaged};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The damaged store; it is left as it is
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A directory for the new store, which is made, or empty; INTO.report lists what was lost
    #[arg(value_name = "INTO")]
    into: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Print one object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    salvaged: &'a Salvaged,
    lost: &'a [Loss],
    report: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let failure = Failure::of(&args.dir);
    let (dir, into) = (whole(&args.dir)?, whole(&args.into)?);
    if resolved(&into).starts_with(resolved(&dir)) {
        let what = format!("{} lies within the damaged store", into.display());
        return Err(Failure::new(what, "name a directory elsewhere, best on another disk"));
    }
    let disk = inspect::directory(&dir).map_err(&failure)?;
    let keys = args.keys.need(&dir)?;
    let mut bar = Bar::new("reading");
    let plan = Salvage::new(&keys)
        .plan_with(disk, &mut |progress| bar.tell(progress))
        .map_err(&failure)?;
    drop(bar);

    let losses = plan.losses().to_vec();
    let mut out = stdout();
    if !args.json {
        // Whoever does not listen finds them in the report.
        heard(show_losses(&mut out, &losses))?;
    }
    let new = inspect::new_directory_like(&into, &dir).map_err(Failure::of(&into))?;
    if !new.list()?.is_empty() {
        return Err(Error::NotEmpty { dir: new.path() }.into());
    }
    let report = (!losses.is_empty()).then(|| beside(&into));
    if let Some(report) = &report {
        write_report(report, &dir, &losses)?;
    }
    let spinner = Spinner::new("writing");
    let salvaged = plan.write(new).map_err(Failure::of(&into))?;
    drop(spinner);
    let printed = if args.json {
        let report = report.as_ref().map(|report| report.display().to_string());
        json(&mut out, &Done { salvaged: &salvaged, lost: &losses, report })
    } else {
        show(&mut out, &salvaged, &into, report.as_deref())
    };
    heard(printed.and_then(|()| out.flush()))?;
    Ok(Exit::Sound)
}

fn show_losses(out: &mut impl Write, losses: &[Loss]) -> io::Result<()> {
    if losses.is_empty() {
        writeln!(out, "everything can be saved")?;
    }
    for loss in losses {
        writeln!(out, "cannot be saved: {loss}")?;
    }
    // This comes before anything is written.
    out.flush()
}

fn show(
    out: &mut impl Write,
    salvaged: &Salvaged,
    into: &Path,
    report: Option<&Path>,
) -> io::Result<()> {
    let mut facts = Facts::default();
    facts
        .add("new store", into.display())
        .add("accounts", salvaged.accounts)
        .add("records", salvaged.records)
        .add("read from", counted(salvaged.files, "file", "files"))
        .add("snapshot", format!("up to LSN {}", salvaged.lsn))
        .add("in doubt", counted(salvaged.in_doubt.len() as u64, "operation", "operations"))
        .add_some("lost", report.map(|report| format!("listed in {}", report.display())));
    facts.print(out)?;
    if report.is_some() {
        writeln!(
            out,
            "do next: ask the provider about each grant before its refresh token is presented: \
             what was lost may have replaced it"
        )?;
    }
    Ok(())
}

/// Writes the list of what was lost, an object a line, to a new file for its owner only.
#[expect(clippy::disallowed_methods, reason = "the report is the operator's, and not the store's")]
fn write_report(path: &Path, like: &Path, losses: &[Loss]) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let what =
            format!("{}: the list of what was lost cannot be written: {error}", path.display());
        Failure::new(what, "name another directory to salvage into; nothing was written yet")
    };
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let (own, model) = (file.metadata().map_err(failed)?, like.metadata().map_err(failed)?);
    if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
        fchown(&file, Some(model.uid()), Some(model.gid())).map_err(failed)?;
    }
    let mut lines = Vec::new();
    for loss in losses {
        json(&mut lines, loss)?;
    }
    file.write_all(&lines).and_then(|()| file.sync_all()).map_err(failed)
}

fn beside(into: &Path) -> PathBuf {
    let mut name = OsString::from(into);
    name.push(".report");
    name.into()
}

/// Follows links and `..` as far as there is something, so that no detour leads into the store.
#[expect(clippy::disallowed_methods, reason = "two paths are compared, and no file is reached")]
fn resolved(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

fn whole(path: &Path) -> io::Result<PathBuf> {
    Ok(std::path::absolute(path)?.components().collect())
}
