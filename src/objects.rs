//! Where the bytes of artifacts are kept: the object store behind the port
//! [`Objects`](tidings_actors::ports::Objects). A folder is the one that there is.

mod folder;

pub use folder::Folder;
