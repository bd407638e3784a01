//! What the store remembers of an orchestration: which jobs were done, and by which runs.

use serde::{Deserialize, Serialize};

use super::job::Job;
use super::wait::Heard;
use crate::value::Map;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Like a run's.
    pub id: String,
    pub sls: Vec<String>,
    /// `--pillar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pillar: Option<Map>,
    pub who: String,
    /// Of the state repository; empty where it has none.
    pub commit: String,
    pub tree: String,
    /// Milliseconds since the epoch; `ended` is 0 until it is over.
    pub started: u64,
    pub ended: u64,
    pub jobs: Vec<JobRecord>,
    /// What its waits for events have used up.
    #[serde(default)]
    pub heard: Heard,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub id: String,
    pub function: String,
    pub name: String,
    pub standing: Standing,
    /// The runs that it made, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<String>,
    /// The jobs of the orchestration that it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobRecord>,
    /// What came of it, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Waits,
    /// Under way, or broken off there.
    Begun,
    Ok,
    Changed,
    Failed,
    /// Its requisites kept it from running.
    Skipped,
}

impl Standing {
    /// It need not be done again.
    pub fn is_done(self) -> bool {
        matches!(self, Standing::Ok | Standing::Changed)
    }

    pub fn name(self) -> &'static str {
        match self {
            Standing::Waits => "waits",
            Standing::Begun => "begun",
            Standing::Ok => "ok",
            Standing::Changed => "changed",
            Standing::Failed => "failed",
            Standing::Skipped => "skipped",
        }
    }
}

impl Record {
    pub fn key(id: &str) -> String {
        format!("orchestrations/{id}")
    }

    pub fn of(jobs: &[Job]) -> Vec<JobRecord> {
        jobs.iter().map(|job| JobRecord::new(&job.low.id, &job.low.function(), &job.low.name)).collect()
    }

    /// The records of jobs at a place: of the orchestration itself, or of one that a job starts.
    pub fn at(&mut self, path: &[usize]) -> Option<&mut Vec<JobRecord>> {
        path.iter().try_fold(&mut self.jobs, |jobs, index| jobs.get_mut(*index).map(|job| &mut job.jobs))
    }

    /// All runs, newest first: the order in which they are taken back.
    pub fn runs(&self) -> Vec<&str> {
        let mut runs = Vec::new();
        self.jobs.iter().for_each(|job| job.add_runs(&mut runs));
        runs.reverse();
        runs
    }

    pub fn is_over(&self) -> bool {
        self.ended > 0
    }
}

impl JobRecord {
    pub fn new(id: &str, function: &str, name: &str) -> JobRecord {
        JobRecord {
            id: id.to_owned(),
            function: function.to_owned(),
            name: name.to_owned(),
            standing: Standing::Waits,
            runs: Vec::new(),
            jobs: Vec::new(),
            comment: String::new(),
        }
    }

    fn add_runs<'a>(&'a self, runs: &mut Vec<&'a str>) {
        runs.extend(self.runs.iter().map(String::as_str));
        self.jobs.iter().for_each(|job| job.add_runs(runs));
    }
}

/// Whether records are of these jobs: what was begun is not gone on with by other ones.
pub fn are_of(records: &[JobRecord], jobs: &[Job]) -> bool {
    records.len() == jobs.len()
        && records.iter().zip(jobs).all(|(record, job)| record.id == job.low.id && record.function == job.low.function())
}
