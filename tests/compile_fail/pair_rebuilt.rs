//! A pair is not made of another one.

use tokenwal::IssuedPair;

pub fn build(pair: IssuedPair) -> IssuedPair {
    IssuedPair { ..pair } //~ E0451
}
