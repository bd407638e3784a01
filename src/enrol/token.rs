//! Tokens: what a machine shows in order to join. `ID-SECRET-PIN`: which, that it was given it, and whom it may talk to.
//!
//! The store keeps the hash of the secret alone. A token is used once: the machine that shows it first holds it until it has joined, and gives it back when it
//! could not. It is good until it expires or is revoked.

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::plan::Hash;
use crate::store::Store;

/// What of the controller's key a token has: half of its SHA-256.
pub const PIN: usize = 16;
/// No digit that is taken for a letter.
const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A token as it is typed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    secret: String,
    pub pin: [u8; PIN],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

impl Token {
    pub fn new(pin: [u8; PIN]) -> Result<Token> {
        Ok(Token { id: random(8)?, secret: random(32)?, pin })
    }

    pub fn to_text(&self) -> String {
        format!("{}-{}-{}", self.id, self.secret, base32(&self.pin))
    }

    pub fn parse(text: &str) -> Result<Token> {
        let fault = || {
            Diagnostic::new(Code::Usage, "this is no token")
                .hint("`basalt token create` prints one, of three parts with dashes between them")
        };
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [id, secret, pin] = parts.as_slice() else { return Err(fault().into()) };
        let plain = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| DIGITS.contains(&byte));
        let pin = unbase32(pin).filter(|_| plain(id, 8) && plain(secret, 32)).ok_or_else(fault)?;
        Ok(Token { id: (*id).to_owned(), secret: (*secret).to_owned(), pin })
    }
}

/// A random text; also what a ticket is.
pub fn random(length: usize) -> Result<String> {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Diagnostic::new(Code::Internal, "there are no random numbers"))?;
    Ok(bytes.into_iter().map(|byte| char::from(DIGITS[usize::from(byte % 32)])).collect())
}

/// A key's first half, for people and tokens.
pub fn base32(bytes: &[u8]) -> String {
    let (mut text, mut bits, mut count) = (String::new(), 0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(DIGITS[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        text.push(char::from(DIGITS[(bits << (5 - count) & 31) as usize]));
    }
    text
}

/// A pin from its text, with or without the spaces and dashes that people put in.
pub fn unbase32(text: &str) -> Option<[u8; PIN]> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|byte| !b" -".contains(byte)) {
        bits = bits << 5 | u32::try_from(DIGITS.iter().position(|digit| *digit == letter)?).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255) as u8);
        }
    }
    bytes.try_into().ok().filter(|pin: &[u8; PIN]| base32(pin) == text.replace([' ', '-'], ""))
}

/// What the store keeps of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: String,
    hash: String,
    pub by: String,
    /// Seconds since the epoch.
    pub created: u64,
    pub expires: u64,
    /// The role that who joins with it prefers, whatever it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Free,
    /// A machine is joining with it, until then.
    Held {
        node: String,
        until: u64,
    },
    Used {
        node: String,
    },
    Revoked,
}

impl TokenRecord {
    pub fn new(token: &Token, by: String, now: u64, seconds: u64, role: Option<String>) -> TokenRecord {
        let (id, hash) = (token.id.clone(), hash(&token.secret));
        TokenRecord { id, hash, by, created: now, expires: now.saturating_add(seconds), role, standing: Standing::Free }
    }

    /// In a word.
    pub fn state(&self, now: u64) -> &'static str {
        match &self.standing {
            Standing::Used { .. } => "used",
            Standing::Revoked => "revoked",
            _ if now >= self.expires => "expired",
            Standing::Held { until, .. } if now < *until => "held",
            Standing::Held { .. } | Standing::Free => "free",
        }
    }
}

fn key(id: &str) -> String {
    format!("tokens/{id}")
}

fn hash(secret: &str) -> String {
    Hash::of(secret.as_bytes()).0
}

/// Keeps a new token.
pub fn keep(store: &dyn Store, record: &TokenRecord) -> Result<()> {
    write(store, record, 0).map(drop)
}

/// All that are remembered, the oldest first.
pub fn all(store: &dyn Store) -> Result<Vec<TokenRecord>> {
    let mut records = Vec::new();
    for key in store.list("tokens/")? {
        records.extend(read(store, key.trim_start_matches("tokens/"))?.map(|(record, _)| record));
    }
    records.sort_by_key(|record| record.created);
    Ok(records)
}

pub fn revoke(store: &dyn Store, id: &str) -> Result<()> {
    change(store, id, |record| {
        if let Standing::Used { node } = &record.standing {
            return Err(Diagnostic::new(Code::Usage, format!("{node} has joined with that token already")).into());
        }
        record.standing = Standing::Revoked;
        Ok(())
    })
    .map(drop)
}

/// A machine begins to join: nobody else can with the same token, until it has, or has not, or the time is up.
pub fn hold(store: &dyn Store, token: &Token, node: &str, now: u64, until: u64) -> Result<TokenRecord> {
    change(store, &token.id, |record| {
        // A wrong secret learns nothing of the token; how long hashes take to compare tells nothing of it.
        if hash(&token.secret) != record.hash {
            return Err(unknown());
        }
        let state = record.state(now);
        match &record.standing {
            _ if state == "free" => {}
            Standing::Held { node: other, .. } if other == node && state == "held" => {}
            Standing::Held { node: other, .. } if state == "held" => return Err(refused(format!("{other} is joining with this token"))),
            Standing::Used { node } => return Err(refused(format!("this token has been used, by {node}"))),
            _ => return Err(refused(format!("this token is {state}"))),
        }
        record.standing = Standing::Held { node: node.to_owned(), until };
        Ok(())
    })
}

/// The machine has joined: the token is used. Or it has not: the token is free again.
pub fn end(store: &dyn Store, id: &str, node: &str, joined: bool) -> Result<()> {
    change(store, id, |record| {
        if matches!(&record.standing, Standing::Held { node: holder, .. } if holder == node) {
            record.standing = if joined { Standing::Used { node: node.to_owned() } } else { Standing::Free };
        }
        Ok(())
    })
    .map(drop)
}

fn unknown() -> Box<Diagnostic> {
    refused("the controller knows no such token".to_owned())
}

fn refused(why: String) -> Box<Diagnostic> {
    Diagnostic::new(Code::Usage, why).hint("`basalt token create` on the controller makes another").into()
}

fn change(store: &dyn Store, id: &str, edit: impl Fn(&mut TokenRecord) -> Result<()>) -> Result<TokenRecord> {
    loop {
        let (mut record, version) = read(store, id)?.ok_or_else(unknown)?;
        edit(&mut record)?;
        if write(store, &record, version)? {
            return Ok(record);
        }
    }
}

fn read(store: &dyn Store, id: &str) -> Result<Option<(TokenRecord, u64)>> {
    if id.is_empty() || !id.bytes().all(|byte| DIGITS.contains(&byte)) {
        return Ok(None);
    }
    let Some(entry) = store.get(&key(id))? else { return Ok(None) };
    let record = serde_json::from_slice(&entry.value)
        .map_err(|e| Diagnostic::new(Code::Damaged, format!("the record of the token {id} cannot be read: {e}")))?;
    Ok(Some((record, entry.version)))
}

fn write(store: &dyn Store, record: &TokenRecord, version: u64) -> Result<bool> {
    let bytes = serde_json::to_vec(record).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
    store.put_if(&key(&record.id), version, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::DiskStore;

    fn made(folder: &std::path::Path) -> (DiskStore, Token) {
        let store = DiskStore::at(folder.to_owned());
        let token = Token::new([7; PIN]).unwrap();
        keep(&store, &TokenRecord::new(&token, "ann@desk".into(), 1000, 900, None)).unwrap();
        (store, token)
    }

    #[test]
    fn a_token_reads_back_and_nothing_else_is_one() {
        let token = Token::new([0xa5; PIN]).unwrap();
        assert_eq!(Token::parse(&format!(" {}\n", token.to_text())).unwrap(), token);
        assert_ne!(Token::new([0xa5; PIN]).unwrap(), token);
        let text = token.to_text();
        for wrong in ["", "a-b-c", &text[1..], &text[..text.len() - 1], &text.replace('-', "_"), &text.to_uppercase()] {
            assert!(Token::parse(wrong).is_err(), "{wrong}");
        }
        for length in 0..=255_u8 {
            let pin = [length; PIN];
            assert_eq!(unbase32(&base32(&pin)), Some(pin));
        }
    }

    #[test]
    fn a_token_is_held_by_one_and_used_once() {
        let folder = tempfile::tempdir().unwrap();
        let (store, token) = made(folder.path());
        hold(&store, &token, "n1", 1001, 1300).unwrap();
        hold(&store, &token, "n1", 1002, 1300).unwrap();
        assert!(hold(&store, &token, "n2", 1003, 1300).unwrap_err().summary.contains("n1 is joining"));
        // It could not join: another may.
        end(&store, &token.id, "n1", false).unwrap();
        hold(&store, &token, "n2", 1004, 1300).unwrap();
        // It has gone away without a word.
        hold(&store, &token, "n3", 1301, 1600).unwrap();
        end(&store, &token.id, "n2", true).unwrap();
        end(&store, &token.id, "n3", true).unwrap();
        assert!(hold(&store, &token, "n3", 1302, 1600).unwrap_err().summary.contains("used, by n3"));
        assert!(revoke(&store, &token.id).is_err());
    }

    #[test]
    fn a_wrong_an_expired_and_a_revoked_token_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (store, token) = made(folder.path());
        let wrong = Token { secret: "a".repeat(32), ..token.clone() };
        let why = |token: &Token, now: u64| hold(&store, token, "n", now, now + 1).unwrap_err().summary;
        assert_eq!(why(&wrong, 1001), "the controller knows no such token");
        assert_eq!(why(&Token { id: "zzzzzzzz".into(), ..token.clone() }, 1001), "the controller knows no such token");
        assert_eq!(why(&token, 1900), "this token is expired");
        revoke(&store, &token.id).unwrap();
        assert_eq!(why(&token, 1001), "this token is revoked");
        assert_eq!(all(&store).unwrap()[0].state(1001), "revoked");
        assert!(!String::from_utf8_lossy(&store.get(&key(&token.id)).unwrap().unwrap().value).contains(&token.secret));
    }
}
