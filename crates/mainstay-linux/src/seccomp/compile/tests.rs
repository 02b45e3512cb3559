use proptest::prelude::*;

use super::*;
use crate::seccomp::{Action, Architecture, Comparison, Condition, Filter, Rule};

/// The machine of `net/core/filter.c`, as far as these programs use it.
fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&architecture.to_ne_bytes());
    for (n, argument) in arguments.iter().enumerate() {
        data[16 + 8 * n..24 + 8 * n].copy_from_slice(&argument.to_ne_bytes());
    }
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let step = program[at];
        at += 1;
        let mut branch = |holds: bool| {
            at += usize::from(if holds { step.jump_true } else { step.jump_false });
        };
        match step.code {
            LOAD => {
                let from = step.operand as usize;
                accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
            }
            AND => accumulator &= step.operand,
            IF_EQUAL => branch(accumulator == step.operand),
            IF_GREATER => branch(accumulator > step.operand),
            IF_GREATER_OR_EQUAL => branch(accumulator >= step.operand),
            JUMP => at += step.operand as usize,
            RETURN => return step.operand,
            other => panic!("code {other:#x}"),
        }
    }
}

fn holds(condition: &Condition, arguments: [u64; 6]) -> bool {
    let argument = arguments[usize::from(condition.argument)];
    match condition.comparison {
        Comparison::Equal => argument == condition.value,
        Comparison::NotEqual => argument != condition.value,
        Comparison::Less => argument < condition.value,
        Comparison::LessOrEqual => argument <= condition.value,
        Comparison::Greater => argument > condition.value,
        Comparison::GreaterOrEqual => argument >= condition.value,
        Comparison::MaskedEqual { mask } => argument & mask == condition.value & mask,
    }
}

fn meaning(filter: &Filter, name: &str, arguments: [u64; 6]) -> u32 {
    let fits = |rule: &&Rule| {
        rule.names.iter().any(|known| known == name)
            && rule.conditions.iter().all(|condition| holds(condition, arguments))
    };
    filter.rules.iter().find(fits).map_or(filter.default, |rule| rule.action).value()
}

fn word() -> impl Strategy<Value = u64> {
    // Neighbours of the borders between the halves, and anything.
    prop_oneof![
        prop::sample::select(vec![0, 1, 2, 0xffff_ffff, 1 << 32, (1 << 32) + 1, u64::MAX]),
        any::<u64>(),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let comparison = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual),
        word().prop_map(|mask| Comparison::MaskedEqual { mask }),
    ];
    (0u8..6, comparison, word()).prop_map(|(argument, comparison, value)| Condition {
        argument,
        comparison,
        value,
    })
}

const NAMES: [&str; 4] = ["read", "clone", "personality", "openat2"];

fn rule() -> impl Strategy<Value = Rule> {
    let names = prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..3);
    let action = prop::sample::select(vec![
        Action::Allow,
        Action::Errno(1),
        Action::Errno(38),
        Action::Trap,
    ]);
    (names, prop::collection::vec(condition(), 0..4), action).prop_map(
        |(names, conditions, action)| Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            conditions,
            action,
        },
    )
}

proptest! {
    #[test]
    fn the_program_does_what_the_rules_say(
        rules in prop::collection::vec(rule(), 0..6),
        name in prop::sample::select(NAMES.to_vec()),
        mut arguments in prop::array::uniform6(word()),
        copied in any::<bool>(),
    ) {
        // Half of the time an argument is exactly a value that a condition asks about.
        if copied && let Some(condition) = rules.iter().flat_map(|rule| &rule.conditions).next() {
            arguments[usize::from(condition.argument)] = condition.value;
        }
        let filter = Filter {
            default: Action::Errno(1),
            architectures: vec![Architecture::X86_64, Architecture::X86, Architecture::X32],
            rules,
        };
        let program = compile(&filter).unwrap();
        for architecture in [Architecture::X86_64, Architecture::X86, Architecture::X32] {
            let number = number_of(architecture, name).unwrap();
            prop_assert_eq!(
                run(&program, token(architecture), number, arguments),
                meaning(&filter, name, arguments),
                "{:?}", architecture
            );
        }
    }
}

#[test]
fn a_convention_that_was_not_let_in_ends_the_process() {
    let filter = Filter {
        default: Action::Allow,
        architectures: vec![Architecture::X86_64],
        rules: Vec::new(),
    };
    let program = compile(&filter).unwrap();
    let kill = Action::KillProcess.value();
    assert_eq!(run(&program, token(Architecture::X86_64), 0, [0; 6]), Action::Allow.value());
    assert_eq!(run(&program, token(Architecture::X86), 0, [0; 6]), kill);
    assert_eq!(run(&program, token(Architecture::X86_64), X32_BIT, [0; 6]), kill);
    assert_eq!(run(&program, token(Architecture::Aarch64), 0, [0; 6]), kill);

    let program = compile(&Filter { architectures: vec![Architecture::X32], ..filter }).unwrap();
    assert_eq!(run(&program, token(Architecture::X86_64), 0, [0; 6]), kill);
    assert_eq!(run(&program, token(Architecture::X32), X32_BIT, [0; 6]), Action::Allow.value());
}

#[test]
fn a_name_that_an_architecture_does_not_have_is_passed_over() {
    assert_eq!(number_of(Architecture::X86_64, "socketcall"), None);
    assert_eq!(number_of(Architecture::X86, "socketcall"), Some(102));
    assert_eq!(number_of(Architecture::X86_64, "clone3"), Some(435));
    assert_eq!(number_of(Architecture::X32, "ioctl"), Some(X32_BIT + 514));
}

#[test]
fn what_the_kernel_would_refuse_is_refused_here() {
    let rule = |argument| Rule {
        names: vec!["read".into()],
        conditions: vec![Condition { argument, comparison: Comparison::Equal, value: 0 }],
        action: Action::Allow,
    };
    let filter =
        |rules| Filter { default: Action::Allow, architectures: vec![Architecture::X86_64], rules };
    assert_eq!(compile(&filter(vec![rule(6)])), Err(CompileError::NoSuchArgument(6)));
    let many = vec![rule(0); 1000];
    assert!(matches!(compile(&filter(many)), Err(CompileError::TooLong(_))));
}
