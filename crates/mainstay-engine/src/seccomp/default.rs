//! The profile `RuntimeDefault`.
//!
//! Which calls are let through is what containerd and Docker let through, since images are built
//! with that in mind. Facts from: `contrib/seccomp/seccomp_default.go` of containerd 2.x and
//! `profiles/seccomp/default_linux.go` of moby 28.

use mainstay_linux::capability::Capabilities;
use mainstay_linux::seccomp::{Action, Architecture, Comparison, Condition, Filter, Rule};

use super::{Circumstances, family};

/// `EPERM`, for what is not let through.
const REFUSED: Action = Action::Errno(1);
/// `ENOSYS`, by which the C library learns to do without.
const UNKNOWN: Action = Action::Errno(38);

/// Let through always.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32
    getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
    lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek
    lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
    pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64
    send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address
    setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64
    statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill
    time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev
";

/// Let through where the kernel checks what a traced process may do, which it does since 4.8.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// Let through on some machines.
const X86: &str = "arch_prctl modify_ldt";
const ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// Let through for who may hold the capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// All flags of clone(2) that make a namespace, but the one for time, which has no room there.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The address family of virtual machine sockets, by which a container would reach the machine's
/// host. Source: `include/linux/socket.h`.
const AF_VSOCK: u64 = 40;

/// What personality(2) may be set to: usual ones, and asking (all bits).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

pub(super) fn filter(circumstances: &Circumstances) -> Filter {
    let Circumstances { capabilities, architecture, kernel } = *circumstances;
    let allow = |names: &str| Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        conditions: Vec::new(),
        action: Action::Allow,
    };
    let holds = |name: &str| {
        Capabilities::named(name).is_some_and(|capability| capabilities.contains(capability))
    };
    let mut rules = vec![allow(ALWAYS)];
    if kernel >= (4, 8) {
        rules.push(allow(SINCE_4_8));
    }
    rules.push(allow(match architecture {
        Architecture::X86_64 | Architecture::X86 | Architecture::X32 => X86,
        Architecture::Aarch64 | Architecture::Arm => ARM,
    }));
    rules.extend(
        BY_CAPABILITY.iter().filter(|(name, _)| holds(name)).map(|(_, names)| allow(names)),
    );
    rules.extend(PERSONALITIES.map(|value| {
        when("personality", Condition { argument: 0, comparison: Comparison::Equal, value })
    }));
    let not_vsock = Condition { argument: 0, comparison: Comparison::NotEqual, value: AF_VSOCK };
    rules.push(when("socket", not_vsock));
    if !holds("SYS_ADMIN") {
        let plain = Comparison::MaskedEqual { mask: NEW_NAMESPACES };
        rules.push(when("clone", Condition { argument: 0, comparison: plain, value: 0 }));
        // Its flags are behind a pointer, where no filter can look; without it clone is used.
        rules.push(Rule { action: UNKNOWN, ..allow("clone3") });
    }
    Filter { default: REFUSED, architectures: family(architecture), rules }
}

fn when(name: &str, condition: Condition) -> Rule {
    Rule { names: vec![name.to_owned()], conditions: vec![condition], action: Action::Allow }
}

#[cfg(test)]
mod tests {
    use mainstay_linux::seccomp::compile;

    use super::*;

    fn of(capabilities: Capabilities) -> Filter {
        let architecture = Architecture::X86_64;
        filter(&Circumstances { capabilities, architecture, kernel: (6, 1) })
    }

    #[test]
    fn it_fits_the_kernel_with_and_without_capabilities() {
        for capabilities in [Capabilities::default(), Capabilities::all()] {
            compile(&of(capabilities)).unwrap();
        }
    }

    #[test]
    fn capabilities_open_what_belongs_to_them() {
        let names = |filter: &Filter| -> Vec<String> {
            filter.rules.iter().flat_map(|rule| rule.names.clone()).collect()
        };
        assert!(!names(&of(Capabilities::default())).contains(&"mount".to_owned()));
        let admin = Capabilities::named("SYS_ADMIN").unwrap();
        assert!(names(&of(admin)).contains(&"mount".to_owned()));
        assert!(of(admin).rules.iter().all(|rule| rule.action == Action::Allow));
    }
}
