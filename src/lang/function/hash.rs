//! Sums and encodings, for `hashutil.*` and the filters.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{Call, Function, error, text};
use crate::diagnostic::Result;
use crate::value::Value;

pub const TABLE: &[(&str, Function)] = &[
    ("hashutil.digest", |_, c| {
        let [source, checksum] = c.bind(["instr", "checksum"], 1)?;
        let kind = checksum.map_or("md5".into(), Value::to_text);
        let source = text(source);
        match kind.as_str() {
            "md5" => Ok(Value::Str(md5(source.as_bytes()))),
            "sha256" => Ok(Value::Str(sha256(source.as_bytes()))),
            "sha512" => Ok(Value::Str(sha512(source.as_bytes()))),
            other => Err(error(format!("Hash func '{other}' is not supported."))),
        }
    }),
    ("hashutil.md5_digest", |_, c| of(c, md5)),
    ("hashutil.sha256_digest", |_, c| of(c, sha256)),
    ("hashutil.sha512_digest", |_, c| of(c, sha512)),
    ("hashutil.base64_b64encode", |_, c| of(c, base64_encode)),
    ("hashutil.base64_encodestring", |_, c| {
        of(c, |b| {
            // A line break after every 76 characters, as in a message's body.
            let encoded = base64_encode(b);
            let chars: Vec<char> = encoded.chars().collect();
            chars.chunks(76).map(|line| line.iter().collect::<String>() + "\n").collect()
        })
    }),
    ("hashutil.base64_b64decode", |_, c| decode(c)),
    ("hashutil.base64_decodestring", |_, c| decode(c)),
];

fn of(call: Call, sum: impl Fn(&[u8]) -> String) -> Result<Value> {
    let [source] = call.bind(["instr"], 1)?;
    Ok(Value::Str(sum(text(source).as_bytes())))
}

fn decode(call: Call) -> Result<Value> {
    let [source] = call.bind(["instr"], 1)?;
    let bytes = base64_decode(&text(source)).ok_or_else(|| error("the text is no base64"))?;
    String::from_utf8(bytes).map(Value::Str).map_err(|_| error("the decoded bytes are no text"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn md5(bytes: &[u8]) -> String {
    hex(&md5::Md5::digest(bytes))
}

pub fn sha1(bytes: &[u8]) -> String {
    hex(&Sha1::digest(bytes))
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn sha512(bytes: &[u8]) -> String {
    hex(&Sha512::digest(bytes))
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block.resize(64, 0);
    let padded = |pad: u8| block.iter().map(|b| b ^ pad).collect::<Vec<u8>>();
    let inner = Sha256::digest([padded(0x36), message.to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

/// A UUID of version 5: the name within a name space.
pub fn uuid5(space: &str, name: &str) -> String {
    let digits: Vec<u8> = space.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut bytes: Vec<u8> = digits.chunks(2).filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    bytes.extend(name.as_bytes());
    let mut sum: Vec<u8> = Sha1::digest(&bytes).iter().take(16).copied().collect();
    if let Some(b) = sum.get_mut(6) {
        *b = (*b & 0x0f) | 0x50;
    }
    if let Some(b) = sum.get_mut(8) {
        *b = (*b & 0x3f) | 0x80;
    }
    let text = hex(&sum);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or("");
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub use crate::function::base64::encode as base64_encode;

/// What is no digit of it is passed over, as Python does.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let clean: Vec<u8> = text.bytes().filter(|b| ALPHABET.contains(b) || *b == b'=').collect();
    if !clean.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::new();
    for chunk in clean.chunks(4) {
        let padding = chunk.iter().filter(|b| **b == b'=').count();
        let mut bits = 0u32;
        for byte in chunk {
            bits = bits << 6 | ALPHABET.iter().position(|a| a == byte).unwrap_or(0) as u32;
        }
        let bytes = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        out.extend(bytes.iter().take(3usize.saturating_sub(padding)));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_there_and_back() {
        for (plain, encoded) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("hi", "aGk=")] {
            assert_eq!(base64_encode(plain.as_bytes()), encoded);
            assert_eq!(base64_decode(encoded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64_decode("YQ"), None);
    }

    #[test]
    fn uuid_and_hmac_are_those_of_python() {
        assert_eq!(uuid5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "python.org"), "886313e1-3b8a-5372-9b90-0c9aee199e5d");
        assert_eq!(
            hex(&hmac_sha256(b"key", b"The quick brown fox jumps over the lazy dog")),
            "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
        );
    }
}
