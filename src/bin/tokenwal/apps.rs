//! The apps that an operator has: what is known of each, and how its provider is called.
//!
//! Secrets come from the environment or from files of their owner alone, never from arguments and
//! never from the file of apps.

use crate::exit::Failure;
use serde::Deserialize;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenwal::broker::{AppConfig, AppRules};
use tokenwal::profile::{Profile, Rotation};
use tokenwal::provider::Provider;
use tokenwal::{AccountView, App, Secret};

/// The longest file of apps, profile or secret, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct AppsArgs {
    /// Read the apps from this file, in TOML: [[app]] with provider, client_id, profile or
    /// profile_file, host, client_secret_env or client_secret_file, rotates, cap, outside,
    /// redirect_uri
    #[arg(long = "apps", value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    app: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    provider: String,
    client_id: String,
    profile: Option<String>,
    profile_file: Option<PathBuf>,
    host: Option<String>,
    client_secret_env: Option<String>,
    client_secret_file: Option<PathBuf>,
    rotates: Option<bool>,
    cap: Option<u32>,
    outside: Option<u32>,
    redirect_uri: Option<String>,
}

/// The apps that are known.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    entries: Vec<(App, Profile, Entry)>,
    rules: HashMap<App, Option<AppRules>>,
}

impl AppsArgs {
    /// Says whether a file is named.
    pub(crate) fn are_given(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file, if one is named.
    pub(crate) fn read(&self) -> Result<Apps, Failure> {
        let Some(path) = &self.file else { return Ok(Apps::default()) };
        let text = text_of(path)?;
        let file: File = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let what = format!("{}: line {line}: {}", path.display(), error.message());
            Failure::new(what, "correct that line; `tokenwal resolve --help` lists the keys")
        })?;
        let mut entries: Vec<(App, Profile, Entry)> = Vec::new();
        for entry in file.app {
            let wrong = |what: &dyn std::fmt::Display| {
                let name = format!("{}/{}", entry.provider, entry.client_id);
                let what = format!("{}: app {name}: {what}", path.display());
                Failure::new(what, "correct that app")
            };
            let app = App::new(&entry.provider, &entry.client_id).map_err(|e| wrong(&e))?;
            if entries.iter().any(|(known, ..)| *known == app) {
                return Err(wrong(&"it is there twice"));
            }
            let profile = profile_of(&entry).map_err(|what| wrong(&what))?;
            entries.push((app, profile, entry));
        }
        Ok(Apps { entries, rules: HashMap::new() })
    }
}

impl Apps {
    /// Returns what is known of an account's app: as the file has it, or else by the profile of the
    /// provider's name that comes with the command.
    pub(crate) fn rules_of(&mut self, view: &AccountView) -> Option<&AppRules> {
        let app = view.app.as_ref()?;
        let entries = &self.entries;
        let rules = self.rules.entry(app.clone()).or_insert_with(|| {
            let config = match entries.iter().find(|(known, ..)| known == app) {
                Some((app, profile, entry)) => {
                    entry.settings(AppConfig::without_upstream(app.clone(), profile.clone()))
                }
                None => AppConfig::without_upstream(app.clone(), Profile::builtin(app.provider())?),
            };
            Some(AppRules::new(config))
        });
        rules.as_ref()
    }

    /// Returns the apps with their providers, to be called.
    pub(crate) fn configs(&self) -> Result<Vec<AppConfig>, Failure> {
        let config = |(app, profile, entry): &(App, Profile, Entry)| {
            let provider = entry.provider(app, profile)?;
            Ok(entry.settings(AppConfig::new(app.clone(), Arc::new(provider), profile.clone())))
        };
        self.entries.iter().map(config).collect()
    }
}

impl Entry {
    fn settings(&self, mut config: AppConfig) -> AppConfig {
        if let Some(rotates) = self.rotates {
            config = config.rotates(rotates);
        }
        if let Some(cap) = self.cap {
            config = config.cap(cap);
        }
        if let Some(outside) = self.outside {
            config = config.outside(outside);
        }
        if let Some(uri) = &self.redirect_uri {
            config = config.redirect_uri(uri);
        }
        config
    }

    fn provider(&self, app: &App, profile: &Profile) -> Result<Provider, Failure> {
        let wrong = |what: String| Failure::new(format!("app {app}: {what}"), "correct that app");
        let own_host = || {
            let known = profile.endpoints().known()?;
            // Where the host is a part of the addresses nothing can stand for it.
            let suffix = profile.hosts().verified()?.first()?;
            (!known.token.contains("{host}")).then(|| format!("https://{suffix}"))
        };
        let host = self.host.clone().or_else(own_host);
        let host = host.ok_or_else(|| wrong(String::from("its host is needed to call it")))?;
        let provider = Provider::at(profile.clone(), app.clone(), &host);
        let mut provider = provider.map_err(|error| wrong(error.to_string()))?;
        if let Some(secret) = self.secret().map_err(|what| wrong(what.to_string()))? {
            provider = provider.client_secret(secret);
        }
        if let Some(rotates) = self.rotates {
            provider = provider.rotation(if rotates { Rotation::On } else { Rotation::Off });
        }
        provider.build().map_err(|error| wrong(error.to_string()))
    }

    fn secret(&self) -> Result<Option<Secret>, &'static str> {
        match (&self.client_secret_env, &self.client_secret_file) {
            (Some(_), Some(_)) => Err("give client_secret_env or client_secret_file, not both"),
            (Some(name), None) => {
                #[expect(clippy::disallowed_methods, reason = "the command reads its environment")]
                let value = std::env::var(name).ok().filter(|value| !value.is_empty());
                let value = value.ok_or("the variable that client_secret_env names is not set")?;
                Ok(Some(Secret::new(value)))
            }
            (None, Some(path)) => secret_in(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "no file of a store")]
fn secret_in(path: &Path) -> Result<Secret, &'static str> {
    let unreadable = "the file that client_secret_file names cannot be read";
    let metadata = std::fs::metadata(path).map_err(|_| unreadable)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err("others may read the file that client_secret_file names: set its mode to 0600");
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err("the file that client_secret_file names is too long");
    }
    let mut text = std::fs::read_to_string(path).map_err(|_| unreadable)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(Secret::new(text))
}

fn profile_of(entry: &Entry) -> Result<Profile, String> {
    let named = match (&entry.profile, &entry.profile_file) {
        (Some(_), Some(_)) => return Err(String::from("give profile or profile_file, not both")),
        (None, Some(path)) => {
            let text = text_of(path).map_err(|failure| failure.text())?;
            let profile = Profile::from_toml(&text);
            return profile.map_err(|error| format!("{}: {error}", path.display()));
        }
        (Some(name), None) => name,
        (None, None) => &entry.provider,
    };
    Profile::builtin(named).ok_or_else(|| {
        let names = Profile::names().join(", ");
        format!("there is no profile {named:?}; there are {names}, and profile_file")
    })
}

/// Reads a text that a person wrote.
pub(crate) fn text_of(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("{}: {error}", path.display()), "name a file that can be read")
    };
    #[expect(clippy::disallowed_methods, reason = "no file of a store")]
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    #[expect(clippy::disallowed_methods, reason = "no file of a store")]
    std::fs::read_to_string(path).map_err(failed)
}
