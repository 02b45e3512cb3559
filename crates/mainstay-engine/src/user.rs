//! Which user a container's processes run as.

use std::fmt;
use std::io;

/// The numbers of a user, as the image's own files give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The groups that list the user in the image's `/etc/group`.
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) home: String,
}

/// A user that cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// The image has no such user or group.
    #[error("the image has no {kind} {name:?} in {}", kind.file())]
    NoSuch { kind: Kind, name: String },
    /// The image's file cannot be read.
    #[error("cannot read {} of the image", kind.file())]
    Read {
        kind: Kind,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    User,
    Group,
}

impl Kind {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// The image's `user[:group]`, each a name or a number.
    pub(crate) image: &'a str,
    /// What the pod says instead.
    pub(crate) run_as_user: Option<u32>,
    pub(crate) run_as_group: Option<u32>,
}

/// Finds the user. `read` gives the image's `/etc/passwd` and `/etc/group`, `None` if it has
/// none; a number needs neither.
///
/// Source: `WithUser` in `pkg/oci/spec_opts.go` of containerd, and `user.GetExecUser` of runc.
pub(crate) fn resolve(
    wanted: &Wanted<'_>,
    mut read: impl FnMut(Kind) -> Result<Option<String>, UserError>,
) -> Result<User, UserError> {
    let (image_user, image_group) = match wanted.image.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted.image, None),
    };
    let passwd = read(Kind::User)?.unwrap_or_default();
    let group = read(Kind::Group)?.unwrap_or_default();

    let entry = match wanted.run_as_user {
        Some(uid) => find_user(&passwd, |user| user.uid == uid),
        None if image_user.is_empty() => find_user(&passwd, |user| user.uid == 0),
        None => find_user(&passwd, |user| user.name == image_user).or_else(|| {
            let uid: u32 = image_user.parse().ok()?;
            find_user(&passwd, |user| user.uid == uid)
        }),
    };
    let uid = match (&entry, wanted.run_as_user) {
        (_, Some(uid)) => uid,
        (Some(entry), None) => entry.uid,
        (None, None) if image_user.is_empty() => 0,
        (None, None) => image_user.parse().map_err(|_| no_such(Kind::User, image_user))?,
    };
    // The image's group belongs to the image's user; a user of the pod's has its own.
    let image_group = image_group.filter(|group| wanted.run_as_user.is_none() && !group.is_empty());
    let gid = match (wanted.run_as_group, image_group) {
        (Some(gid), _) => gid,
        (None, Some(name)) => find_group(&group, name).ok_or_else(|| no_such(Kind::Group, name))?,
        (None, None) => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let additional_gids =
        entry.as_ref().map(|entry| groups_of(&group, entry.name)).unwrap_or_default();
    let home = entry.as_ref().map_or("/", |entry| entry.home).to_owned();
    Ok(User { uid, gid, additional_gids, home })
}

fn no_such(kind: Kind, name: &str) -> UserError {
    UserError::NoSuch { kind, name: name.to_owned() }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Lines that are not entries are passed over, as the C library does. Source: passwd(5).
fn find_user<'a>(passwd: &'a str, is: impl Fn(&Entry<'_>) -> bool) -> Option<Entry<'a>> {
    let entries = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let home = fields.get(5).filter(|home| !home.is_empty()).unwrap_or(&"/");
        Some(Entry { name: fields[0], uid, gid, home })
    });
    entries.into_iter().find(|entry| is(entry))
}

/// Source: group(5).
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields[0], fields.get(2)?.parse().ok()?, fields.get(3).copied().unwrap_or_default()))
    })
}

fn find_group(group: &str, name: &str) -> Option<u32> {
    groups(group)
        .find(|(known, ..)| *known == name)
        .map(|(_, gid, _)| gid)
        .or_else(|| name.parse().ok())
}

fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let lists = |members: &str| members.split(',').any(|member| member == user);
    groups(group).filter(|(.., members)| lists(members)).map(|(_, gid, _)| gid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# no entry\nweb:x:101:102::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nssl:x:103:web,mail\nlog:x:104:web\n";

    fn check(image: &str, run_as: (Option<u32>, Option<u32>), expected: &str) {
        let wanted = Wanted { image, run_as_user: run_as.0, run_as_group: run_as.1 };
        let file = |kind| match kind {
            Kind::User => PASSWD,
            Kind::Group => GROUP,
        };
        let got = match resolve(&wanted, |kind| Ok(Some(file(kind).to_owned()))) {
            Ok(User { uid, gid, additional_gids, home }) => {
                format!("{uid}:{gid} {additional_gids:?} {home}")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{image} {run_as:?}");
    }

    #[test]
    fn users_come_by_name_by_number_and_from_the_pod() {
        check("", (None, None), "0:0 [] /root");
        check("web", (None, None), "101:102 [103, 104] /srv");
        check("101", (None, None), "101:102 [103, 104] /srv");
        check("web:ssl", (None, None), "101:103 [103, 104] /srv");
        check("4711:4712", (None, None), "4711:4712 [] /");
        check("web:ssl", (Some(0), None), "0:0 [] /root");
        check("web:ssl", (Some(5), None), "5:0 [] /");
        check("web", (Some(101), Some(7)), "101:7 [103, 104] /srv");
        check("ghost", (None, None), "the image has no user \"ghost\" in /etc/passwd");
        check("web:ghost", (None, None), "the image has no group \"ghost\" in /etc/group");
    }

    #[test]
    fn an_image_without_the_files_knows_numbers_only() {
        let wanted = Wanted { image: "12", ..Wanted::default() };
        assert_eq!(resolve(&wanted, |_| Ok(None)).unwrap().uid, 12);
        assert!(resolve(&Wanted { image: "web", ..wanted }, |_| Ok(None)).is_err());
    }
}
