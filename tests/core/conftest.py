"""How hypothesis tries its examples: how long one takes says nothing about it on a machine that does much at once."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
