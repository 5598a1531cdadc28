//! The table of operations in docs/SEMANTICS.md, made from what the gate itself says, so that it can't lie. The test fails when the
//! page is stale; `./dev semantics` (`PENSTOCK_REWRITE=1`) writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use penstock_digest::ChecksumAlgorithm;
use penstock_policy::{Facts, needs};

use super::super::tables::{HEADERS, is_checksum};
use super::*;

const BEGIN: &str = "<!-- operations: made by `./dev semantics` from control/s3/src/gate, don't edit -->\n";
const END: &str = "<!-- end of operations -->\n";

/// What the gate makes of an operation of AWS's, asked for as its SDKs do.
fn answer(name: &str, method: &str, path: &str) -> String {
    let ours = Op::ALL.iter().find(|op| op.name() == name);
    let (method, path, headers) = match ours {
        Some(op) => {
            let (method, uri, headers) = plainest(*op);
            (method, uri.to_owned(), headers)
        }
        None if path.contains('?') => (method.to_owned().leak() as &str, path.to_owned(), vec![]),
        None => (method.to_owned().leak() as &str, format!("{path}?x-id={name}"), vec![]),
    };
    match judge(method, &path, &headers) {
        Verdict::Serve(op) if op.name() == name => "yes".to_owned(),
        Verdict::Serve(op) => format!("as {}", op.name()),
        Verdict::Refuse(failure) => format!("{} {}", failure.status.as_u16(), failure.code),
        other @ (Verdict::Preflight | Verdict::Early(_) | Verdict::Form) => panic!("{name}: {other:?}"),
    }
}

/// What a caller must be allowed.
fn permissions(name: &str) -> String {
    let needed = needs(name, Facts::default()).unwrap_or_default();
    let actions: Vec<String> = needed.iter().map(|need| format!("`{}`", need.action)).collect();
    if actions.is_empty() && name == "DeleteObjects" {
        "`s3:DeleteObject` for each".to_owned()
    } else {
        actions.join(", ")
    }
}

fn table() -> String {
    let mut out = String::from("| operation | request | answer | permission |\n|---|---|---|---|\n");
    let (mut served, mut all) = (0, 0);
    for line in lines(OPERATIONS) {
        let [name, method, path] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let answer = answer(name, method, path);
        let good = answer == "yes" || answer.starts_with("as ");
        (served, all) = (served + usize::from(good), all + 1);
        let permission = if good { permissions(name) } else { String::new() };
        let _ = writeln!(out, "| {name} | `{method} {path}` | {answer} | {permission} |");
    }
    let _ = writeln!(out, "| PostObject (HTML forms) | `POST /bucket` | yes | {} |", permissions("PostObject"));
    let known = |name: &str| is_checksum(name) || HEADERS.iter().any(|header| header.name == name);
    // Answers of functions, of which there are none, have many.
    let refused = lines(AMZ_HEADERS).filter(|name| !known(name) && !name.starts_with("x-amz-fwd-"));
    let refused: Vec<String> = refused.map(|name| format!("`{name}`")).collect();
    let _ = writeln!(
        out,
        "\n{served} of {all} operations of AWS's API are served, {} `x-amz-*` request headers known. Headers that no operation \
         takes, refused with 501 by name:\n{}.",
        HEADERS.len() + ChecksumAlgorithm::ALL.len(),
        refused.join(", ")
    );
    out
}

#[test]
fn semantics_page_says_what_the_gate_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SEMANTICS.md");
    let page = std::fs::read_to_string(&path).expect("docs/SEMANTICS.md");
    let begin = page.find(BEGIN).expect("the page has the begin mark of its table") + BEGIN.len();
    let end = page.find(END).expect("the page has the end mark of its table");
    let fresh = format!("{}\n{}\n{}", &page[..begin], table(), &page[end..]);
    if std::env::var_os("PENSTOCK_REWRITE").is_some() {
        std::fs::write(&path, fresh).expect("docs/SEMANTICS.md can be written");
        return;
    }
    assert!(page == fresh, "docs/SEMANTICS.md is stale: run ./dev semantics and commit what it writes");
}
