//! Runs the table's tests: builds their programs, boots each topology once, and counts.
//!
//! A topology that does not boot fails every test that needs it; a test that fails, or that says it leaves guests in
//! disorder, gets the next test fresh guests. Nothing is ever skipped.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::build::{self, What};
use crate::error::{LabError, Result};
use crate::folders::Folders;
use crate::lab::{Lab, On, Size};
use crate::topology::Topology;

/// One test in guests.
pub(crate) struct LabTest {
    /// Its name: what it shows.
    pub(crate) name: &'static str,
    /// The guests it needs.
    pub(crate) topology: Topology,
    /// Programs that cargo builds for it, on the host, before anything boots.
    pub(crate) builds: &'static [What<'static>],
    /// What happens in the guests.
    pub(crate) plan: Plan,
    /// Whether it leaves the guests as it found them. One that kills guests does not.
    pub(crate) tidy: bool,
}

/// What a test does.
pub(crate) enum Plan {
    /// Commands, one after the other.
    Steps(&'static [Step]),
    /// Code, for whatever needs more.
    Script(fn(&mut Lab, &Programs) -> Result<()>),
}

/// One command of a test. In its words, `{0}`, `{1}`.. are the programs of the test's `builds`, and `{gateway}` (or any
/// other guest's name) is that guest's address.
pub(crate) struct Step {
    /// The guest it runs in.
    pub(crate) guest: &'static str,
    /// Program and arguments.
    pub(crate) argv: &'static [&'static str],
    /// Whether the next step waits for its end.
    pub(crate) when: When,
    /// Killed, and the test failed, after so many seconds.
    pub(crate) limit_s: u64,
}

/// When the next step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// When this one has ended, with status 0.
    Ended,
    /// When this one has written these words to its standard output; it is stopped after the last step.
    Says(&'static str),
}

/// Paths of the programs that were built for a test, in the order of its `builds`.
pub(crate) struct Programs(Vec<String>);

impl Programs {
    /// The path of program `number` of the test's `builds`.
    pub(crate) fn path(&self, number: usize) -> Result<&str> {
        self.0.get(number).map(String::as_str).ok_or_else(|| {
            LabError::Test(format!("program {{{number}}}: the test names {} in its `builds`", self.0.len()))
        })
    }
}

/// Runs the tests whose names contain one of `filters` (all, if there is none). Gives the numbers of those that passed
/// and failed.
pub(crate) fn run(
    tests: &[LabTest],
    filters: &[String],
    folders: &Folders,
    size: impl Fn(Topology) -> Size,
    deadline: Instant,
) -> Result<(usize, usize)> {
    let chosen: Vec<&LabTest> = tests
        .iter()
        .filter(|test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str())))
        .collect();
    if chosen.is_empty() {
        return Err(LabError::Setup(format!("no test is called anything like {}", filters.join(" or "))));
    }
    let mut built = HashMap::new();
    for what in chosen.iter().flat_map(|test| test.builds) {
        if !built.contains_key(what) {
            built.insert(*what, build::program(*what, &folders.tree)?);
        }
    }
    let mut topologies: Vec<Topology> = Vec::new();
    for test in &chosen {
        if !topologies.contains(&test.topology) {
            topologies.push(test.topology);
        }
    }
    let (mut passed, mut failed) = (0, 0);
    for topology in topologies {
        let mut lab: Option<Lab> = None;
        let mut no_boot: Option<String> = None;
        for test in chosen.iter().filter(|test| test.topology == topology) {
            if Instant::now() > deadline {
                println!("FAIL {}: no time is left for it", test.name);
                failed += 1;
                continue;
            }
            if lab.is_none() && no_boot.is_none() {
                let started = Instant::now();
                match Lab::boot(folders, topology, size(topology), On::Guest) {
                    Ok(booted) => {
                        println!("     {topology} booted ({:.1} s)", started.elapsed().as_secs_f64());
                        lab = Some(booted);
                    }
                    Err(error) => no_boot = Some(error.to_string()),
                }
            }
            let started = Instant::now();
            let result = match (&mut lab, &no_boot) {
                (Some(lab), _) => attempt(test, lab, &built),
                (None, why) => Err(LabError::Test(format!(
                    "the lab ({topology}) can't start: {}",
                    why.as_deref().unwrap_or("for no reason it told")
                ))),
            };
            match &result {
                Ok(()) => {
                    println!("ok   {} ({:.1} s)", test.name, started.elapsed().as_secs_f64());
                    passed += 1;
                }
                Err(error) => {
                    println!("FAIL {} ({:.1} s)\n    {error}", test.name, started.elapsed().as_secs_f64());
                    failed += 1;
                }
            }
            if result.is_err() || !test.tidy {
                lab = None;
            }
        }
        if let Some(lab) = lab {
            if lab.dropped_frames() > 0 {
                println!(
                    "     {topology}: {} frames were lost between guests that did not keep up",
                    lab.dropped_frames()
                );
            }
            lab.power_off();
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok((passed, failed))
}

fn attempt(test: &LabTest, lab: &mut Lab, built: &HashMap<What<'static>, PathBuf>) -> Result<()> {
    let programs = Programs(test.builds.iter().map(|what| built[what].display().to_string()).collect());
    match &test.plan {
        Plan::Script(script) => script(lab, &programs),
        Plan::Steps(steps) => run_steps(steps, lab, &programs),
    }
}

fn run_steps(steps: &[Step], lab: &Lab, programs: &Programs) -> Result<()> {
    let mut background = Vec::new();
    for step in steps {
        let argv = step.argv.iter().map(|word| filled(word, lab, programs)).collect::<Result<Vec<_>>>()?;
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let task = lab.start(step.guest, &words, step.limit_s)?;
        match step.when {
            When::Ended => drop(task.finish()?),
            When::Says(text) => {
                task.wait_for(text, step.limit_s)?;
                background.push(task);
            }
        }
    }
    background.iter().rev().try_for_each(|task| task.stop().map(drop))
}

/// A word with its names in braces replaced.
fn filled(word: &str, lab: &Lab, programs: &Programs) -> Result<String> {
    fill(word, |name| match name.parse::<usize>() {
        Ok(number) => programs.path(number).map(str::to_owned),
        Err(_) => lab.address(name).map(|address| address.to_string()),
    })
}

fn fill(word: &str, value: impl Fn(&str) -> Result<String>) -> Result<String> {
    let (mut done, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(LabError::Test(format!("'{word}': a brace is not closed")));
        };
        done.push_str(before);
        done.push_str(&value(name)?);
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_filled() {
        let value = |name: &str| match name {
            "gateway" => Ok("10.77.0.11".to_owned()),
            other => Err(LabError::Test(other.to_owned())),
        };
        assert_eq!(
            fill("http://{gateway}:9000/x{gateway}", value).expect("both known"),
            "http://10.77.0.11:9000/x10.77.0.11"
        );
        assert_eq!(fill("plain", value).expect("nothing to do"), "plain");
        fill("{unknown}", value).expect_err("unknown");
        fill("{gateway", value).expect_err("not closed");
    }
}
