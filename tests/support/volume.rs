//! A small file system of one's own, for one test: in a mount namespace that a holder keeps and offramp enters, so that nothing of it is left,
//! however the test ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mounted file system.
pub struct Volume {
    holder: Child,
    kind: Kind,
    /// Where those see it who have entered.
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In a user namespace as well: needs no privilege, where the system lets users have them.
    Tmpfs,
    /// On a loop device: needs root.
    Ext4,
}

impl Volume {
    /// In memory; or a sentence that says why that isn't possible here.
    pub fn tmpfs(path: &Path, mebibytes: u64) -> Result<Self, String> {
        let mount = format!("mount -t tmpfs -o size={mebibytes}m none \"$0\"");
        Self::hold(Kind::Tmpfs, path, &mount).map_err(|said| {
            format!("this needs `unshare` and `nsenter` (Debian: util-linux) and a system that lets users have mount namespaces: {said}")
        })
    }

    /// ext4 in a file beside `path`, through a loop device; or a sentence that says why that isn't possible here.
    pub fn ext4(path: &Path, mebibytes: u64) -> Result<Self, String> {
        let image = path.with_extension("ext4");
        fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let mount = format!("mkfs.ext4 -q \"{0}\" && mount -o loop \"{0}\" \"$0\"", image.display());
        Self::hold(Kind::Ext4, path, &mount)
            .map_err(|said| format!("this needs root, loop devices and mkfs.ext4 (Debian: e2fsprogs): {said}"))
    }

    fn hold(kind: Kind, path: &Path, mount: &str) -> Result<Self, String> {
        fs::create_dir_all(path).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if kind == Kind::Tmpfs {
            command.args(["--user", "--map-root-user"]);
        }
        // It ends when its standard input does: with the test.
        command.args(["sh", "-c", &format!("exec 2>&1; {mount} && echo mounted && exec cat")]).arg(path);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.trim() == "mounted" {
            return Ok(Self { holder, kind, path: path.to_owned() });
        }
        drop(holder.stdin.take());
        let ended = holder.wait_with_output().unwrap();
        Err(format!("{said}{}", String::from_utf8_lossy(&ended.stderr)).trim().to_owned())
    }

    /// The command inside.
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if self.kind == Kind::Tmpfs {
            inside.args(["--user", "--preserve-credentials"]);
        }
        // A working directory that was opened outside would not see what is mounted inside.
        inside.args(["--", "sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(command.get_current_dir().unwrap_or(Path::new("/")));
        inside.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        inside
    }

    /// The same place as everybody sees it.
    pub fn outside(&self) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(self.path.strip_prefix("/").unwrap())
    }

    /// Nothing that is done to its files returns until [`Volume::thaw`].
    pub fn freeze(&self) {
        self.run("fsfreeze", &["--freeze"]);
    }

    /// It returns again.
    pub fn thaw(&self) {
        self.run("fsfreeze", &["--unfreeze"]);
    }

    /// Takes the power from an ext4: nothing reaches the device any more, and not even its journal is written out.
    pub fn cut(&self) {
        let shutdown = "import fcntl, os, struct, sys\n\
                        EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587d, 2\n\
                        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), EXT4_IOC_SHUTDOWN, struct.pack('I', NO_LOG_FLUSH))";
        self.run("python3", &["-c", shutdown]);
    }

    /// What a start of the machine does, once nobody uses it any more.
    pub fn remount(&self) {
        self.run("umount", &[]);
        self.run("mount", &["-o", "loop", &self.path.with_extension("ext4").display().to_string()]);
    }

    /// Runs a command inside, with the path as its last argument.
    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        command.args(args).arg(&self.path);
        let said = self.enter(&command).output().unwrap();
        assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    }

    /// Takes all room but so many bytes.
    pub fn fill(&self, but: u64) {
        let free = self.free();
        let filler = fs::File::options().create(true).append(true).open(self.outside().join("filler")).unwrap();
        rustix::fs::fallocate(
            &filler,
            rustix::fs::FallocateFlags::empty(),
            filler.metadata().unwrap().len(),
            free.saturating_sub(but).max(1),
        )
        .unwrap_or_else(|error| assert_eq!(error, rustix::io::Errno::NOSPC));
    }

    /// Gives back what [`Volume::fill`] took.
    pub fn empty(&self) {
        fs::remove_file(self.outside().join("filler")).unwrap();
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.outside()).unwrap();
        disk.f_bavail * disk.f_frsize
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.kind == Kind::Ext4 {
            // A frozen one would outlive everybody who waits for it. It fails where nothing is frozen.
            let _ = self.enter(Command::new("fsfreeze").arg("--unfreeze").arg(&self.path)).output();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
