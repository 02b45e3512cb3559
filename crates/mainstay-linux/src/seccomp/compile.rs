//! From a [`Filter`] to instructions of the classic Berkeley packet filter.
//!
//! The program is a chain of sections, one for each architecture, and a section is a chain of
//! blocks, one for each system call and rule. The kernel remembers for each system call that is
//! allowed without looking at its arguments (since 5.11), so the length of the chain costs nothing
//! for those.

use std::str::FromStr;

use super::{Action, Architecture, Comparison, CompileError, Condition, Filter, Instruction, Rule};

/// Offsets in `struct seccomp_data`. Source: `include/uapi/linux/seccomp.h`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Marks a system call number as one of x32. Source: `arch/x86/include/uapi/asm/unistd.h`.
const X32_BIT: u32 = 0x4000_0000;

/// Source: `BPF_MAXINSNS` in `include/uapi/linux/bpf_common.h`.
const MAX_INSTRUCTIONS: usize = 4096;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Makes the program for a filter.
///
/// # Errors
///
/// When a condition names an argument that does not exist, or the program is longer than the
/// kernel takes.
pub fn compile(filter: &Filter) -> Result<Vec<Instruction>, CompileError> {
    let has = |wanted| filter.architectures.contains(&wanted);
    let mut program = vec![load(ARCHITECTURE)];
    // X32 calls carry the token of x86-64 and are told apart by their number alone.
    if has(Architecture::X86_64) || has(Architecture::X32) {
        let mut section = vec![load(NUMBER)];
        if has(Architecture::X86_64) {
            push_rules(&mut section, filter, |name| number_of(Architecture::X86_64, name))?;
        }
        if has(Architecture::X32) {
            push_rules(&mut section, filter, |name| number_of(Architecture::X32, name))?;
        }
        // A number of a convention that was not let in must not reach the default.
        if !has(Architecture::X32) {
            section.push(test(IF_GREATER_OR_EQUAL, X32_BIT, 0, 1));
            section.push(give(Action::KillProcess));
        }
        if !has(Architecture::X86_64) {
            section.push(test(IF_GREATER_OR_EQUAL, X32_BIT, 1, 0));
            section.push(give(Action::KillProcess));
        }
        section.push(give(filter.default));
        push_section(&mut program, token(Architecture::X86_64), section);
    }
    for architecture in [Architecture::X86, Architecture::Aarch64, Architecture::Arm] {
        if has(architecture) {
            let mut section = vec![load(NUMBER)];
            push_rules(&mut section, filter, |name| number_of(architecture, name))?;
            section.push(give(filter.default));
            push_section(&mut program, token(architecture), section);
        }
    }
    program.push(give(Action::KillProcess));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(program.len()));
    }
    Ok(program)
}

fn push_section(program: &mut Vec<Instruction>, token: u32, section: Vec<Instruction>) {
    program.push(test(IF_EQUAL, token, 1, 0));
    program.push(jump(section.len()));
    program.extend(section);
}

fn push_rules(
    section: &mut Vec<Instruction>,
    filter: &Filter,
    number_of: impl Fn(&str) -> Option<u32>,
) -> Result<(), CompileError> {
    for rule in &filter.rules {
        for number in rule.names.iter().filter_map(|name| number_of(name)) {
            let block = block(rule)?;
            // A block of one instruction is stepped over by the test itself; a longer one may be
            // out of the reach of a test's eight bits, but not of a jump's thirty-two.
            if let [only] = block[..] {
                section.push(test(IF_EQUAL, number, 0, 1));
                section.push(only);
            } else {
                section.push(test(IF_EQUAL, number, 1, 0));
                section.push(jump(block.len()));
                section.extend(block);
            }
        }
    }
    Ok(())
}

/// Checks the conditions of a rule; falls out at the end when one does not hold. Leaves the
/// system call's number loaded for what follows.
fn block(rule: &Rule) -> Result<Vec<Instruction>, CompileError> {
    if rule.conditions.is_empty() {
        return Ok(vec![give(rule.action)]);
    }
    let mut checks: Vec<Check> = Vec::new();
    for condition in &rule.conditions {
        push_condition(&mut checks, condition)?;
    }
    // The result follows the checks, and the way out follows the result. At most 6 conditions of
    // 8 instructions make sense, which the eight bits of a test reach across.
    let length = checks.len();
    if length > 200 {
        return Err(CompileError::TooLong(length));
    }
    let mut block = Vec::with_capacity(length + 2);
    for (position, check) in checks.into_iter().enumerate() {
        let to_exit = length - position; // over the remaining checks and the result
        block.push(match check {
            Check::Plain(instruction) => instruction,
            Check::Test { code, value, on_true, on_false } => {
                let reach = |goal: Goal| match goal {
                    Goal::Next => 0,
                    Goal::Skip(count) => count,
                    Goal::Exit => u8::try_from(to_exit).unwrap_or(u8::MAX),
                };
                test(code, value, reach(on_true), reach(on_false))
            }
        });
    }
    block.push(give(rule.action));
    block.push(load(NUMBER));
    Ok(block)
}

/// A step of a block whose way out is not known yet.
enum Check {
    Plain(Instruction),
    Test { code: u16, value: u32, on_true: Goal, on_false: Goal },
}

#[derive(Clone, Copy)]
enum Goal {
    Next,
    Skip(u8),
    Exit,
}

/// Compares 64 bits with instructions that know 32: the upper half decides unless it is equal.
fn push_condition(checks: &mut Vec<Check>, condition: &Condition) -> Result<(), CompileError> {
    if condition.argument > 5 {
        return Err(CompileError::NoSuchArgument(condition.argument));
    }
    let base = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low, high) = if cfg!(target_endian = "little") { (0, 4) } else { (4, 0) };
    let value = halves(condition.value);
    let mut plain = |instruction| checks.push(Check::Plain(instruction));
    plain(load(base + high));
    let mut when = |code, value, on_true, on_false| {
        checks.push(Check::Test { code, value, on_true, on_false });
    };
    match condition.comparison {
        Comparison::Equal => {
            when(IF_EQUAL, value.1, Goal::Next, Goal::Exit);
            checks.push(Check::Plain(load(base + low)));
            checks.push(equal(value.0, Goal::Next, Goal::Exit));
        }
        Comparison::NotEqual => {
            when(IF_EQUAL, value.1, Goal::Next, Goal::Skip(2));
            checks.push(Check::Plain(load(base + low)));
            checks.push(equal(value.0, Goal::Exit, Goal::Next));
        }
        Comparison::MaskedEqual { mask } => {
            let mask = halves(mask);
            let and = |operand| {
                Check::Plain(Instruction { code: AND, jump_true: 0, jump_false: 0, operand })
            };
            checks.push(and(mask.1));
            checks.push(equal(value.1 & mask.1, Goal::Next, Goal::Exit));
            checks.push(Check::Plain(load(base + low)));
            checks.push(and(mask.0));
            checks.push(equal(value.0 & mask.0, Goal::Next, Goal::Exit));
        }
        // Greater above decides for, equal above leaves it to the lower half.
        Comparison::Greater | Comparison::GreaterOrEqual => {
            when(IF_GREATER, value.1, Goal::Skip(3), Goal::Next);
            checks.push(equal(value.1, Goal::Next, Goal::Exit));
            checks.push(Check::Plain(load(base + low)));
            let code = match condition.comparison {
                Comparison::Greater => IF_GREATER,
                _ => IF_GREATER_OR_EQUAL,
            };
            checks.push(Check::Test {
                code,
                value: value.0,
                on_true: Goal::Next,
                on_false: Goal::Exit,
            });
        }
        // The same with the ends exchanged: greater above decides against.
        Comparison::Less | Comparison::LessOrEqual => {
            when(IF_GREATER, value.1, Goal::Exit, Goal::Next);
            checks.push(equal(value.1, Goal::Next, Goal::Skip(2)));
            checks.push(Check::Plain(load(base + low)));
            let code = match condition.comparison {
                Comparison::Less => IF_GREATER_OR_EQUAL,
                _ => IF_GREATER,
            };
            checks.push(Check::Test {
                code,
                value: value.0,
                on_true: Goal::Exit,
                on_false: Goal::Next,
            });
        }
    }
    Ok(())
}

fn equal(value: u32, on_true: Goal, on_false: Goal) -> Check {
    Check::Test { code: IF_EQUAL, value, on_true, on_false }
}

/// The lower and the upper 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "cutting it is the purpose")]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

fn give(action: Action) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: action.value() }
}

fn test(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

fn jump(length: usize) -> Instruction {
    // A program beyond 32 bits of length is refused at the end, far before this is reached.
    let operand = u32::try_from(length).unwrap_or(u32::MAX);
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand }
}

/// The `AUDIT_ARCH_*` of an architecture. Source: `include/uapi/linux/audit.h`.
fn token(architecture: Architecture) -> u32 {
    match architecture {
        Architecture::X86_64 | Architecture::X32 => 0xc000_003e,
        Architecture::X86 => 0x4000_0003,
        Architecture::Aarch64 => 0xc000_00b7,
        Architecture::Arm => 0x4000_0028,
    }
}

fn number_of(architecture: Architecture, name: &str) -> Option<u32> {
    let number = match architecture {
        Architecture::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
        Architecture::X32 => x32_number(name)?,
        Architecture::X86 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
        Architecture::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
        Architecture::Arm => syscalls::arm::Sysno::from_str(name).ok()?.id(),
    };
    u32::try_from(number).ok()
}

/// X32 has the numbers of x86-64 with a bit set, but for the calls that pass structures whose
/// layout differs. Source: `arch/x86/entry/syscalls/syscall_64.tbl`, entries 512 to 547.
fn x32_number(name: &str) -> Option<i32> {
    const OWN: [(&str, i32); 36] = [
        ("rt_sigaction", 512),
        ("rt_sigreturn", 513),
        ("ioctl", 514),
        ("readv", 515),
        ("writev", 516),
        ("recvfrom", 517),
        ("sendmsg", 518),
        ("recvmsg", 519),
        ("execve", 520),
        ("ptrace", 521),
        ("rt_sigpending", 522),
        ("rt_sigtimedwait", 523),
        ("rt_sigqueueinfo", 524),
        ("sigaltstack", 525),
        ("timer_create", 526),
        ("mq_notify", 527),
        ("kexec_load", 528),
        ("waitid", 529),
        ("set_robust_list", 530),
        ("get_robust_list", 531),
        ("vmsplice", 532),
        ("move_pages", 533),
        ("preadv", 534),
        ("pwritev", 535),
        ("rt_tgsigqueueinfo", 536),
        ("recvmmsg", 537),
        ("sendmmsg", 538),
        ("process_vm_readv", 539),
        ("process_vm_writev", 540),
        ("setsockopt", 541),
        ("getsockopt", 542),
        ("io_setup", 543),
        ("io_submit", 544),
        ("execveat", 545),
        ("preadv2", 546),
        ("pwritev2", 547),
    ];
    let own = OWN.iter().find(|(own, _)| *own == name).map(|(_, number)| *number);
    let shared = || syscalls::x86_64::Sysno::from_str(name).ok().map(|sysno| sysno.id());
    Some(own.or_else(shared)? | i32::try_from(X32_BIT).ok()?)
}

#[cfg(test)]
mod tests;
