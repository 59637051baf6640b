//! Files and folders that systems and programs leave behind among pictures: no pictures, no classes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Names, in any letter case, of files and folders; `*` at the begin or the end stands for anything.
const NAMES: &[&str] = &[
    // Finder of macOS: views of folders, their icons, the other half of files on foreign disks, and of AFP servers
    ".DS_Store",
    ".localized",
    "Icon\r",
    "._*",
    "__MACOSX",
    ".AppleDouble",
    ".AppleDB",
    ".AppleDesktop",
    ".LSOverride",
    ".apdisk",
    // macOS at the root of a disk: Spotlight, Time Machine, events, versions of documents, the trash
    ".Spotlight-V100",
    ".com.apple.timemachine.donotpresent",
    ".fseventsd",
    ".DocumentRevisions-V100",
    ".TemporaryItems",
    "Temporary Items",
    ".Trashes",
    ".Trash",
    "Network Trash Folder",
    ".VolumeIcon.icns",
    // Explorer and Media Center of Windows: thumbnails, views, album art, the trash, the index
    "Thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "AlbumArtSmall.jpg",
    "AlbumArt_{*",
    "$RECYCLE.BIN",
    "System Volume Information",
    // browsers on Windows: where a file came from
    "*:Zone.Identifier",
    // KDE, GNOME and other desktops on Linux: views, thumbnails, the trash
    ".directory",
    ".thumbnails",
    ".sh_thumbnails",
    ".Trash-*",
    ".xvpics",
    // file systems and editors on Linux: what fsck found, deleted files that are open, copies
    "lost+found",
    ".fuse_hidden*",
    ".nfs*",
    "*~",
    "*.swp",
    // network storage of Synology: thumbnails, the trash, snapshots
    "@eaDir",
    "@tmp",
    "@SynoResource",
    "#recycle",
    "#snapshot",
    // network storage of QNAP: thumbnails, the trash, snapshots
    ".@__thumb",
    "@Recycle",
    "@Recently-Snapshot",
    "@__thumb",
    // network storage of others: snapshots of NetApp and ZFS, the trash of Samba
    ".snapshot",
    ".zfs",
    ".recycle",
    // clients of clouds: Dropbox, ownCloud and Nextcloud, Syncthing, Resilio
    ".dropbox",
    ".dropbox.cache",
    ".dropbox.attr",
    ".owncloudsync.log",
    ".sync_*",
    ".stfolder",
    ".stversions",
    ".stignore",
    ".sync",
    // Picasa
    ".picasa.ini",
    "Picasa.ini",
    ".picasaoriginals",
    // ACDSee, Zoner and ZoomBrowser of Canon, XnView, ThumbsPlus, PhotoDirector
    "ZbThumbnail.info",
    "ZbThumbnail.*",
    "XnViewMP.db",
    "pspbrwse.jbf",
    "*.pd4thumb",
    // digiKam
    ".dtrash",
    "digikam4.db",
    "thumbnails-digikam.db",
    // Lightroom, Bridge, Capture One and darktable: thumbnails, settings beside each picture
    "*.lrdata",
    "*.lrcat",
    ".BridgeSort",
    ".BridgeLabelsAndRatings",
    ".BridgeCache*",
    "CaptureOne",
    "*.xmp",
    "*.pp3",
    // cameras and phones: indexes, thumbnails
    "*.thm",
    "*.aae",
    ".nomedia",
    ".thumbdata*",
    "IndexerVolumeGuid",
    "WPSettings.dat",
    // notebooks, Python, editors
    ".ipynb_checkpoints",
    "__pycache__",
    ".vscode",
    ".idea",
    // version control; data sets of Hugging Face
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitkeep",
    ".keep",
    ".svn",
    ".hg",
    ".dvc",
    // the cache of Hugging Face's downloads
    ".cache",
    ".huggingface",
];

/// The list in lower case, sorted by how a name is compared.
struct List {
    whole: HashMap<String, &'static str>,
    begins: Vec<(String, &'static str)>,
    ends: Vec<(String, &'static str)>,
}

static LIST: LazyLock<List> = LazyLock::new(|| {
    let mut list = List { whole: HashMap::new(), begins: Vec::new(), ends: Vec::new() };
    for entry in NAMES {
        let lower = entry.to_ascii_lowercase();
        match (lower.strip_suffix('*'), lower.strip_prefix('*')) {
            (Some(begin), _) => list.begins.push((begin.to_string(), *entry)),
            (_, Some(end)) => list.ends.push((end.to_string(), *entry)),
            _ => _ = list.whole.insert(lower, *entry),
        }
    }
    list
});

/// The entry of the list that a name of a file or folder falls under.
pub(crate) fn kind(name: &OsStr) -> Option<&'static str> {
    let name = name.to_string_lossy().to_ascii_lowercase();
    let List { whole, begins, ends } = &*LIST;
    let begin = || begins.iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, entry)| *entry);
    let end = || ends.iter().find(|(end, _)| name.ends_with(end)).map(|(_, entry)| *entry);
    whole.get(&name).copied().or_else(begin).or_else(end)
}

/// Whether the names of files and folders are hidden.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a file, or a folder with everything in it, is passed over because of its name.
pub(crate) fn is_passed_over(name: &OsStr) -> bool {
    is_hidden(name) || kind(name).is_some()
}

/// The part of a path up to the first name that is passed over.
pub(crate) fn passed_over(path: &Path) -> Option<PathBuf> {
    let at = path.iter().position(is_passed_over)?;
    Some(path.iter().take(at + 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_letter_case_and_classes_are_not() {
        for (name, found) in [
            (".ds_store", ".DS_Store"),
            ("._1.png", "._*"),
            ("THUMBS.DB", "Thumbs.db"),
            ("Icon\r", "Icon\r"),
            ("@eaDir", "@eaDir"),
            (".Trash-1000", ".Trash-*"),
            ("1.png~", "*~"),
            ("a.XMP", "*.xmp"),
            ("Previews.lrdata", "*.lrdata"),
        ] {
            assert_eq!(kind(OsStr::new(name)), Some(found), "{name}");
        }
        for name in ["cat", "thumbnails", "recycle", "icon", "1.png", "snapshot", "cache", "lost", "@home", "test"] {
            assert!(!is_passed_over(OsStr::new(name)), "{name}");
        }
        assert_eq!(passed_over(Path::new("a/@eaDir/b/._c")), Some(PathBuf::from("a/@eaDir")));
        assert_eq!(passed_over(Path::new("a/.b/c.png")), Some(PathBuf::from("a/.b")));
        assert_eq!(passed_over(Path::new("a/b.png")), None);
    }
}
