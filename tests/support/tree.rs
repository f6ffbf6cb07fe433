//! Directories and files in memory, as they are on a disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What is below a directory.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// A file's name leads to its number, a directory's to none.
    names: BTreeMap<PathBuf, Option<usize>>,
    contents: Vec<Vec<u8>>,
}

impl Tree {
    /// What is in a real directory.
    pub fn of(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_owned();
                if path.is_dir() {
                    tree.make_dir(Some(name));
                    dirs.push(path);
                } else {
                    let file = tree.create(Some(name));
                    tree.contents[file] = fs::read(path).unwrap();
                }
            }
        }
        tree
    }

    /// Makes it real in a new directory.
    pub fn make(&self, root: &Path) {
        fs::create_dir(root).unwrap();
        for (name, file) in &self.names {
            match file {
                Some(file) => fs::write(root.join(name), &self.contents[*file]).unwrap(),
                None => fs::create_dir(root.join(name)).unwrap(),
            }
        }
    }

    /// Every file: its name and its number.
    pub fn files(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.names.iter().filter_map(|(name, file)| Some((name.as_path(), (*file)?)))
    }

    /// What is different in `other`: names, and how far the contents agree. Zeros at the end of a file are as good as none.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut different = Vec::new();
        for name in self.names.keys().chain(other.names.keys().filter(|name| !self.names.contains_key(*name))) {
            match (self.names.get(name), other.names.get(name)) {
                (Some(Some(one)), Some(Some(two))) => {
                    let (one, two) = (&self.contents[*one], &other.contents[*two]);
                    let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
                    if let Some(at) = (0..one.len().max(two.len())).find(|at| byte(one, *at) != byte(two, *at)) {
                        different.push(format!("{}: {} and {} bytes, different at {at}", name.display(), one.len(), two.len()));
                    }
                }
                (Some(None), Some(None)) => {}
                (one, two) => different.push(format!("{}: {one:?} and {two:?}", name.display())),
            }
        }
        different
    }

    /// A new file, and its number; without a name nobody will find it. One of that name is another file from now on.
    pub fn create(&mut self, name: Option<PathBuf>) -> usize {
        self.contents.push(Vec::new());
        let file = self.contents.len() - 1;
        self.put(name, Some(file));
        file
    }

    /// A new directory.
    pub fn make_dir(&mut self, name: Option<PathBuf>) {
        self.put(name, None);
    }

    /// A second name for a file, unless that is one that the disk had not come to.
    pub fn link(&mut self, from: Option<&Path>, to: Option<PathBuf>) {
        if let Some(Some(file)) = self.names.get(from.expect("nothing is linked from outside")) {
            self.put(to, Some(*file));
        }
    }

    /// Removes a name and those below it. One that isn't here came from a name that the disk had not come to.
    pub fn remove(&mut self, name: Option<&Path>) {
        if let Some(name) = name {
            self.names.retain(|here, _| !here.starts_with(name));
        }
    }

    /// Moves a name and those below it. One that isn't here is one that the disk had not come to.
    pub fn rename(&mut self, from: Option<&Path>, to: Option<&Path>) {
        let from = from.expect("nothing comes in from outside");
        let names = std::mem::take(&mut self.names);
        let (moved, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|(name, _)| name.starts_with(from));
        self.names.extend(rest);
        for (name, file) in moved {
            let below = name.strip_prefix(from).unwrap();
            self.put(to.map(|to| to.iter().chain(below.iter()).collect()), file);
        }
    }

    /// Writes into a file.
    pub fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) {
        let (from, content) = (usize::try_from(offset).unwrap(), &mut self.contents[file]);
        let end = from + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[from..end].copy_from_slice(bytes);
    }

    /// Cuts a file off, or fills it with zeros.
    pub fn set_length(&mut self, file: usize, length: u64) {
        self.contents[file].resize(usize::try_from(length).unwrap(), 0);
    }

    /// Gives something a name, where there is a directory for it.
    fn put(&mut self, name: Option<PathBuf>, file: Option<usize>) {
        let Some(name) = name else { return };
        let parent = name.parent().unwrap();
        if parent.as_os_str().is_empty() || self.names.get(parent) == Some(&None) {
            self.names.insert(name, file);
        }
    }
}
