"""A static file, a template or a translation that is missing fails here, not at the visitor."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import get_template
from django.test import override_settings
from django.utils import translation

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
PO = ROOT / "locale" / "de" / "LC_MESSAGES" / "django.po"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_compiles_and_what_it_names_is_there(path: Path) -> None:
    get_template(str(path.relative_to(ROOT / "templates")))
    text = path.read_text()
    for name in re.findall(r"""{% static ["']([^"']+)["'] %}""", text):
        assert finders.find(name.rstrip("/")), f"{path.name}: no static file {name}"
    for name in re.findall(r"""{% (?:include|extends) ["']([^"']+)["']""", text):
        get_template(name)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_nothing_inline_that_the_policy_would_refuse(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "<style" not in text
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", re.sub(r"{%.*?%}", "", text))


def test_every_import_of_a_script_leads_to_a_file() -> None:
    for path in (ROOT / "static" / "app").glob("*.js"):
        for target in re.findall(r"""(?:from|import)\s*\(?["'](\.[^"']+)["']""", path.read_text()):
            assert (path.parent / target).resolve().is_file(), f"{path.name} imports {target}"


def test_a_script_is_asked_for_under_one_name(tmp_path: Path) -> None:
    """A module under two names runs twice, and then every click counts for two."""
    with override_settings(
        STATIC_ROOT=tmp_path, STORAGES={"staticfiles": {"BACKEND": "panel.static_files.StaticFiles"}}
    ):
        call_command("collectstatic", verbosity=0, interactive=False, skip_checks=True)
    hashed = [path for path in (tmp_path / "app").glob("*.js") if re.search(r"\.[0-9a-f]{12}\.js$", path.name)]
    assert len(hashed) >= len(list((ROOT / "static" / "app").glob("*.js")))
    for path in hashed:
        for target in re.findall(r"""(?:from|import)\s*\(?["'](\.[^"']+)["']""", path.read_text()):
            assert re.search(r"\.[0-9a-f]{12}\.m?js$", target), f"{path.name} imports {target}"
            assert (path.parent / target).resolve().is_file(), f"{path.name} imports {target}"


def entries() -> list[tuple[str, str]]:
    """Return (msgid, translation) of every entry; of plural ones the first form."""
    found = []
    for entry in PO.read_text().split("\n\n")[1:]:
        parts = re.findall(r'^(msgid|msgstr(?:\[0\])?) ((?:".*"\n?)+)', entry + "\n", re.MULTILINE)
        texts = {key: "".join(re.findall(r'"(.*)"', value)) for key, value in parts}
        if texts.get("msgid"):
            found.append((texts["msgid"], texts.get("msgstr", texts.get("msgstr[0]", ""))))
    return found


def test_every_text_of_the_pages_is_translated() -> None:
    known = {msgid.replace('\\"', '"') for msgid, text in entries() if text}
    assert len(known) > 300
    missing = []
    for path in TEMPLATES:
        text = path.read_text()
        for quote, msgid in re.findall(r"""(?:{% translate |_\()(["'])(.*?)\1""", text):
            del quote
            if msgid.replace("%", "%%") not in known and msgid not in known:
                missing.append(f"{path.name}: {msgid}")
    assert missing == []


def test_the_compiled_translation_is_that_of_the_text(tmp_path: Path) -> None:
    if shutil.which("msgunfmt") is None:
        pytest.skip("gettext is not installed")
    compiled = subprocess.run(["msgunfmt", PO.with_suffix(".mo")], capture_output=True, text=True, check=True).stdout
    for msgid, text in entries():
        assert not text or f'"{text}' in compiled or len(text) > 60, msgid
    with translation.override("de"):
        assert translation.gettext("Starting…") == "Startet…"
