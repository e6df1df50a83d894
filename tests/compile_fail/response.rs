//! The provider's answer shows no token: only the pair that is made of it does, after the sync.

use tokenwal::{Outcome, TokenResponse};

pub fn read(response: &TokenResponse) {
    response.access_token(); //~ E0599
    response.refresh_token(); //~ E0599
    response.parts(); //~ E0624
}

pub fn clone(response: &TokenResponse) -> TokenResponse {
    response.clone() //~ E0308
}

pub fn compare(one: TokenResponse, other: TokenResponse) -> bool {
    one == other //~ E0369
}

pub fn print(response: TokenResponse) -> String {
    response.to_string() //~ E0599
}

pub fn read_the_doubt(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::InDoubt(doubt) => doubt.body().to_vec(), //~ E0624
        _ => Vec::new(),
    }
}
