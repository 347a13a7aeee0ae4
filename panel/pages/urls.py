"""Addresses of the pages that join apps."""

from __future__ import annotations

from django.urls import path

from . import auditing, backing, household, imaging, keeping, people, trash, views

app_name = "pages"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("palette.json", views.palette, name="palette"),
    path("images/", imaging.images, name="images"),
    path("images/_server", imaging.server_fetch, name="image-server"),
    path("images/<slug:name>", imaging.image, name="image"),
    path("images/<slug:name>/<slug:action>", imaging.image_action, name="image-action"),
    path("networks/", household.networks, name="networks"),
    path("networks/<slug:name>/change", household.network_change, name="network-change"),
    path("networks/<slug:name>/delete", household.network_delete, name="network-delete"),
    path("schedules/", keeping.schedules, name="schedules"),
    path("schedules/_preview", keeping.schedule_preview, name="schedule-preview"),
    path("schedules/<int:schedule_id>", keeping.schedule, name="schedule"),
    path("schedules/<int:schedule_id>/<slug:action>", keeping.schedule_action, name="schedule-action"),
    path("backups/", backing.backups, name="backups"),
    path("backups/_scan", backing.backup_scan, name="backup-scan"),
    path("backups/<slug:backup_id>", backing.backup, name="backup"),
    path("backups/<slug:backup_id>/<slug:action>", backing.backup_action, name="backup-action"),
    path("uploads/<slug:upload_id>/delete", backing.upload_delete, name="upload-delete"),
    path("trash/", trash.trash, name="trash"),
    path("trash/<slug:entry_id>/<slug:action>", trash.trash_action, name="trash-action"),
    path("operations/", views.operations, name="operations"),
    path("operations/_running", views.running_count, name="running-count"),
    path("operations/_ended", views.ended, name="ended"),
    path("operations/<uuid:operation_id>", views.operation, name="operation"),
    path("operations/<uuid:operation_id>/cancel", views.cancel, name="operation-cancel"),
    path("audit/", auditing.audit, name="audit"),
    path("audit/table.csv", auditing.table, name="audit-table"),
    path("people/", people.people, name="people"),
    path("people/project/<slug:name>/member", people.member, name="member"),
    path("people/project/<slug:name>/_dialog/<slug:action>", people.project_dialog, name="project-dialog"),
    path("people/user/<slug:name>/_dialog", people.user_dialog, name="user-dialog"),
    path("people/user/<slug:name>/<slug:action>", people.user_action, name="user-action"),
    path("host/", household.host, name="host"),
    path("host/storage", household.storage, name="storage"),
]
