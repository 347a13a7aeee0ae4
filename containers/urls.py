"""Addresses of the container pages. A path that begins with _ is never a container's: names begin otherwise."""

from __future__ import annotations

from django.urls import path

from .views import acting, backing, creating, detail, filing, giving, listing, nics, points

app_name = "containers"
urlpatterns = [
    path("", listing.containers, name="list"),
    path("_create", creating.create, name="create"),
    path("_rows", listing.some_rows, name="rows"),
    path("_bulk", acting.bulk, name="bulk"),
    path("<slug:name>", detail.overview, name="detail"),
    path("<slug:name>/terminal", detail.terminal, name="terminal"),
    path("<slug:name>/graphs", detail.graphs, name="graphs"),
    path("<slug:name>/snapshots", detail.snapshots, name="snapshots"),
    path("<slug:name>/files", filing.files, name="files"),
    path("<slug:name>/files/edit", filing.editor, name="edit-file"),
    path("<slug:name>/_files/<slug:action>", filing.dialog_either, name="files-dialog"),
    path("<slug:name>/backups", backing.backups, name="backups"),
    path("<slug:name>/_backup", backing.backup_now, name="backup-now"),
    path("<slug:name>/_put-back/<slug:snapshot>", filing.put_back_either, name="put-back"),
    path("<slug:name>/network", detail.network, name="network"),
    path("<slug:name>/settings", detail.settings, name="settings"),
    path("<slug:name>/log", detail.log, name="log"),
    path("<slug:name>/_console", detail.console, name="console"),
    path("<slug:name>/_header", detail.header, name="header"),
    path("<slug:name>/_changes", points.changes, name="changes"),
    path("<slug:name>/_changes/text", points.text, name="text"),
    path("<slug:name>/compare", points.compare, name="compare"),
    path("<slug:name>/_nics", nics.interfaces, name="nics"),
    path("<slug:name>/_mounts", giving.mounts, name="mounts"),
    path("<slug:name>/_devices", giving.devices, name="devices"),
    path("<slug:name>/_panel", listing.panel, name="panel"),
    path("<slug:name>/_rename", detail.rename, name="rename"),
    path("<slug:name>/_dialog/<slug:action>", acting.dialog_either, name="dialog"),
    path("<slug:name>/<slug:action>", acting.act, name="act"),
]
