//! Tokens in the clear, for `replay --account TAG --reveal` alone.

use crate::output::harmless;
use std::io::{self, Write};
use tokenwal::inspect::Reader;
use tokenwal::{AccountView, Error, Generation, GrantId, IssuedPair, Secret};

/// The secrets of one grant.
#[derive(serde::Serialize)]
pub(crate) struct Revealed {
    grant: GrantId,
    generation: Generation,
    access_token: String,
    refresh_token: Option<String>,
    id_token: Option<String>,
    token_type: String,
    scopes: Vec<String>,
    /// Those of the access token, where they are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_scopes: Option<Vec<String>>,
    instance_url: Option<String>,
}

/// Reads the newest pair of each grant of an account that still has one.
pub(crate) fn reveal(reader: &Reader, view: &AccountView) -> Result<Vec<Revealed>, Error> {
    let mut revealed = Vec::new();
    for grant in &view.grants {
        let pair = reader.pair(view.account_tag, grant.grant)?;
        revealed.extend(pair.as_ref().map(Revealed::of));
    }
    Ok(revealed)
}

impl Revealed {
    fn of(pair: &IssuedPair) -> Self {
        let text = |secret: &Secret| secret.reveal().to_owned();
        Self {
            grant: pair.grant(),
            generation: pair.generation(),
            access_token: text(pair.access_token()),
            refresh_token: pair.refresh_token().map(text),
            id_token: pair.id_token().map(text),
            token_type: pair.token_type().to_owned(),
            scopes: pair.scopes().to_vec(),
            access_scopes: pair.is_narrowed().then(|| pair.access_scopes().to_vec()),
            instance_url: pair.instance_url().map(str::to_owned),
        }
    }

    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "grant {}, generation {}", self.grant, self.generation)?;
        writeln!(out, "  access token   {}", harmless(&self.access_token))?;
        let others = [("refresh token", &self.refresh_token), ("id token", &self.id_token)];
        for (name, token) in others {
            if let Some(token) = token {
                writeln!(out, "  {name:13}  {}", harmless(token))?;
            }
        }
        Ok(())
    }
}
