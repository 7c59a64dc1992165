//! All that the hosts of a run get: each one file after the other, because its replicas and clients share files, and all
//! hosts at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cluster::fleet::{all, each};
use crate::cluster::folder::Folder;
use crate::cluster::replicas::copy_certificates;
use crate::run::layout::Layout;

/// By the name of the host.
#[derive(Default)]
pub struct Parcels(BTreeMap<String, Parcel>);

pub struct Parcel {
    folder: Folder,
    certificates: BTreeSet<String>,
    files: BTreeMap<String, String>,
}

impl Parcels {
    pub fn to(&mut self, folder: &Folder) -> &mut Parcel {
        let name = folder.host.name().to_owned();
        self.0.entry(name).or_insert_with(|| Parcel {
            folder: folder.clone(),
            certificates: BTreeSet::from(["client".to_owned()]),
            files: BTreeMap::new(),
        })
    }

    pub async fn deliver(self, layout: &Layout) -> anyhow::Result<()> {
        let from = layout.data.join("certificates");
        let copied = each(self.0.into_values().collect(), |parcel: Parcel| {
            let from = from.clone();
            async move { parcel.deliver(&from).await }
        });
        all(copied.await).map(|_| ())
    }
}

impl Parcel {
    pub fn add(&mut self, name: &str, text: String) {
        self.files.insert(name.to_owned(), text);
    }

    /// The certificate and key of `name` go with it.
    pub fn certify(&mut self, name: String) {
        self.certificates.insert(name);
    }

    async fn deliver(self, certificates: &Path) -> anyhow::Result<()> {
        let names: Vec<String> = self.certificates.into_iter().collect();
        copy_certificates(&self.folder, certificates, &names).await?;
        for (name, text) in self.files {
            let path = self.folder.file(&name);
            self.folder.host.put_text(&text, &path, "600").await?;
        }
        Ok(())
    }
}
