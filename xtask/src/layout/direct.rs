//! Calls that need no table of addresses.
//!
//! rustc has a function of another module called at an address that the linker writes into a table (GOT), and marks
//! that so as linkers before 2016 know it. It has no stable option for the newer mark, by which a linker makes it
//! a direct call if the function turns out to be in the program. Of forty thousand functions that leaves a table of
//! 320 kB, which the loader has to fill in at each start. The marks differ in their numbers only, and in which
//! instructions they may be put on.
//! Source: System V ABI, AMD64 supplement, "Optimize GOTPCRELX Relocations"; elf(5).

use anyhow::Context;

/// `R_X86_64_GOTPCREL`: the address of a function is at another place.
const OLD: u32 = 9;
/// `R_X86_64_GOTPCRELX`: the same, in a call or a jump.
const CALL: u32 = 41;
/// `R_X86_64_REX_GOTPCRELX`: the same, in a load of 64 bits.
const LOAD: u32 = 42;

/// `SHT_RELA`.
const RELOCATIONS: u64 = 4;
/// `SHF_EXECINSTR`.
const CODE: u64 = 4;
/// The sizes of `Elf64_Shdr` and `Elf64_Rela`.
const HEADER: usize = 64;
const RELOCATION: usize = 24;

struct Section {
    kind: u64,
    flags: u64,
    offset: usize,
    size: usize,
    /// Of relocations: the number of the section that they are for.
    of: usize,
}

/// Puts the newer marks into an object file for x86-64 wherever they may be.
pub(super) fn allow(object: &mut [u8]) -> anyhow::Result<()> {
    let found = marks(object).context("it is no object file of 64 bits")?;
    for (at, mark) in found {
        object[at..at + 4].copy_from_slice(&mark.to_le_bytes());
    }
    Ok(())
}

/// Where which mark is to be put.
fn marks(object: &[u8]) -> Option<Vec<(usize, u32)>> {
    let sections = sections(object)?;
    let mut found = Vec::new();
    for section in sections.iter().filter(|section| section.kind == RELOCATIONS) {
        let of = sections.get(section.of)?;
        if of.flags & CODE == 0 {
            continue;
        }
        let code = object.get(of.offset..of.offset + of.size)?;
        for at in (section.offset..section.offset + section.size).step_by(RELOCATION) {
            let (place, kind) = (size(object, at)?, number::<4>(object, at + 8)?);
            // What is added: the distance to the end of the instruction.
            let added = number::<8>(object, at + 16)?.cast_signed();
            if kind == u64::from(OLD) && added == -4 {
                let mark = mark(code.get(..place)?);
                found.extend(mark.map(|mark| (at + 8, mark)));
            }
        }
    }
    Some(found)
}

/// The mark for the instruction that begins with this, if there is one for it.
fn mark(before: &[u8]) -> Option<u32> {
    match before {
        // call *X(%rip), jmp *X(%rip)
        [.., 0xff, 0x15 | 0x25] => Some(CALL),
        // mov X(%rip), REGISTER
        [.., 0x48..=0x4f, 0x8b, operands] if operands & 0xc7 == 0x05 => Some(LOAD),
        _ => None,
    }
}

fn sections(object: &[u8]) -> Option<Vec<Section>> {
    object.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let first = size(object, 40)?;
    // If there are too many for the field, their number is in the first header.
    let count = match number::<2>(object, 60)? {
        0 => number::<8>(object, first + 32)?,
        count => count,
    };
    let read = |number_of: usize| {
        let at = first + number_of * HEADER;
        Some(Section {
            kind: number::<4>(object, at + 4)?,
            flags: number::<8>(object, at + 8)?,
            offset: size(object, at + 24)?,
            size: size(object, at + 32)?,
            of: usize::try_from(number::<4>(object, at + 44)?).ok()?,
        })
    };
    (0..usize::try_from(count).ok()?).map(read).collect()
}

fn size(object: &[u8], at: usize) -> Option<usize> {
    usize::try_from(number::<8>(object, at)?).ok()
}

/// A number of so many bytes.
fn number<const SIZE: usize>(object: &[u8], at: usize) -> Option<u64> {
    let bytes = object.get(at..at + SIZE)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::{CALL, LOAD, mark};

    #[test]
    fn only_instructions_that_can_be_direct_are_marked() {
        assert_eq!(mark(&[0x90, 0xff, 0x15]), Some(CALL));
        assert_eq!(mark(&[0xff, 0x25]), Some(CALL));
        assert_eq!(mark(&[0x4c, 0x8b, 0x3d]), Some(LOAD));
        // Without 64 bits, with another register for a base, and a comparison.
        assert_eq!(mark(&[0x90, 0x8b, 0x3d]), None);
        assert_eq!(mark(&[0x48, 0x8b, 0x45]), None);
        assert_eq!(mark(&[0x48, 0x3b, 0x05]), None);
    }
}
