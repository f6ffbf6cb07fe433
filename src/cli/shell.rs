//! `completions` and `man`: what a package puts where shells and `man` look for it.

use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{self, Cli};
use super::failure::Failure;
use super::output::Output;

pub(super) fn completions(args: &args::Completions, out: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "offramp", &mut script);
    out.bytes(&script)
}

pub(super) fn man(args: &args::Man, out: &mut Output) -> Result<(), Failure> {
    let Some(dir) = &args.dir else { return out.bytes(&page(Cli::command())?) };
    let pages = pages(dir)?;
    out.write(&format!("{} written to {}\n", super::human::plural(pages, "page"), dir.display()))
}

/// A page for offramp and one for each command; how many.
fn pages(dir: &Path) -> Result<u64, Failure> {
    let failed = |e: std::io::Error| Failure::Failed(format!("{} cannot be written: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut offramp = Cli::command();
    offramp.build();
    let mut open = vec![offramp];
    let mut count = 0;
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|c| c.get_name() != "help").cloned());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        std::fs::write(dir.join(format!("{name}.1")), page(command)?).map_err(failed)?;
        count += 1;
    }
    Ok(count)
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(|e| Failure::Failed(format!("the page cannot be written: {e}")))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use clap_complete::Shell;

    use super::*;
    use crate::cli::output::tests::Captured;

    #[test]
    fn each_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let out = Captured::default();
            completions(&args::Completions { shell: *shell }, &mut out.output()).unwrap();
            assert!(out.text().contains("redrive"), "{shell}");
        }
    }

    #[test]
    fn each_command_has_a_page() {
        let out = Captured::default();
        man(&args::Man { dir: None }, &mut out.output()).unwrap();
        assert!(out.text().contains(".TH offramp 1"), "{}", out.text());
        let dir = tempfile::tempdir().unwrap();
        man(&args::Man { dir: Some(dir.path().to_owned()) }, &mut out.output()).unwrap();
        let redrive = std::fs::read_to_string(dir.path().join("offramp-dead-redrive.1")).unwrap();
        assert!(redrive.contains("Put dead letters back") && dir.path().join("offramp.1").exists());
    }
}
