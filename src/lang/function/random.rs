//! `random.*`: chance as Python makes it. With a seed the same generator (MT19937) gives the same values as in Salt; without one, the seed is
//! asked of whoever answers calls, so that a compile in several rounds sees the same each time.

use super::{Call, Function, Site, error, flag, hash, text};
use crate::diagnostic::Result;
use crate::value::{Map, Value};

pub const TABLE: &[(&str, Function)] = &[
    ("random.get_str", get_str),
    ("random.hash", |_, c| {
        let [value, algorithm] = c.bind(["value", "algorithm"], 1)?;
        digest(&text(value), &algorithm.map_or("sha512".into(), Value::to_text)).map(Value::Str)
    }),
    ("random.rand_int", |s, c| {
        let [start, end, seed] = c.bind(["start", "end", "seed"], 0)?;
        let number = |v: Option<&Value>, default: i64| v.map_or(Some(default), Value::as_int);
        let (Some(start), Some(end)) = (number(start, 1), number(end, 10)) else {
            return Err(error("random.rand_int needs whole numbers"));
        };
        let width = end.checked_sub(start).and_then(|w| w.checked_add(1)).and_then(|w| u64::try_from(w).ok()).filter(|w| *w > 0);
        let width = width.ok_or_else(|| error(format!("random.rand_int cannot choose from {start} to {end}")))?;
        let at = generator(s, seed)?.below(width);
        Ok(Value::Int(start.saturating_add_unsigned(at)))
    }),
    ("random.seed", |s, c| {
        let [range, hash] = c.bind(["range", "hash"], 0)?;
        let range = range.map_or(Some(10), Value::as_int).and_then(|r| u64::try_from(r).ok()).filter(|r| *r > 0);
        let range = range.ok_or_else(|| error("random.seed needs a range above zero"))?;
        let id = s.context.grains.get("id").or(s.context.opts.get("id")).cloned().unwrap_or_default();
        let seed = hash.filter(|h| !h.is_null()).unwrap_or(&id);
        Ok(Value::Int(i64::try_from(Generator::seeded(seed)?.below(range)).unwrap_or(0)))
    }),
    ("random.sample", |s, c| {
        let [value, size, seed] = c.bind(["value", "size", "seed"], 2)?;
        let size = size.and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
        sample(s, value, size.ok_or_else(|| error("random.sample needs a size"))?, seed)
    }),
    ("random.shuffle", |s, c| {
        let [value, seed] = c.bind(["value", "seed"], 1)?;
        let size = value.and_then(Value::as_list).map_or(0, <[Value]>::len);
        sample(s, value, size, seed)
    }),
];

fn get_str(site: &Site, call: Call) -> Result<Value> {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
    const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
    const SPACE: &str = " \t\n\r\x0b\x0c";
    let [length, chars, lowercase, uppercase, digits, punctuation, whitespace, printable] =
        call.bind(["length", "chars", "lowercase", "uppercase", "digits", "punctuation", "whitespace", "printable"], 0)?;
    let length = match length {
        None => Some(20),
        Some(Value::Int(n)) => usize::try_from((*n).max(0)).ok(),
        Some(other) => other.to_text().trim().parse().ok(),
    };
    let length = length.filter(|n| *n <= 1 << 20).ok_or_else(|| error("random.get_str needs a length"))?;
    let all = flag(printable, false);
    let mut from = if all { String::new() } else { chars.filter(|c| c.truthy()).map_or_else(String::new, Value::to_text) };
    if from.is_empty() {
        for (chosen, part) in [
            (all || flag(lowercase, true), LETTERS.to_owned()),
            (all || flag(uppercase, true), LETTERS.to_uppercase()),
            (all || flag(digits, true), "0123456789".to_owned()),
            (all || flag(punctuation, true), PUNCTUATION.to_owned()),
            (all || flag(whitespace, false), SPACE.to_owned()),
        ] {
            if chosen {
                from.push_str(&part);
            }
        }
    }
    let from: Vec<char> = from.chars().collect();
    if from.is_empty() {
        return Err(error("random.get_str has no characters to choose from"));
    }
    let mut bytes = Stream::of(entropy(site)?);
    Ok(Value::Str((0..length).filter_map(|_| from.get(bytes.below(from.len())).copied()).collect()))
}

fn digest(value: &str, algorithm: &str) -> Result<String> {
    use sha2::Digest;
    let bytes = value.as_bytes();
    Ok(match algorithm {
        "md5" => hash::md5(bytes),
        "sha1" => hash::sha1(bytes),
        "sha224" => hash::hex(&sha2::Sha224::digest(bytes)),
        "sha256" => hash::sha256(bytes),
        "sha384" => hash::hex(&sha2::Sha384::digest(bytes)),
        "sha512" => hash::sha512(bytes),
        _ => return Err(error("You must specify a valid algorithm.")),
    })
}

/// Fresh chance, as a text of hexadecimal digits.
fn entropy(site: &Site) -> Result<String> {
    site.context.host.call("random.entropy", &[], &Map::new()).map(|value| value.to_text())
}

fn generator(site: &Site, seed: Option<&Value>) -> Result<Generator> {
    match seed.filter(|s| !s.is_null()) {
        Some(seed) => Generator::seeded(seed),
        None => Generator::seeded(&Value::Str(entropy(site)?)),
    }
}

/// `random.sample` of Python: from a copy that shrinks, or, of many, by keeping what was taken in mind.
fn sample(site: &Site, value: Option<&Value>, size: usize, seed: Option<&Value>) -> Result<Value> {
    let Some(Value::List(items)) = value else { return Err(error("a sample is taken of a list")) };
    if size > items.len() {
        return Err(error("Sample larger than population or is negative"));
    }
    // Salt seeds with the sum of the seed, not with the seed.
    let mut generator = match seed.filter(|s| !s.is_null()) {
        Some(Value::Str(seed)) => Generator::seeded(&Value::Str(digest(seed, "sha512")?))?,
        Some(_) => return Err(error("a seed is a text here")),
        None => generator(site, None)?,
    };
    let mut kept = 21;
    if size > 5 {
        let mut power = 1usize;
        while power < size * 3 {
            power *= 4;
        }
        kept += power;
    }
    let mut out = Vec::with_capacity(size);
    let mut below = |n: usize| usize::try_from(generator.below(n as u64)).unwrap_or(0);
    if items.len() <= kept {
        let mut pool = items.clone();
        for _ in 0..size {
            out.push(pool.swap_remove(below(pool.len())));
        }
    } else {
        let mut taken = std::collections::HashSet::new();
        while out.len() < size {
            let at = below(items.len());
            if taken.insert(at) {
                out.extend(items.get(at).cloned());
            }
        }
    }
    Ok(Value::List(out))
}

/// Bytes without end from a seed that nobody knows.
struct Stream {
    seed: String,
    block: Vec<u8>,
    count: u64,
}

impl Stream {
    fn of(seed: String) -> Stream {
        Stream { seed, block: Vec::new(), count: 0 }
    }

    fn byte(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.block.pop() {
                return byte;
            }
            self.count += 1;
            self.block = hash::hmac_sha256(self.seed.as_bytes(), &self.count.to_be_bytes());
        }
    }

    /// Evenly: what would favour the first is thrown away.
    fn below(&mut self, n: usize) -> usize {
        let n = (n as u64).max(1);
        let limit = (1 << 32) - (1 << 32) % n;
        loop {
            let number = (0..4).fold(0u64, |sum, _| sum << 8 | u64::from(self.byte()));
            if number < limit {
                return usize::try_from(number % n).unwrap_or(0);
            }
        }
    }
}

/// MT19937 as Python seeds and asks it.
struct Generator {
    state: [u32; 624],
    at: usize,
}

impl Generator {
    /// `random.seed(value)`
    fn seeded(value: &Value) -> Result<Generator> {
        use sha2::Digest;
        let bytes = match value {
            Value::Int(n) => n.unsigned_abs().to_be_bytes().to_vec(),
            Value::Bool(b) => vec![u8::from(*b)],
            Value::Str(text) => [text.as_bytes(), sha2::Sha512::digest(text.as_bytes()).as_slice()].concat(),
            _ => return Err(error("a seed is a number or a text here")),
        };
        // The number in words, the least first.
        let mut key: Vec<u32> = bytes.rchunks(4).map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))).collect();
        while key.len() > 1 && key.last() == Some(&0) {
            key.pop();
        }
        Ok(Generator::by_array(&key))
    }

    fn by_array(key: &[u32]) -> Generator {
        const N: usize = 624;
        let mut s = [0u32; N];
        s[0] = 19_650_218;
        for i in 1..N {
            s[i] = 1_812_433_253u32.wrapping_mul(s[i - 1] ^ (s[i - 1] >> 30)).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let word = key.get(j).copied().unwrap_or(0);
            s[i] = (s[i] ^ (s[i - 1] ^ (s[i - 1] >> 30)).wrapping_mul(1_664_525)).wrapping_add(word).wrapping_add(j as u32);
            i += 1;
            j += 1;
            if i >= N {
                s[0] = s[N - 1];
                i = 1;
            }
            if j >= key.len() {
                j = 0;
            }
        }
        for _ in 1..N {
            s[i] = (s[i] ^ (s[i - 1] ^ (s[i - 1] >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i >= N {
                s[0] = s[N - 1];
                i = 1;
            }
        }
        s[0] = 0x8000_0000;
        Generator { state: s, at: N }
    }

    fn next(&mut self) -> u32 {
        const N: usize = 624;
        if self.at >= N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                self.state[i] = self.state[(i + 397) % N] ^ (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
            }
            self.at = 0;
        }
        let mut y = self.state.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn bits(&mut self, count: u32) -> u64 {
        match count {
            0 => 0,
            1..=32 => u64::from(self.next() >> (32 - count)),
            _ => {
                let low = u64::from(self.next());
                low | u64::from(self.next() >> (64 - count.min(64))) << 32
            }
        }
    }

    /// `_randbelow`: as many bits as the number has, again until they are below it.
    fn below(&mut self, n: u64) -> u64 {
        let count = 64 - n.leading_zeros();
        loop {
            let number = self.bits(count);
            if number < n {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_what_it_gives_in_python() {
        let draws = |seed: Value, below: &[u64]| {
            let mut generator = Generator::seeded(&seed).unwrap();
            below.iter().map(|n| generator.below(*n)).collect::<Vec<_>>()
        };
        assert_eq!(draws("web1".into(), &[10, 60, 1_000_000, 5_000_000_000, 1]), [5, 16, 803563, 138964869, 0]);
        assert_eq!(draws(Value::Int(59), &[10, 60, 1_000_000, 5_000_000_000, 1]), [3, 5, 977944, 1973588856, 0]);
        assert_eq!(draws(Value::Int(-5_000_000_000), &[10, 60, 1_000_000, 5_000_000_000, 1]), [1, 38, 906442, 64589170, 0]);
        assert_eq!(draws(Value::str(""), &[10, 60, 1_000_000, 5_000_000_000, 1]), [7, 38, 216936, 2677076721, 0]);
    }

    #[test]
    fn what_is_drawn_is_even_and_does_not_repeat() {
        let mut stream = Stream::of("seed".into());
        let mut counts = [0; 7];
        (0..7000).for_each(|_| counts[stream.below(7)] += 1);
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }
}
