"""Filters of the pages about images."""

from __future__ import annotations

from django import template
from django.utils.translation import gettext_lazy

from containers.models import Image

register = template.Library()

_WORDS = {
    "busybox": gettext_lazy("busybox of the host"),
    "container": gettext_lazy("container"),
    "debootstrap": "Debian",
    "file": gettext_lazy("file of the host"),
    "oci": gettext_lazy("registry"),
    "simplestreams": gettext_lazy("image server"),
    "upload": gettext_lazy("uploaded file"),
    "url": gettext_lazy("address"),
}
_SHOWN = {
    "container": "container",
    "debootstrap": "suite",
    "file": "path",
    "oci": "reference",
    "simplestreams": "alias",
    "url": "url",
}


@register.filter
def source_word(image: Image) -> str:
    """Return what kind of thing an image is made from."""
    kind = str(image.source.get("type", ""))
    return str(_WORDS.get(kind, kind))


@register.filter
def source_detail(image: Image) -> str:
    """Return which one of that kind."""
    return str(image.source.get(_SHOWN.get(str(image.source.get("type", "")), ""), ""))
