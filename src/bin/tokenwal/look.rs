//! Looks at a store beside whoever has it open: opens it, walks it, finds an account in it.

use crate::exit::{Exit, Failure, say};
use crate::keys::KeyArgs;
use crate::progress::Bar;
use std::path::{Path, PathBuf};
use tokenwal::inspect::{self, Reader};
use tokenwal::{
    Account, AccountTag, AccountView, App, Clock as _, GrantId, GrantView, KeySource, SystemClock,
    User,
};

/// A store, and whether to print for machines: what every command that looks takes.
#[derive(Debug, clap::Args)]
pub(crate) struct LookArgs {
    /// The store
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// Print one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl LookArgs {
    /// Reads the store, with its key if there is one.
    pub(crate) fn open(&self) -> Result<Reader, Failure> {
        open(&self.dir, &self.keys)
    }
}

/// Reads the store in `dir`, with its key if there is one.
pub(crate) fn open(dir: &Path, keys: &KeyArgs) -> Result<Reader, Failure> {
    let failure = Failure::of(dir);
    let disk = inspect::directory(dir).map_err(&failure)?;
    let keys = keys.find(dir)?;
    let keys = keys.as_ref().map(|keys| keys as &dyn KeySource);
    let mut bar = Bar::new("reading");
    let reader = Reader::open_on(disk, keys, None, &mut |progress| bar.tell(progress));
    reader.map_err(&failure)
}

/// Returns the time, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemClock.now_ms()
}

/// Walks all accounts. One that cannot be read is said, and the next ones follow.
pub(crate) fn each(
    reader: &Reader,
    dir: &Path,
    mut show: impl FnMut(&AccountView) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Sound;
    for view in reader.accounts() {
        match view {
            Ok(view) => show(&view)?,
            Err(error) => {
                let failure = Failure::of(dir)(error);
                say(&failure.text());
                if exit != Exit::Damaged {
                    exit = failure.exit();
                }
            }
        }
    }
    Ok(exit)
}

/// Names an account on the command line: by app and user, which takes the key, or by its tag.
#[derive(Debug, clap::Args)]
pub(crate) struct AccountArgs {
    /// The app as PROVIDER/CLIENT_ID, and the user; neither with --account. Then the grant, where
    /// one is meant
    #[arg(value_name = "APP USER [GRANT]", num_args = 0..=3)]
    names: Vec<String>,
    /// Name the account by its tag, as for one whose user is not known yet
    #[arg(long, value_name = "TAG")]
    account: Option<AccountTag>,
}

impl AccountArgs {
    /// Says whether anything is named.
    pub(crate) fn is_given(&self) -> bool {
        self.account.is_some() || !self.names.is_empty()
    }

    /// Finds the account, and reads the grant if one is given.
    pub(crate) fn find(
        &self,
        reader: &Reader,
        dir: &Path,
    ) -> Result<(AccountView, Option<GrantId>), Failure> {
        let (tags, rest) = match (self.account, self.names.as_slice()) {
            (Some(tag), rest) => (vec![tag], rest),
            (None, [app, user, rest @ ..]) => (tags(reader, dir, app, user)?, rest),
            (None, _) => return Err(usage("the account is not named")),
        };
        let grant = match rest {
            [] => None,
            [grant] => Some(GrantId(grant.parse().map_err(|_| usage("a grant is a number"))?)),
            _ => return Err(usage("there is more than an account and a grant")),
        };
        for tag in tags {
            if let Some(view) = reader.account(tag).map_err(Failure::of(dir))? {
                return Ok((view, grant));
            }
        }
        let what = format!("{}: this account is not in the store", dir.display());
        Err(Failure::new(what, "look for its name or tag with `tokenwal usage DIR`"))
    }
}

/// Returns the tags that the names may stand for: a slash may be a part of the provider's name, or
/// of the client's id.
fn tags(reader: &Reader, dir: &Path, app: &str, user: &str) -> Result<Vec<AccountTag>, Failure> {
    let user = User::new(user).map_err(|error| usage(&error.to_string()))?;
    let halves = app.match_indices('/').filter_map(|(at, _)| {
        let (provider, client_id) = app.split_at_checked(at)?;
        App::new(provider, client_id.strip_prefix('/')?).ok()
    });
    let apps: Vec<App> = halves.collect();
    if apps.is_empty() {
        return Err(usage("an app is named as PROVIDER/CLIENT_ID"));
    }
    let accounts = apps.into_iter().map(|app| Account::new(app, user.clone()));
    accounts
        .map(|account| {
            reader.tag_of(&account).ok_or_else(|| {
                let what = format!("{}: the key of this store is not known", dir.display());
                Failure::new(what, "give it with --key FILE, or name the account by --account TAG")
            })
        })
        .collect()
}

/// Finds a grant of an account.
pub(crate) fn grant_of(view: &AccountView, grant: GrantId) -> Result<&GrantView, Failure> {
    let found = view.grants.iter().find(|known| known.grant == grant);
    found.ok_or_else(|| {
        let what = format!("account {}: it has no grant {grant}", view.account_tag);
        Failure::new(what, "`tokenwal lineage DIR APP USER` shows those that it has")
    })
}

fn usage(what: &str) -> Failure {
    Failure::new(what.to_owned(), "name it as APP USER [GRANT], or as --account TAG [GRANT]")
}

/// Names an account for people.
pub(crate) fn named(view: &AccountView) -> String {
    match (&view.app, &view.user) {
        (Some(app), Some(user)) => format!("{app}/{user}"),
        (Some(app), None) if view.provisional => format!("{app}, user not known yet"),
        _ => view.account_tag.to_string(),
    }
}

/// Names who depends on a grant for people.
pub(crate) fn holders(grant: &GrantView) -> Vec<String> {
    let name = |held: &tokenwal::HolderView| {
        held.holder.as_ref().map_or_else(|| held.holder_tag.to_string(), ToString::to_string)
    };
    grant.holders.iter().map(name).collect()
}
