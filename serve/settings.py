"""What an operator may set: ``args`` in config.yaml, or ``key=value`` behind ``serve run serve.app:app``."""

from medsynth import spec
from serve.http import Limits
from serve.slides import SlideSettings


class AppSettings(spec.Settings):
    """All of it has a default."""

    focus_weights: str | None = None
    """URI of the focus network's weights; the shipped ones by default."""
    skin_weights: str | None = None
    """URI of the skin generator's weights; by default the shipped ones, and no generator where none are shipped."""
    limits: Limits = Limits()
    slides: SlideSettings | None = None
    """Where slides may be read and jobs are kept; without it /v1/focus/slides answers 404."""
