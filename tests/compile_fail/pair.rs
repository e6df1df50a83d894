//! A pair is made by the journal alone, after the sync, and stays the one that it is.

use tokenwal::{IssuedPair, TokenResponse};

pub fn build() {
    let _ = IssuedPair {}; //~ none
}

pub fn build_of_an_answer(response: TokenResponse) -> IssuedPair {
    response.into() //~ E0277
}

pub fn clone(pair: &IssuedPair) -> IssuedPair {
    pair.clone() //~ E0308
}

pub fn compare(one: IssuedPair, other: IssuedPair) -> bool {
    one == other //~ E0369
}

pub fn print(pair: IssuedPair) -> String {
    pair.to_string() //~ E0599
}

pub fn take_out(pair: IssuedPair) -> tokenwal::Secret {
    pair.access_token //~ E0616
}
