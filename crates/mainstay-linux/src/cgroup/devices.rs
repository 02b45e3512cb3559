//! Which device nodes the processes of a control group may open and make.
//!
//! Version 1 has a controller for it; version 2 runs a small program for each access. Source:
//! `Documentation/admin-guide/cgroup-v1/devices.rst`, bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{Cgroup, Result, at, write};

/// One kind of device, or all of a kind, with all three kinds of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block devices; character devices otherwise.
    pub block: bool,
    /// The driver; `None` is all.
    pub major: Option<u32>,
    /// The driver's device; `None` is all.
    pub minor: Option<u32>,
    /// Whether nodes may be opened; otherwise they may only be made.
    pub open: bool,
}

impl Cgroup<'_> {
    /// Lets nothing through but these. `None` lets everything through.
    ///
    /// On version 2 a program is attached to this group and counts for all below; a group has at
    /// most one of ours, so this is called once.
    pub fn allow_devices(&self, rules: Option<&[DeviceRule]>) -> Result<()> {
        let Some(rules) = rules else { return Ok(()) };
        if let Some(directory) = self.directory_of("devices") {
            let deny = directory.join("devices.deny");
            write(&deny, "a").map_err(at("write", &deny))?;
            let allow = directory.join("devices.allow");
            for rule in rules {
                write(&allow, &rule.legacy()).map_err(at("write", &allow))?;
            }
            return Ok(());
        }
        let Some(unified) = self.hierarchies.list.iter().find(|hierarchy| hierarchy.unified) else {
            let source = io::Error::new(
                io::ErrorKind::Unsupported,
                "there is neither a devices controller nor a version 2 hierarchy",
            );
            return Err(at("restrict devices in", &self.path)(source));
        };
        let directory = unified.mount_point.join(&self.path);
        let group = File::open(&directory).map_err(at("open", &directory))?;
        let program =
            load(&program(rules)).map_err(at("load the device filter for", &directory))?;
        attach(&program, &group).map_err(at("attach the device filter to", &directory))
    }
}

impl DeviceRule {
    /// As version 1 writes it: `c 1:3 rwm`.
    fn legacy(&self) -> String {
        let kind = if self.block { 'b' } else { 'c' };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let access = if self.open { "rwm" } else { "m" };
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Source: `enum bpf_access`... `BPF_DEVCG_ACC_*` and `BPF_DEVCG_DEV_*` in `include/uapi/linux/bpf.h`.
const ACCESS_MAKE: i32 = 1;
const DEVICE_BLOCK: i32 = 1;
const DEVICE_CHARACTER: i32 = 2;

/// Register 1 points to `struct bpf_cgroup_dev_ctx`; 2, 3, 4 and 5 hold the kind, the access, the
/// driver and the device. 1 in register 0 lets the access through.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
    const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
    const SET: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
    const IF_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
    const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT
    let step =
        |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    // `access_type` is the access in the upper half and the kind in the lower.
    let mut program = vec![
        step(LOAD_WORD, 0x12, 0, 0),
        step(AND, 0x02, 0, 0xffff),
        step(LOAD_WORD, 0x13, 0, 0),
        step(SHIFT_RIGHT, 0x03, 0, 16),
        step(LOAD_WORD, 0x14, 4, 0),
        step(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules {
        let kind = if rule.block { DEVICE_BLOCK } else { DEVICE_CHARACTER };
        let mut tests = vec![(0x02, kind)];
        if !rule.open {
            tests.push((0x03, ACCESS_MAKE));
        }
        let wanted = [(0x04, rule.major), (0x05, rule.minor)];
        tests.extend(wanted.iter().filter_map(|(register, number)| {
            number.map(|number| (*register, number.cast_signed()))
        }));
        for (position, (register, value)) in tests.iter().enumerate() {
            // Over the remaining tests and the two steps that let through; at most 5.
            let over = i16::try_from(tests.len() - position - 1 + 2).unwrap_or(i16::MAX);
            program.push(step(IF_NOT_EQUAL, *register, over, *value));
        }
        program.push(step(SET, 0x00, 0, 1));
        program.push(step(EXIT, 0, 0, 0));
    }
    program.push(step(SET, 0x00, 0, 0));
    program.push(step(EXIT, 0, 0, 0));
    program
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C, align(8))]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: bpf(2) reads as many bytes as it is told, and the instructions and the string that
    // they point to; all of them live until after the call. The kernel checks the program.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<LoadAttributes>(),
        )
    };
    let descriptor = i32::try_from(result).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C, align(8))]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn attach(program: &OwnedFd, group: &File) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_long = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    // Others, systemd for one, may attach programs above; all of them have to agree.
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attributes = AttachAttributes {
        target: group.as_fd().as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: bpf(2) reads as many bytes as it is told, from a structure that lives until after
    // the call; both descriptors are open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attributes,
            size_of::<AttachAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough of the kernel's machine for these programs.
    fn lets_through(
        program: &[Instruction],
        kind: i32,
        access: i32,
        major: i32,
        minor: i32,
    ) -> bool {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0i64; 6], 0usize);
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let to = usize::from(both & 0xf);
            at += 1;
            match code {
                0x61 => {
                    // The source register is in the upper half; it is register 1, the context.
                    assert_eq!(both >> 4, 1);
                    registers[to] = i64::from(context[usize::try_from(offset).unwrap() / 4]);
                }
                0x54 => registers[to] &= i64::from(immediate),
                0x74 => registers[to] >>= immediate,
                0xb7 => registers[to] = i64::from(immediate),
                0x55 if registers[to] != i64::from(immediate) => {
                    at += usize::try_from(offset).unwrap();
                }
                0x55 => {}
                0x95 => return registers[0] == 1,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn a_program_lets_through_what_its_rules_say() {
        let any = |block, open| DeviceRule { block, major: None, minor: None, open };
        let null = DeviceRule { block: false, major: Some(1), minor: Some(3), open: true };
        let pts = DeviceRule { block: false, major: Some(136), minor: None, open: true };
        let program = program(&[any(true, false), any(false, false), null, pts]);
        let (read, make) = (2, ACCESS_MAKE);
        assert!(lets_through(&program, DEVICE_CHARACTER, read, 1, 3));
        assert!(!lets_through(&program, DEVICE_CHARACTER, read, 1, 1));
        assert!(!lets_through(&program, DEVICE_BLOCK, read, 1, 3));
        assert!(lets_through(&program, DEVICE_BLOCK, make, 8, 0));
        assert!(!lets_through(&program, DEVICE_BLOCK, read | make, 8, 0));
        assert!(lets_through(&program, DEVICE_CHARACTER, read, 136, 7));
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let null = DeviceRule { block: false, major: Some(1), minor: Some(3), open: true };
        load(&program(&[null])).unwrap();
    }

    #[test]
    fn rules_are_written_as_version_1_reads_them() {
        let rule = DeviceRule { block: false, major: Some(1), minor: None, open: true };
        assert_eq!(rule.legacy(), "c 1:* rwm");
        assert_eq!(DeviceRule { block: true, open: false, ..rule }.legacy(), "b 1:* m");
    }
}
