//! Salesforce ids, in the one form under which an account is counted.
//!
//! Salesforce writes an id in 15 characters, where case tells ids apart, or in 18, where the last
//! three say which of the others are capital letters. Both name the same record, so both must
//! name the same account.

use crate::ids::User;

/// The alphabet of an id's last three characters: each stands for five bits.
const SUFFIX: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// Returns a Salesforce id in its form of 18 characters.
///
/// An id of 18 characters whose letters have all been raised or lowered is restored from its last
/// three. `None` for what is not an id: another length, other characters, or a suffix that
/// contradicts the case of the rest.
///
/// ```
/// use tokenwal::salesforce_id18;
///
/// assert_eq!(salesforce_id18("0015g00000ABcDe").as_deref(), Some("0015g00000ABcDeAAL"));
/// assert_eq!(salesforce_id18("0015G00000ABCDEAAL").as_deref(), Some("0015g00000ABcDeAAL"));
/// assert_eq!(salesforce_id18("not an id"), None);
/// ```
pub fn salesforce_id18(id: &str) -> Option<String> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    match id.len() {
        15 => Some(with_suffix(id)),
        18 => {
            let (short, suffix) = id.split_at_checked(15)?;
            let own = with_suffix(short);
            if own.get(15..)?.eq_ignore_ascii_case(suffix) {
                return Some(own);
            }
            let one_case = !short.bytes().any(|byte| byte.is_ascii_lowercase())
                || !short.bytes().any(|byte| byte.is_ascii_uppercase());
            if one_case { restored(short, suffix) } else { None }
        }
        _ => None,
    }
}

/// Returns the user whom a Salesforce identity URL names: both ids in 18 characters.
///
/// The URL is the response's `id`, such as
/// `https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P`
/// (Salesforce Help, "Identity URLs").
pub fn salesforce_user(identity_url: &str) -> Option<User> {
    let path = identity_url.split(['?', '#']).next()?.trim_end_matches('/');
    let mut parts = path.rsplit('/');
    let user = salesforce_id18(parts.next()?)?;
    let organisation = salesforce_id18(parts.next()?)?;
    if parts.next()? != "id" || !organisation.starts_with("00D") || !user.starts_with("005") {
        return None;
    }
    User::new(format!("{organisation}/{user}")).ok()
}

/// Returns the name of a Salesforce user as an identity URL gives it, from such a URL or from ids of 15
/// or 18 characters: the user's, or the organisation's and the user's with a slash between.
pub(crate) fn salesforce_name(name: &str) -> Option<User> {
    if let Some(user) = salesforce_user(name) {
        return Some(user);
    }
    let (organisation, user) = match name.split_once('/') {
        Some((organisation, user)) => (Some(salesforce_id18(organisation)?), user),
        None => (None, name),
    };
    let user = salesforce_id18(user)?;
    if !user.starts_with("005") || organisation.as_ref().is_some_and(|it| !it.starts_with("00D")) {
        return None;
    }
    let name = organisation.map_or_else(|| user.clone(), |it| format!("{it}/{user}"));
    User::new(name).ok()
}

fn with_suffix(short: &str) -> String {
    let mut id = short.to_owned();
    for five in short.as_bytes().chunks(5) {
        let index = five
            .iter()
            .enumerate()
            .filter(|(_, byte)| byte.is_ascii_uppercase())
            .fold(0_usize, |index, (place, _)| index | 1 << place);
        id.push(SUFFIX.get(index).copied().map_or('A', char::from));
    }
    id
}

/// Gives the letters back the case that the suffix tells. `None` if it speaks of a digit.
fn restored(short: &str, suffix: &str) -> Option<String> {
    let mut id = String::with_capacity(18);
    for (five, code) in short.as_bytes().chunks(5).zip(suffix.bytes()) {
        let code = code.to_ascii_uppercase();
        let index = SUFFIX.iter().position(|known| *known == code)?;
        for (place, byte) in five.iter().enumerate() {
            let upper = index >> place & 1 == 1;
            if upper && !byte.is_ascii_alphabetic() {
                return None;
            }
            let byte = if upper { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            id.push(char::from(byte));
        }
    }
    id.push_str(&suffix.to_ascii_uppercase());
    Some(id)
}

#[cfg(test)]
#[allow(clippy::string_slice, reason = "tests may")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_user_has_one_name_however_it_is_written() {
        let name = |name| salesforce_name(name).map(|user| user.as_str().to_owned());
        let full = name("https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P").unwrap();
        assert_eq!(full, "00Dx0000000BV7zEAG/005x00000012Q9PAAU");
        assert_eq!(name(&full).as_deref(), Some(&*full));
        assert_eq!(name("00Dx0000000BV7z/005x00000012Q9P").as_deref(), Some(&*full));
        assert_eq!(name("00Dx0000000BV7zEAG/005x00000012Q9P").as_deref(), Some(&*full));
        assert_eq!(name("005x00000012Q9P").as_deref(), Some("005x00000012Q9PAAU"));
        for other in ["", "alice", "a/b", "005x00000012Q9P/00Dx0000000BV7z", "/005x00000012Q9P"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn ids_of_15_characters_get_their_suffix() {
        // The first is an example of Salesforce's REST API guide in both forms; the rest follow
        // from the rule: in each five characters the n-th capital letter is bit n.
        for (short, long) in [
            ("00Dx0000000BV7z", "00Dx0000000BV7zEAG"),
            ("005x00000012Q9P", "005x00000012Q9PAAU"),
            ("0015g00000ABcDe", "0015g00000ABcDeAAL"),
            ("000000000000000", "000000000000000AAA"),
            ("ABCDEFGHIJKLMNO", "ABCDEFGHIJKLMNO555"),
        ] {
            assert_eq!(salesforce_id18(short).as_deref(), Some(long));
            assert_eq!(salesforce_id18(long).as_deref(), Some(long));
        }
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for id in [
            "",
            "00Dx0000000BV7",
            "00Dx0000000BV7zE",
            "00Dx0000000BV7zEAGX",
            "00Dx0000000BV7-",
            "00Dx0000000BVé",
            // The suffix contradicts mixed case.
            "00Dx0000000BV7zAAA",
            // The suffix says that a digit is a capital letter.
            "00DX0000000BV7ZEA5",
            // 6 is not in the alphabet.
            "00DX0000000BV7ZEA6",
        ] {
            assert_eq!(salesforce_id18(id), None, "{id}");
        }
    }

    #[test]
    fn identity_urls_name_the_user_whatever_the_host_and_the_length() {
        let expected = User::new("00Dx0000000BV7zEAG/005x00000012Q9PAAU").ok();
        for url in [
            "https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P",
            "https://test.salesforce.com/id/00Dx0000000BV7zEAG/005x00000012Q9PAAU",
            "https://acme.my.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9PAAU/?format=json",
        ] {
            assert_eq!(salesforce_user(url), expected, "{url}");
        }
        for url in [
            "",
            "https://login.salesforce.com/",
            "https://login.salesforce.com/id/00Dx0000000BV7z",
            "https://login.salesforce.com/ids/00Dx0000000BV7z/005x00000012Q9P",
            "https://login.salesforce.com/id/005x00000012Q9P/00Dx0000000BV7z",
        ] {
            assert_eq!(salesforce_user(url), None, "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_case_of_18_characters_is_one_id(short in "[0-9A-Za-z]{15}") {
            let long = salesforce_id18(&short).unwrap();
            prop_assert_eq!(&long[..15], short.as_str());
            prop_assert_eq!(salesforce_id18(&long.to_ascii_lowercase()), Some(long.clone()));
            prop_assert_eq!(salesforce_id18(&long.to_ascii_uppercase()), Some(long));
        }

        #[test]
        fn no_text_makes_it_panic(id in ".{0,20}") {
            let _ = salesforce_id18(&id);
            let _ = salesforce_user(&id);
        }
    }
}
