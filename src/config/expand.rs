//! `${VAR}` and `${VAR:-default}` in strings, and secrets that stand in files.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Secret;
use super::read::Read;

/// Largest secret that is read, so that a wrong path to something endless does no harm.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Puts the environment's values in. As in a shell, `${VAR:-default}` also stands for the default where `VAR` is set to nothing; the
/// default goes up to the next `}`. What was put in is not expanded again. `$${` is a plain `${`.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> Read<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((inner, behind)) = rest[at + 2..].split_once('}') else {
            return Err("a ${ in it is never closed, allowed: ${VAR} or ${VAR:-default}, and $${ for a plain ${".to_owned());
        };
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        let first_is_letter = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first_is_letter || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(
                "a ${ in it is followed by no name, allowed: ${VAR} or ${VAR:-default}, and $${ for a plain ${".to_owned()
            );
        }
        match (env.get(name), default) {
            (Some(value), None) => out.push_str(value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => return Err(format!("{name} is not set in the environment, set it or write ${{{name}:-default}}")),
        }
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Where a file may be, the best place first: a relative path is looked up in `$CREDENTIALS_DIRECTORY`, then in the configuration's
/// directory.
fn places(path: &Path, env: &BTreeMap<String, String>, dir: &Path) -> Vec<PathBuf> {
    if path.is_absolute() {
        return vec![path.to_owned()];
    }
    let credentials = env.get("CREDENTIALS_DIRECTORY").filter(|d| !d.is_empty()).map(|d| Path::new(d).join(path));
    credentials.into_iter().chain([dir.join(path)]).collect()
}

/// The first place where a file exists, else the last where it could.
pub fn find(path: &Path, env: &BTreeMap<String, String>, dir: &Path) -> PathBuf {
    let mut places = places(path, env, dir);
    let found = places.iter().position(|place| place.exists()).unwrap_or(places.len() - 1);
    places.swap_remove(found)
}

/// Reads a file of secrets, where [`find`] finds it: where that was, and its text. `allowed` says what it may be.
pub fn secrets(path: &str, env: &BTreeMap<String, String>, dir: &Path, allowed: &str) -> Read<(PathBuf, Zeroizing<String>)> {
    let path = Path::new(path);
    let found = find(path, env, dir);
    let mut text = Zeroizing::new(String::new());
    let read = std::fs::File::open(&found).and_then(|file| file.take(LARGEST_SECRET).read_to_string(&mut text));
    if let Err(error) = read {
        let looked: Vec<_> = places(path, env, dir).iter().map(|place| place.display().to_string()).collect();
        return Err(format!("which cannot be read ({error}; looked at {}), {allowed}", looked.join(" and ")));
    }
    Ok((found, text))
}

/// Reads a secret from a file, where [`find`] finds it. Line ends behind the secret are not part of it.
pub fn secret(path: &str, env: &BTreeMap<String, String>, dir: &Path) -> Read<Secret> {
    let (found, text) = secrets(path, env, dir, "allowed: a readable file that holds the secret")?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("but {} is empty, allowed: a file that holds the secret", found.display()));
    }
    Ok(Secret(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn variables_expand_once_and_have_defaults() {
        let env = env(&[("A", "1"), ("EMPTY", ""), ("NESTED", "${A}")]);
        for (text, expanded) in [
            ("", ""),
            ("$.a", "$.a"),
            ("x${A}y${A}", "x1y1"),
            ("${A:-2}", "1"),
            ("${NO:-2}", "2"),
            ("${NO:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-2}", "2"),
            ("${NESTED}", "${A}"),
            ("$${A}", "${A}"),
            ("a$$${A}", "a$${A}"),
            ("é${A}é", "é1é"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (text, why) in
            [("${NO}", "NO is not set"), ("${A", "never closed"), ("${}", "no name"), ("${1}", "no name"), ("${a b}", "no name")]
        {
            let error = expand(text, &env(&[])).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_looked_for_among_the_credentials_first() {
        let (credentials, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("token"), "beside the file\n").unwrap();
        let env = env(&[("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())]);
        assert_eq!(secret("token", &env, dir.path()).unwrap().0, "beside the file");
        std::fs::write(credentials.path().join("token"), "from systemd\r\n\n").unwrap();
        assert_eq!(secret("token", &env, dir.path()).unwrap().0, "from systemd");
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        assert!(secret("empty", &env, dir.path()).unwrap_err().contains("is empty"));
        assert!(secret("none", &env, dir.path()).unwrap_err().contains("cannot be read"));
        assert!(secret(dir.path().to_str().unwrap(), &env, dir.path()).unwrap_err().contains("cannot be read"));
    }
}
