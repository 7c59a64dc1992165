//! The stages of the command path, and which function belongs to which: the one table that a profile is read by.

use serde::{Deserialize, Serialize};

/// Where CPU time goes, in the order in which a command meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Load,
    Intake,
    Batch,
    Propose,
    Persist,
    Replicate,
    Accept,
    Choose,
    Apply,
    Reply,
    Quic,
    Crypto,
    /// The runtime between all these: polling tasks, timers, looking whether something has arrived.
    EventLoop,
    KernelNetwork,
    KernelDisk,
    /// Waiting, waking, and switching from one thread to another.
    KernelScheduling,
    KernelMemory,
    KernelOther,
    Other,
}

impl Stage {
    pub const ALL: [Stage; 19] = [
        Stage::Load,
        Stage::Intake,
        Stage::Batch,
        Stage::Propose,
        Stage::Persist,
        Stage::Replicate,
        Stage::Accept,
        Stage::Choose,
        Stage::Apply,
        Stage::Reply,
        Stage::Quic,
        Stage::Crypto,
        Stage::EventLoop,
        Stage::KernelNetwork,
        Stage::KernelDisk,
        Stage::KernelScheduling,
        Stage::KernelMemory,
        Stage::KernelOther,
        Stage::Other,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Load => "load generator",
            Stage::Intake => "intake",
            Stage::Batch => "batch",
            Stage::Propose => "propose",
            Stage::Persist => "persist",
            Stage::Replicate => "replicate",
            Stage::Accept => "accept",
            Stage::Choose => "choose",
            Stage::Apply => "apply",
            Stage::Reply => "reply",
            Stage::Quic => "QUIC",
            Stage::Crypto => "crypto",
            Stage::EventLoop => "event loop",
            Stage::KernelNetwork => "kernel network",
            Stage::KernelDisk => "kernel disk",
            Stage::KernelScheduling => "kernel switching",
            Stage::KernelMemory => "kernel memory",
            Stage::KernelOther => "kernel other",
            Stage::Other => "other",
        }
    }

    /// The stage of a stack whose outermost frame comes first: the first match from the leaf up. What no row knows is
    /// `Other`. A sample in the kernel is read by the kernel's frames alone: what no row knows of it is `KernelOther`,
    /// and never its caller's.
    pub fn of(frames: &[&str]) -> Stage {
        let in_kernel = frames
            .iter()
            .rev()
            .take_while(|frame| frame.ends_with(KERNEL_MARK));
        let depth = in_kernel.count();
        let (unknown, readable) = match depth {
            0 => (Stage::Other, frames),
            _ => (Stage::KernelOther, &frames[frames.len() - depth..]),
        };
        let known = readable.iter().rev().find_map(|frame| of_frame(frame));
        known.unwrap_or(unknown)
    }

    /// Whether samples fall here because no row knew better.
    pub fn catches_all(self) -> bool {
        matches!(self, Stage::EventLoop | Stage::KernelOther | Stage::Other)
    }

    /// Whether a row names the leaf itself, or the stage is its callers'.
    pub fn knows(leaf: &str) -> bool {
        of_frame(leaf).is_some()
    }
}

/// What kernel frames end with in collapsed stacks, as Brendan Gregg's stackcollapse-perf marks them.
pub const KERNEL_MARK: &str = "_[k]";

/// User space: what a function's name contains. The first row that matches a frame counts, so the specific ones stand
/// before the modules that they are in.
const FUNCTIONS: &[(&str, Stage)] = &[
    // Cryptography, whichever library does it.
    ("rustls", Stage::Crypto),
    ("ring::", Stage::Crypto),
    ("ring_core", Stage::Crypto),
    ("aws_lc", Stage::Crypto),
    ("aes_", Stage::Crypto),
    ("aesni", Stage::Crypto),
    ("gcm_", Stage::Crypto),
    ("chacha20", Stage::Crypto),
    ("poly1305", Stage::Crypto),
    // The engine, in the order of the command path.
    ("driver::reply", Stage::Reply),
    ("RepliesFrame::", Stage::Reply),
    ("ServerMessage::encode", Stage::Reply),
    ("intake::Door::route", Stage::Reply),
    ("::intake", Stage::Intake),
    ("synod_engine::intake", Stage::Intake),
    ("ClientMessage::decode", Stage::Intake),
    ("synod_engine::batch::Intake", Stage::Batch),
    ("synod_engine::client::Request::put", Stage::Batch),
    ("::propose", Stage::Propose),
    ("::serve_lagging", Stage::Replicate),
    ("synod_engine::persist", Stage::Persist),
    (">::persist", Stage::Persist),
    ("synod_storage", Stage::Persist),
    (">::replicate", Stage::Replicate),
    ("synod_engine::codec::encode", Stage::Replicate),
    ("synod_engine::output::Output", Stage::Replicate),
    ("synod_engine::acceptor", Stage::Accept),
    ("synod_engine::slots::Slots::accept", Stage::Accept),
    ("::on_accepted", Stage::Choose),
    ("::on_accept", Stage::Accept),
    ("synod_engine::codec::decode", Stage::Accept),
    ("synod_engine::slots", Stage::Choose),
    ("synod_engine::learner", Stage::Choose),
    ("::advance_by_leader", Stage::Choose),
    ("::take_durable", Stage::Choose),
    ("::on_durable", Stage::Choose),
    ("synod_engine::replica::Replica::release", Stage::Accept),
    (">::apply", Stage::Apply),
    ("synod_engine::sessions", Stage::Apply),
    ("synod_engine::machine", Stage::Apply),
    ("synod_engine::batch::requests", Stage::Apply),
    ("synod_engine::client::Request::take", Stage::Apply),
    ("synod_harness::load", Stage::Load),
    // What carries it.
    ("quinn", Stage::Quic),
    ("synod_transport", Stage::Quic),
    // What calls everything else.
    ("synod_engine::driver::Driver", Stage::EventLoop),
    ("synod_engine::replica::Replica", Stage::EventLoop),
    ("synod_harness::node", Stage::EventLoop),
    ("synod_harness::idle_spin", Stage::EventLoop),
    ("synod_harness::counter_fd", Stage::EventLoop),
    ("synod_harness::replica", Stage::EventLoop),
    ("epoll_wait", Stage::EventLoop),
    ("mio::", Stage::EventLoop),
    // Not all of tokio: its sleeps, channels and sockets belong to whoever calls them.
    ("tokio::runtime::", Stage::EventLoop),
    ("tokio::task::local", Stage::EventLoop),
];

/// Kernel: how a function's name begins, without the mark.
const KERNEL: &[(&str, Stage)] = &[
    ("udp", Stage::KernelNetwork),
    ("__udp", Stage::KernelNetwork),
    ("tcp_", Stage::KernelNetwork),
    ("ip_", Stage::KernelNetwork),
    ("__ip_", Stage::KernelNetwork),
    ("inet_", Stage::KernelNetwork),
    ("sock_", Stage::KernelNetwork),
    ("__sock_", Stage::KernelNetwork),
    ("skb_", Stage::KernelNetwork),
    ("__skb_", Stage::KernelNetwork),
    ("net_rx_", Stage::KernelNetwork),
    ("__netif_", Stage::KernelNetwork),
    ("__dev_queue_xmit", Stage::KernelNetwork),
    ("loopback_xmit", Stage::KernelNetwork),
    ("nf_", Stage::KernelNetwork),
    ("__sys_send", Stage::KernelNetwork),
    ("__sys_recv", Stage::KernelNetwork),
    ("___sys_send", Stage::KernelNetwork),
    ("___sys_recv", Stage::KernelNetwork),
    ("__x64_sys_send", Stage::KernelNetwork),
    ("__x64_sys_recv", Stage::KernelNetwork),
    ("__arm64_sys_send", Stage::KernelNetwork),
    ("__arm64_sys_recv", Stage::KernelNetwork),
    ("io_uring", Stage::KernelDisk),
    ("__do_sys_io_uring", Stage::KernelDisk),
    ("__x64_sys_io_uring", Stage::KernelDisk),
    ("__arm64_sys_io_uring", Stage::KernelDisk),
    ("io_wq_", Stage::KernelDisk),
    ("io_write", Stage::KernelDisk),
    ("io_fsync", Stage::KernelDisk),
    ("ext4_", Stage::KernelDisk),
    ("xfs_", Stage::KernelDisk),
    ("btrfs_", Stage::KernelDisk),
    ("iomap_", Stage::KernelDisk),
    ("blk", Stage::KernelDisk),
    ("submit_bio", Stage::KernelDisk),
    ("__submit_bio", Stage::KernelDisk),
    ("bio_", Stage::KernelDisk),
    ("virtio_queue", Stage::KernelDisk),
    ("virtblk", Stage::KernelDisk),
    ("nvme_", Stage::KernelDisk),
    ("vfs_write", Stage::KernelDisk),
    ("vfs_fsync", Stage::KernelDisk),
    ("__x64_sys_pwrite", Stage::KernelDisk),
    ("__x64_sys_fdatasync", Stage::KernelDisk),
    ("__arm64_sys_pwrite", Stage::KernelDisk),
    ("__arm64_sys_fdatasync", Stage::KernelDisk),
    ("schedule", Stage::KernelScheduling),
    ("__schedule", Stage::KernelScheduling),
    ("finish_task_switch", Stage::KernelScheduling),
    ("pick_next_task", Stage::KernelScheduling),
    ("dequeue_", Stage::KernelScheduling),
    ("enqueue_", Stage::KernelScheduling),
    ("update_curr", Stage::KernelScheduling),
    ("try_to_wake_up", Stage::KernelScheduling),
    ("__wake_up", Stage::KernelScheduling),
    ("wake_up_", Stage::KernelScheduling),
    ("do_sched_yield", Stage::KernelScheduling),
    ("__x64_sys_sched_yield", Stage::KernelScheduling),
    ("__arm64_sys_sched_yield", Stage::KernelScheduling),
    ("ep_", Stage::KernelScheduling),
    ("do_epoll_wait", Stage::KernelScheduling),
    ("__x64_sys_epoll", Stage::KernelScheduling),
    ("__arm64_sys_epoll", Stage::KernelScheduling),
    ("eventfd_", Stage::KernelScheduling),
    ("do_futex", Stage::KernelScheduling),
    ("futex_", Stage::KernelScheduling),
    ("__x64_sys_futex", Stage::KernelScheduling),
    ("__arm64_sys_futex", Stage::KernelScheduling),
    ("hrtimer_nanosleep", Stage::KernelScheduling),
    ("irqentry_exit_to_user_mode", Stage::KernelScheduling),
    ("exit_to_user_mode_loop", Stage::KernelScheduling),
    ("__rseq_", Stage::KernelScheduling),
    ("exc_page_fault", Stage::KernelMemory),
    ("asm_exc_page_fault", Stage::KernelMemory),
    ("handle_mm_fault", Stage::KernelMemory),
    ("clear_page", Stage::KernelMemory),
    ("do_madvise", Stage::KernelMemory),
    ("__x64_sys_m", Stage::KernelMemory),
    ("__arm64_sys_m", Stage::KernelMemory),
];

fn of_frame(frame: &str) -> Option<Stage> {
    let rows = match frame.strip_suffix(KERNEL_MARK) {
        Some(name) => KERNEL.iter().find(|(start, _)| name.starts_with(start)),
        None => FUNCTIONS.iter().find(|(part, _)| frame.contains(part)),
    };
    rows.map(|(_, stage)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stack: &str) -> Stage {
        Stage::of(&stack.split(';').collect::<Vec<_>>())
    }

    #[test]
    fn the_first_match_from_the_leaf_up_counts() {
        let turn = "synod;tokio::run;synod_engine::driver::Driver<W,N,M>::turn";
        let cases = [
            (
                ";synod_engine::driver::Driver<W,N,M>::persist;synod_storage::wal::WalCore<B>::append;memcpy",
                Stage::Persist,
            ),
            (
                ";synod_engine::driver::Driver<W,N,M>::apply;synod_engine::sessions::Sessions::apply",
                Stage::Apply,
            ),
            (
                ";synod_engine::driver::Driver<W,N,M>::apply;synod_engine::driver::reply;_mi_malloc",
                Stage::Reply,
            ),
            (
                ";synod_engine::driver::Driver<W,N,M>::intake;synod_engine::intake::Door::admit",
                Stage::Intake,
            ),
            (
                ";synod_engine::replica::leading::<impl synod_engine::replica::Replica>::on_accepted",
                Stage::Choose,
            ),
            (
                ";synod_engine::replica::following::<impl synod_engine::replica::Replica>::on_accept",
                Stage::Accept,
            ),
            (
                ";synod_engine::replica::leading::<impl synod_engine::replica::Replica>::propose;memcpy",
                Stage::Propose,
            ),
            (
                ";quinn_proto::connection::Connection::poll_transmit;rustls::quic::encrypt;aes_gcm_enc",
                Stage::Crypto,
            ),
            (
                ";quinn_udp::send;__libc_sendmsg;do_syscall_64_[k];__sys_sendmsg_[k];udp_sendmsg_[k];memcpy_[k]",
                Stage::KernelNetwork,
            ),
            (
                ";synod_storage::backend::uring::submit;syscall;do_syscall_64_[k];__do_sys_io_uring_enter_[k];ext4_file_write_iter_[k]",
                Stage::KernelDisk,
            ),
            (
                ";epoll_wait;do_syscall_64_[k];do_epoll_wait_[k];schedule_[k]",
                Stage::KernelScheduling,
            ),
            (";clock_gettime;do_syscall_64_[k]", Stage::KernelOther),
            (
                ";tokio::runtime::runtime::Runtime::block_on;synod_harness::load::load::{{closure}};tokio::time::sleep::Sleep::reset",
                Stage::Load,
            ),
            (
                ";synod_harness::load::run;tokio::runtime::runtime::Runtime::block_on;tokio::runtime::io::driver::Driver::turn",
                Stage::EventLoop,
            ),
            ("", Stage::EventLoop),
        ];
        for (rest, stage) in cases {
            assert_eq!(of(&format!("{turn}{rest}")), stage, "{rest}");
        }
    }

    #[test]
    fn the_kernel_is_never_its_callers_stage() {
        assert_eq!(of("synod_storage::x;sysvec_[k]"), Stage::KernelOther);
        assert_eq!(
            of("synod_storage::x;asm_exc_page_fault_[k];memset_[k]"),
            Stage::KernelMemory
        );
    }

    #[test]
    fn a_function_outside_of_everything_known_is_other() {
        assert_eq!(of("_start;main;memcpy"), Stage::Other);
        assert_eq!(of("[no stack]"), Stage::Other);
    }
}
