//! Dates as text. All times are UTC: a host's zone is not known here.

use minijinja::{Error, Value};

use super::{Filter, text_of};
use crate::lang::jinja::call::Args;
use crate::lang::jinja::python::{self, Number};
use crate::lang::jinja::value::{Done, fail};

pub const TABLE: &[(&str, Filter)] = &[("strftime", |_, v, a| date(v, a)), ("date_format", |_, v, a| date(v, a))];

fn date(value: &Value, args: Args) -> Done {
    let [format] = args.bind("strftime", ["format"], 0)?;
    let seconds = match python::number(value) {
        Some(Number::Int(i)) => i64::try_from(i).unwrap_or(0),
        Some(Number::Float(f)) => f as i64,
        None if value.is_none() => now(),
        None => parse(&text_of(value))?,
    };
    Ok(Value::from(strftime(seconds, &format.as_ref().map_or("%Y-%m-%d".to_owned(), text_of))))
}

pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Days since 1970 of a date (Howard Hinnant's algorithm).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn parse(text: &str) -> Result<i64, Error> {
    let text = text.trim();
    let numbers: Vec<i64> = text.split(|c: char| !c.is_ascii_digit()).filter(|p| !p.is_empty()).filter_map(|p| p.parse().ok()).collect();
    match (text, numbers.as_slice()) {
        ("now", _) => Ok(now()),
        ("today", _) => Ok(now().div_euclid(86_400) * 86_400),
        (_, [seconds]) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(*seconds),
        (_, [year, month, day, rest @ ..]) if (1..=12).contains(month) && (1..=31).contains(day) && *year < 100_000 => {
            let part = |i: usize| rest.get(i).copied().unwrap_or(0).clamp(0, 60);
            Ok(days(*year, *month, *day) * 86_400 + part(0) * 3600 + part(1) * 60 + part(2))
        }
        _ => Err(fail(format!("Unable to parse {text}"))),
    }
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

pub fn strftime(seconds: i64, format: &str) -> String {
    let day = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    let (year, month, date) = civil(day);
    let weekday = (day + 4).rem_euclid(7);
    let of_year = day - days(year, 1, 1) + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let name = |names: &'static [&'static str], i: i64| usize::try_from(i).ok().and_then(|i| names.get(i)).copied().unwrap_or("");
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year.rem_euclid(100))),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{date:02}")),
            Some('e') => out.push_str(&format!("{date:2}")),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('f') => out.push_str("000000"),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('j') => out.push_str(&format!("{of_year:03}")),
            Some('w') => out.push_str(&weekday.to_string()),
            Some('u') => out.push_str(&((weekday + 6) % 7 + 1).to_string()),
            Some('a') => out.push_str(name(&DAYS, weekday).get(..3).unwrap_or("")),
            Some('A') => out.push_str(name(&DAYS, weekday)),
            Some('b' | 'h') => out.push_str(name(&MONTHS, month - 1).get(..3).unwrap_or("")),
            Some('B') => out.push_str(name(&MONTHS, month - 1)),
            Some('s') => out.push_str(&seconds.to_string()),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{date:02}")),
            Some('T' | 'X') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('R') => out.push_str(&format!("{hour:02}:{minute:02}")),
            Some('D' | 'x') => out.push_str(&format!("{month:02}/{date:02}/{:02}", year.rem_euclid(100))),
            Some('Z' | 'z') => {}
            Some('%') => out.push('%'),
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push('%'),
        }
    }
    out
}
