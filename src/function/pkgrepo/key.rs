//! OpenPGP keys as repositories name them: armored or not, and their fingerprints (RFC 4880, 12.2).

use sha1::Digest;

use crate::function::base64;
use crate::plan::hex;

/// The keys in a file as bytes, whether it is armored or not; nothing where it holds no keys.
pub fn binary(bytes: &[u8]) -> Option<Vec<u8>> {
    let found = match armored(bytes) {
        true => String::from_utf8_lossy(bytes)
            .split("-----BEGIN PGP PUBLIC KEY BLOCK-----")
            .skip(1)
            .map(|block| block.split("-----END").next().and_then(dearmored))
            .collect::<Option<Vec<_>>>()?
            .concat(),
        false => bytes.to_vec(),
    };
    (!fingerprints(&found).is_empty()).then_some(found)
}

pub fn armored(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP")
}

/// What is between the lines: headers, an empty line, base64, a checksum.
fn dearmored(block: &str) -> Option<Vec<u8>> {
    let lines: Vec<&str> = block.trim_start_matches(['\r', '\n']).lines().map(str::trim).collect();
    // Where no header stands the empty line is at the start, and was cut off.
    let headers = lines.iter().take_while(|line| line.contains(": ") || line.ends_with(':')).count();
    let text: String = lines.get(headers..)?.iter().take_while(|line| !line.starts_with('=')).copied().collect();
    base64::decode(&text)
}

/// The fingerprints of all keys and subkeys, in capital hexadecimal.
pub fn fingerprints(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((tag, body, behind)) = packet(rest) {
        rest = behind;
        // Public keys and public subkeys of version 4.
        if (tag == 6 || tag == 14) && body.first() == Some(&4) {
            let Ok(length) = u16::try_from(body.len()) else { continue };
            let hash = sha1::Sha1::new().chain_update([0x99]).chain_update(length.to_be_bytes()).chain_update(body).finalize();
            found.push(hex(&hash).to_uppercase());
        } else if tag == 6 {
            // Later versions: known to be a key, compared by nobody.
            found.push(String::new());
        }
    }
    found
}

/// The first packet: its tag, its body, what is behind it. One of unknown length is not read.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let number = |count: usize, rest: &[u8]| -> Option<usize> {
        rest.get(..count)?.iter().try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))
    };
    let (tag, length, head) = if first & 0x40 != 0 {
        let one = usize::from(*rest.first()?);
        match one {
            0..192 => (first & 0x3f, one, 1),
            192..224 => (first & 0x3f, ((one - 192) << 8) + usize::from(*rest.get(1)?) + 192, 2),
            255 => (first & 0x3f, number(4, rest.get(1..)?)?, 5),
            _ => return None,
        }
    } else {
        match first & 3 {
            0 => (first >> 2 & 0xf, number(1, rest)?, 1),
            1 => (first >> 2 & 0xf, number(2, rest)?, 2),
            2 => (first >> 2 & 0xf, number(4, rest)?, 4),
            _ => return None,
        }
    };
    let body = rest.get(head..)?;
    Some((tag, body.get(..length)?, body.get(length..)?))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A key made for this test (ed25519, `gpg --quick-gen-key`), and its fingerprint as gpg shows it.
    pub const KEY: &str = include_str!("test_key.asc");
    pub const FINGERPRINT: &str = include_str!("test_key.fingerprint");

    #[test]
    fn an_armored_key_is_the_same_key() {
        let plain = binary(KEY.as_bytes()).unwrap();
        assert_eq!(binary(&plain).unwrap(), plain);
        assert_eq!(fingerprints(&plain).first().map(String::as_str), Some(FINGERPRINT.trim()));
        // Two of them in one file, one with a header.
        let two = format!("{}{KEY}", KEY.replacen("\n\n", "\nComment: x\n\n", 1));
        assert_eq!(binary(two.as_bytes()).unwrap(), [plain.clone(), plain].concat());
    }

    #[test]
    fn what_is_no_key_is_none() {
        for bytes in
            [&b""[..], b"<html>", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!\n-----END", &[0x99, 0xff, 0xff, 4], &[0xc6, 255, 0, 0]]
        {
            assert_eq!(binary(bytes), None, "{bytes:?}");
        }
    }
}
