//! Collapsed stacks: one line per distinct stack, `outermost;…;leaf COUNT`. What flame graphs are drawn from.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::profile::stage::KERNEL_MARK;

/// Frames of one sample; deeper stacks are cut at their outermost end.
const DEPTH_MAX: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    counts: BTreeMap<String, u64>,
}

impl Stacks {
    /// Reads what `perf script -F time,ip,sym,dso` prints, and keeps samples from `from` until `until`, in seconds of
    /// the monotonic clock.
    pub fn of_script(text: &str, from: f64, until: f64) -> anyhow::Result<Stacks> {
        let mut stacks = Stacks::default();
        for (index, sample) in samples(text) {
            let (head, frames) = sample.split_once('\n').unwrap_or((sample, ""));
            let time = head.trim().trim_end_matches(':');
            let time: f64 = time
                .parse()
                .with_context(|| format!("perf script, line {index}: `{time}` is not a time"))?;
            if time < from || time >= until {
                continue;
            }
            let mut names = Vec::new();
            for line in frames.lines().take(DEPTH_MAX) {
                names.push(frame(line).with_context(|| {
                    format!("perf script, after line {index}: `{line}` is not a frame")
                })?);
            }
            if names.is_empty() {
                names.push("[no stack]".to_owned());
            }
            names.reverse();
            *stacks.counts.entry(names.join(";")).or_insert(0) += 1;
        }
        Ok(stacks)
    }

    /// Reads collapsed stacks back.
    #[cfg(test)]
    pub fn parse(text: &str) -> anyhow::Result<Stacks> {
        let mut stacks = Stacks::default();
        for (index, line) in text.lines().enumerate() {
            let parsed = line.rsplit_once(' ').and_then(|(stack, count)| {
                let count: u64 = count.parse().ok()?;
                (!stack.is_empty() && count > 0).then(|| (stack.to_owned(), count))
            });
            let (stack, count) = parsed
                .with_context(|| format!("line {}: `{line}` is not `stack COUNT`", index + 1))?;
            let sum = stacks.counts.entry(stack).or_insert(0);
            *sum = sum.saturating_add(count);
        }
        Ok(stacks)
    }

    /// Each distinct stack, outermost frame first, and how many samples had it.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<&str>, u64)> {
        self.counts
            .iter()
            .map(|(stack, count)| (stack.split(';').collect(), *count))
    }

    pub fn samples(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn lines(&self) -> Vec<String> {
        self.counts
            .iter()
            .map(|(stack, count)| format!("{stack} {count}"))
            .collect()
    }
}

/// Blocks between blank lines, each with the number of its first line.
fn samples(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut line = 1;
    text.split("\n\n").filter_map(move |block| {
        let first = line + block.len() - block.trim_start_matches('\n').len();
        line += block.matches('\n').count() + 2;
        let block = block.trim_matches('\n');
        (!block.is_empty()).then_some((first, block))
    })
}

/// `ADDRESS NAME (OBJECT)`: the name, marked if it is the kernel's.
fn frame(line: &str) -> Option<String> {
    let (address, rest) = line.trim().split_once(' ')?;
    let (name, object) = rest.rsplit_once(" (")?;
    let object = object.strip_suffix(')')?;
    // Separators of the collapsed form.
    let name = name.trim().replace(';', ":");
    match (name.as_str(), is_kernel(address, object)) {
        ("[unknown]", false) => {
            let file = object.rsplit('/').next().unwrap_or(object);
            Some(format!("[{}]", file.trim_matches(['[', ']'])))
        }
        (_, true) => Some(format!("{name}{KERNEL_MARK}")),
        (_, false) => Some(name),
    }
}

/// What perf calls parts of a process that belong to no file.
const OF_PROCESSES: [&str; 7] = [
    "[vdso]",
    "[vsyscall]",
    "[heap]",
    "[stack]",
    "[anon]",
    "[unknown]",
    "[uprobes]",
];

/// By where the code is: the upper half of the addresses is the kernel's. Where perf gives none that tells, by its
/// object: the kernel itself, its modules as perf names them or as files, an image with symbols, programs of BPF.
fn is_kernel(address: &str, object: &str) -> bool {
    let file = object.rsplit('/').next().unwrap_or(object);
    if OF_PROCESSES.iter().any(|name| object.starts_with(name)) {
        return false;
    }
    let upper = u64::from_str_radix(address, 16).is_ok_and(|address| address >> 63 == 1);
    let module = [".ko", ".ko.gz", ".ko.xz", ".ko.zst", ".ko.debug"];
    upper
        || object.starts_with('[') && object.ends_with(']')
        || object.starts_with("[kernel")
        || object.starts_with("[guest.kernel")
        || module.iter().any(|end| file.ends_with(end))
        || file == "vmlinux"
        || file.starts_with("vmlinux-")
        || file.starts_with("vmlinux.")
        || ["bpf_prog_", "bpf_trampoline_", "bpf_dispatcher_"]
            .iter()
            .any(|begin| file.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As perf prints them on kernels with modules, with BPF, and with symbols of their own.
    #[test]
    fn frames_of_the_kernel_are_told_wherever_its_code_is() {
        for kernel in [
            "ffffffff81 udp_sendmsg ([kernel.kallsyms])",
            "ffffffff810b4f60 __schedule ([kernel.kallsyms]_text)",
            "ffffffffc09be1d0 ext4_file_write_iter ([ext4])",
            "c09be1d0 nvme_queue_rq ([nvme])",
            "ffffffffc0a1 vring_map (/lib/modules/6.8.0-45-generic/kernel/drivers/virtio/virtio_ring.ko.zst)",
            "1d0 ext4_file_write_iter (/lib/modules/6.8/kernel/fs/ext4/ext4.ko)",
            "1d0 xfs_file_write_iter (/usr/lib/modules/5.14/kernel/fs/xfs/xfs.ko.xz)",
            "1d0 nft_do_chain (/usr/lib/debug/lib/modules/6.1/kernel/net/nf_tables.ko.debug)",
            "ffffffff81 do_syscall_64 (/usr/lib/debug/boot/vmlinux-6.8.0-45-generic)",
            "81 do_syscall_64 (/usr/lib/debug/lib/modules/6.8/vmlinux)",
            "c0 bpf_prog_6deef7357e7b4530_sd_fw_egress (bpf_prog_6deef7357e7b4530_sd_fw_egress)",
            "ffffffffc0 bpf_trampoline_6442 (bpf_trampoline_6442)",
            "ffffffffc0a0b0c0 [unknown] (/some/object/that/perf/guessed)",
            "7f00 kvm_exit ([guest.kernel.kallsyms.1234])",
        ] {
            let name = frame(kernel).unwrap();
            assert!(name.ends_with(KERNEL_MARK), "{kernel}: {name}");
        }
        for user in [
            "55d1 main (/usr/bin/synod)",
            "7ffd1000 clock_gettime ([vdso])",
            "ffffffffff600000 vgettimeofday ([vsyscall])",
            "7f00 [unknown] ([heap])",
            "7f00 [unknown] (//anon)",
            "7f00 bpf_object__load (/usr/lib/libbpf.so.1)",
            "7f00 x (/home/me/vmlinux-tools/decode)",
            "7f00 [unknown] ([unknown])",
        ] {
            let name = frame(user).unwrap();
            assert!(!name.ends_with(KERNEL_MARK), "{user}: {name}");
        }
    }

    const SCRIPT: &str = "\
  12.500000: \n\
\tffffffff81 udp_sendmsg ([kernel.kallsyms])\n\
\t    55d0 <a as b>::send (/usr/bin/synod)\n\
\t    55d1 main (/usr/bin/synod)\n\
\n\
  12.600000: \n\
\t    7f00 [unknown] (/usr/lib/libc.so.6)\n\
\t    55d1 main (/usr/bin/synod)\n\
\n\
  99.000000: \n\
\t    55d1 main (/usr/bin/synod)\n\
\n";

    #[test]
    fn samples_of_the_window_become_stacks_from_the_outermost_frame() {
        let stacks = Stacks::of_script(SCRIPT, 12.0, 13.0).expect("as perf prints it");
        let expected = "main;<a as b>::send;udp_sendmsg_[k] 1\nmain;[libc.so.6] 1";
        assert_eq!(stacks.lines().join("\n"), expected);
        assert_eq!(Stacks::parse(expected).expect("what was printed"), stacks);
        assert_eq!(stacks.samples(), 2);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Stacks::parse("main;a 3\nmain;b\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: `main;b` is not `stack COUNT`");
        assert!(Stacks::parse("main 0").is_err() && Stacks::parse(" 3").is_err());
        let error = Stacks::of_script("12.5:\n\tnonsense\n", 0.0, 99.0).unwrap_err();
        assert!(
            error.to_string().contains("`\tnonsense` is not a frame"),
            "{error}"
        );
        let error = Stacks::of_script("\n\nwhen:\n\t1 a (b)\n", 0.0, 99.0).unwrap_err();
        assert!(
            error.to_string().contains("`when` is not a time"),
            "{error}"
        );
    }
}
