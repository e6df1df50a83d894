//! A table of TOML, read key by key, so that an error can name its place.

use super::error::{Problem, ProfileError};
use super::word::Word;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest key that an error repeats, in characters.
const KEY_CHARS_MAX: usize = 64;

/// A table of the document, and where it stands.
pub(super) struct Table<'a> {
    text: &'a str,
    path: String,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// Takes the document itself.
    pub(super) fn document(text: &'a str, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self { text, path: String::new(), span: 0..0, entries: document.get_ref() }
    }

    /// Refuses keys that are not among these.
    pub(super) fn only(&self, allowed: &[&[&'static str]]) -> Result<(), ProfileError> {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if !allowed.iter().any(|keys| keys.contains(&name)) {
                let problem = Problem::UnknownKey(allowed.concat());
                return Err(error(self.text, key.span().start, self.path_of(name), problem));
            }
        }
        Ok(())
    }

    /// Returns an error about a value of this table, or about the table where it has none.
    pub(super) fn wrong(&self, key: &str, problem: Problem) -> ProfileError {
        let at = self.entries.get(key).map_or(self.span.start, |value| value.span().start);
        error(self.text, at, self.path_of(key), problem)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>, ProfileError> {
        match self.value(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.clone().into_owned())),
            Some(_) => Err(self.wrong(key, Problem::Expected("a text"))),
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>, ProfileError> {
        match self.value(key) {
            None => Ok(None),
            Some(DeValue::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, Problem::Expected("true or false"))),
        }
    }

    pub(super) fn number(&self, key: &'static str) -> Result<Option<u32>, ProfileError> {
        match self.value(key) {
            None => Ok(None),
            Some(DeValue::Integer(number)) => u32::from_str_radix(number.as_str(), number.radix())
                .map(Some)
                .map_err(|_| self.wrong(key, Problem::Expected("a number from 0 to 4294967295"))),
            Some(_) => Err(self.wrong(key, Problem::Expected("a whole number"))),
        }
    }

    pub(super) fn word<T: Word>(&self, key: &'static str) -> Result<Option<T>, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let word = value.as_str().and_then(T::from_word);
        word.map(Some).ok_or_else(|| self.wrong(key, Problem::NotOneOf(T::WORDS.to_vec())))
    }

    pub(super) fn words<T: Word>(&self, key: &'static str) -> Result<Option<Vec<T>>, ProfileError> {
        let Some(texts) = self.texts(key)? else { return Ok(None) };
        let words: Option<Vec<T>> = texts.iter().map(|word| T::from_word(word)).collect();
        words.map(Some).ok_or_else(|| self.wrong(key, Problem::NotOneOf(T::WORDS.to_vec())))
    }

    pub(super) fn texts(&self, key: &'static str) -> Result<Option<Vec<String>>, ProfileError> {
        let expected = || self.wrong(key, Problem::Expected("a list of texts"));
        let Some(value) = self.value(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(expected)?;
        let texts: Option<Vec<String>> =
            list.iter().map(|value| value.get_ref().as_str().map(str::to_owned)).collect();
        texts.map(Some).ok_or_else(expected)
    }

    /// Returns names and texts, such as the parameters of a URL, in the order of their names.
    pub(super) fn pairs(
        &self,
        key: &'static str,
    ) -> Result<Option<Vec<(String, String)>>, ProfileError> {
        let expected = || self.wrong(key, Problem::Expected("a table of texts"));
        let Some(value) = self.value(key) else { return Ok(None) };
        let table = value.as_table().ok_or_else(expected)?;
        let pair = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            Some((name.clone().into_owned(), value.get_ref().as_str()?.to_owned()))
        };
        table.iter().map(pair).collect::<Option<_>>().map(Some).ok_or_else(expected)
    }

    pub(super) fn table(&self, key: &'static str) -> Result<Option<Table<'a>>, ProfileError> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        let table = self.within(value, self.path_of(key));
        table.map(Some).ok_or_else(|| self.wrong(key, Problem::Expected("a table")))
    }

    pub(super) fn tables(&self, key: &'static str) -> Result<Vec<Table<'a>>, ProfileError> {
        let expected = || self.wrong(key, Problem::Expected("a list of tables"));
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(expected)?;
        let numbered = list.iter().enumerate();
        numbered
            .map(|(at, value)| self.within(value, format!("{}[{at}]", self.path_of(key))))
            .collect::<Option<_>>()
            .ok_or_else(expected)
    }

    fn within(&self, value: &'a Spanned<DeValue<'a>>, path: String) -> Option<Table<'a>> {
        let entries = value.get_ref().as_table()?;
        Some(Table { text: self.text, path, span: value.span(), entries })
    }

    fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.entries.get(key).map(Spanned::get_ref)
    }

    fn path_of(&self, key: &str) -> String {
        let key: String = key.chars().take(KEY_CHARS_MAX).flat_map(char::escape_default).collect();
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}

/// Makes an error about what stands at this byte.
pub(super) fn error(text: &str, at: usize, key: String, problem: Problem) -> ProfileError {
    let before = text.char_indices().take_while(|(start, _)| *start < at);
    let (line, column) = before.fold((1, 1), |(line, column), (_, character)| match character {
        '\n' => (line + 1, 1),
        _ => (line, column + 1),
    });
    ProfileError { line, column, key, problem }
}

/// Asks for a value that must be there.
pub(super) trait Needed<T> {
    /// Returns the value, or an error that says what is missing.
    fn needed(
        self,
        table: &Table<'_>,
        key: &'static str,
        what: &'static str,
    ) -> Result<T, ProfileError>;
}

impl<T> Needed<T> for Result<Option<T>, ProfileError> {
    fn needed(
        self,
        table: &Table<'_>,
        key: &'static str,
        what: &'static str,
    ) -> Result<T, ProfileError> {
        self?.ok_or_else(|| table.wrong(key, Problem::Missing(what)))
    }
}
