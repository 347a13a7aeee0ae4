"""Static files under names that say what is in them."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # whitenoise has no types
    """Modules import each other by the same names as the pages do.

    A module that is asked for under two names runs twice: two sockets, and every click counts for two.
    """

    support_js_module_import_aggregation = True
