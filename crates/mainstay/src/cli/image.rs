//! `mainstay image`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use mainstay_image::archive::ImportOptions;
use mainstay_image::platform::Platform;
use mainstay_image::store::Store;

use super::status::table;
use crate::instance::Instance;

/// Look after images.
#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Take in images from files: OCI layouts, OCI archives and docker-archives, plain, gzip or
    /// zstd.
    Import {
        /// The files, or OCI layout directories.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the images that are here.
    Ls,
    /// Remove an image, or one of its names.
    Rm {
        /// Names or ids.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

impl Image {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        instance.create()?;
        let store = Store::open(instance.root_dir.join("store"))?;
        match self {
            Self::Import { files } => {
                for file in files {
                    let images = store.import(
                        &file,
                        &ImportOptions { platform: Platform::host(), name: None },
                        &|_| (),
                    )?;
                    for image in images {
                        println!("{}", image.id);
                    }
                }
            }
            Self::Ls => {
                let (images, _) = store.list()?;
                let rows: Vec<[String; 3]> = images
                    .iter()
                    .map(|image| {
                        let names: Vec<String> =
                            image.references.iter().map(|name| name.familiar()).collect();
                        [names.join(","), image.id.hex()[..12].to_owned(), image.size.to_string()]
                    })
                    .collect();
                table(&mut std::io::stdout().lock(), ["IMAGE", "ID", "SIZE"], &rows)?;
            }
            Self::Rm { images } => {
                for image in images {
                    store.remove(&image)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
