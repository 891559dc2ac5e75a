"""All file I/O of a run, on local disk or object storage.

``files.read(path)`` and its like come from storage.py; new_folder.py makes folders that appear
completely or not at all, and json_files.py reads JSON of unknown origin within limits.
"""

from albert_jax.files.storage import (
    bucket_client,
    cache_folder,
    create_if_absent,
    delete,
    delete_temporary_files,
    delete_tree,
    download,
    file_sizes,
    free_bytes,
    is_bucket,
    is_folder,
    join,
    make_folder,
    move_tree,
    names,
    read,
    sha256,
    storage_error,
    storage_errors,
    sync_folder,
    upload,
    write,
)

__all__ = [
    "bucket_client",
    "cache_folder",
    "create_if_absent",
    "delete",
    "delete_temporary_files",
    "delete_tree",
    "download",
    "file_sizes",
    "free_bytes",
    "is_bucket",
    "is_folder",
    "join",
    "make_folder",
    "move_tree",
    "names",
    "read",
    "sha256",
    "storage_error",
    "storage_errors",
    "sync_folder",
    "upload",
    "write",
]
