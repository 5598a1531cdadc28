//! `--exclude` and `--include`, as the AWS CLI has them: everything is taken at first; of the rules that match a name, the last one
//! on the command line decides.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use globset::{GlobBuilder, GlobMatcher};

/// The rules, in the order of the command line: whether what matches is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(bool, GlobMatcher)>);

impl Filters {
    /// Whether what has this name, relative to where the command begins, is taken.
    pub(crate) fn takes(&self, relative: &str) -> bool {
        self.0.iter().rev().find(|(_, glob)| glob.is_match(relative)).is_none_or(|(takes, _)| *takes)
    }

    fn read(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Vec::new();
        for (name, takes) in [("exclude", false), ("include", true)] {
            let (Some(places), Some(globs)) = (matches.indices_of(name), matches.get_many::<String>(name)) else {
                continue;
            };
            for (place, glob) in places.zip(globs) {
                // `*` crosses slashes, as in fnmatch.
                let built = GlobBuilder::new(glob).literal_separator(false).build();
                let built = built.map_err(|error| {
                    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("--{name} {glob:?}: {error}\n"))
                })?;
                rules.push((place, takes, built.compile_matcher()));
            }
        }
        rules.sort_by_key(|(place, ..)| *place);
        Ok(Self(rules.into_iter().map(|(_, takes, glob)| (takes, glob)).collect()))
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::read(matches)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::read(matches)?;
        Ok(())
    }
}

impl Args for Filters {
    fn augment_args(command: Command) -> Command {
        let rule = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name("GLOB").action(ArgAction::Append).help(help)
        };
        command
            .arg(rule("exclude", "Leave out what matches, relative to where it begins. May be given several times; the last rule that matches decides"))
            .arg(rule("include", "Take what matches all the same: --exclude '*' --include '*.jpg' takes the pictures alone"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(arguments: &[&str]) -> Result<Filters, clap::Error> {
        let command = Filters::augment_args(Command::new("x").no_binary_name(true));
        Filters::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        assert!(filters(&[]).unwrap().takes("a/b.jpg"));
        let pictures = filters(&["--exclude", "*", "--include", "*.jpg"]).unwrap();
        assert!(pictures.takes("a/b.jpg") && !pictures.takes("a/b.txt"));
        let nothing = filters(&["--include", "*.jpg", "--exclude", "*"]).unwrap();
        assert!(!nothing.takes("a/b.jpg"));
        let some = filters(&["--exclude", "a/*", "--include", "a/b/*", "--exclude", "*.tmp"]).unwrap();
        assert!(!some.takes("a/c") && some.takes("a/b/c") && !some.takes("a/b/c.tmp") && some.takes("d"));
        assert!(filters(&["--exclude", "["]).unwrap_err().to_string().contains("--exclude"));
    }
}
