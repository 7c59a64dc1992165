//! What stands still under a replica, or behind it: its disk, and the reader of its log.

use std::fs::File;
use std::io::{PipeReader, Write, pipe};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use synod_engine::ids::ReplicaId;
use tokio::time::{Instant, sleep};

use super::disks::{SLOW_GOES, SLOW_STOPS, freeze};
use super::victims::{converged, counter_of, end_cleanly};
use crate::run::cluster::Cluster;

/// The disk stands still for this long. Nobody else may notice more than a change of leader.
pub async fn frozen_disk(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
) -> anyhow::Result<(bool, String)> {
    let path = cluster.layout.replica_data(victim);
    let before = counter_of(cluster, victim, "wal_durable_lsn").await;
    freeze(&path, true)?;
    let at_first = counter_of(cluster, victim, "wal_durable_lsn").await;
    sleep(lasts).await;
    let at_last = counter_of(cluster, victim, "wal_durable_lsn").await;
    freeze(&path, false)?;
    let back = converged(cluster).await?;
    // It answers all the time, but nothing more is durable.
    let stood_still = before > 0 && at_last == at_first;
    Ok((
        stood_still && back,
        format!(
            "durable up to record {at_first} when it stopped, {at_last} after {} ms, complete again: {back}",
            lasts.as_millis()
        ),
    ))
}

/// The disk takes what has gathered, and stands still again, over and over.
pub async fn slow_disk(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
) -> anyhow::Result<(bool, String)> {
    let path = cluster.layout.replica_data(victim);
    let since = Instant::now();
    let mut stops = 0;
    while since.elapsed() < lasts {
        freeze(&path, true)?;
        sleep(SLOW_STOPS).await;
        freeze(&path, false)?;
        stops += 1;
        sleep(SLOW_GOES).await;
    }
    let back = converged(cluster).await?;
    Ok((
        stops > 1 && back,
        format!("it stood still {stops} times, complete again: {back}"),
    ))
}

/// The replica starts anew with its log in a pipe that is full already, and that nobody reads for this long.
pub async fn hung_log_reader(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
) -> anyhow::Result<(bool, String)> {
    end_cleanly(cluster, victim).await?;
    let (reader, mut writer) = pipe().context("no pipe")?;
    fill(&mut writer)?;
    let log = writer.try_clone().context("a pipe can't be shared")?;
    cluster.start_logging_to(victim, log.into()).await?;
    sleep(lasts).await;
    let back = converged(cluster).await?;
    let still_full = !is_writable(&writer)?;
    drop(writer);
    read_on(reader, &cluster.layout.replica_log(victim))?;
    Ok((
        still_full && back,
        format!("its log took nothing all the time: {still_full}, complete meanwhile: {back}"),
    ))
}

fn fill(writer: &mut std::io::PipeWriter) -> anyhow::Result<()> {
    let flags = fcntl_getfl(&*writer).context("no flags of a pipe")?;
    fcntl_setfl(&*writer, flags | OFlags::NONBLOCK).context("no flags of a pipe")?;
    while writer.write(&[b'\n'; 512]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    fcntl_setfl(&*writer, flags).context("no flags of a pipe")
}

fn is_writable(writer: &std::io::PipeWriter) -> anyhow::Result<bool> {
    let mut writable = [PollFd::new(writer, PollFlags::OUT)];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut writable, Some(&now)).context("a pipe can't be asked")? > 0)
}

/// From now on its lines reach its log, until it ends.
fn read_on(mut reader: PipeReader, log: &Path) -> anyhow::Result<()> {
    let file = File::options().create(true).append(true).open(log);
    let mut file = file.with_context(|| format!("{}: cannot be opened", log.display()))?;
    std::thread::spawn(move || std::io::copy(&mut reader, &mut file));
    Ok(())
}
