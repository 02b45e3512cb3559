//! Making a container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::{
    ContainerConfig, ContainerEventKind, ContainerId, ContainerState, Error, ErrorKind, ImageSpec,
    Mount, MountPropagation, Result, SandboxId, SeccompProfile,
};
use mainstay_image::digest::Digest;
use mainstay_image::reference::Reference;
use mainstay_image::store::Image;
use mainstay_linux::capability::Capabilities;
use mainstay_linux::mount;
use mainstay_shim_protocol::{Command, Container as Spec, Root, Success};
use rustix::process::Signal;

use super::{details, target};
use crate::bundle::{self, Ingredients, Machine, Places};
use crate::record::{ContainerRecord, Maker, Pairs, SandboxRecord};
use crate::sandbox::{Container, Sandbox, run::hostname_of};
use crate::shim::Shim;
use crate::user::{self, Kind, User, UserError, Wanted};
use crate::{Instance, UPPER, failed, io_failed, seccomp};

/// Where a container writes that has no log.
const NO_LOG: &str = "/dev/null";

/// The most of an image's `/etc/passwd` or `/etc/group` that is read.
const MAX_USER_FILE: u64 = 1 << 20;

/// Makes a container, which then waits for its start; one that does not come to be leaves
/// nothing.
pub(crate) async fn create(
    engine: &Arc<Instance>,
    maker: Maker,
    sandbox_id: &SandboxId,
    config: &ContainerConfig,
) -> Result<ContainerId> {
    let sandbox = engine.sandbox(sandbox_id)?;
    target::check(&sandbox, &config.security_context)?;
    let id = ContainerId(engine.new_id()?);
    // 1. All that can be decided and laid out before anything runs.
    let (spec, record) = {
        let (engine, sandbox) = (engine.clone(), sandbox.clone());
        let (id, config) = (id.clone(), config.clone());
        crate::blocking(move || lay_out(&engine, maker, &sandbox, &id, &config)).await?
    };
    let shim = sandbox.change(|state| {
        let container = Container { record, state: ContainerState::Created, failure: None };
        state.containers.insert(id.clone(), Box::new(container));
        state.shim.clone()
    });
    // 2. The shim makes it.
    let target = config.security_context.target.as_ref();
    let created = match shim {
        Some(shim) => make(&shim, spec, target).await,
        None => Err(Error::new(ErrorKind::FailedPrecondition, "the sandbox is not ready")),
    };
    match created {
        Ok(()) => {
            engine.tell(&sandbox, Some(id.clone()), ContainerEventKind::Created);
            Ok(id)
        }
        Err(error) => {
            if let Err(second) = super::remove::remove(engine, &id).await {
                tracing::warn!(container = %id, error = second.chain(), "a half-made container remains");
            }
            Err(error)
        }
    }
}

async fn make(shim: &Shim, spec: Spec, target: Option<&ContainerId>) -> Result<()> {
    let created = shim.call(Command::CreateContainer(Box::new(spec))).await;
    match (created.map_err(failed("cannot create the container"))?, target) {
        (Success::Created { pid }, Some(target)) => target::verify(shim, target, pid).await,
        (Success::Created { .. }, None) => Ok(()),
        (other, _) => Err(Error::new(ErrorKind::Internal, format!("an odd answer: {other:?}"))),
    }
}

/// Decides what the container is, and makes its directories, its control group and its record.
fn lay_out(
    engine: &Instance,
    maker: Maker,
    sandbox: &Sandbox,
    id: &ContainerId,
    config: &ContainerConfig,
) -> Result<(Spec, ContainerRecord)> {
    let owner = sandbox.state().record.clone();
    let image = find_image(engine, &config.image, "")?;
    let mut images = BTreeMap::new();
    for name in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
        images.insert(name.0.clone(), find_image(engine, name, " of a volume")?);
    }
    let user = find_user(engine, &image, config)?;
    let names = [image.references.as_slice(), &image.digests].concat();
    let bundle = sandbox.bundle(id);
    let record = ContainerRecord {
        id: id.clone(),
        maker,
        created_at: Timestamp::now(),
        metadata: config.metadata.clone(),
        image: ImageSpec(full_name(&names, &config.image.0)),
        image_ref: image.digests.first().map_or_else(|| image.id.to_string(), ToString::to_string),
        labels: Pairs::from(&config.labels),
        annotations: Pairs::from(&config.annotations),
        log_path: match owner.log_directory.is_empty() || config.log_path.is_empty() {
            true => String::new(),
            false => format!("{}/{}", owner.log_directory, config.log_path),
        },
        cgroup: format!("{}/{id}", owner.cgroup_parent.trim_end_matches('/')),
        stop_signal: stop_signal(config, &image)?,
        process: mainstay_shim_protocol::Process::default(),
    };
    let layout = lay_out_files(engine, sandbox, &owner, &record, config, (&image, &images), &user);
    if layout.is_err() {
        // What is there by now is taken away again; the error that counts is the first one.
        if let Err(second) = super::remove::clear(engine, &record, &bundle) {
            tracing::warn!(container = %id, error = second.chain(), "a half-made container remains");
        }
    }
    layout
}

fn lay_out_files(
    engine: &Instance,
    sandbox: &Sandbox,
    owner: &SandboxRecord,
    record: &ContainerRecord,
    config: &ContainerConfig,
    (image, images): (&Image, &BTreeMap<String, Image>),
    user: &User,
) -> Result<(Spec, ContainerRecord)> {
    let bundle: &Path = &sandbox.bundle(&record.id);
    let make = |path: &Path| {
        fs::create_dir_all(path).map_err(io_failed(format!("cannot make {}", path.display())))
    };
    make(bundle)?;
    let used: Vec<&Digest> = [image].into_iter().chain(images.values()).map(|it| &it.id).collect();
    engine.store().lease(&record.id.0, &used).map_err(failed("cannot hold the image"))?;
    for mount in config.mounts.iter().filter(|mount| mount.image.is_some()) {
        make(&bundle::image_place(bundle, &mount.container_path))?;
    }
    let writable = engine.writable_directory(&record.id);
    let (upper, work) = (writable.join(UPPER), writable.join("work"));
    make(&upper)?;
    make(&work)?;
    // It becomes the root directory of the container, whatever this process's umask is.
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))
        .map_err(io_failed(format!("cannot set the rights of {}", upper.display())))?;
    if let Some(directory) = Path::new(&record.log_path).parent() {
        make(directory)?;
    }
    details::write(bundle, &details::of(config, image))?;
    check_propagation(&config.mounts)?;
    let security = &config.security_context;
    let devices = if security.privileged { bundle::host_devices() } else { Vec::new() };
    let spec = bundle::container(&Ingredients {
        id: &record.id.0,
        config,
        namespaces: owner.namespaces,
        image: &image.config,
        volumes: &images.iter().map(|(name, it)| (name.clone(), it.lower_dirs())).collect(),
        user,
        hostname: &hostname_of(owner)?,
        places: Places {
            bundle,
            sandbox: bundle.parent().and_then(Path::parent).unwrap_or(bundle),
            root: Root {
                layers: text(engine.store().layers_dir()),
                lower: image.lower_dirs(),
                upper: text(&upper),
                work: text(&work),
                readonly: security.readonly_rootfs,
            },
            log_path: if record.log_path.is_empty() { NO_LOG } else { &record.log_path },
            cgroup: &record.cgroup,
        },
        machine: Machine {
            hierarchies: engine.hierarchies(),
            capabilities: engine.capabilities(),
            oom_score_adj: engine.oom_score_adj(),
            devices: &devices,
            throttles: engine.throttles(),
        },
        seccomp: write_filter(engine, config, bundle)?,
        apparmor: apparmor_profile(engine, sandbox, config)?,
    })
    .map_err(|error| {
        Error::with_source(ErrorKind::InvalidArgument, "cannot make the container", error)
    })?;
    let record = ContainerRecord { process: spec.process.clone(), ..record.clone() };
    // Before the control group: whatever has a control group is found again by its record.
    record.write(bundle).map_err(failed("cannot write down the container"))?;
    make_cgroup(engine, &record.cgroup, config)?;
    Ok((spec, record))
}

/// What is to be seen on two sides has to be on a mount that lets others see it.
///
/// Source: `ensureShared` and `ensureSharedOrSlave` in containerd's
/// `internal/cri/opts/spec_linux_opts.go`.
fn check_propagation(mounts: &[Mount]) -> Result<()> {
    // Nothing is ever mounted in an image.
    for mount in mounts.iter().filter(|mount| mount.image.is_none()) {
        let path = mount.host_path.as_str();
        let wanted = match mount.propagation {
            MountPropagation::Private => continue,
            MountPropagation::HostToContainer => "a shared or slave mount",
            MountPropagation::Bidirectional => "a shared mount",
        };
        let found = mount::mount_of(Path::new(path))
            .map_err(io_failed(format!("cannot look up the mount that {path} is on")))?;
        let receives = mount.propagation == MountPropagation::HostToContainer && found.receives;
        if !found.shared && !receives {
            let point = found.point.display();
            let message = format!(
                "path {path:?} is mounted on \"{point}\" but it is not {wanted}; make it one with \
                 `mount --make-shared {point}`"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    }
    Ok(())
}

/// Looks up an image, which has been fetched by now; `of` says whose it is.
fn find_image(engine: &Instance, name: &ImageSpec, of: &str) -> Result<Image> {
    let found = engine.store().find(&name.0);
    found.map_err(failed(format!("cannot look up the image{of}")))?.ok_or_else(|| {
        let message = format!("image {name}{of} is not on this machine");
        Error::new(ErrorKind::NotFound, message)
    })
}

fn find_user(engine: &Instance, image: &Image, config: &ContainerConfig) -> Result<User> {
    let security = &config.security_context;
    let wanted = Wanted {
        image: security.run_as_username.as_ref().unwrap_or(&image.config.user),
        run_as_user: security.run_as_user,
        run_as_group: security.run_as_group,
    };
    let root = engine.store().open_root(image).map_err(failed("cannot read the image"))?;
    let read = |kind: Kind| {
        let unreadable = |source| UserError::Read { kind, source };
        let file = root
            .read(kind.file(), MAX_USER_FILE)
            .map_err(|error| unreadable(std::io::Error::other(error)))?;
        Ok(file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    user::resolve(&wanted, read).map_err(|error| {
        Error::with_source(ErrorKind::InvalidArgument, "cannot find the container's user", error)
    })
}

fn write_filter(
    engine: &Instance,
    config: &ContainerConfig,
    bundle: &Path,
) -> Result<Option<String>> {
    let security = &config.security_context;
    if security.privileged || security.seccomp == SeccompProfile::Unconfined {
        return Ok(None);
    }
    // Parts of a profile depend on what the container may hold at most.
    let sets = bundle::capabilities(security, engine.capabilities()).map_err(|error| {
        Error::with_source(ErrorKind::InvalidArgument, "cannot make the container", error)
    })?;
    let held = Capabilities::from_bits(sets.bounding);
    let filter = seccomp::filter(&security.seccomp, held)?;
    let path: PathBuf = bundle.join("seccomp.bpf");
    fs::write(&path, filter).map_err(io_failed(format!("cannot write {}", path.display())))?;
    Ok(Some(text(&path)))
}

/// The profile of AppArmor that a container is to have. One that asks for none has none in a pod whose shim
/// knows of none, as it had before the shim was left behind by an upgrade.
fn apparmor_profile(
    engine: &Instance,
    sandbox: &Sandbox,
    config: &ContainerConfig,
) -> Result<Option<String>> {
    let security = &config.security_context;
    let wanted = security.apparmor.as_ref();
    let confines = sandbox.state().shim.as_ref().is_none_or(|shim| shim.confines);
    if wanted.is_none() && !confines {
        return Ok(None);
    }
    engine.apparmor().profile(wanted, security.privileged)
}

fn make_cgroup(engine: &Instance, path: &str, config: &ContainerConfig) -> Result<()> {
    let group = engine.hierarchies().at(path);
    let limits = super::limits(&config.resources);
    let rules = bundle::device_rules();
    let devices = (!config.security_context.privileged).then_some(rules.as_slice());
    group
        .create()
        .and_then(|()| group.limit(&limits))
        .and_then(|()| group.allow_devices(devices))
        .map_err(failed("cannot set up the container's control group"))
}

/// The name by which an image was asked for, in full, as containerd tells it. One that was asked for by its
/// id has whichever of its names comes first.
fn full_name(image: &[Reference], asked: &str) -> String {
    let named = asked.parse::<Reference>().ok().map(|name| name.without_redundant_tag());
    let own = named.filter(|name| image.contains(name));
    own.or_else(|| image.first().cloned()).map_or_else(|| asked.to_owned(), |name| name.to_string())
}

/// The number of the signal that asks a container to end: its own, else the image's `STOPSIGNAL`.
fn stop_signal(config: &ContainerConfig, image: &Image) -> Result<i32> {
    let (whose, name) = match &config.stop_signal {
        Some(own) => ("container", own.as_str()),
        None => ("image", image.config.stop_signal.as_str()),
    };
    if name.is_empty() {
        return Ok(Signal::TERM.as_raw());
    }
    signal_number(name).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("the {whose}'s stop signal {name:?} does not exist"),
        )
    })
}

/// A signal by name, with or without `SIG`, or by number. Source: signal(7), x86 and Arm.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    /// `SIGRTMIN` as the C library counts it.
    const REALTIME_FIRST: i32 = 34;
    const LAST: i32 = 64;
    if let Ok(number) = name.parse::<i32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    if let Some(position) = NAMES.iter().position(|known| *known == short) {
        return i32::try_from(position + 1).ok();
    }
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
    let number = match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(rest), _) => REALTIME_FIRST.checked_add(offset(rest)?)?,
        (_, Some(rest)) => LAST.checked_add(offset(rest)?)?,
        _ => return None,
    };
    (REALTIME_FIRST..=LAST).contains(&number).then_some(number)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_it_was_asked_for() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let names = [
            "docker.io/library/web:1",
            "r.example.com/web:2",
            &format!("r.example.com/web@{digest}"),
        ]
        .map(|name| name.parse::<Reference>().unwrap());
        for (asked, expected) in [
            ("web:1", "docker.io/library/web:1"),
            ("r.example.com/web:2", "r.example.com/web:2"),
            (&format!("r.example.com/web:9@{digest}"), &format!("r.example.com/web@{digest}")),
            (&digest, "docker.io/library/web:1"),
        ] {
            assert_eq!(full_name(&names, asked), expected, "{asked}");
        }
        assert_eq!(full_name(&[], &digest), digest);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, number) in [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("15", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN", Some(34)),
            ("0", None),
            ("65", None),
            ("SIGRTMAX+1", None),
            ("SIGNOTHING", None),
            ("", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
