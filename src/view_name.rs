//! Names of views: they become directories below /run, and words of commands.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Class, Error, Result};

/// Names become directories below /run: a hostile one must not leave it.
pub(crate) fn checked(name: &str) -> Result<String> {
    let fits = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if fits {
        return Ok(name.to_owned());
    }
    Err(Error::new(
        Class::Configuration,
        format!("the view name '{}' cannot be used", name.escape_debug()),
        "use 1 to 64 letters, digits, '_', '-' or '.', not starting with '.'",
    ))
}

/// The export's last component, made fit, and numbered if it is taken.
pub(crate) fn derived(export: &Path, taken: impl Fn(&str) -> bool) -> String {
    let base: String = export
        .file_name()
        .unwrap_or_default()
        .as_bytes()
        .iter()
        .take(48)
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(*byte)
            } else {
                '-'
            }
        })
        .collect();
    if !base.is_empty() && !taken(&base) {
        return base;
    }
    (2u32..)
        .map(|number| format!("{base}-{number}"))
        .find(|name| !taken(name))
        .unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_could_leave_run_is_refused() {
        for bad in [
            "",
            "..",
            ".",
            "../x",
            "a/b",
            "a b",
            "$(id)",
            "a\nb",
            "é",
            &"x".repeat(65),
        ] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        for good in ["web", "a-b_c.d", "1"] {
            assert_eq!(checked(good).unwrap(), good);
        }
    }

    #[test]
    fn name_derived_from_the_export_is_fit_and_unique() {
        assert_eq!(derived(Path::new("/srv/a b"), |_| false), "a-b");
        assert_eq!(
            derived(Path::new("/srv/web"), |name| name == "web"),
            "web-2"
        );
    }
}
