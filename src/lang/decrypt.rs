//! Encrypted values: GPG and age messages in armour anywhere in a text (renderers `gpg` and `age`), files that sops encrypted, and `decrypt_pillar`.
//!
//! Which programs decrypt, and with whose keys, is the business of whoever hands over a [`Decrypt`]. A message that cannot be decrypted is an error,
//! unless the settings say otherwise: nobody wants ciphertext in a configuration file.

use std::collections::HashMap;
use std::sync::Arc;

use super::secret::Secrets;
use crate::diagnostic::{Code, Diagnostic, Result, Span, nearest};
use crate::value::{Map, Value};
use crate::yaml::{self, Data, Node, Place};

/// What a message is encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    Gpg,
    Age,
    /// A whole file.
    Sops,
}

impl Cipher {
    /// Those that are renderers.
    pub const RENDERERS: [(&'static str, Cipher); 2] = [("gpg", Cipher::Gpg), ("age", Cipher::Age)];

    pub fn renderer(name: &str) -> Option<Cipher> {
        Cipher::RENDERERS.into_iter().find(|(known, _)| *known == name).map(|(_, cipher)| cipher)
    }

    pub fn name(self) -> &'static str {
        match self {
            Cipher::Gpg => "gpg",
            Cipher::Age => "age",
            Cipher::Sops => "sops",
        }
    }

    /// How an armoured message begins and ends.
    fn armour(self) -> (&'static str, &'static str) {
        match self {
            Cipher::Age => ("-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----"),
            _ => ("-----BEGIN PGP MESSAGE-----", "-----END PGP MESSAGE-----"),
        }
    }
}

/// Decrypts messages: the same one once, however many hosts it is for.
pub trait Decrypt: Send + Sync {
    /// What a message says. The error tells what to do, not where the message stands.
    fn decrypt(&self, cipher: Cipher, message: &str) -> Result<Arc<str>>;
}

/// Nobody to ask.
pub struct NoKeys;

impl Decrypt for NoKeys {
    fn decrypt(&self, cipher: Cipher, _: &str) -> Result<Arc<str>> {
        Err(Box::new(Diagnostic::new(
            Code::Template,
            format!("a value is encrypted with {}, and there is nothing to decrypt it with", cipher.name()),
        )))
    }
}

/// For one host: who decrypts, and where what was decrypted is noted as secret.
#[derive(Clone, Copy)]
pub struct Unlock<'a> {
    pub with: &'a dyn Decrypt,
    pub secrets: &'a Secrets,
    /// Salt's `gpg_decrypt_must_succeed`: without it a GPG message that cannot be decrypted stays as it is.
    pub must_succeed: bool,
}

/// A text in pieces: as they stood, and decrypted.
pub enum Piece<'a> {
    Plain(&'a str),
    /// The message as it stood, and what it says.
    Message(&'a str, Arc<str>),
}

impl Unlock<'_> {
    /// The pieces of a text, its messages decrypted. `None`: there is no message in it. An error has the offset of its message.
    pub fn pieces<'t>(&self, cipher: Cipher, text: &'t str) -> std::result::Result<Option<Vec<Piece<'t>>>, (usize, Box<Diagnostic>)> {
        let (begin, end) = cipher.armour();
        let (mut pieces, mut at) = (Vec::new(), 0);
        while let Some(rest) = text.get(at..)
            && let Some(start) = rest.find(begin)
        {
            let (plain, from) = rest.split_at_checked(start).unwrap_or((rest, ""));
            let must = self.must_succeed || cipher != Cipher::Gpg;
            let Some(length) = from.find(end).map(|found| found + end.len()) else {
                if !must {
                    break;
                }
                let error =
                    Diagnostic::new(Code::Template, format!("an encrypted message ({}) begins here and does not end", cipher.name()));
                return Err((at + start, Box::new(error.hint(format!("its last line is {end}")))));
            };
            let message = from.get(..length).unwrap_or_default();
            let plaintext = match self.with.decrypt(cipher, &unfolded(message)) {
                Ok(plaintext) => {
                    self.secrets.add(&plaintext);
                    plaintext
                }
                Err(_) if !must => message.replace("\\n", "\n").into(),
                Err(error) => return Err((at + start, error)),
            };
            pieces.extend([Piece::Plain(plain), Piece::Message(message, plaintext)]);
            at += start + length;
        }
        pieces.push(Piece::Plain(text.get(at..).unwrap_or_default()));
        Ok((pieces.len() > 1).then_some(pieces))
    }

    /// A text with its messages decrypted. As Salt has it, such a text then ends without line breaks.
    fn text(&self, cipher: Cipher, text: &str) -> Result<Option<String>> {
        let pieces = self.pieces(cipher, text).map_err(|(_, error)| error)?;
        let joined = |pieces: Vec<Piece>| -> String {
            let text: String = pieces.iter().map(Piece::text).collect();
            text.trim_end_matches('\n').to_owned()
        };
        Ok(pieces.map(joined))
    }

    /// Every value in a node decrypted; keys are none. An error has the place of its value.
    pub fn node(&self, cipher: Cipher, node: &Node) -> std::result::Result<Node, (Place, Box<Diagnostic>)> {
        let data = match &node.data {
            Data::Scalar(Value::Str(text)) => match self.text(cipher, text).map_err(|error| (node.place, error))? {
                Some(text) => Data::Scalar(Value::Str(text)),
                None => Data::Scalar(Value::Str(text.clone())),
            },
            Data::Scalar(other) => Data::Scalar(other.clone()),
            Data::List(items) => Data::List(items.iter().map(|item| self.node(cipher, item)).collect::<std::result::Result<_, _>>()?),
            Data::Map(entries) => {
                let entry = |(key, (place, value)): (&Value, &(Place, Node))| Ok((key.clone(), (*place, self.node(cipher, value)?)));
                Data::Map(entries.iter().map(entry).collect::<std::result::Result<_, _>>()?)
            }
        };
        Ok(Node { place: node.place, data })
    }

    /// The same for values that stand nowhere. An error comes with the text that is in the way.
    fn value(&self, cipher: Cipher, value: &mut Value) -> std::result::Result<(), (String, Box<Diagnostic>)> {
        match value {
            Value::Str(text) => {
                if let Some(plain) = self.text(cipher, text).map_err(|error| (text.clone(), error))? {
                    *text = plain;
                }
                Ok(())
            }
            Value::List(items) => items.iter_mut().try_for_each(|item| self.value(cipher, item)),
            Value::Map(map) => map.0.values_mut().try_for_each(|item| self.value(cipher, item)),
            _ => Ok(()),
        }
    }

    /// The data of a file that sops encrypted, with the places that values have in it. `None`: it is no such file.
    pub fn sops(&self, text: &str, file: &str) -> Result<Option<Node>> {
        if !text.contains("sops") || !text.contains(SOPS_VALUE) {
            return Ok(None);
        }
        // A file with templates in it is none: sops encrypts data.
        let Ok(mut node) = yaml::load_spanned(text, file) else { return Ok(None) };
        let Data::Map(entries) = &mut node.data else { return Ok(None) };
        let about =
            entries.get(&Value::str("sops")).and_then(|(place, about)| Some((*place, about.to_value().as_map()?.get("mac")?.clone())));
        let Some((place, _)) = about else { return Ok(None) };
        let error = |error: Diagnostic| Box::new(error.or_at(Span::new(file, place.line, place.column)).excerpt_of(text));
        let plain = self.with.decrypt(Cipher::Sops, text).map_err(|fault| error(*fault))?;
        // What sops wrote is not the user's file: an error in it would show secrets, and has no place.
        let plain =
            yaml::load(&plain, file).map_err(|_| error(Diagnostic::new(Code::Template, format!("what sops made of {file} is no YAML"))))?;
        entries.shift_remove(&Value::str("sops"));
        self.opened(&mut node, &plain);
        Ok(Some(node))
    }

    /// Puts decrypted values where the encrypted ones stand.
    fn opened(&self, node: &mut Node, plain: &Value) {
        match (&mut node.data, plain) {
            (Data::Map(entries), Value::Map(map)) => {
                for (key, (_, value)) in entries {
                    if let Some(plain) = map.0.get(key) {
                        self.opened(value, plain);
                    }
                }
            }
            (Data::List(items), Value::List(values)) => items.iter_mut().zip(values).for_each(|(item, plain)| self.opened(item, plain)),
            (Data::Scalar(Value::Str(text)), plain) if text.starts_with(SOPS_VALUE) => {
                self.secrets.add_value(plain);
                node.data = Data::Scalar(plain.clone());
            }
            _ => {}
        }
    }
}

/// How sops writes an encrypted value.
const SOPS_VALUE: &str = "ENC[AES256_GCM,";

impl Piece<'_> {
    pub fn text(&self) -> &str {
        match self {
            Piece::Plain(text) => text,
            Piece::Message(_, text) => text,
        }
    }
}

/// A message as its program wants it: on lines of its own, also where it came on one line with `\n` in it, or indented.
fn unfolded(message: &str) -> String {
    let lines = message.replace("\\n", "\n");
    lines.lines().map(str::trim).fold(String::new(), |out, line| out + line + "\n")
}

/// Where encrypted texts stand, for errors about values that have been merged since.
pub type Places = HashMap<String, Span>;

/// Notes every text with a message in it.
pub fn note_places(node: &Node, span: &dyn Fn(Place) -> Span, places: &mut Places) {
    match &node.data {
        Data::Scalar(Value::Str(text)) if text.contains("-----BEGIN ") => {
            places.entry(text.clone()).or_insert_with(|| span(node.place));
        }
        Data::Scalar(_) => {}
        Data::List(items) => items.iter().for_each(|item| note_places(item, span, places)),
        Data::Map(entries) => entries.values().for_each(|(_, value)| note_places(value, span, places)),
    }
}

/// Salt's `decrypt_pillar`: keys of the whole pillar whose values are decrypted, and with which renderer.
pub fn decrypt_pillar(pillar: &mut Map, master: &Map, unlock: &Unlock, places: &Places, errors: &mut Vec<Diagnostic>) {
    let text = |name: &str, default: &str| master.get(name).map_or_else(|| default.to_owned(), Value::to_text);
    let (delimiter, default) = (text("decrypt_pillar_delimiter", ":"), text("decrypt_pillar_default", "gpg"));
    let permitted = master.get("decrypt_pillar_renderers").and_then(Value::as_list);
    for (key, renderer) in wanted(master, errors) {
        let renderer = renderer.unwrap_or_else(|| default.clone());
        let permitted = permitted.is_none_or(|list| list.iter().any(|name| name.as_str() == Some(&renderer)));
        let Some(cipher) = Cipher::renderer(&renderer).filter(|_| permitted) else {
            let error = Diagnostic::new(Code::Settings, format!("decrypt_pillar wants {key} decrypted by {renderer:?}"));
            errors.push(match nearest(&renderer, Cipher::RENDERERS.map(|(name, _)| name)) {
                _ if !permitted => error.hint("decrypt_pillar_renderers does not name it"),
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("there are gpg and age"),
            });
            continue;
        };
        let Some(value) = at(pillar, &key, &delimiter) else { continue };
        if let Err((text, error)) = unlock.value(cipher, value) {
            let error = Diagnostic { summary: format!("the pillar's {key}: {}", error.summary), ..*error };
            errors.push(match places.get(&text) {
                Some(span) => error.or_at(span.clone()),
                None => error,
            });
        }
    }
}

/// The keys: a list of them (one with its renderer as `{key: gpg}`), or a mapping.
fn wanted(master: &Map, errors: &mut Vec<Diagnostic>) -> Vec<(String, Option<String>)> {
    let pairs = |map: &Map| -> Vec<(String, Option<String>)> {
        map.iter().map(|(key, renderer)| (key.to_text(), Some(renderer.to_text()).filter(|_| renderer.truthy()))).collect()
    };
    match master.get("decrypt_pillar") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Map(map)) => pairs(map),
        Some(Value::List(items)) => {
            items.iter().flat_map(|item| if let Value::Map(map) = item { pairs(map) } else { vec![(item.to_text(), None)] }).collect()
        }
        Some(other) => {
            let error = Diagnostic::new(Code::Settings, format!("decrypt_pillar is {}, not a list of keys", other.kind()));
            errors.push(error.hint("decrypt_pillar: ['db:password', {other: age}]"));
            Vec::new()
        }
    }
}

/// The value under a path of keys and list indexes.
fn at<'a>(pillar: &'a mut Map, path: &str, delimiter: &str) -> Option<&'a mut Value> {
    let mut parts = path.split(delimiter);
    let first = pillar.get_mut(parts.next()?)?;
    parts.try_fold(first, |here, part| match here {
        Value::Map(map) => map.get_mut(part),
        Value::List(items) => items.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what a message says backwards, and keeps what it was asked.
    struct Backwards;

    impl Decrypt for Backwards {
        fn decrypt(&self, cipher: Cipher, message: &str) -> Result<Arc<str>> {
            let body: String = message.lines().filter(|line| !line.starts_with("-----")).collect();
            match body.as_str() {
                "no" => Err(Box::new(Diagnostic::new(Code::Template, "no key"))),
                _ if cipher == Cipher::Sops => Ok("user: bob\npassword: hunter2\nport: 80\nlist: [eno, two]\n".into()),
                body => Ok(format!("{}\n", body.chars().rev().collect::<String>()).into()),
            }
        }
    }

    const BEGIN: &str = "-----BEGIN PGP MESSAGE-----";
    const END: &str = "-----END PGP MESSAGE-----";

    #[test]
    fn messages_are_found_anywhere_in_values_and_nowhere_in_keys() {
        let secrets = Secrets::default();
        let unlock = Unlock { with: &Backwards, secrets: &secrets, must_succeed: true };
        let message = |body: &str| format!("{BEGIN}\\n{body}\\n{END}");
        let text = format!(
            "a: |\n  {BEGIN}\n  2retnuh\n  {END}\nb: ['x {} y {}', 5]\n? \"{}\"\n: plain\n",
            message("eno-terces"),
            message("owt-terces"),
            message("eerht-terces")
        );
        let node = unlock.node(Cipher::Gpg, &yaml::load_spanned(&text, "x").unwrap()).unwrap();
        let json = serde_json::to_string(&node.into_value()).unwrap();
        assert!(json.starts_with(r#"{"a":"hunter2","b":["x secret-one\n y secret-two",5],"#) && json.contains("eerht"), "{json}");
        assert!(secrets.holds("hunter2") && secrets.holds("secret-two") && !secrets.holds("plain"));
    }

    #[test]
    fn what_need_not_be_decrypted_stays_where_it_cannot_be() {
        let secrets = Secrets::default();
        let unlock = Unlock { with: &Backwards, secrets: &secrets, must_succeed: false };
        let text = |text: &str| unlock.text(Cipher::Gpg, text).unwrap();
        assert_eq!(text(&format!("a {BEGIN}\\n no\\n{END}\n")), Some(format!("a {BEGIN}\n no\n{END}")));
        assert_eq!(text(&format!("{BEGIN}\nno\n{END} {BEGIN}\nretnuh\n{END}")), Some(format!("{BEGIN}\nno\n{END} hunter")));
        assert_eq!(text(&format!("a {BEGIN}\nretnuh")), None);
        assert!(secrets.holds("hunter") && !secrets.holds("no"));
        assert!(unlock.text(Cipher::Age, "-----BEGIN AGE ENCRYPTED FILE-----\nno\n-----END AGE ENCRYPTED FILE-----").is_err());
    }

    #[test]
    fn an_error_has_the_place_of_its_value() {
        let secrets = Secrets::default();
        let unlock = Unlock { with: &Backwards, secrets: &secrets, must_succeed: true };
        for (body, why) in
            [(format!("{BEGIN}\n    no\n    {END}"), "no key"), (format!("{BEGIN}\n    abc"), "begins here and does not end")]
        {
            let node = yaml::load_spanned(&format!("a:\n  b: |\n    {body}\n"), "x").unwrap();
            let (place, error) = unlock.node(Cipher::Gpg, &node).unwrap_err();
            assert_eq!((place.line, place.column), (2, 6));
            assert!(error.summary.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_of_sops_keeps_its_places_and_what_was_encrypted_is_secret() {
        let secrets = Secrets::default();
        let unlock = Unlock { with: &Backwards, secrets: &secrets, must_succeed: true };
        let enc = |data: &str| format!("ENC[AES256_GCM,data:{data},type:str]");
        let text =
            format!("user: bob\npassword: {}\nport: {}\nlist:\n- {}\n- two\nsops:\n  mac: {}\n", enc("a"), enc("b"), enc("c"), enc("d"));
        let node = unlock.sops(&text, "x.sls").unwrap().unwrap();
        let Data::Map(entries) = &node.data else { panic!() };
        assert_eq!(entries.get(&Value::str("password")).unwrap().1.place, Place { line: 2, column: 11 });
        assert_eq!(
            serde_json::to_string(&node.to_value()).unwrap(),
            r#"{"user":"bob","password":"hunter2","port":80,"list":["eno","two"]}"#
        );
        assert!(secrets.holds("hunter2") && !secrets.holds("bob") && !secrets.holds("80"));
        assert!(unlock.sops("sops: {mac: 1}\na: b\n", "x").unwrap().is_none());
    }

    #[test]
    fn decrypt_pillar_goes_to_its_keys() {
        let secrets = Secrets::default();
        let unlock = Unlock { with: &Backwards, secrets: &secrets, must_succeed: true };
        let message = |body: &str| format!("{BEGIN}\n{body}\n{END}\n");
        let mut pillar: Map = serde_json::from_value(serde_json::json!({
            "db": {"password": message("2retnuh"), "other": message("rehto")}, "list": [message("eno")], "bad": message("no")
        }))
        .unwrap();
        let master: Map = serde_json::from_str(
            r#"{"decrypt_pillar": ["db/password", {"list": "gpg"}, "nothing/there", {"db": "pgp"}, "bad"], "decrypt_pillar_delimiter": "/"}"#,
        )
        .unwrap();
        let mut errors = Vec::new();
        let places = [(message("no"), Span::new("p.sls", 7, 1))].into();
        decrypt_pillar(&mut pillar, &master, &unlock, &places, &mut errors);
        assert_eq!(pillar.get("list"), Some(&Value::List(vec![Value::str("one")])));
        let db = pillar.get("db").unwrap();
        assert_eq!(db.traverse("password", ":"), Some(&Value::str("hunter2")));
        assert_eq!(db.traverse("other", ":"), Some(&Value::str(message("rehto"))));
        let errors: Vec<String> = errors.iter().map(|e| format!("{e} / {}", e.hint.as_deref().unwrap_or_default())).collect();
        assert_eq!(
            errors,
            ["decrypt_pillar wants db decrypted by \"pgp\" / there are gpg and age", "p.sls:7:1: the pillar's bad: no key / "]
        );
    }
}
