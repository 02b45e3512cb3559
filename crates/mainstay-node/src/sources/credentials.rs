//! Values of Secrets beside manifests that the service manager keeps: credentials of the agent's service.
//!
//! Source: systemd.exec(5), `LoadCredential=`, `LoadCredentialEncrypted=`, and systemd-creds(1).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use mainstay_pod::{Object, ObjectValue};

/// The largest that is read; systemd takes no larger ones, and no Secret does. Source: `CREDENTIAL_SIZE_MAX`.
const LARGEST: u64 = 1 << 20;

/// What to do about one that is missing.
pub(super) const HINT: &str =
    "give the service of mainstay LoadCredentialEncrypted= for it, and start that again";

/// Why an object has not all of its values.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error(
        "its key {key:?} is the credential {name:?}, and the service has none ($CREDENTIALS_DIRECTORY is not set)"
    )]
    NoDirectory { key: String, name: String },
    #[error("its key {key:?} is the credential {name:?}, which cannot be read: {cause}")]
    Unreadable { key: String, name: String, cause: io::Error },
}

/// An object with the values that its manifest does not have.
pub(super) fn with(
    object: Arc<Object>,
    directory: Option<&Path>,
) -> Result<Arc<Object>, CredentialError> {
    let Some(written) = object.written.as_ref().filter(|it| !it.credentials.is_empty()) else {
        return Ok(object);
    };
    let mut values = object.values.clone();
    for (key, name) in &written.credentials {
        let (key, name) = (key.clone(), name.clone());
        let Some(directory) = directory else {
            return Err(CredentialError::NoDirectory { key, name });
        };
        match read(&directory.join(&name)) {
            Ok(bytes) => drop(values.insert(key, ObjectValue::Bytes(bytes.into()))),
            Err(cause) => return Err(CredentialError::Unreadable { key, name, cause }),
        }
    }
    Ok(Arc::new(Object { values, ..(*object).clone() }))
}

/// The name has no slash; a link or a pipe in that directory would be nobody's but the administrator's.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    const O_NONBLOCK: i32 = 0o4000;
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_pod::{Entry, NodeName, ReadOptions, SourceKind, Validation};

    use super::*;

    fn secret(annotation: &str) -> Arc<Object> {
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  annotations:\n    \
             mainstay.dev/credentials: {annotation:?}\nstringData: {{user: admin}}\n"
        );
        let options = ReadOptions {
            validation: Validation::Strict,
            node_name: NodeName::new("n1").unwrap(),
            source: SourceKind::File,
            seen: String::new(),
        };
        match mainstay_pod::read("f", text.as_bytes(), &options).entries.pop() {
            Some(Entry::Object { object, .. }) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_come_from_the_directory_and_what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("db-password"), b"\xffsecret").unwrap();
        std::fs::create_dir(directory.path().join("directory")).unwrap();
        let plain = secret("");
        assert!(Arc::ptr_eq(&with(plain.clone(), None).unwrap(), &plain));
        let found = with(secret("password=db-password"), Some(directory.path())).unwrap();
        assert_eq!(found.values["password"].as_bytes(), b"\xffsecret");
        assert_eq!(found.values["user"].as_bytes(), b"admin");
        let refused = |name: &str, directory: Option<&Path>| {
            with(secret(&format!("k={name}")), directory).unwrap_err().to_string()
        };
        assert_eq!(
            refused("x", None),
            "its key \"k\" is the credential \"x\", and the service has none ($CREDENTIALS_DIRECTORY is not set)"
        );
        for name in ["missing", "directory"] {
            let error = refused(name, Some(directory.path()));
            let begin = format!("its key \"k\" is the credential {name:?}, which cannot be read: ");
            assert!(error.starts_with(&begin), "{error}");
        }
    }
}
