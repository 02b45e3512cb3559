//! Unix sockets: paths of any length, and descriptors that travel with the bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::path::{of_descriptor, open_directory};

/// How many descriptors one call may carry.
pub const MAX_DESCRIPTORS: usize = 4;

/// Binds a listening socket, also where the path is longer than the 107 bytes of `sun_path`.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    by_short_path(path, |short| UnixListener::bind(short))
}

/// Connects to a listening socket, also where the path is longer than the 107 bytes of `sun_path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    by_short_path(path, |short| UnixStream::connect(short))
}

/// The directory is opened and named by its descriptor, so only the last component counts.
fn by_short_path<T>(path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no last component"));
    };
    let parent = open_directory(parent)?;
    call(&of_descriptor(&parent).join(name))
}

/// Sends bytes, and descriptors with the first of them. Returns how many bytes went.
///
/// Source: unix(7), `SCM_RIGHTS`.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives bytes, and appends the descriptors that came with them. Returns how many bytes came;
/// 0 is the end.
///
/// # Errors
///
/// `InvalidData` when more descriptors came than [`MAX_DESCRIPTORS`]; the kernel closed the rest.
pub fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_path_longer_than_sun_path_can_be_bound_and_connected() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s.sock");
        let listener = listen(&path).unwrap();
        let mut client = connect(&path).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hi").unwrap();
        let mut bytes = [0; 2];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hi");
    }

    #[test]
    fn a_descriptor_arrives_with_its_bytes() {
        let (here, there) = UnixStream::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        assert_eq!(send(&here, b"x", &[read.as_fd()]).unwrap(), 1);
        let (mut bytes, mut descriptors) = ([0; 8], Vec::new());
        assert_eq!(receive(&there, &mut bytes, &mut descriptors).unwrap(), 1);
        File::from(write).write_all(b"through").unwrap();
        let text = io::read_to_string(File::from(descriptors.pop().unwrap())).unwrap();
        assert_eq!(text, "through");
    }
}
