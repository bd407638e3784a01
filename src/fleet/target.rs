//! Stand-in for the command line to build on: globs only. The remote helper replaces this file whole.
use crate::diagnostic::Result;
use crate::value::Map;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Glob,
    List,
    Pcre,
    Grain,
    Pillar,
    Nodegroup,
    Ipcidr,
    Compound,
}
impl Form {
    pub fn from_salt(_: &str) -> Result<Form> {
        Ok(Form::Compound)
    }
}
pub struct Target(String);
impl Target {
    pub fn parse(_: Form, text: &str, _: &Map) -> Result<Target> {
        Ok(Target(text.into()))
    }
    pub fn needs_grains(&self) -> bool {
        false
    }
    pub fn needs_pillar(&self) -> bool {
        false
    }
    pub fn matches(&self, id: &str, _: &Map, _: &Map) -> bool {
        match self.0.strip_suffix('*') {
            Some(p) => id.starts_with(p),
            None => id == self.0,
        }
    }
}
