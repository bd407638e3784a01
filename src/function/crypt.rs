//! Passwords hashed as `/etc/shadow` holds them: SHA-512 crypt (`$6$`), for `hash_password`.

use sha2::{Digest, Sha512};

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ROUNDS: usize = 5000;

/// `$6$SALT$HASH`; at most 16 characters of the salt count.
pub fn sha512(password: &str, salt: &str) -> String {
    let salt: String = salt.chars().take_while(|c| *c != '$').take(16).collect();
    let (key, salt_bytes) = (password.as_bytes(), salt.as_bytes());
    let repeat = |digest: &[u8], length: usize| -> Vec<u8> { digest.iter().copied().cycle().take(length).collect() };

    let alternate = Sha512::new().chain_update(key).chain_update(salt_bytes).chain_update(key).finalize();
    let mut first = Sha512::new().chain_update(key).chain_update(salt_bytes).chain_update(repeat(&alternate, key.len()));
    let mut bits = key.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &alternate[..] } else { key });
        bits >>= 1;
    }
    let mut digest = first.finalize();

    let mut keys = Sha512::new();
    key.iter().for_each(|_| keys.update(key));
    let keys = repeat(&keys.finalize(), key.len());
    let mut salts = Sha512::new();
    let times = 16 + usize::from(digest.first().copied().unwrap_or_default());
    (0..times).for_each(|_| salts.update(salt_bytes));
    let salts = repeat(&salts.finalize(), salt_bytes.len());

    for round in 0..ROUNDS {
        let mut next = Sha512::new();
        next.update(if round % 2 == 1 { &keys[..] } else { &digest[..] });
        if !round.is_multiple_of(3) {
            next.update(&salts);
        }
        if !round.is_multiple_of(7) {
            next.update(&keys);
        }
        next.update(if round % 2 == 1 { &digest[..] } else { &keys[..] });
        digest = next.finalize();
    }
    let mut out = format!("$6${salt}$");
    let byte = |i: usize| u32::from(digest.get(i).copied().unwrap_or_default());
    let mut write = |mut bits: u32, characters: usize| {
        for _ in 0..characters {
            out.push(char::from(ALPHABET.get((bits & 63) as usize).copied().unwrap_or(b'.')));
            bits >>= 6;
        }
    };
    // Three bytes at a time, in an order that turns with every step.
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        write(byte(a) << 16 | byte(b) << 8 | byte(c), 4);
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    write(byte(63), 2);
    out
}

/// A salt that is the same for this user on this host each time, so that a plan and its run agree, and another everywhere else.
pub fn salt(machine: &[u8], user: &str) -> String {
    let digest = Sha512::new().chain_update(b"basalt salt\0").chain_update(machine).chain_update(b"\0").chain_update(user).finalize();
    digest.iter().take(16).map(|b| char::from(ALPHABET.get(usize::from(b & 63)).copied().unwrap_or(b'.'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl passwd -6 -salt SALT PASSWORD` prints them.
    #[test]
    fn hashes_are_those_of_openssl() {
        for (password, salt, hash) in [
            (
                "Hello world!",
                "saltstring",
                "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            ),
            ("x", "ab", "$6$ab$jnZj29NS/hK2GaouP6AGMIBwD6owZFRejcn9QRdlwSjZaVr.fR9dH2TXrKL/PaacUXwtGfI.4O9zxvy2k6fbE1"),
            (
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "0123456789abcdef",
                "$6$0123456789abcdef$mRwqRcLLEM6/z//hG0oNLJQMdAT0NQKrIPWDpF2IYUcosPuPd.lt9oaIpHqqaJVnsmFXDRzDkj1v1QXfYBEI31",
            ),
            ("päss", "z", "$6$z$z3xcBw6/s4KYU.rNGxHG60JvWjvP.Jn0POwrUVbHUQIz1zV5yT8fCB2Vvm8aWL30OD6rzZbv1I/qMEW7T4SDn0"),
        ] {
            assert_eq!(sha512(password, salt), hash);
        }
    }

    #[test]
    fn salts_differ_between_users_and_hosts() {
        assert_eq!(salt(b"m", "a"), salt(b"m", "a"));
        assert_ne!(salt(b"m", "a"), salt(b"m", "b"));
        assert_ne!(salt(b"m", "a"), salt(b"n", "a"));
        assert_eq!(salt(b"m", "a").len(), 16);
    }
}
