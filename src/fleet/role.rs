//! Roles: what each node of a cluster is there for, by how many nodes there are. Pure rules, given by the Eos design's tables.
//!
//! | nodes | roles |
//! |---|---|
//! | 1 | monolith |
//! | 2 | edge, core: in the order in which they joined |
//! | 3 | edge, core, data: likewise |
//! | 4 and more | who has a role keeps it; a newcomer gets the role that most lacks nodes |
//!
//! A preferred role is honoured wherever the node is large enough for it. From four nodes on, a node that is too small for every role that lacks nodes
//! becomes an app node. Where the roles have drifted too far from the ideal, nodes of roles that have too many change, the last to join first.
//! The same nodes always give the same roles: ties go by the order of `BY_NEED`.

use std::fmt;
use std::str::FromStr;

use crate::diagnostic::nearest;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Monolith,
    Edge,
    Core,
    Data,
    Message,
    Observe,
    Compute,
    App,
}

impl Role {
    pub const ALL: [Role; 8] = [Role::Monolith, Role::Edge, Role::Core, Role::Data, Role::Message, Role::Observe, Role::Compute, Role::App];

    /// Who goes first where two roles lack as many nodes.
    const BY_NEED: [Role; 7] = [Role::Edge, Role::Core, Role::Data, Role::Message, Role::Observe, Role::Compute, Role::App];

    pub fn name(self) -> &'static str {
        match self {
            Role::Monolith => "monolith",
            Role::Edge => "edge",
            Role::Core => "core",
            Role::Data => "data",
            Role::Message => "message",
            Role::Observe => "observe",
            Role::Compute => "compute",
            Role::App => "app",
        }
    }

    /// What a node must have at the least.
    pub fn minimum(self) -> Resources {
        let (cpu_cores, memory_gb, storage_gb) = match self {
            Role::Monolith => (0, 0, 0),
            Role::Edge | Role::App => (2, 4, 50),
            Role::Core => (4, 8, 100),
            Role::Data => (4, 16, 500),
            Role::Compute => (8, 32, 100),
            Role::Message => (2, 8, 100),
            Role::Observe => (4, 8, 200),
        };
        Resources { cpu_cores, memory_gb, storage_gb }
    }

    /// How many nodes of `count` should have this role.
    pub fn ideal(self, count: usize) -> usize {
        let (edge, core, data, message, observe, compute, others) = match count {
            0 => return 0,
            1 => return usize::from(self == Role::Monolith),
            2 => return usize::from(matches!(self, Role::Edge | Role::Core)),
            3 => return usize::from(matches!(self, Role::Edge | Role::Core | Role::Data)),
            4..=6 => (1, 2, 1, 0, 0, 0, 4),
            7..=10 => (2, 2, 2, 1, 1, 0, 8),
            _ => (3, 3, 3, 2, 2, 2, 15),
        };
        match self {
            Role::Monolith => 0,
            Role::Edge => edge,
            Role::Core => core,
            Role::Data => data,
            Role::Message => message,
            Role::Observe => observe,
            Role::Compute => compute,
            Role::App => count.saturating_sub(others),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            let names = Role::ALL.map(Role::name);
            match nearest(text, names) {
                Some(near) => format!("there is no role {text:?}: did you mean {near:?}?"),
                None => format!("there is no role {text:?}: the roles are {}", names.join(", ")),
            }
        })
    }
}

/// How large a cluster is: which row of the thresholds holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Single,
    Small,
    Medium,
    Distributed,
}

impl Scale {
    pub fn of(count: usize) -> Scale {
        match count {
            0 | 1 => Scale::Single,
            2..=3 => Scale::Small,
            4..=6 => Scale::Medium,
            _ => Scale::Distributed,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Scale::Single => "single",
            Scale::Small => "small",
            Scale::Medium => "medium",
            Scale::Distributed => "distributed",
        }
    }
}

/// What a node has: whole cores, and GB of memory and of disk, rounded to the nearest (a machine of 8 GB reports a little less).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    pub cpu_cores: u64,
    pub memory_gb: u64,
    pub storage_gb: u64,
}

impl Resources {
    /// What `role` needs and is not there: `2 of 4 CPU cores`.
    pub fn lacking(self, role: Role) -> Vec<String> {
        let least = role.minimum();
        [
            (self.cpu_cores, least.cpu_cores, "CPU cores"),
            (self.memory_gb, least.memory_gb, "GB of memory"),
            (self.storage_gb, least.storage_gb, "GB of disk"),
        ]
        .into_iter()
        .filter(|(has, needs, _)| has < needs)
        .map(|(has, needs, what)| format!("{has} of {needs} {what}"))
        .collect()
    }
}

/// A node as far as roles go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// What it has been; a newcomer has none.
    pub role: Option<Role>,
    pub preferred: Option<Role>,
    /// Unknown: large enough for anything.
    pub resources: Option<Resources>,
}

impl Member {
    fn fits(&self, role: Role) -> bool {
        self.resources.is_none_or(|resources| resources.lacking(role).is_empty())
    }

    /// The role it prefers, if it is large enough for it.
    fn wish(&self) -> Option<Role> {
        self.preferred.filter(|role| self.fits(*role))
    }
}

/// The role of one node, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub id: String,
    pub before: Option<Role>,
    pub role: Role,
    pub reason: String,
}

impl Assigned {
    pub fn changes(&self) -> bool {
        self.before != Some(self.role)
    }
}

/// The roles of all nodes, which are given in the order in which they joined. `rebalance`: those who have a role may have to change it.
pub fn assign(nodes: &[Member], rebalance: bool) -> Vec<Assigned> {
    let chosen = if nodes.len() < 4 { by_count(nodes) } else { by_deficit(nodes, rebalance) };
    nodes.iter().zip(chosen).map(|(node, (role, reason))| Assigned { id: node.id.clone(), before: node.role, role, reason }).collect()
}

/// Up to three nodes: wishes first, then the table's roles in the order of joining.
fn by_count(nodes: &[Member]) -> Vec<(Role, String)> {
    let table: &[Role] = match nodes.len() {
        1 => return vec![(Role::Monolith, "the only node".to_owned())],
        2 => &[Role::Edge, Role::Core],
        _ => &[Role::Edge, Role::Core, Role::Data],
    };
    let mut open = table.to_vec();
    let mut chosen: Vec<Option<(Role, String)>> = vec![None; nodes.len()];
    for (node, chosen) in nodes.iter().zip(&mut chosen) {
        let Some(wish) = node.wish().filter(|wish| *wish != Role::Monolith) else { continue };
        // A wish beyond the table leaves one of its roles to nobody; one that is taken already is no longer open.
        match open.iter().position(|role| *role == wish) {
            Some(at) => drop(open.remove(at)),
            None if table.contains(&wish) => continue,
            None => {}
        }
        *chosen = Some((wish, "preferred".to_owned()));
    }
    let mut open = open.into_iter();
    let mut place = |node: &Member| {
        let role = open.next().unwrap_or(Role::App);
        let lacking = node.resources.map(|resources| resources.lacking(role)).unwrap_or_default();
        let mut reason = format!("one of {} nodes, in the order of joining", nodes.len());
        if !lacking.is_empty() {
            reason = format!("{reason}; below what {role} should have: {}", lacking.join(", "));
        }
        (role, reason)
    };
    nodes.iter().zip(chosen).map(|(node, chosen)| chosen.unwrap_or_else(|| place(node))).collect()
}

/// From four nodes on.
fn by_deficit(nodes: &[Member], rebalance: bool) -> Vec<(Role, String)> {
    let mut chosen = Roles { count: nodes.len(), of: Vec::with_capacity(nodes.len()) };
    // A monolith is alone: beside others it is a newcomer.
    chosen.of.extend(nodes.iter().map(|node| node.role.filter(|role| *role != Role::Monolith)));
    let mut reasons = vec!["kept".to_owned(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        if chosen.of[at].is_none() {
            let (role, reason) = match node.wish().filter(|wish| *wish != Role::Monolith) {
                Some(wish) => (wish, "preferred".to_owned()),
                None => chosen.needed(node),
            };
            chosen.of[at] = Some(role);
            reasons[at] = reason;
        }
    }
    if rebalance && chosen.imbalance() > nodes.len() / 5 {
        while let Some((at, from, to)) = chosen.better(nodes) {
            reasons[at] = format!(
                "rebalanced: {from} has more than its {} nodes, {to} fewer than {}",
                from.ideal(nodes.len()),
                to.ideal(nodes.len())
            );
            chosen.of[at] = Some(to);
        }
    }
    chosen.of.into_iter().map(|role| role.unwrap_or(Role::App)).zip(reasons).collect()
}

/// Who has which role so far, among `count` nodes.
struct Roles {
    count: usize,
    of: Vec<Option<Role>>,
}

impl Roles {
    fn have(&self, role: Role) -> usize {
        self.of.iter().filter(|had| **had == Some(role)).count()
    }

    /// The roles that lack nodes, the one that most lacks them first.
    fn lacking(&self) -> Vec<Role> {
        let lack = |role: &Role| role.ideal(self.count).saturating_sub(self.have(*role));
        let mut roles: Vec<Role> = Role::BY_NEED.into_iter().filter(|role| lack(role) > 0).collect();
        roles.sort_by_key(|role| std::cmp::Reverse(lack(role)));
        roles
    }

    /// The role for a newcomer: the first that lacks nodes and that it is large enough for.
    fn needed(&self, node: &Member) -> (Role, String) {
        let lacking = self.lacking();
        if let Some(role) = lacking.iter().find(|role| node.fits(**role)) {
            return (*role, format!("{role} has {} of {} nodes", self.have(*role), role.ideal(self.count)));
        }
        let too_small =
            |role: &Role| format!("too small for {role}: {}", node.resources.map(|had| had.lacking(*role)).unwrap_or_default().join(", "));
        (Role::App, lacking.first().map_or_else(|| "no role lacks nodes".to_owned(), too_small))
    }

    /// Σ|ideal − actual|.
    fn imbalance(&self) -> usize {
        Role::BY_NEED.into_iter().map(|role| role.ideal(self.count).abs_diff(self.have(role))).sum()
    }

    /// The next change that brings the roles nearer to the ideal: a node of a role that has too many, the last to join first, to the one that most lacks
    /// them. Who has the role it prefers keeps it.
    fn better(&self, nodes: &[Member]) -> Option<(usize, Role, Role)> {
        self.lacking().into_iter().find_map(|to| {
            nodes.iter().zip(&self.of).enumerate().rev().find_map(|(at, (node, from))| {
                let from = (*from)?;
                let spare = self.have(from) > from.ideal(self.count) && node.preferred != Some(from);
                (spare && node.fits(to)).then_some((at, from, to))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Resources = Resources { cpu_cores: 64, memory_gb: 256, storage_gb: 4000 };

    fn member(id: usize, role: Option<Role>) -> Member {
        Member { id: format!("n{id}"), role, preferred: None, resources: Some(LARGE) }
    }

    /// Nodes join one after the other, each keeping what it was given.
    fn grown(count: usize, rebalance: bool) -> Vec<Member> {
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(member(id, None));
            let assigned = assign(&nodes, rebalance);
            for (node, assigned) in nodes.iter_mut().zip(assigned) {
                node.role = Some(assigned.role);
            }
        }
        nodes
    }

    fn names(nodes: &[Member]) -> String {
        nodes.iter().filter_map(|node| node.role).map(Role::name).collect::<Vec<_>>().join(" ")
    }

    fn roles(assigned: &[Assigned]) -> String {
        assigned.iter().map(|node| node.role.name()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn scale_goes_by_the_number_of_nodes() {
        let scales: Vec<_> = (1..=8).map(|count| Scale::of(count).name()).collect();
        assert_eq!(scales, ["single", "small", "small", "medium", "medium", "medium", "distributed", "distributed"]);
    }

    #[test]
    fn the_ideal_counts_are_the_table_s() {
        let row = |count| Role::BY_NEED.map(|role| role.ideal(count));
        // edge, core, data, message, observe, compute, app
        assert_eq!(row(4), [1, 2, 1, 0, 0, 0, 0]);
        assert_eq!(row(6), [1, 2, 1, 0, 0, 0, 2]);
        assert_eq!(row(7), [2, 2, 2, 1, 1, 0, 0]);
        assert_eq!(row(10), [2, 2, 2, 1, 1, 0, 2]);
        assert_eq!(row(11), [3, 3, 3, 2, 2, 2, 0]);
        assert_eq!(row(20), [3, 3, 3, 2, 2, 2, 5]);
    }

    #[test]
    fn the_first_three_have_the_roles_of_the_design() {
        assert_eq!(names(&grown(1, true)), "monolith");
        assert_eq!(names(&grown(2, true)), "edge core");
        assert_eq!(names(&grown(3, true)), "edge core data");
    }

    #[test]
    fn from_four_on_a_newcomer_gets_what_is_lacking_and_the_others_keep_theirs() {
        assert_eq!(names(&grown(4, false)), "edge core data core");
        assert_eq!(names(&grown(6, false)), "edge core data core app app");
        // Edge, data, message and observe lack a node each: edge goes first.
        assert_eq!(names(&grown(7, false)), "edge core data core app app edge");
        assert_eq!(names(&grown(10, false)), "edge core data core app app edge data message observe");
    }

    #[test]
    fn roles_too_far_from_the_ideal_are_rebalanced_if_that_is_wished() {
        // Of 7: data, message and observe lack one each, and there are two app nodes too many: 5 > 7 / 5.
        assert_eq!(names(&grown(7, true)), "edge core data core message data edge");
        // Who has what it prefers keeps it.
        let mut nodes = grown(6, true);
        nodes[4].preferred = Some(Role::App);
        nodes.push(member(7, None));
        assert_eq!(roles(&assign(&nodes, true)), "edge core data core app data edge");
    }

    #[test]
    fn nothing_changes_when_the_same_is_asked_again() {
        for count in 1..40 {
            let nodes = grown(count, true);
            assert!(assign(&nodes, true).iter().all(|node| !node.changes()), "{count} nodes: {}", names(&nodes));
        }
    }

    #[test]
    fn a_preferred_role_is_honoured_where_the_node_is_large_enough() {
        let mut newcomer = member(2, None);
        newcomer.preferred = Some(Role::Edge);
        assert_eq!(roles(&assign(&[member(1, Some(Role::Monolith)), newcomer.clone()], true)), "core edge");
        newcomer.preferred = Some(Role::Compute);
        assert_eq!(roles(&assign(&[member(1, Some(Role::Monolith)), newcomer.clone()], true)), "edge compute");
        newcomer.resources = Some(Resources { cpu_cores: 8, memory_gb: 31, storage_gb: 100 });
        let assigned = assign(&[member(1, Some(Role::Monolith)), newcomer.clone()], true);
        assert_eq!(roles(&assigned), "edge core");
        let mut nodes = grown(3, true);
        newcomer.resources = Some(LARGE);
        nodes.push(newcomer);
        assert_eq!(roles(&assign(&nodes, false)), "edge core data compute");
    }

    #[test]
    fn a_node_too_small_for_what_is_lacking_becomes_an_app_node_and_the_reason_is_told() {
        let mut nodes = grown(3, true);
        nodes.push(Member { resources: Some(Resources { cpu_cores: 2, memory_gb: 4, storage_gb: 50 }), ..member(4, None) });
        let assigned = assign(&nodes, true);
        assert_eq!(roles(&assigned), "edge core data app");
        assert_eq!(assigned[3].reason, "too small for core: 2 of 4 CPU cores, 4 of 8 GB of memory, 50 of 100 GB of disk");
        // The first three roles are to be filled whatever there is; what is missing is told.
        let small: Vec<Member> =
            nodes.iter().map(|node| Member { resources: nodes[3].resources, role: None, ..node.clone() }).take(2).collect();
        let assigned = assign(&small, true);
        assert_eq!(roles(&assigned), "edge core");
        assert!(assigned[1].reason.contains("below what core should have: 2 of 4 CPU cores"), "{}", assigned[1].reason);
    }

    #[test]
    fn after_a_removal_the_table_holds_for_fewer_nodes() {
        let mut nodes = grown(3, true);
        nodes.remove(0);
        assert_eq!(roles(&assign(&nodes, true)), "edge core");
        nodes.remove(0);
        assert_eq!(roles(&assign(&nodes, true)), "monolith");
        assert_eq!(assign(&[], true), []);
    }

    #[test]
    fn a_role_is_read_by_its_name_and_a_misspelt_one_has_its_nearest_told() {
        assert!(Role::ALL.iter().all(|role| role.name().parse() == Ok(*role)));
        assert_eq!("comptue".parse::<Role>(), Err("there is no role \"comptue\": did you mean \"compute\"?".to_owned()));
    }
}
