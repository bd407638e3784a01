//! Passwords as PostgreSQL keeps them: `md5…` of password and role, and `SCRAM-SHA-256$…` (RFC 7677), which says its own salt and rounds.

use sha2::{Digest, Sha256};

use super::base64;
use crate::plan::hmac;

pub const SCRAM: &str = "SCRAM-SHA-256";
const ROUNDS: u32 = 4096;

/// `md5` and 32 digits.
pub fn md5(password: &str, role: &str) -> String {
    let digest = md5::Md5::new().chain_update(password).chain_update(role).finalize();
    format!("md5{}", crate::plan::hex(&digest))
}

/// A verifier with this salt.
pub fn scram(password: &str, salt: &[u8]) -> String {
    with_rounds(password, salt, ROUNDS)
}

/// Whether a password fits a verifier of this kind.
pub fn fits(password: &str, verifier: &str) -> bool {
    let parts = || {
        let (rounds, salt) = verifier.strip_prefix(SCRAM)?.strip_prefix('$')?.split('$').next()?.split_once(':')?;
        Some((rounds.parse::<u32>().ok()?, base64::decode(salt)?))
    };
    // Some millions of rounds would be a way to keep the agent busy.
    parts().is_some_and(|(rounds, salt)| rounds <= 1 << 20 && with_rounds(password, &salt, rounds) == verifier)
}

fn with_rounds(password: &str, salt: &[u8], rounds: u32) -> String {
    let mut block = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]]);
    let mut salted = block;
    for _ in 1..rounds {
        block = hmac(password.as_bytes(), &[&block]);
        salted.iter_mut().zip(block).for_each(|(all, one)| *all ^= one);
    }
    let stored = Sha256::digest(hmac(&salted, &[b"Client Key"]));
    let server = hmac(&salted, &[b"Server Key"]);
    format!("{SCRAM}${rounds}:{}${}:{}", base64::encode(salt), base64::encode(&stored), base64::encode(&server))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `salt.modules.postgres` makes of them: `_md5_password` and `_scram_sha_256`.
    #[test]
    fn verifiers_are_those_of_salt() {
        assert_eq!(md5("secret", "app"), "md56a422f785c9e20873908ce25d1736ae2");
        assert_eq!(md5("", "x"), "md59dd4e461268c8034f5c8564e155c67a6");
        assert_eq!(md5("p'ä\\ss", "röle"), "md56a921f557e2d6f1ed2f86cc122c6be9e");
        assert_eq!(
            scram("secret", b"0123456789abcdef"),
            "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$bpSY5Ze9NUH+I35LC3gVq+DpBfK46iXBxvhAKqVu9pE=:VpYlBuxyzeCI1KnctrefdljpB1mk3Gp7sBI/t11+NkQ="
        );
        assert!(fits(
            "secret",
            "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$bpSY5Ze9NUH+I35LC3gVq+DpBfK46iXBxvhAKqVu9pE=:VpYlBuxyzeCI1KnctrefdljpB1mk3Gp7sBI/t11+NkQ="
        ));
        assert_eq!(
            scram("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", b"salt"),
            "SCRAM-SHA-256$4096:c2FsdA==$XkTTpc/1gicbiAWstnherTmlBSbvh7IDvMOreSkT6e8=:iOPNzu3a+hOaM5XW3AUnhBixtbXk98eS6JY3pC+TlaU="
        );
        assert!(fits(
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "SCRAM-SHA-256$4096:c2FsdA==$XkTTpc/1gicbiAWstnherTmlBSbvh7IDvMOreSkT6e8=:iOPNzu3a+hOaM5XW3AUnhBixtbXk98eS6JY3pC+TlaU="
        ));
        assert!(fits(
            "secret",
            "SCRAM-SHA-256$100:YWI=$pmpEXFgmAdz9JHkjU9xhmE3Z2+Odyp60i5XgkKouJgI=:Rh9319Q5KfAsx0qAgafs6UyFTRql4aHIbjDE3zBjsKE="
        ));
        let other = scram("secret", b"0123456789abcdef");
        assert!(
            !fits("Secret", &other)
                && !fits("secret", &other.replace("4096", "4095"))
                && !fits("secret", "SCRAM-SHA-256$x")
                && !fits("", "")
        );
    }
}
