//! Documents that lie are worse than none: relative links must lead somewhere, and a format that code names must have
//! its page.

use std::path::{Path, PathBuf};

const DEPTH_MAX: usize = 12;

fn files_below(folder: &Path, extension: &str, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("{} is too deep", folder.display()));
    }
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "penstock-data" && name != "node_modules" {
                files_below(&path, extension, depth + 1, found)?;
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// The targets of Markdown links `[text](target)` in `text`, code blocks left out.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    found
}

/// The pages that a source file names: every `docs/....md` in it.
fn pages_named(text: &str) -> Vec<&str> {
    text.match_indices("docs/")
        .filter_map(|(at, _)| {
            let rest = &text[at..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c))).unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches('.');
            name.ends_with(".md").then_some(name)
        })
        .collect()
}

/// What is wrong with the documents.
pub(crate) fn complaints(root: &Path) -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    let mut pages = Vec::new();
    files_below(root, "md", 0, &mut pages)?;
    for page in &pages {
        let text = std::fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or(link);
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let full = page.parent().unwrap_or(root).join(target);
            if !full.exists() {
                complaints.push(format!("documents: {} links to {link}, which is not there", page.display()));
            }
        }
    }
    let mut sources = Vec::new();
    files_below(root, "rs", 0, &mut sources)?;
    for source in &sources {
        if source.components().any(|part| part.as_os_str() == "devtasks") {
            continue;
        }
        let text = std::fs::read_to_string(source).map_err(|error| format!("{}: {error}", source.display()))?;
        for name in pages_named(&text) {
            if !root.join(name).exists() {
                complaints.push(format!("documents: {} names {name}, which is not there", source.display()));
            }
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::{links, pages_named};

    #[test]
    fn links_are_found_outside_code_blocks() {
        assert_eq!(links("see [a](x.md) and [b](y.md#z)\n```\n[c](no.md)\n```\n[d](w.md)"), ["x.md", "y.md#z", "w.md"]);
    }

    #[test]
    fn pages_named_in_comments_are_found() {
        assert_eq!(
            pages_named("//! (`docs/formats/extent.md`), docs/adr/0001-x.md. docs/formats"),
            ["docs/formats/extent.md", "docs/adr/0001-x.md"]
        );
    }
}
