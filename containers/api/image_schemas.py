"""What the API's calls on images take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from containers.core.model import recipes

from .parsing import Body, Name, Text

Package = Annotated[str, Field(pattern=f"^{recipes.PACKAGE}$")]
Url = Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s\x00-\x20\x7f]+$")]


class DebootstrapSource(Body):
    type: Literal["debootstrap"]
    suite: recipes.Suite
    variant: recipes.Variant | None = None
    init: recipes.Init | None = None
    packages: Annotated[list[Package], Field(max_length=recipes.PACKAGES_MAX)] | None = None
    mirror: Url | None = None


class OciSource(Body):
    type: Literal["oci"]
    reference: Annotated[Text, Field(min_length=1, max_length=500)]
    project: Name | None = None


class SimplestreamsSource(Body):
    type: Literal["simplestreams"]
    server: Url
    alias: Annotated[Text, Field(min_length=1, max_length=200)]
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,20}$")] | None = None


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class UrlSource(Body):
    type: Literal["url"]
    url: Url
    sha256: Sha256 | None = None


UploadId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FilePath = Annotated[Text, Field(min_length=1, max_length=1024)]


class UploadSource(Body):
    type: Literal["upload"]
    upload: UploadId
    metadata: UploadId | None = None
    sha256: Sha256 | None = None


class FileSource(Body):
    type: Literal["file"]
    directory: Name
    path: FilePath
    metadata: FilePath | None = None
    sha256: Sha256 | None = None


class ContainerSource(Body):
    type: Literal["container"]
    container: Name
    snapshot: Name | None = None


class BusyboxSource(Body):
    type: Literal["busybox"]


ImageSource = Annotated[
    BusyboxSource
    | DebootstrapSource
    | OciSource
    | SimplestreamsSource
    | UrlSource
    | UploadSource
    | FileSource
    | ContainerSource,
    Field(discriminator="type"),
]


class ImageIn(Body):
    """An image to make, and from what."""

    name: Name
    description: Annotated[Text, Field(max_length=500)] = ""
    source: ImageSource


class ImageServerIn(Body):
    """An image server whose list is to be fetched."""

    server: Url


class UploadIn(Body):
    """The size of an archive, or of a file for a container, that will be sent in pieces."""

    size_bytes: int = Field(ge=1, le=64 * 1024**3)
    container: str | None = Field(default=None, max_length=63, description="Whose file it will be; none: an archive.")
    name: str = Field(default="", max_length=255, description="What its sender calls it, for lists of uploads.")
