//! Downloading a layer to a file, going on where an earlier attempt stopped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use hyper::header::CONTENT_RANGE;
use hyper::{Method, StatusCode};

use super::endpoint::Endpoint;
use super::error::RequestError;
use super::http::{Ask, Session};
use crate::durable::at;
use crate::space::Space;

/// How much is gathered before it is written, in bytes.
const BUFFER: usize = 256 << 10;

/// A download in progress.
pub(super) struct Download {
    path: PathBuf,
    /// `None` while a write is under way.
    file: Option<Output>,
    /// Bytes that are in the file.
    pub(super) written: u64,
    /// What the whole should have, in bytes.
    pub(super) size: u64,
    /// The endpoint that all of them came from; `None` if they came from several, or nobody knows.
    pub(super) only_from: Option<usize>,
}

struct Output {
    file: File,
    space: Space,
}

// === impl Download ===

impl Download {
    /// Goes on with the file at `path`, or starts it. `keep_free` bytes of the disk stay free.
    pub(super) fn open(path: PathBuf, size: u64, keep_free: u64) -> Result<Self, RequestError> {
        let file = File::options().append(true).create(true).open(&path);
        let file = file.map_err(at("opening", &path))?;
        let written = file.metadata().map_err(at("looking at", &path))?.len();
        let file = Some(Output { file, space: Space::new(keep_free) });
        let mut download = Self { path, file, written, size, only_from: None };
        // What was downloaded as something else, or more than there is.
        if download.written > size {
            download.restart()?;
        }
        Ok(download)
    }

    /// Whether everything is there.
    pub(super) fn is_complete(&self) -> bool {
        self.written == self.size
    }

    /// Forgets what is there.
    pub(super) fn restart(&mut self) -> Result<(), RequestError> {
        if let Some(output) = &self.file {
            output.file.set_len(0).map_err(at("emptying", &self.path))?;
        }
        self.written = 0;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Asks an endpoint, which has a place among others, for what is missing and writes it.
    /// `progress` is told how much is there.
    pub(super) async fn fetch(
        &mut self,
        session: &Session,
        (place, endpoint): (usize, &Endpoint),
        path: &str,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RequestError> {
        let host = &endpoint.authority;
        let from = self.written;
        let ask = Ask { method: &Method::GET, path, accept: "*/*", from };
        let (response, mut body) = match session.ask(endpoint, ask).await {
            Err(RequestError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. })
                if from > 0 =>
            {
                self.restart()?;
                session.ask(endpoint, Ask { from: 0, ..ask }).await?
            }
            answer => answer?,
        };
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {}-", self.written)));
        if !goes_on {
            // The whole from the start, as registries answer that know nothing of ranges.
            self.restart()?;
        }
        let whole = self.written == 0 || self.only_from == Some(place);
        self.only_from = whole.then_some(place);
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            let part = match body.next().await {
                Ok(part) => part,
                Err(error) => {
                    // What has come is kept, for the next attempt.
                    self.write(buffer).await?;
                    return Err(error);
                }
            };
            let ended = part.is_none();
            let part = part.unwrap_or_default();
            if self.written + buffer.len() as u64 + part.len() as u64 > self.size {
                return Err(RequestError::Long { host: host.clone(), limit: self.size });
            }
            buffer.extend_from_slice(&part);
            if ended || buffer.len() >= BUFFER {
                buffer = self.write(buffer).await?;
                progress(self.written);
            }
            if ended {
                break;
            }
        }
        if self.is_complete() {
            return Ok(());
        }
        let (received, expected) = (self.written, self.size);
        Err(RequestError::Short { host: host.clone(), received, expected })
    }

    /// Writes `buffer` and gives it back empty. It is done on a thread of its own, since a disk
    /// that is busy must not hold up others.
    async fn write(&mut self, mut buffer: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        let Some(mut output) = self.file.take() else {
            // A write before this one was never finished, so what is in the file is not known.
            let source = std::io::Error::other("an earlier write was interrupted");
            return Err(at("writing", &self.path)(source).into());
        };
        let path = self.path.clone();
        let write = tokio::task::spawn_blocking(move || {
            let result = output.space.spend(buffer.len() as u64, &output.file);
            let result = result
                .map_err(RequestError::from)
                .and_then(|()| Ok(output.file.write_all(&buffer).map_err(at("writing", path))?));
            let length = buffer.len() as u64;
            buffer.clear();
            (output, buffer, length, result)
        });
        let Ok((output, buffer, length, result)) = write.await else {
            let source = std::io::Error::other("the runtime is shutting down");
            return Err(at("writing", &self.path)(source).into());
        };
        if result.is_ok() {
            self.written += length;
        } else {
            // As much of it as went in.
            let stat = output.file.metadata().map_err(at("looking at", &self.path))?;
            self.written = stat.len();
        }
        self.file = Some(output);
        result.map(|()| buffer)
    }
}
