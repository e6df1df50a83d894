//! Looks for secrets in all files, in each form in which one may leak.

use super::calls::MARK;
use crate::sim::SimDisk;

const ZEROS: [u8; 4096] = [0; 4096];

/// Looks for what all secrets have in common, in the forms in which one may leak.
pub fn find_secrets(disk: &SimDisk) -> Result<(), String> {
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    // In base64 the letters depend on where in its group of three a byte falls; what is certain
    // of each of the three forms is its middle.
    let base64 = (0..3).map(|skip| base64_middle(&MARK.as_bytes()[skip..]));
    let forms = [MARK.to_owned(), hex.to_uppercase(), hex].into_iter().chain(base64);
    let forms: Vec<_> = forms.collect();
    let mut begins = [false; 256];
    for form in &forms {
        begins[usize::from(form.as_bytes()[0])] = true;
    }
    for (name, bytes) in disk.files() {
        for (number, piece) in bytes.chunks(4096).enumerate() {
            // Most of a segment is zeros, with which no secret begins.
            if piece == &ZEROS[..piece.len()] {
                continue;
            }
            for (at, byte) in (number * 4096..).zip(piece) {
                let here = || forms.iter().any(|form| bytes[at..].starts_with(form.as_bytes()));
                if begins[usize::from(*byte)] && here() {
                    return Err(format!("{name} holds a secret at offset {at}"));
                }
            }
        }
    }
    Ok(())
}

/// Encodes the whole groups of three at the front.
fn base64_middle(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for shift in [18, 12, 6, 0] {
            let letter = usize::try_from(bits >> shift & 63).unwrap();
            text.push(char::from(LETTERS[letter]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found() {
        let token = format!("x{MARK}y");
        let hex: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![token.clone(), hex.to_uppercase(), hex];
        for skip in 0..3 {
            forms.push(base64_middle(format!("{}{MARK}abc", "-".repeat(skip)).as_bytes()));
        }
        for form in forms {
            let disk = SimDisk::new(1);
            disk.plant("file", &[b"some bytes ", form.as_bytes(), b" and more"].concat());
            assert!(find_secrets(&disk).is_err(), "{form}");
        }
        let disk = SimDisk::new(1);
        disk.plant("file", &[7; 5000]);
        assert!(find_secrets(&disk).is_ok());
    }
}
