//! Files of which, after a power cut, the old one or the new one is there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file. The new one is called `staged`, in the same directory, until it is whole.
pub fn replace(path: &Path, staged: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(staged)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(staged, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (path, staged) = (directory.path().join("a"), directory.path().join("a.new"));
        for content in ["a long first one", "short"] {
            // What an attempt that was cut off has left is in nobody's way.
            fs::write(&staged, "half of someth").unwrap();
            replace(&path, &staged, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert!(!staged.exists());
        }
    }
}
