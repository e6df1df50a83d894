//! A secret is seen by who asks for it by name, and stays where it is.

use tokenwal::Secret;

pub fn clone(secret: &Secret) -> Secret {
    secret.clone() //~ E0308
}

pub fn compare(one: Secret, other: Secret) -> bool {
    one == other //~ E0369
}

pub fn print(secret: Secret) -> String {
    secret.to_string() //~ E0599
}

pub fn slip(secret: &Secret) -> &str {
    secret //~ E0308
}
