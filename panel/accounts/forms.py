"""The forms of signing in and of one's own account."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.password_validation import password_validators_help_texts, validate_password
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from .models import User


def _password(label: Any, *, autocomplete: str, help_text: Any = "") -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": autocomplete, "class": "form-control"})
    return forms.CharField(label=label, strip=False, max_length=1000, widget=widget, help_text=help_text)


class SignInForm(forms.Form):
    """A name and a password; the view asks whether they belong together."""

    login = forms.CharField(
        label=_("User name"),
        max_length=63,
        widget=forms.TextInput(
            attrs={
                "autocomplete": "username",
                "autocapitalize": "none",
                "spellcheck": "false",
                "autofocus": True,
                "class": "form-control",
            }
        ),
    )
    password = _password(_("Password"), autocomplete="current-password")


class PasswordForm(forms.Form):
    """A new password, twice; the present one too, unless the user came by a link."""

    new = _password(_("New password"), autocomplete="new-password")
    again = _password(_("The same again"), autocomplete="new-password")
    field_order = ("present", "new", "again")

    def __init__(self, *args: Any, user: User, needs_present: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.fields["new"].help_text = " ".join(password_validators_help_texts())
        if needs_present:
            self.fields["present"] = _password(_("Present password"), autocomplete="current-password")
            self.order_fields(self.field_order)

    def clean_present(self) -> str:
        """Refuse a wrong present password."""
        present: str = self.cleaned_data["present"]
        if not self.user.check_password(present):
            raise ValidationError(_("This is not your present password."))
        return present

    def clean(self) -> dict[str, Any]:
        """Refuse what differs, and what the validators of settings refuse."""
        values: dict[str, Any] = super().clean() or self.cleaned_data
        new, again = values.get("new"), values.get("again")
        if new and again and new != again:
            self.add_error("again", _("The two passwords differ."))
        elif new:
            try:
                validate_password(new, self.user)
            except ValidationError as error:
                self.add_error("new", error)
        return values


class TokenForm(forms.Form):
    """A new API token."""

    name = forms.CharField(label=_("Name"), max_length=63, widget=forms.TextInput(attrs={"class": "form-control"}))
    days = forms.TypedChoiceField(
        label=_("Valid for"),
        coerce=int,
        choices=[(30, _("30 days")), (90, _("90 days")), (365, _("one year")), (0, _("no end"))],
        widget=forms.Select(attrs={"class": "form-control"}),
    )
    read_only = forms.BooleanField(label=_("May only read"), required=False)


class PreferencesForm(forms.ModelForm):  # type: ignore[type-arg]  # subscripted in stubs only
    """Language and theme; empty follows the browser."""

    language = forms.ChoiceField(
        label=_("Language"),
        required=False,
        choices=[("", _("As the browser")), *settings.LANGUAGES],
        widget=forms.Select(attrs={"class": "form-control"}),
    )
    theme = forms.ChoiceField(
        label=_("Theme"),
        required=False,
        choices=[("", _("As the system")), ("light", _("Light")), ("dark", _("Dark"))],
        widget=forms.Select(attrs={"class": "form-control"}),
    )

    class Meta:
        model = User
        fields = ("language", "theme")
