//! The connected hosts of an inventory, and work that is done on all of them at once.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use crate::cluster::folder::Folder;
use crate::cluster::host::Host;
use crate::cluster::inventory::Inventory;
use crate::cluster::network::Table;
use crate::cluster::{owner, ssh};
use crate::failure::describe;

pub struct Fleet {
    /// As in the inventory; `None`: not asked for, or not reached.
    hosts: Vec<Option<Arc<Host>>>,
    /// Folders that go if the command fails or is interrupted.
    unfinished: Mutex<Vec<Folder>>,
    /// Tables of packet filters that go in any case.
    tables: Mutex<Vec<Table>>,
    /// The sockets of the connections, which they need to their end.
    _settings: ssh::Settings,
}

impl Fleet {
    /// Connects to these hosts at once; the second part says which were not reached, and why.
    pub async fn reach(
        inventory: &Inventory,
        wanted: &[usize],
    ) -> anyhow::Result<(Fleet, Vec<anyhow::Error>)> {
        let settings = Arc::new(ssh::Settings::new(
            inventory.ssh_config.as_deref(),
            &owner::whoami(inventory),
        )?);
        let entries: Vec<_> = wanted
            .iter()
            .map(|index| (*index, inventory.hosts[*index].clone()))
            .collect();
        let reached = each(entries, |(index, entry)| {
            let settings = Arc::clone(&settings);
            async move { (index, Host::connect(entry, &settings).await) }
        });
        let (mut hosts, mut errors) = (vec![None; inventory.hosts.len()], Vec::new());
        for (index, host) in reached.await {
            match host {
                Ok(host) => hosts[index] = Some(Arc::new(host)),
                Err(error) => errors.push(error),
            }
        }
        let Some(settings) = Arc::into_inner(settings) else {
            unreachable!("every task that shared the settings has ended");
        };
        let fleet = Fleet {
            hosts,
            unfinished: Mutex::default(),
            tables: Mutex::default(),
            _settings: settings,
        };
        Ok((fleet, errors))
    }

    pub fn host(&self, index: usize) -> anyhow::Result<&Arc<Host>> {
        match self.hosts.get(index).and_then(Option::as_ref) {
            Some(host) => Ok(host),
            None => anyhow::bail!("host number {} is not connected", index + 1),
        }
    }

    /// Every connected host, with its index in the inventory.
    pub fn connected(&self) -> Vec<(usize, Arc<Host>)> {
        let connected = self.hosts.iter().enumerate();
        connected
            .filter_map(|(index, host)| Some((index, Arc::clone(host.as_ref()?))))
            .collect()
    }

    /// The folder is about to be made: what of it is made goes if the command does not come to its end.
    pub fn begin(&self, folder: &Folder) {
        self.unfinished
            .lock()
            .expect("nobody panics with it")
            .push(folder.clone());
    }

    /// The table is about to be made.
    pub fn begin_table(&self, table: &Table) {
        let mut tables = self.tables.lock().expect("nobody panics with it");
        tables.push(table.clone());
    }

    /// What was made stays.
    pub fn keep(&self) {
        self.unfinished
            .lock()
            .expect("nobody panics with it")
            .clear();
    }

    /// Removes what a command began and did not keep, and ends the connections. Returns what could not be removed.
    pub async fn finish(self) -> Vec<anyhow::Error> {
        let folders = std::mem::take(&mut *self.unfinished.lock().expect("nobody panics with it"));
        let tables = std::mem::take(&mut *self.tables.lock().expect("nobody panics with it"));
        let healed = each(tables, |table| async move { table.remove().await }).await;
        let removed = each(folders, |folder| async move { folder.unmake().await }).await;
        self.close().await;
        let both = healed.into_iter().chain(removed);
        both.filter_map(Result::err).collect()
    }

    async fn close(&self) {
        each(
            self.connected(),
            |(_, host)| async move { host.close().await },
        )
        .await;
    }
}

/// Does `work` for all items at once; the results are in the order of the items. Dropping it ends all of it.
pub async fn each<I, T, F>(items: Vec<I>, work: impl Fn(I) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let count = items.len();
    for (index, item) in items.into_iter().enumerate() {
        let done = work(item);
        tasks.spawn(async move { (index, done.await) });
    }
    let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    while let Some(joined) = tasks.join_next().await {
        let (index, result) = joined.expect("work on a host does not panic");
        results[index] = Some(result);
    }
    results.into_iter().flatten().collect()
}

/// The results if all are good; otherwise every error in one line.
pub fn all<T>(results: Vec<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        return Ok(values);
    }
    Err(all_of(errors))
}

/// `errors` is not empty.
pub fn all_of(mut errors: Vec<anyhow::Error>) -> anyhow::Error {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let texts: Vec<String> = errors.iter().map(describe).collect();
    anyhow::anyhow!("{}", texts.join("; "))
}
