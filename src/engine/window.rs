//! Maintenance windows: on which days, from when until when hosts may be changed, in the time zone of the controller.

use serde::{Deserialize, Serialize};

/// What the clock on the wall says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// 0 is Monday.
    pub day: u32,
    /// Since midnight.
    pub second: u32,
    /// East of Greenwich, in seconds.
    pub zone: i32,
}

impl Local {
    /// The clock of this machine at a moment in seconds since the epoch.
    pub fn at(epoch: u64) -> Local {
        let seconds = libc::time_t::try_from(epoch).unwrap_or(libc::time_t::MAX);
        // SAFETY: `tm` is plain numbers and a pointer that nobody follows; all zeros is a value of it.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to values that live until the call returns.
        if unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) }.is_null() {
            return Local::default();
        }
        let number = |n: libc::c_int| u32::try_from(n).unwrap_or_default();
        Local {
            day: (number(tm.tm_wday) + 6) % 7,
            second: number(tm.tm_hour) * 3600 + number(tm.tm_min) * 60 + number(tm.tm_sec),
            zone: i32::try_from(tm.tm_gmtoff).unwrap_or_default(),
        }
    }

    /// `+01:00`.
    pub fn zone_text(self) -> String {
        let minutes = self.zone.unsigned_abs() / 60;
        format!("{}{:02}:{:02}", if self.zone < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
    }
}

/// One window. It may go over midnight; the day is that on which it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// 0 is Monday.
    pub days: Vec<u32>,
    /// Minutes since midnight; the same twice is a whole day.
    pub from: u32,
    pub to: u32,
}

pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u32 = 86400;

impl Window {
    /// Seconds from its beginning to its end.
    fn length(&self) -> u32 {
        match (self.to * 60 + DAY - self.from * 60) % DAY {
            0 => DAY,
            seconds => seconds,
        }
    }

    /// Seconds since it opened the last time, and until it opens the next time, within a week.
    fn around(&self, now: Local) -> Option<(u32, u32)> {
        let week = 7 * DAY;
        let at = now.day * DAY + now.second;
        let begins = |day: &u32| day * DAY + self.from * 60;
        let since = self.days.iter().map(|day| (at + week - begins(day)) % week).min()?;
        let until = self.days.iter().map(|day| (begins(day) + week - at) % week).min()?;
        Some((since, until))
    }

    fn is_open(&self, now: Local) -> bool {
        self.around(now).is_some_and(|(since, _)| since < self.length())
    }

    /// `mon,tue 22:00-04:00 +01:00`.
    fn text(&self, zone: Local) -> String {
        let days: Vec<&str> = self.days.iter().filter_map(|day| DAYS.get(*day as usize).copied()).collect();
        let days = if days.len() == 7 { "every day".to_owned() } else { days.join(",") };
        let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        format!("{days} {}-{} {}", time(self.from), time(self.to), zone.zone_text())
    }

    /// Whether hosts may be changed now; if not: in how many seconds, and by which window.
    pub fn state(windows: &[Window], now: Local) -> Option<(u64, String)> {
        if windows.is_empty() || windows.iter().any(|window| window.is_open(now)) {
            return None;
        }
        let next = windows.iter().filter_map(|window| Some((window.around(now)?.1, window))).min_by_key(|(until, _)| *until);
        Some(next.map_or((u64::MAX, "none".to_owned()), |(until, window)| (u64::from(until), window.text(now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_open_and_close_by_the_clock_on_the_wall() {
        let night = Window { days: vec![0, 4], from: 22 * 60, to: 4 * 60 };
        let at = |day, hour: u32, minute: u32| Local { day, second: hour * 3600 + minute * 60, zone: 3600 };
        let cases = [
            (at(0, 21, 59), Some(60)),
            (at(0, 22, 0), None),
            (at(1, 3, 59), None),
            (at(1, 4, 0), Some((3 * 24 + 18) * 3600)),
            (at(5, 1, 0), None),
            (at(6, 22, 0), Some(24 * 3600)),
        ];
        for (now, until) in cases {
            assert_eq!(Window::state(std::slice::from_ref(&night), now).map(|(seconds, _)| seconds), until, "{now:?}");
        }
        let (_, text) = Window::state(std::slice::from_ref(&night), at(2, 0, 0)).unwrap();
        assert_eq!(text, "mon,fri 22:00-04:00 +01:00");
        let whole = Window { days: (0..7).collect(), from: 0, to: 0 };
        assert_eq!(Window::state(&[night, whole], at(2, 12, 0)), None);
        assert_eq!(Window::state(&[], at(2, 12, 0)), None);
    }

    #[test]
    fn the_epoch_was_a_thursday() {
        let local = Local::at(12 * 3600);
        assert_eq!((local.day, i64::from(local.second) - i64::from(local.zone)), (3, 12 * 3600));
    }
}
