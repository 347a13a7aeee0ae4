"""Backups in a bucket of an S3-compatible object store, which the host's policy names.

An object is there, whole, when its upload is completed, and not at all before: that is the store's own promise. What a
killed upload has sent is taken away when its file is removed, which whoever goes on with the operation does first; a
rule of the bucket's that ends incomplete uploads after some days catches the rest.

The keys stand in a file of root's, ``credentials/NAME.toml`` in the state directory: ``access_key`` and ``secret_key``.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..errors import CoreError, NotFound, SetupFailed, StorageFull
from ..failpoints import failpoint
from ..host import Host
from ..rules.object_stores import ObjectStore
from ..sentences import say
from . import form
from .place import File, checked
from .writing import Sink

if TYPE_CHECKING:
    from minio import Minio

PART_BYTES: Final = 16 << 20
PARTS_MAX: Final = 10_000
"""Of one object, by S3's own rules."""
FORSAKEN_SEC: Final = 7 * 24 * 3600
"""How old an upload is that nobody goes on with."""
_CHUNK_BYTES: Final = 1 << 20
_CONNECT_SEC: Final = 10.0
_ANSWER_SEC: Final = 60.0
_FULL: Final = frozenset({"QuotaExceeded", "EntityTooLarge", "XMinioStorageFull", "InsufficientStorage"})
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchUpload"})


@dataclass(frozen=True, slots=True)
class Bucket:
    """A part of a bucket: what begins with the policy's prefix."""

    host: Host
    name: str
    store: ObjectStore

    @contextlib.contextmanager
    def writing(self, file: str, *, about_bytes: int) -> Iterator[Sink]:
        """Yield what takes a new backup's bytes; it is there, whole, at the end, and not at all where that fails."""
        key, client = self._key(file), self._client()
        self._end_old_uploads(client)
        upload = _Upload(lambda source: self._put(client, key, source, about_bytes))
        try:
            yield upload.take
            failpoint(self.host.state_dir, "export.written")
        except BaseException:
            upload.give_up()
            raise
        upload.finish()
        failpoint(self.host.state_dir, "export.placed")

    def _end_old_uploads(self, client: Minio) -> None:
        """End what earlier writings have sent and nobody could take away: the store was gone by then, and costs on."""
        with contextlib.suppress(CoreError), self._translated("write-backup", self.store.bucket):
            found = client._list_multipart_uploads(self.store.bucket, prefix=self.store.prefix)
            for upload in found.uploads:
                name, begun = upload.object_name or "", upload.initiated_time
                ours = form.is_file_name(name.removeprefix(self.store.prefix))
                if ours and upload.upload_id and begun and time.time() - begun.timestamp() >= FORSAKEN_SEC:
                    client._abort_multipart_upload(self.store.bucket, name, upload.upload_id)

    def _put(self, client: Minio, key: str, source: Any, about_bytes: int) -> None:
        part_bytes = max(PART_BYTES, -(-about_bytes // (PARTS_MAX - 1)))
        with self._translated("write-backup", key):
            client.put_object(
                self.store.bucket, key, source, -1, "application/zstd", part_size=part_bytes, num_parallel_uploads=1
            )

    @contextlib.contextmanager
    def reading(self, file: str) -> Iterator[int]:
        """Yield a descriptor of a backup's bytes, a pipe; raises NotFound.

        SetupFailed, and not what is made of the end, where the connection breaks before it.
        """
        key, client = self._key(file), self._client()
        with self._translated("read-backup", key):
            answer = client.get_object(self.store.bucket, key)
        broken: list[CoreError] = []

        def pump(to_fd: int) -> None:
            try:
                with self._translated("read-backup", key):
                    for data in answer.stream(_CHUNK_BYTES):
                        try:
                            _push(to_fd, data)
                        except BrokenPipeError:  # whoever reads has seen enough
                            return
            except CoreError as error:
                broken.append(error)
            finally:
                os.close(to_fd)

        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        thread = threading.Thread(target=pump, args=(write_fd,), name=f"reads {key}", daemon=True)
        thread.start()
        try:
            yield read_fd
        except CoreError:
            if broken:
                raise broken[0] from None
            raise
        finally:
            os.close(read_fd)
            thread.join()
            answer.close()
            answer.release_conn()
        if broken:
            raise broken[0]

    def size_bytes(self, file: str) -> int:
        """Return how long a backup is; raises NotFound."""
        key = self._key(file)
        with self._translated("read-backup", key):
            return int(self._client().stat_object(self.store.bucket, key).size or 0)

    def remove(self, file: str) -> None:
        """Remove a backup, and what killed uploads of it have sent; one that is gone is fine."""
        key, client = self._key(file), self._client()
        with self._translated("remove-backup", key), contextlib.suppress(NotFound):
            client.remove_object(self.store.bucket, key)
        with self._translated("remove-backup", key), contextlib.suppress(NotFound):
            # not in the library's documented part, and pinned with it
            found = client._list_multipart_uploads(self.store.bucket, prefix=key)
            for upload in found.uploads:
                if upload.object_name == key and upload.upload_id:
                    client._abort_multipart_upload(self.store.bucket, key, upload.upload_id)

    def listed(self) -> list[File]:
        """Return the backups that lie there, by name."""
        with self._translated("open-backups", self.store.bucket):
            found = [
                File(
                    name=one.object_name.removeprefix(self.store.prefix),
                    size_bytes=one.size or 0,
                    modified_at=one.last_modified.timestamp() if one.last_modified else 0.0,
                )
                for one in self._client().list_objects(self.store.bucket, prefix=self.store.prefix)
                if one.object_name and not one.is_dir
            ]
        return sorted((one for one in found if form.is_file_name(one.name)), key=lambda one: one.name)

    def _key(self, file: str) -> str:
        return self.store.prefix + checked(file)

    def _client(self) -> Minio:
        # here, as it takes a quarter of a second and 8 MB, which hosts without such a store need not spend
        import urllib3
        from minio import Minio

        access_key, secret_key = _keys(self.host, self.name)
        address = urlsplit(self.store.endpoint)
        return Minio(
            address.netloc,
            access_key=access_key,
            secret_key=secret_key,
            region=self.store.region or "us-east-1",
            secure=address.scheme == "https",
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=_CONNECT_SEC, read=_ANSWER_SEC),
                retries=urllib3.Retry(total=3, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504)),
                ssl_context=ssl.create_default_context(),
            ),
        )

    @contextlib.contextmanager
    def _translated(self, step: str, path: str) -> Iterator[None]:
        """Raise what the library and the connection raise as this core's errors."""
        from minio.error import MinioException, S3Error
        from urllib3.exceptions import HTTPError

        try:
            yield
        except S3Error as error:
            if error.code in _ABSENT:
                raise NotFound(say("There is no %(file)s in %(place)s.", file=path, place=self.name)) from error
            if error.code in _FULL:
                raise StorageFull(say("%(place)s is full.", place=self.name), step=step, path=path) from error
            told = f"{error.code}: {error.message}"
            raise SetupFailed(say("%(place)s answers: %(told)s", place=self.name, told=told), step=step) from error
        except (MinioException, HTTPError, OSError, ValueError) as error:
            raise SetupFailed(
                say("%(place)s cannot be reached: %(error)s", place=self.name, error=_why(error)), step=step
            ) from error


def _why(error: BaseException) -> str:
    """Return what was wrong in the end, in few words: libraries wrap it in what they were about to do."""
    while True:
        reason = getattr(error, "reason", None)
        inner = reason if isinstance(reason, BaseException) else error.__cause__
        if inner is None:
            return (error.strerror if isinstance(error, OSError) else None) or str(error)
        error = inner


class _Upload:
    """Bytes that are pushed here and pulled there, by a thread that sends them; one pipe's worth is on the way."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self.failed: BaseException | None = None
        self._given_up = False
        read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        self._source = open(read_fd, "rb")
        self._thread = threading.Thread(target=self._run, args=(send,), name="sends a backup", daemon=True)
        self._thread.start()

    def take(self, data: bytes) -> None:
        """Push some bytes; raises BrokenPipeError, or what the sending failed with."""
        try:
            _push(self._write_fd, data)
        except BrokenPipeError:
            self._thread.join()
            if self.failed is not None:
                raise self.failed from None
            raise

    def finish(self) -> None:
        """Wait until everything is sent and the object complete; raises what that failed with."""
        os.close(self._write_fd)
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def give_up(self) -> None:
        """Have what was sent be taken back: the upload is not completed."""
        self._given_up = True
        os.close(self._write_fd)
        self._thread.join()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, for the library; raises OSError where it must not go on to completion."""
        data = self._source.read(size)
        if self._given_up:
            raise OSError("The backup was given up.")
        return data

    def _run(self, send: Callable[[Any], None]) -> None:
        try:
            send(self)
        except BaseException as error:  # noqa: BLE001  it is raised again by the thread that writes
            self.failed = error
        finally:
            self._source.close()


def _push(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _keys(host: Host, name: str) -> tuple[str, str]:
    """Return the access key and the secret key of a store; raises SetupFailed saying what to write where."""
    path: Path = host.state_dir / "credentials" / f"{name}.toml"
    try:
        about = path.stat()
        values = tomllib.loads(path.read_text())
        if about.st_uid != 0 or stat.S_IMODE(about.st_mode) & 0o077:
            raise SetupFailed(
                say("%(path)s must be root's, and nobody else may read it: chmod 600.", path=path),
                step="credentials",
                path=str(path),
            )
        return str(values["access_key"]), str(values["secret_key"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise SetupFailed(
            say(
                "The keys of %(name)s cannot be read: write access_key and secret_key to %(path)s.",
                name=name,
                path=path,
            ),
            step="credentials",
            path=str(path),
        ) from error
