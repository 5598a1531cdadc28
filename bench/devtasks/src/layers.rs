//! Which crate may depend on which. The rules are docs/ARCHITECTURE.md's, in one table.

use crate::Arrow;

/// An arrow that the general rule would allow and the house does not.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (
        "dataplane/executor",
        "dataplane/node",
        "an executor reaches every node, its neighbour included, through the transport",
    ),
    (
        "dataplane/executor",
        "dataplane/store",
        "an executor reaches every node, its neighbour included, through the transport",
    ),
    ("dataplane/node", "dataplane/placement", "nodes never decide: a node knows no placement"),
    ("dataplane/node", "dataplane/executor", "a node serves shards; what runs beside it gets its executor handed in"),
    ("control/s3", "control/meta", "the front speaks to the gateway alone"),
    ("control/s3", "dataplane/executor", "the front speaks to the gateway alone"),
];

/// What a top-level folder may lean on.
fn may_lean_on(from: &str) -> &'static [&'static str] {
    match top(from) {
        "kernels" => &["kernels"],
        "dataplane" => &["dataplane", "kernels"],
        "rdma" => &["rdma", "dataplane"],
        "control" => &["control", "dataplane", "kernels"],
        "bench" => &["bench", "control", "rdma", "dataplane", "kernels"],
        _ => &[],
    }
}

fn top(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

/// The only crates that may name rdma: they put the house together.
const NAMES_RDMA: &[&str] = &["control/cli", "control/python"];

fn complaint(arrow: &Arrow) -> Option<String> {
    let Arrow { from, to, tests_only } = arrow;
    let wrong = |why: &str| Some(format!("layers: {from} -> {to} is not allowed: {why}"));
    if top(to) == "bench" && top(from) != "bench" {
        return wrong("nobody leans on bench, tests included");
    }
    if *tests_only {
        // A test may put real parts together: what ships is what the rules are about.
        return None;
    }
    if from == "dataplane/proto" {
        return wrong("dataplane/proto leans on nothing of ours");
    }
    if top(to) == "rdma" && top(from) == "control" {
        if NAMES_RDMA.contains(&from.as_str()) {
            return None;
        }
        return wrong("only control/cli and control/python name rdma");
    }
    if let Some((_, _, why)) = FORBIDDEN.iter().find(|(f, t, _)| f == from && t == to) {
        return wrong(why);
    }
    if !may_lean_on(from).contains(&top(to)) {
        return wrong(&format!("{} may lean on {} alone", top(from), may_lean_on(from).join(", ")));
    }
    None
}

/// What is wrong with the arrows.
pub(crate) fn complaints(arrows: &[Arrow]) -> Vec<String> {
    arrows.iter().filter_map(complaint).collect()
}
