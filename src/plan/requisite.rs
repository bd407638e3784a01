//! What a low's requisites say, given what became of the lows they name: Salt's rules, with "known after apply" as a third answer.
//!
//! The planner asks with planned fates, the runner with real ones.

use super::{Indexes, Low, RequisiteKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maybe {
    No,
    Yes,
    Unknown,
}

/// What became, or will become, of a low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    pub failed: bool,
    pub changes: Maybe,
    /// Requisites did not keep it from running.
    pub ran: bool,
}

impl Fate {
    pub const UNKNOWN: Fate = Fate { failed: false, changes: Maybe::Unknown, ran: true };
    pub const SAME: Fate = Fate { failed: false, changes: Maybe::No, ran: true };
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Met,
    /// These, which it watches, change.
    Changed(Vec<usize>),
    /// Whether these, which it watches, change is known after apply.
    MayChange(Vec<usize>),
    /// These, which it requires, fail.
    Failed(Vec<usize>),
    /// It does not run: none of its `onchanges` changes, what it is a `prereq` of stays.
    Stays(&'static str),
    /// It runs if one of these fails, which the plan does not expect.
    IfFails(Vec<usize>),
    /// Whether it runs is known after these.
    Unknown(Vec<usize>),
}

/// `fate` gives what became of a low; `test` what a test run of it says (for `prereq`).
pub fn status(low: &Low, fate: &dyn Fn(usize) -> Fate, test: &dyn Fn(usize) -> Fate) -> Status {
    let mut found = Found::default();
    let mut onchanges = Vec::new();
    for requisite in &low.requisites {
        let of = &requisite.of;
        match requisite.kind {
            RequisiteKind::Require | RequisiteKind::Watch => {
                let failed: Vec<usize> = of.iter().filter(|i| fate(*i).failed).collect();
                if !requisite.any || failed.len() == of.iter().count() {
                    found.failed.extend(failed);
                }
                if requisite.kind == RequisiteKind::Watch {
                    found.changed.extend(of.iter().filter(|i| fate(*i).changes == Maybe::Yes));
                    found.may_change.extend(of.iter().filter(|i| fate(*i).changes == Maybe::Unknown));
                }
            }
            RequisiteKind::Onchanges => onchanges.extend(of.iter()),
            RequisiteKind::Onfail => found.onfail(requisite.any, of, fate),
            RequisiteKind::Prereq => found.prereq(of, test),
            // Fires at the end of the run and keeps nothing from running.
            RequisiteKind::Listen => {}
        }
    }
    found.onchanges(&onchanges, fate);
    found.status()
}

#[derive(Default)]
struct Found {
    failed: Vec<usize>,
    changed: Vec<usize>,
    may_change: Vec<usize>,
    waits: Vec<usize>,
    stays: Option<&'static str>,
    if_fails: Option<Vec<usize>>,
}

impl Found {
    /// A target that failed counts as one that did not change.
    fn onchanges(&mut self, of: &[usize], fate: &dyn Fn(usize) -> Fate) {
        let changes = |wanted: Maybe| of.iter().copied().filter(move |i| !fate(*i).failed && fate(*i).changes == wanted);
        if of.is_empty() || changes(Maybe::Yes).next().is_some() {
            return;
        }
        let waits: Vec<usize> = changes(Maybe::Unknown).collect();
        if waits.is_empty() {
            self.stays.get_or_insert("none of the onchanges reqs changed");
        }
        self.waits.extend(waits);
    }

    /// What a requisite of its own kept from running is no success and, where another target succeeded, no failure either.
    fn onfail(&mut self, any: bool, of: &Indexes, fate: &dyn Fn(usize) -> Fate) {
        let succeeded = of.iter().any(|i| !fate(i).failed);
        let failed = of.iter().any(|i| fate(i).failed && fate(i).ran);
        if succeeded && !(any && failed) {
            self.if_fails = Some(of.iter().filter(|i| !fate(*i).failed).collect());
        }
    }

    fn prereq(&mut self, of: &Indexes, test: &dyn Fn(usize) -> Fate) {
        let with = |wanted: Maybe| of.iter().filter(move |i| test(*i).changes == wanted);
        self.failed.extend(of.iter().filter(|i| test(*i).failed));
        if with(Maybe::Yes).next().is_some() {
            return;
        }
        let waits: Vec<usize> = with(Maybe::Unknown).collect();
        if waits.is_empty() {
            self.stays = Some("what it is a prereq of does not change");
        }
        self.waits.extend(waits);
    }

    /// Which of them counts: a failure first, then what keeps it from running, then what it waits for, then what it watches.
    fn status(self) -> Status {
        match self {
            Found { failed, .. } if !failed.is_empty() => Status::Failed(failed),
            Found { stays: Some(why), .. } => Status::Stays(why),
            Found { if_fails: Some(of), .. } => Status::IfFails(of),
            Found { waits, .. } if !waits.is_empty() => Status::Unknown(waits),
            Found { changed, .. } if !changed.is_empty() => Status::Changed(changed),
            Found { may_change, .. } if !may_change.is_empty() => Status::MayChange(may_change),
            _ => Status::Met,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Requisite;

    /// Fates of lows 0…: `=` same, `+` changes, `!` failed, `s` skipped, `?` unknown.
    fn ask(requisites: &[(&str, bool, &[usize])], fates: &str) -> Status {
        let fates: Vec<Fate> = fates
            .chars()
            .map(|c| match c {
                '+' => Fate { changes: Maybe::Yes, ..Fate::SAME },
                '!' => Fate { failed: true, ..Fate::SAME },
                's' => Fate { failed: true, ran: false, ..Fate::SAME },
                '?' => Fate::UNKNOWN,
                _ => Fate::SAME,
            })
            .collect();
        let mut low: Low =
            serde_json::from_value(serde_json::json!({"id": "x", "sls": "s", "state": "test", "fun": "nop", "name": "x", "args": {}}))
                .unwrap();
        low.requisites = requisites
            .iter()
            .map(|(kind, any, of)| Requisite {
                kind: serde_json::from_value((*kind).into()).unwrap(),
                any: *any,
                of: of.iter().copied().collect(),
            })
            .collect();
        status(&low, &|i| fates[i], &|i| fates[i])
    }

    #[test]
    fn every_kind_of_requisite_means_what_salt_means() {
        let stays = Status::Stays("none of the onchanges reqs changed");
        for (requisites, fates, expected) in [
            (&[("require", false, &[0, 1][..])][..], "=!", Status::Failed(vec![1])),
            (&[("require", false, &[0, 1])], "=s", Status::Failed(vec![1])),
            (&[("require", true, &[0, 1])], "=!", Status::Met),
            (&[("require", true, &[0, 1])], "!!", Status::Failed(vec![0, 1])),
            (&[("watch", false, &[0, 1])], "=+", Status::Changed(vec![1])),
            (&[("watch", false, &[0, 1])], "=?", Status::MayChange(vec![1])),
            (&[("watch", false, &[0, 1])], "!+", Status::Failed(vec![0])),
            (&[("onchanges", false, &[0, 1])], "==", stays.clone()),
            (&[("onchanges", false, &[0, 1])], "=+", Status::Met),
            (&[("onchanges", false, &[0, 1])], "=?", Status::Unknown(vec![1])),
            (&[("onchanges", false, &[0])], "!", stays.clone()),
            (&[("onchanges", false, &[0]), ("watch", false, &[1])], "=+", stays),
            (&[("onfail", true, &[0, 1])], "==", Status::IfFails(vec![0, 1])),
            (&[("onfail", true, &[0, 1])], "=!", Status::Met),
            (&[("onfail", false, &[0, 1])], "=!", Status::IfFails(vec![0])),
            (&[("onfail", false, &[0, 1])], "!!", Status::Met),
            (&[("onfail", true, &[0, 1])], "=s", Status::IfFails(vec![0])),
            (&[("onfail", true, &[0])], "s", Status::Met),
            (&[("prereq", false, &[0])], "=", Status::Stays("what it is a prereq of does not change")),
            (&[("prereq", false, &[0, 1])], "=+", Status::Met),
            (&[("prereq", false, &[0])], "!", Status::Failed(vec![0])),
            (&[("prereq", false, &[0])], "?", Status::Unknown(vec![0])),
            (&[("listen", false, &[0])], "!", Status::Met),
        ] {
            assert_eq!(ask(requisites, fates), expected, "{requisites:?} {fates}");
        }
    }
}
